"""Refresh tokens: each is valid once, and reuse revokes its login."""

import asyncio
import hashlib
from contextvars import Context

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient, Response
from sqlalchemy import ColumnElement, delete, select, update

from app.kit.db.engine import Database
from app.users import security
from app.users.models import RefreshToken
from app.users.repository import UserRepository
from tests.conftest import pool_size, problem
from tests.users.helpers import (
    ADA,
    BOB,
    JSON,
    LOGOUT,
    ME,
    REFRESH,
    Json,
    add_user,
    bearer,
    blamed,
    change_user,
    count,
    login,
    past,
    refresh,
    register,
    stored_user,
    try_refresh,
)


async def tokens_in(db: Database) -> list[RefreshToken]:
    async with db.reading() as session:
        return list(await session.scalars(select(RefreshToken).order_by(RefreshToken.id)))


async def logout(client: AsyncClient, tokens: Json) -> None:
    sent = {"refresh_token": tokens["refresh_token"]}
    answer = await client.post(LOGOUT, json=sent)
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.fixture
async def tokens(anonymous: AsyncClient, db: Database) -> Json:
    """Return the tokens of a login."""
    await add_user(db, ADA)
    return await login(anonymous)


async def test_a_refresh_gives_new_tokens(anonymous: AsyncClient, tokens: Json) -> None:
    fresh = await refresh(anonymous, tokens)
    assert set(fresh) == set(tokens)
    for name in ("access_token", "refresh_token"):
        assert fresh[name] != tokens[name]
    for each in (tokens, fresh):
        # An access token lives its quarter of an hour.
        assert (await anonymous.get(ME, headers=bearer(each))).status_code == 200


async def test_a_family_lives_as_long_as_it_is_refreshed(
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
    assert len({row.family_id for row in stored}) == 1
    for row in stored:
        assert (row.expires_at - row.created_at).days in {29, 30}


async def test_a_used_token_ends_its_family(anonymous: AsyncClient, tokens: Json) -> None:
    family = [tokens]
    for _ in range(3):
        family.append(await refresh(anonymous, family[-1]))
    problem(await try_refresh(anonymous, family[1]), 401)
    for each in reversed(family):
        problem(await try_refresh(anonymous, each), 401)


async def test_a_used_token_ends_no_other_login(
    anonymous: AsyncClient, tokens: Json, db: Database
) -> None:
    other = await login(anonymous)
    await add_user(db, BOB)
    others = await login(anonymous, BOB)
    await refresh(anonymous, tokens)
    problem(await try_refresh(anonymous, tokens), 401)
    await refresh(anonymous, other)
    await refresh(anonymous, others)


async def test_an_expired_token_is_over(anonymous: AsyncClient, tokens: Json, db: Database) -> None:
    async with db.transaction() as session:
        await session.execute(update(RefreshToken).values(expires_at=past(1)))
    problem(await try_refresh(anonymous, tokens), 401)
    # The next login sweeps it out.
    await login(anonymous)
    assert len(await tokens_in(db)) == 1


@pytest.mark.parametrize("token", ["x", "refresh_x", "🦄", " ", "\x00", "x" * 200])
async def test_garbage(anonymous: AsyncClient, tokens: Json, db: Database, token: str) -> None:
    problem(await try_refresh(anonymous, {"refresh_token": token}), 401)
    await logout(anonymous, {"refresh_token": token})
    # The hash that is stored is no token either.
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
async def test_what_can_be_no_token(anonymous: AsyncClient, path: str, sent: bytes) -> None:
    answer = await anonymous.post(path, content=sent, headers=JSON)
    assert blamed(answer) == ["body.refresh_token"]
    assert "xxx" not in answer.text


async def test_an_access_token_refreshes_nothing(anonymous: AsyncClient, tokens: Json) -> None:
    answer = await anonymous.post(REFRESH, json={"refresh_token": tokens["access_token"]})
    assert answer.status_code in {401, 422}
    # Nor does an API key.
    key = security.opaque_token("key")
    problem(await try_refresh(anonymous, {"refresh_token": key}), 401)


async def test_who_is_inactive_gets_nothing(
    anonymous: AsyncClient, tokens: Json, db: Database
) -> None:
    user = await stored_user(db)
    await change_user(db, user, is_active=False)
    problem(await try_refresh(anonymous, tokens), 401)
    await change_user(db, user, is_active=True)
    problem(await try_refresh(anonymous, tokens), 401)


async def test_logout_ends_the_family(anonymous: AsyncClient, tokens: Json, db: Database) -> None:
    fresh = await refresh(anonymous, tokens)
    other = await login(anonymous)
    await logout(anonymous, fresh)
    for each in (fresh, tokens):
        problem(await try_refresh(anonymous, each), 401)
    await logout(anonymous, fresh)
    await logout(anonymous, tokens)
    await refresh(anonymous, other)
    assert len(await tokens_in(db)) == 2


async def test_logout_by_a_used_token_ends_the_family(anonymous: AsyncClient, tokens: Json) -> None:
    fresh = await refresh(anonymous, tokens)
    await logout(anonymous, tokens)
    problem(await try_refresh(anonymous, fresh), 401)


async def test_of_two_thieves_none_stays(live_app: FastAPI, live: AsyncClient) -> None:
    """Two clients use the same token at once: at most one gets tokens, and both are out after."""
    await register(live)
    for number in range(8):
        stolen = await login(live)
        if number % 2:
            stolen = await refresh(live, stolen)
        answers = await asyncio.gather(*(try_refresh(live, stolen) for _ in range(2 + number % 3)))
        lucky = [answer.json() for answer in answers if answer.status_code == 200]
        assert len(lucky) <= 1
        for answer in answers:
            assert answer.status_code in {200, 401}, answer.text
        for each in [*lucky, stolen]:
            problem(await try_refresh(live, each), 401)
        assert await count(live_app.state.database, RefreshToken) == 0


async def test_a_thief_can_not_outrun_the_end(live_app: FastAPI, live: AsyncClient) -> None:
    """A used token comes back while the newest is being traded in: that one's heir ends as well."""
    db: Database = live_app.state.database
    await register(live)
    used = await login(live)
    newest = await refresh(live, used)
    user = await stored_user(db)
    heir = security.opaque_token("refresh")
    async with db.transaction() as session:
        users = UserRepository(session)
        token = await users.use_refresh_token(security.hash_token(newest["refresh_token"]))
        assert token is not None
        # In a context of its own: a request has nothing to do with the transaction of this test.
        reuse = asyncio.create_task(try_refresh(live, used), context=Context())
        for _ in range(20):  # time enough for it to meet the row that is locked here
            await live.get(ME)
        await users.add_refresh_token(user, token.family_id, security.hash_token(heir), 60)
    problem(await reuse, 401)
    problem(await try_refresh(live, {"refresh_token": heir}), 401)
    assert await count(db, RefreshToken) == 0


async def test_thieves_do_not_block_one_another(live_app: FastAPI, live: AsyncClient) -> None:
    """Requests that reuse a token hold no lock while they revoke its family."""
    db: Database = live_app.state.database
    if pool_size(db.write_engine) == 1:
        pytest.skip("with one connection that writes nobody can block another")
    await register(live)
    first = await login(live)
    stolen = await refresh(live, first)

    def row(tokens: Json) -> ColumnElement[bool]:
        return RefreshToken.token_hash == security.hash_token(tokens["refresh_token"])

    async with db.transaction() as other:  # ends the family as well: one token after the other
        await other.execute(delete(RefreshToken).where(row(first)))

        async def win() -> asyncio.Task[Response]:
            async with db.transaction() as winner:
                token = security.hash_token(stolen["refresh_token"])
                assert await UserRepository(winner).use_refresh_token(token)
                thief = asyncio.create_task(try_refresh(live, stolen), context=Context())
                for _ in range(20):  # time enough for it to meet the row that is locked here
                    await live.get(ME)
            return thief

        thief = await asyncio.create_task(win(), context=Context())
        for _ in range(20):  # and the row that is locked by the other
            await live.get(ME)
        await other.execute(delete(RefreshToken).where(row(stolen)))
    problem(await thief, 401)
    assert await count(db, RefreshToken) == 0


async def test_many_refresh_at_once(live: AsyncClient) -> None:
    addresses = [f"{number}@example.com" for number in range(8)]
    families = []
    for address in addresses:
        await register(live, address)
        families.append(await login(live, address))
    for _ in range(3):
        families = list(await asyncio.gather(*(refresh(live, each) for each in families)))
