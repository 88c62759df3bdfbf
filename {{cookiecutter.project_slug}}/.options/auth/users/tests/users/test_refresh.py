"""Refresh tokens: each is valid once, and reuse revokes its login."""

import asyncio
import hashlib
from contextvars import Context
from datetime import timedelta
from typing import Any

import jwt
import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient
from sqlalchemy import select, update

from app.kit.db.engine import Database
from app.kit.db.models import now
from app.main import create_app
from app.users import security
from app.users.models import APIKey, RefreshToken, UserSession
from app.users.repository import UserRepository
from tests.caller import headers as bearer_of
from tests.conftest import problem, running, settings_for
from tests.users.helpers import (
    ADA,
    BOB,
    JSON,
    KEYS,
    LOGOUT,
    ME,
    REFRESH,
    Json,
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
    try_refresh,
    with_key,
)


async def tokens_in(db: Database) -> list[RefreshToken]:
    async with db.reading() as session:
        return list(await session.scalars(select(RefreshToken).order_by(RefreshToken.id)))


async def sessions_in(db: Database) -> list[UserSession]:
    async with db.reading() as session:
        found = select(UserSession).where(UserSession.user_agent != "tests")
        return list(await session.scalars(found.order_by(UserSession.id)))


async def move(db: Database, **values: Any) -> None:
    """Change the times of every session in the database."""
    async with db.transaction() as session:
        await session.execute(update(UserSession).values(**values))


async def logout(client: AsyncClient, tokens: Json) -> None:
    sent = {"refresh_token": tokens["refresh_token"]}
    response = await client.post(LOGOUT, json=sent)
    assert (response.status_code, response.content) == (204, b"")


@pytest.fixture
async def tokens(anonymous: AsyncClient, db: Database) -> Json:
    """Return the tokens of a login."""
    await add_user(db, ADA)
    return await login(anonymous)


async def test_a_refresh_returns_new_tokens(anonymous: AsyncClient, tokens: Json) -> None:
    fresh = await refresh(anonymous, tokens)
    assert set(fresh) == set(tokens)
    for name in ("access_token", "refresh_token"):
        assert fresh[name] != tokens[name]
    for each in (tokens, fresh):
        # An access token is valid for 15 minutes.
        assert (await anonymous.get(ME, headers=bearer(each))).status_code == 200


async def test_a_session_lives_as_long_as_it_is_refreshed(
    anonymous: AsyncClient, tokens: Json
) -> None:
    for _ in range(5):
        tokens = await refresh(anonymous, tokens)


async def test_only_hashes_are_stored(anonymous: AsyncClient, tokens: Json, db: Database) -> None:
    fresh = await refresh(anonymous, tokens)
    stored = await tokens_in(db)
    assert [row.token_hash for row in stored] == [
        hashlib.sha256(each["refresh_token"].encode()).hexdigest() for each in (tokens, fresh)
    ]
    assert len({row.session_id for row in stored}) == 1


async def test_a_refresh_does_not_extend_the_longest_lifetime(live_url: str) -> None:
    app = create_app(settings_for(live_url, refresh_token_lifetime=3600, session_lifetime=7200))
    async with running(app) as client:
        db: Database = app.state.database
        await register(client)
        tokens = await login(client)
        (before,) = await sessions_in(db)
        tokens = await refresh(client, tokens)
        (after,) = await sessions_in(db)
        assert before.expires_at < after.expires_at < after.ends_at == before.ends_at
        # Half an hour before the end of the session, which ends the tokens.
        await move(db, ends_at=now() + timedelta(seconds=1800))
        tokens = await refresh(client, tokens)
        (after,) = await sessions_in(db)
        assert after.expires_at == after.ends_at
        await move(db, ends_at=now() + timedelta(seconds=100))
        tokens = await refresh(client, tokens)
        claims = jwt.decode(tokens["access_token"], options={"verify_signature": False})
        assert claims["exp"] - claims["iat"] <= 100
        await move(db, expires_at=past(1), ends_at=past(1))
        problem(await try_refresh(client, tokens), 401)


async def test_a_lost_response_is_returned_again(
    anonymous: AsyncClient, tokens: Json, db: Database
) -> None:
    fresh = await refresh(anonymous, tokens)
    again = await refresh(anonymous, tokens)
    assert again["refresh_token"] == fresh["refresh_token"]
    for each in (fresh, again):
        assert (await anonymous.get(ME, headers=bearer(each))).status_code == 200
    assert len(await tokens_in(db)) == 2
    # The second response may be lost, too.
    latest = await refresh(anonymous, again)
    assert (await refresh(anonymous, again))["refresh_token"] == latest["refresh_token"]


async def test_after_ten_seconds_a_repeated_refresh_is_reuse(
    anonymous: AsyncClient, tokens: Json, db: Database
) -> None:
    fresh = await refresh(anonymous, tokens)
    async with db.transaction() as session:
        await session.execute(
            update(RefreshToken).where(RefreshToken.used_at.is_not(None)).values(used_at=past(11))
        )
    problem(await try_refresh(anonymous, tokens), 401)
    problem(await try_refresh(anonymous, fresh), 401)
    problem(await anonymous.get(ME, headers=bearer(fresh)), 401)


async def test_concurrent_repeated_refreshes_get_one_token(
    live_app: FastAPI, live: AsyncClient
) -> None:
    await register(live)
    tokens = await login(live)
    responses = await asyncio.gather(*(refresh(live, tokens) for _ in range(8)))
    assert len({response["refresh_token"] for response in responses}) == 1
    assert len(await tokens_in(live_app.state.database)) == 2
    await refresh(live, responses[0])


async def test_the_next_token_can_not_be_derived_from_stored_data(
    anonymous: AsyncClient, tokens: Json, db: Database
) -> None:
    fresh = await refresh(anonymous, tokens)
    used, unused = await tokens_in(db)
    assert used.successor_salt != unused.successor_salt
    for known in (used.token_hash, used.successor_salt, unused.token_hash, unused.successor_salt):
        for salt in (used.successor_salt, unused.successor_salt):
            assert security.successor_of(known, salt) != fresh["refresh_token"]
    # The token alone is not enough either.
    raw = tokens["refresh_token"]
    assert security.successor_of(raw, used.successor_salt) == fresh["refresh_token"]
    assert security.successor_of(raw, unused.successor_salt) != fresh["refresh_token"]


async def test_used_tokens_are_deleted_after_thirty_days(
    anonymous: AsyncClient, tokens: Json, db: Database
) -> None:
    fresh = await refresh(anonymous, tokens)
    async with db.transaction() as session:
        month = past(30 * 24 * 3600 + 60)
        used = update(RefreshToken).where(RefreshToken.used_at.is_not(None))
        await session.execute(used.values(used_at=month))
    await refresh(anonymous, fresh)
    assert len(await tokens_in(db)) == 2


async def test_reuse_ends_the_session(anonymous: AsyncClient, tokens: Json) -> None:
    family = [tokens]
    for _ in range(3):
        family.append(await refresh(anonymous, family[-1]))
    assert (await anonymous.get(ME, headers=bearer(family[-1]))).status_code == 200
    problem(await try_refresh(anonymous, family[1]), 401)
    for each in reversed(family):
        problem(await try_refresh(anonymous, each), 401)
        problem(await anonymous.get(ME, headers=bearer(each)), 401)


async def test_reuse_ends_no_other_session(
    anonymous: AsyncClient, tokens: Json, db: Database
) -> None:
    other = await login(anonymous)
    await add_user(db, BOB)
    others = await login(anonymous, BOB)
    await refresh(anonymous, await refresh(anonymous, tokens))
    problem(await try_refresh(anonymous, tokens), 401)
    await refresh(anonymous, other)
    await refresh(anonymous, others)


async def test_an_expired_token_is_refused(
    anonymous: AsyncClient, tokens: Json, db: Database
) -> None:
    await move(db, expires_at=past(1))
    problem(await try_refresh(anonymous, tokens), 401)
    # The next login deletes it.
    await login(anonymous)
    assert len(await tokens_in(db)) == 1


@pytest.mark.parametrize("token", ["x", "refresh_x", "🦄", " ", "\x00", "x" * 200])
async def test_an_unknown_token_is_refused(
    anonymous: AsyncClient, tokens: Json, db: Database, token: str
) -> None:
    problem(await try_refresh(anonymous, {"refresh_token": token}), 401)
    await logout(anonymous, {"refresh_token": token})
    # The stored hash is not a valid token either.
    (stored,) = await tokens_in(db)
    problem(await try_refresh(anonymous, {"refresh_token": stored.token_hash}), 401)
    await refresh(anonymous, tokens)


@pytest.mark.parametrize("path", [REFRESH, LOGOUT])
@pytest.mark.parametrize(
    "sent",
    [
        b"{}",
        b'{"refresh_token": ""}',
        b'{"refresh_token": null}',
        b'{"refresh_token": 1}',
        b'{"refresh_token": "\\ud800"}',
        b'{"refresh_token": "%s"}' % (b"x" * 201),
    ],
)
async def test_text_that_can_not_be_a_token_is_refused(
    anonymous: AsyncClient, path: str, sent: bytes
) -> None:
    response = await anonymous.post(path, content=sent, headers=JSON)
    assert blamed(response) == ["body.refresh_token"]
    assert "xxx" not in response.text


async def test_an_access_token_is_no_refresh_token(anonymous: AsyncClient, tokens: Json) -> None:
    response = await anonymous.post(REFRESH, json={"refresh_token": tokens["access_token"]})
    assert response.status_code in {401, 422}
    # Nor does an API key.
    key = security.opaque_token("key")
    problem(await try_refresh(anonymous, {"refresh_token": key}), 401)


async def test_an_inactive_user_can_not_refresh(
    anonymous: AsyncClient, tokens: Json, db: Database
) -> None:
    user = await stored_user(db)
    await change_user(db, user, is_active=False)
    problem(await try_refresh(anonymous, tokens), 401)


async def test_logout_ends_the_session(anonymous: AsyncClient, tokens: Json, db: Database) -> None:
    fresh = await refresh(anonymous, tokens)
    other = await login(anonymous)
    await logout(anonymous, fresh)
    for each in (fresh, tokens):
        problem(await try_refresh(anonymous, each), 401)
        problem(await anonymous.get(ME, headers=bearer(each)), 401)
    await logout(anonymous, fresh)
    await logout(anonymous, tokens)
    await refresh(anonymous, other)
    assert len(await tokens_in(db)) == 2


async def test_logout_with_a_used_token_ends_the_session(
    anonymous: AsyncClient, tokens: Json
) -> None:
    fresh = await refresh(anonymous, tokens)
    await logout(anonymous, tokens)
    problem(await try_refresh(anonymous, fresh), 401)


async def test_both_holders_of_a_stolen_token_lose_the_session(
    live_app: FastAPI, live: AsyncClient
) -> None:
    """Several clients reuse a token at once: the session ends for all of them."""
    db: Database = live_app.state.database
    await register(live)
    for number in range(6):
        stolen = await login(live)
        latest = await refresh(live, await refresh(live, stolen))
        thieves = [try_refresh(live, stolen) for _ in range(1 + number % 3)]
        owner, *responses = await asyncio.gather(try_refresh(live, latest), *thieves)
        assert {response.status_code for response in responses} == {401}
        assert owner.status_code in {200, 401}
        problem(await try_refresh(live, owner.json() if owner.is_success else latest), 401)
        assert await count(db, RefreshToken) == 0
        assert await sessions_in(db) == []


async def test_a_concurrent_refresh_can_not_outlive_the_session(
    live_app: FastAPI, live: AsyncClient
) -> None:
    """A used token is sent while the newest is exchanged: the next token is invalid, too."""
    db: Database = live_app.state.database
    await register(live)
    used = await login(live)
    newest = await refresh(live, await refresh(live, used))
    heir = security.opaque_token("refresh")
    async with db.transaction() as session:
        users = UserRepository(session)
        token_hash = security.hash_token(newest["refresh_token"])
        login_row = await users.renew_session(token_hash, timedelta(days=1))
        assert login_row is not None
        assert await users.use_refresh_token(token_hash)
        # In its own context, because the request does not share the transaction of this test.
        reuse = asyncio.create_task(try_refresh(live, used), context=Context())
        for _ in range(20):  # give it time to reach the row that is locked here
            await live.get(ME)
        await users.add_refresh_token(login_row.id, security.hash_token(heir))
    problem(await reuse, 401)
    problem(await try_refresh(live, {"refresh_token": heir}), 401)
    assert await count(db, RefreshToken) == 0


async def test_concurrent_refreshes(live: AsyncClient) -> None:
    addresses = [f"{number}@example.com" for number in range(8)]
    families = []
    for address in addresses:
        await register(live, address)
        families.append(await login(live, address))
    for _ in range(3):
        families = list(await asyncio.gather(*(refresh(live, each) for each in families)))


async def test_reuse_deletes_the_keys_created_in_the_session(
    anonymous: AsyncClient, tokens: Json, db: Database
) -> None:
    other = await login(anonymous)
    stolen = await create_key(anonymous, bearer(tokens), "read")
    kept = await create_key(anonymous, bearer(other), "read")
    fresh = await refresh(anonymous, tokens)
    await refresh(anonymous, fresh)
    problem(await try_refresh(anonymous, tokens), 401)
    problem(await anonymous.get(ME, headers=with_key(stolen)), 401)
    assert (await anonymous.get(ME, headers=with_key(kept))).status_code == 200
    # A logout deletes no API key.
    await logout(anonymous, other)
    assert (await anonymous.get(ME, headers=with_key(kept))).status_code == 200


async def test_no_key_is_created_after_the_session_has_ended(
    live: AsyncClient, live_app: FastAPI
) -> None:
    """A key that is created while reuse ends its session is refused."""
    db: Database = live_app.state.database
    user = await add_user(db, BOB)
    async with db.transaction() as session:
        await UserRepository(session).end_session(user.id, user.id)
        creating = asyncio.create_task(
            live.post(KEYS, json={"name": "key"}, headers=bearer_of(user)), context=Context()
        )
        for _ in range(20):  # give it time to reach the row that is locked here
            await live.get(ME)
    problem(await creating, 401)
    assert await count(db, APIKey) == 0
