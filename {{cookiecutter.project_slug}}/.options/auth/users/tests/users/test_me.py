"""The account of the caller."""

import asyncio
from contextvars import Context
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient
from pydantic import SecretStr
from sqlalchemy import delete, select, update

from app.kit.db.engine import Database
from app.kit.idempotency.models import IdempotencyKey
from app.kit.idempotency.repository import IdempotencyRepository
from app.users import security
from app.users.models import APIKey, RefreshToken, User, UserSession
from tests.caller import headers as bearer_of
from tests.conftest import problem
from tests.users.helpers import (
    ADA,
    BOB,
    ME,
    OTHER_WORDS,
    ROOMY,
    WORDS,
    Headers,
    Json,
    RecordingHasher,
    add_key,
    add_user,
    bearer,
    blamed,
    change_user,
    count,
    create_key,
    login,
    past,
    refresh,
    register,
    stored_user,
    try_login,
    try_refresh,
    with_key,
)

CHANGE = {"current_password": WORDS, "password": OTHER_WORDS}


@pytest.fixture
async def tokens(anonymous: AsyncClient) -> Json:
    """Return the tokens of a user who has registered."""
    await register(anonymous)
    return await login(anonymous)


@pytest.fixture
def ada(tokens: Json) -> Headers:
    """Return the headers of a user who has signed in."""
    return bearer(tokens)


async def test_a_user_reads_their_own_account(
    anonymous: AsyncClient, ada: Headers, db: Database
) -> None:
    user = await stored_user(db)
    assert (await anonymous.get(ME, headers=ada)).json() == {
        "id": str(user.id),
        "email": ADA,
        "name": "Ada",
        "created_at": user.created_at.isoformat().replace("+00:00", "Z"),
    }


async def test_changing_the_name_changes_nothing_else(
    anonymous: AsyncClient, ada: Headers, db: Database
) -> None:
    await change_user(db, await stored_user(db), updated_at=past(60))
    before = await stored_user(db)
    response = await anonymous.patch(ME, json={"name": "Countess"}, headers=ada)
    assert response.json()["name"] == "Countess"
    after = await stored_user(db)
    assert after.updated_at > before.updated_at
    for unchanged in ("id", "email", "password_hash", "token_version", "is_active", "is_superuser"):
        assert getattr(after, unchanged) == getattr(before, unchanged)


async def test_an_empty_change_changes_nothing(
    anonymous: AsyncClient, ada: Headers, db: Database
) -> None:
    before = await stored_user(db)
    response = await anonymous.patch(ME, json={}, headers=ada)
    assert response.json() == (await anonymous.get(ME, headers=ada)).json()
    assert (await stored_user(db)).updated_at == before.updated_at


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"is_superuser": True}, "is_superuser"),
        ({"is_active": True}, "is_active"),
        ({"id": "x"}, "id"),
        ({"token_version": 1}, "token_version"),
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"email": None, "current_password": WORDS}, "email"),
        ({"email": "x", "current_password": WORDS}, "email"),
        ({"password": None, "current_password": WORDS}, "password"),
        ({"password": "7 chars", "current_password": WORDS}, "password"),
        ({"password": "x" * 257, "current_password": WORDS}, "password"),
        ({"password": OTHER_WORDS}, "current_password"),
        ({"email": BOB}, "current_password"),
        ({"email": BOB, "current_password": None}, "current_password"),
    ],
)
async def test_bad_input_names_the_field(
    anonymous: AsyncClient, ada: Headers, db: Database, change: dict[str, Any], field: str
) -> None:
    before = await stored_user(db)
    response = await anonymous.patch(ME, json=change, headers=ada)
    assert blamed(response) == [f"body.{field}"]
    assert (await stored_user(db)).updated_at == before.updated_at


@pytest.mark.parametrize("change", [{"password": OTHER_WORDS}, {"email": BOB}])
async def test_a_new_address_or_password_requires_the_current_password(
    anonymous: AsyncClient, ada: Headers, change: dict[str, Any]
) -> None:
    sent = {"name": "Eve", "current_password": "a wrong one", **change}
    problem(await anonymous.patch(ME, json=sent, headers=ada), 403)
    await login(anonymous)
    assert (await anonymous.get(ME, headers=ada)).json()["name"] == "Ada"


async def test_a_new_password_ends_every_credential(
    anonymous: AsyncClient, tokens: Json, db: Database
) -> None:
    other = await login(anonymous)
    fresh = await refresh(anonymous, tokens)
    key = await create_key(anonymous, bearer(tokens), "read")
    response = await anonymous.patch(ME, json=CHANGE | {"name": "Eve"}, headers=bearer(tokens))
    assert response.json()["name"] == "Eve"
    assert await count(db, RefreshToken) == 0
    for each in (tokens, fresh, other):
        problem(await anonymous.get(ME, headers=bearer(each)), 401)
        problem(await try_refresh(anonymous, each), 401)
    problem(await try_login(anonymous), 401)
    problem(await anonymous.get(ME, headers=with_key(key)), 401)
    assert await count(db, APIKey) == 0
    latest = await login(anonymous, password=OTHER_WORDS)
    assert (await anonymous.get(ME, headers=bearer(latest))).status_code == 200
    await refresh(anonymous, latest)


async def test_a_new_password_does_not_affect_other_users(
    anonymous: AsyncClient, ada: Headers
) -> None:
    await register(anonymous, BOB)
    bob = await login(anonymous, BOB)
    assert (await anonymous.patch(ME, json=CHANGE, headers=ada)).status_code == 200
    assert (await anonymous.get(ME, headers=bearer(bob))).status_code == 200
    await refresh(anonymous, bob)


async def test_a_login_during_a_password_change_is_ended(
    live: AsyncClient, live_app: FastAPI, recorded: RecordingHasher
) -> None:
    """A login with the old password during its change leaves no valid token."""
    live_app.state.settings = live_app.state.settings.model_copy(update=ROOMY)
    await register(live)
    headers = bearer(await login(live))
    responses = await asyncio.gather(
        live.patch(ME, json=CHANGE, headers=headers), *(try_login(live) for _ in range(5))
    )
    assert responses[0].status_code == 200
    for response in responses[1:]:
        if response.status_code == 200:
            problem(await live.get(ME, headers=bearer(response.json())), 401)
            problem(await try_refresh(live, response.json()), 401)


async def test_one_of_many_concurrent_password_changes_succeeds(
    live: AsyncClient, live_app: FastAPI
) -> None:
    await register(live)
    headers = bearer(await login(live))
    changes = [CHANGE | {"password": f"new words {number}"} for number in range(3)]
    responses = await asyncio.gather(
        *(live.patch(ME, json=change, headers=headers) for change in changes)
    )
    (winner,) = (
        change
        for change, response in zip(changes, responses, strict=True)
        if response.status_code == 200
    )
    for change, response in zip(changes, responses, strict=True):
        assert response.status_code in ({200} if change is winner else {401, 403}), response.text
        tried = await try_login(live, password=change["password"])
        assert tried.status_code == (200 if change is winner else 401)
    assert (await stored_user(live_app.state.database)).token_version == 2


async def test_a_user_changes_their_email_address(anonymous: AsyncClient, ada: Headers) -> None:
    sent = {"email": "ADA@lovelace.example.com", "current_password": WORDS}
    response = await anonymous.patch(ME, json=sent, headers=ada)
    assert response.json()["email"] == "ada@lovelace.example.com"
    problem(await try_login(anonymous), 401)
    await login(anonymous, "ada@lovelace.example.com")
    # Only the password ends tokens.
    assert (await anonymous.get(ME, headers=ada)).status_code == 200


@pytest.mark.parametrize("more", [{}, {"password": OTHER_WORDS}])
async def test_a_registered_address_is_refused(
    anonymous: AsyncClient, ada: Headers, db: Database, more: Json
) -> None:
    await add_user(db, BOB)
    sent = {"email": BOB.upper(), "current_password": WORDS, **more}
    response = await anonymous.patch(ME, json=sent, headers=ada)
    assert blamed(response, 409) == ["body.email"]
    # The request is rolled back: password and tokens are unchanged.
    assert (await anonymous.get(ME, headers=ada)).json()["email"] == ADA
    await login(anonymous)


async def test_deleting_the_account_deletes_its_rows(
    anonymous: AsyncClient, tokens: Json, db: Database
) -> None:
    key = await create_key(anonymous, bearer(tokens), "read", "write")
    bob = await add_user(db, BOB)
    await add_key(db, bob, "read")
    response = await anonymous.delete(ME, headers=bearer(tokens))
    assert (response.status_code, response.content) == (204, b"")
    for headers in (bearer(tokens), with_key(key)):
        problem(await anonymous.get(ME, headers=headers), 401)
    problem(await try_refresh(anonymous, tokens), 401)
    problem(await try_login(anonymous), 401)
    assert await count(db, RefreshToken) == 0
    assert (await count(db, User), await count(db, APIKey)) == (1, 1)  # Bob, and his key
    # The address can be registered again, by a new user.
    await register(anonymous)
    problem(await anonymous.get(ME, headers=bearer(tokens)), 401)


async def test_deleting_the_account_requires_a_recent_login(
    anonymous: AsyncClient, tokens: Json, db: Database
) -> None:
    async with db.transaction() as session:
        await session.execute(update(UserSession).values(created_at=past(301)))
    document = problem(await anonymous.delete(ME, headers=bearer(tokens)), 403)
    assert document["detail"].startswith("Sign in again: ")
    assert await count(db, User) == 1


async def test_a_key_can_not_change_the_account(anonymous: AsyncClient, db: Database) -> None:
    headers = await add_key(db, await add_user(db, ADA), "read", "write")
    for response in (
        await anonymous.patch(ME, json={"name": "Eve"}, headers=headers),
        await anonymous.patch(ME, json=CHANGE, headers=headers),
        await anonymous.delete(ME, headers=headers),
    ):
        assert "API key" in problem(response, 403)["detail"]
    assert (await anonymous.get(ME, headers=headers)).json()["name"] == "Somebody"


async def test_a_deleted_user_can_not_change_the_account(
    anonymous: AsyncClient, ada: Headers, db: Database, recorded: RecordingHasher
) -> None:
    async with db.transaction() as session:
        await session.execute(delete(User))
    problem(await anonymous.patch(ME, json=CHANGE, headers=ada), 401)
    assert recorded.done == []


async def test_deleting_the_account_deletes_stored_responses(
    anonymous: AsyncClient, ada: Headers, db: Database
) -> None:
    user = await stored_user(db)
    bob = await add_user(db, BOB)
    async with db.transaction() as session:
        for caller in (user.id, bob.id):
            await IdempotencyRepository(session).save(
                caller=str(caller), key="x", fingerprint=b"", status=201, headers={}, body=b"text"
            )
    assert (await anonymous.delete(ME, headers=ada)).status_code == 204
    async with db.reading() as session:
        left = list(await session.scalars(select(IdempotencyKey.caller)))
    assert left == [str(bob.id)]


async def test_a_response_that_is_stored_meanwhile_goes_along(
    live: AsyncClient, live_app: FastAPI
) -> None:
    """A request that holds the user's row commits while the account is being deleted."""
    db: Database = live_app.state.database
    user = await add_user(db, ADA)
    async with db.transaction() as session:
        await session.execute(update(User).where(User.id == user.id).values(name="Busy"))
        deleting = asyncio.create_task(live.delete(ME, headers=bearer_of(user)), context=Context())
        for _ in range(20):  # time enough for it to meet the row that is locked here
            await live.get("/health/ready")
        await IdempotencyRepository(session).save(
            caller=str(user.id), key="x", fingerprint=b"", status=201, headers={}, body=b"text"
        )
    assert (await deleting).status_code == 204
    assert await count(db, IdempotencyKey) == 0


@pytest.mark.parametrize("changed", [{"password_hash": "another"}, {"token_version": 2}])
async def test_a_password_changed_meanwhile_can_not_change_the_address(
    anonymous: AsyncClient,
    ada: Headers,
    db: Database,
    monkeypatch: pytest.MonkeyPatch,
    changed: Json,
) -> None:
    """The password is changed after it was verified, and before the address is written."""
    verify = security.verify_password

    async def verify_and_change(password: SecretStr, stored: str | None) -> bool:
        good = await verify(password, stored)
        await change_user(db, await stored_user(db), **changed)
        return good

    monkeypatch.setattr(security, "verify_password", verify_and_change)
    sent = {"email": BOB, "current_password": WORDS}
    problem(await anonymous.patch(ME, json=sent, headers=ada), 403)
    assert (await stored_user(db)).email == ADA
