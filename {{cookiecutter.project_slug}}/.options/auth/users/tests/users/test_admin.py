"""Superusers list and change other users."""

import asyncio
from contextvars import Context
from uuid import UUID

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient
from sqlalchemy import delete, select, update

from app.kit.db.engine import Database
from app.users.models import User, UserSession
from app.users.repository import UserRepository
from tests.caller import headers as bearer_of
from tests.conftest import problem
from tests.users.helpers import (
    ADA,
    BOB,
    KEYS,
    ME,
    NOBODY,
    USERS,
    Headers,
    Json,
    add_key,
    add_user,
    bearer,
    blamed,
    login,
    past,
    stored_keys,
    stored_user,
    try_login,
    try_refresh,
)


@pytest.fixture
async def root(db: Database) -> Headers:
    """Return the headers of a superuser."""
    return bearer_of(await add_user(db, "root@example.com", is_superuser=True))


@pytest.fixture
async def bob(db: Database, root: Headers) -> User:
    """Return a member."""
    return await add_user(db, BOB)


def path(user: User) -> str:
    return f"{USERS}/{user.id}"


async def test_users_are_listed_page_by_page(
    anonymous: AsyncClient, db: Database, root: Headers
) -> None:
    made = ["root@example.com", *(f"{number}@example.com" for number in range(4))]
    for email in made[1:]:
        await add_user(db, email)
    listed: list[Json] = []
    query = {"limit": "2"}
    while True:
        response = await anonymous.get(USERS, params=query, headers=root)
        assert response.status_code == 200, response.text
        listed += response.json()["items"]
        if response.json()["next_cursor"] is None:
            break
        query["cursor"] = response.json()["next_cursor"]
    assert [user["email"] for user in listed] == made
    fields = {"id", "email", "name", "created_at", "is_active", "is_superuser"}
    assert all(set(user) == fields for user in listed)
    assert [user["is_superuser"] for user in listed] == [True, False, False, False, False]


@pytest.mark.parametrize(
    ("query", "field"), [("limit=0", "limit"), ("limit=101", "limit"), ("cursor=x", "cursor")]
)
async def test_an_invalid_page_is_refused(
    anonymous: AsyncClient, root: Headers, query: str, field: str
) -> None:
    assert blamed(await anonymous.get(f"{USERS}?{query}", headers=root)) == [f"query.{field}"]


async def test_an_unknown_user_is_404(anonymous: AsyncClient, root: Headers) -> None:
    for change in ({}, {"is_active": False}):
        problem(await anonymous.patch(NOBODY, json=change, headers=root), 404)
    assert blamed(await anonymous.patch(f"{USERS}/x", json={}, headers=root)) == ["path.user_id"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"email": ADA}, "email"),
        ({"password": "words enough"}, "password"),
        ({"token_version": 7}, "token_version"),
        ({"is_active": None}, "is_active"),
        ({"is_superuser": None}, "is_superuser"),
        ({"name": ""}, "name"),
    ],
)
async def test_bad_input_names_the_field(
    anonymous: AsyncClient, root: Headers, bob: User, change: Json, field: str
) -> None:
    response = await anonymous.patch(path(bob), json=change, headers=root)
    assert blamed(response) == [f"body.{field}"]


async def test_a_superuser_changes_a_user(
    anonymous: AsyncClient, root: Headers, bob: User, db: Database
) -> None:
    response = await anonymous.patch(path(bob), json={"name": "Robert"}, headers=root)
    assert response.json() == {
        "id": str(bob.id),
        "email": BOB,
        "name": "Robert",
        "created_at": bob.created_at.isoformat().replace("+00:00", "Z"),
        "is_active": True,
        "is_superuser": False,
    }
    assert (await stored_user(db, BOB)).token_version == 1


async def test_deactivation_ends_every_credential_at_once(
    anonymous: AsyncClient, root: Headers, bob: User, db: Database
) -> None:
    tokens = await login(anonymous, BOB)
    key = await add_key(db, bob, "read", "write")
    for headers in (bearer(tokens), key):
        assert (await anonymous.get(ME, headers=headers)).status_code == 200
    response = await anonymous.patch(path(bob), json={"is_active": False}, headers=root)
    assert response.json()["is_active"] is False
    for headers in (bearer(tokens), key):
        problem(await anonymous.get(ME, headers=headers), 401)
        problem(await anonymous.delete(ME, headers=headers), 401)
    problem(await try_refresh(anonymous, tokens), 401)
    problem(await try_login(anonymous, BOB), 401)
    # Activation restores no credential.
    await anonymous.patch(path(bob), json={"is_active": True}, headers=root)
    for headers in (bearer(tokens), key):
        problem(await anonymous.get(ME, headers=headers), 401)
    problem(await try_refresh(anonymous, tokens), 401)
    await login(anonymous, BOB)


async def test_a_change_of_role_revokes_every_credential(
    anonymous: AsyncClient, root: Headers, db: Database
) -> None:
    other = await add_user(db, ADA, is_superuser=True)
    plain, admin = await add_key(db, other, "read"), await add_key(db, other, "read", "admin")
    assert (await anonymous.get(USERS, headers=admin)).status_code == 200
    for flag in (False, True):
        headers, tokens = bearer_of(other), await login(anonymous, ADA)
        change = {"is_superuser": flag}
        assert (await anonymous.patch(path(other), json=change, headers=root)).status_code == 200
        for credential in (plain, admin, headers, bearer(tokens)):
            problem(await anonymous.get(ME, headers=credential), 401)
        problem(await try_refresh(anonymous, tokens), 401)


async def test_an_unchanged_role_revokes_nothing(
    anonymous: AsyncClient, root: Headers, bob: User
) -> None:
    headers = bearer_of(bob)
    change = {"is_superuser": False, "is_active": True, "name": "Robert"}
    assert (await anonymous.patch(path(bob), json=change, headers=root)).status_code == 200
    assert (await anonymous.get(ME, headers=headers)).json()["name"] == "Robert"


async def test_a_superuser_promotes_and_demotes_another(
    anonymous: AsyncClient, root: Headers, bob: User
) -> None:
    headers = bearer_of(bob)
    problem(await anonymous.get(USERS, headers=headers), 403)
    for flag, status in ((True, 200), (False, 403)):
        change = {"is_superuser": flag}
        assert (await anonymous.patch(path(bob), json=change, headers=root)).status_code == 200
        headers = bearer(await login(anonymous, BOB))
        assert (await anonymous.get(USERS, headers=headers)).status_code == status


async def test_a_member_can_not_change_users(
    anonymous: AsyncClient, bob: User, db: Database
) -> None:
    for target in (path(bob), f"{USERS}/{UUID(int=1)}"):
        change = {"is_superuser": True}
        problem(await anonymous.patch(target, json=change, headers=bearer_of(bob)), 403)
    assert not (await stored_user(db, BOB)).is_superuser


async def test_a_change_requires_a_recent_login(
    anonymous: AsyncClient, root: Headers, bob: User, db: Database
) -> None:
    async with db.transaction() as session:
        await session.execute(update(UserSession).values(created_at=past(301)))
    for change in ({"is_superuser": True}, {"is_active": False}, {"name": "x"}, {}):
        response = await anonymous.patch(path(bob), json=change, headers=root)
        assert problem(response, 403)["detail"].startswith("Sign in again: ")
    user = await stored_user(db, BOB)
    assert (user.is_superuser, user.is_active, user.name) == (False, True, "Somebody")


async def test_the_last_superuser_can_not_be_removed(
    anonymous: AsyncClient, root: Headers, bob: User, db: Database
) -> None:
    own = path(await stored_user(db, "root@example.com"))
    # Members and inactive superusers don't count.
    await add_user(db, ADA, is_superuser=True, is_active=False)
    for response in (
        await anonymous.patch(own, json={"is_superuser": False}, headers=root),
        await anonymous.patch(own, json={"is_active": False}, headers=root),
        await anonymous.delete(ME, headers=root),
    ):
        detail = "This is the last superuser: make another user a superuser first."
        assert problem(response, 409)["detail"] == detail
    assert (await anonymous.get(USERS, headers=root)).status_code == 200
    await anonymous.patch(path(bob), json={"is_superuser": True}, headers=root)
    assert (await anonymous.delete(ME, headers=root)).status_code == 204


async def test_two_superusers_demoting_each_other_leave_one(
    live: AsyncClient, live_app: FastAPI
) -> None:
    db: Database = live_app.state.database
    for round_ in range(4):
        pair = [
            await add_user(db, f"{round_}-{number}@example.com", is_superuser=True)
            for number in range(2)
        ]
        first, second = map(bearer_of, pair)
        responses = await asyncio.gather(
            live.patch(path(pair[1]), json={"is_superuser": False}, headers=first),
            live.patch(path(pair[0]), json={"is_active": False}, headers=second),
            live.delete(ME, headers=first),
            live.delete(ME, headers=second),
        )
        assert {response.status_code for response in responses} <= {200, 204, 401, 403, 404, 409}
        async with db.transaction() as session:
            left = list(
                await session.scalars(select(User).where(User.is_superuser, User.is_active))
            )
            assert len(left) >= 1
            await session.execute(delete(User))


async def test_no_admin_key_is_created_after_a_demotion(
    live: AsyncClient, live_app: FastAPI
) -> None:
    """A key with the scope `admin` that is created during the demotion is refused."""
    db: Database = live_app.state.database
    await add_user(db, ADA, is_superuser=True)
    user = await add_user(db, BOB, is_superuser=True)
    sent = {"name": "key", "scopes": ["read", "admin"]}
    async with db.transaction() as session:
        await UserRepository(session).change_by_superuser(user.id, {"is_superuser": False})
        creating = asyncio.create_task(
            live.post(KEYS, json=sent, headers=bearer_of(user)), context=Context()
        )
        for _ in range(20):  # give it time to reach the row that is locked here
            await live.get(ME)
    detail = problem(await creating, 401)["detail"]  # the login has ended, too
    assert detail == "Sign in with an access token or an API key."
    assert await stored_keys(db) == []


async def test_a_promotion_restores_no_admin_key(
    anonymous: AsyncClient, root: Headers, bob: User, db: Database
) -> None:
    plain, admin = await add_key(db, bob, "read"), await add_key(db, bob, "read", "admin")
    change = {"is_superuser": True}
    assert (await anonymous.patch(path(bob), json=change, headers=root)).status_code == 200
    for key in (plain, admin):
        problem(await anonymous.get(ME, headers=key), 401)
