"""Sessions: users list and end their own, superusers those of any user."""

from typing import Any
from uuid import UUID

import pytest
from httpx2 import AsyncClient
from sqlalchemy import event, select, update

from app.kit.db.engine import Database
from app.users.models import UserSession
from tests import database
from tests.caller import headers as bearer_of
from tests.conftest import problem
from tests.users.helpers import (
    ADA,
    BOB,
    LOGOUT,
    ME,
    SESSIONS,
    USERS,
    Headers,
    Json,
    add_key,
    add_user,
    bearer,
    blamed,
    login,
    past,
    refresh,
    register,
    try_login,
    try_refresh,
)


@pytest.fixture
async def tokens(anonymous: AsyncClient) -> Json:
    """Return the tokens of a user who has registered and signed in."""
    await register(anonymous)
    return await login(anonymous)


@pytest.fixture
async def root(db: Database) -> Headers:
    """Return the headers of a superuser."""
    return bearer_of(await add_user(db, "root@example.com", is_superuser=True))


async def listed(client: AsyncClient, headers: Headers, path: str = SESSIONS) -> list[Json]:
    response = await client.get(path, headers=headers)
    assert response.status_code == 200, response.text
    items: list[Json] = response.json()["items"]
    return items


async def test_a_session_is_listed(anonymous: AsyncClient, tokens: Json) -> None:
    anonymous.headers["user-agent"] = "curl/8.5.0"
    await login(anonymous)
    first, second = await listed(anonymous, bearer(tokens))
    names = {"id", "user_agent", "address", "created_at", "last_used_at", "expires_at"}
    assert set(first) == set(second) == names | {"is_current"}
    assert (first["is_current"], second["is_current"]) == (True, False)
    assert (second["user_agent"], second["address"]) == ("curl/8.5.0", "127.0.0.1")
    assert second["created_at"] <= second["last_used_at"] < second["expires_at"]


async def test_a_refresh_updates_the_last_use(anonymous: AsyncClient, tokens: Json) -> None:
    (before,) = await listed(anonymous, bearer(tokens))
    await refresh(anonymous, tokens)
    (after,) = await listed(anonymous, bearer(tokens))
    assert before["last_used_at"] < after["last_used_at"]
    assert before["expires_at"] < after["expires_at"]
    assert before["created_at"] == after["created_at"]


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (b"x" * 5000, "x" * 200),
        (b"a\x1b[31m\x7f\x85b", "a[31mb"),
        (b"\xff\xfe caf\xe9", "ÿþ café"),
        (b"", ""),
    ],
)
async def test_an_unusual_user_agent_is_stored(
    anonymous: AsyncClient, db: Database, sent: bytes, stored: str
) -> None:
    await add_user(db, ADA)
    form = {"username": ADA, "password": "correct horse battery"}
    response = await anonymous.post("/v1/auth/token", data=form, headers={b"user-agent": sent})
    found = await listed(anonymous, bearer(response.json()))
    assert [each["user_agent"] for each in found if each["is_current"]] == [stored]


async def test_an_ended_session_is_refused_at_once(anonymous: AsyncClient, tokens: Json) -> None:
    other = await login(anonymous)
    (ended,) = [each for each in await listed(anonymous, bearer(tokens)) if not each["is_current"]]
    path = f"{SESSIONS}/{ended['id']}"
    assert (await anonymous.delete(path, headers=bearer(tokens))).status_code == 204
    problem(await anonymous.get(ME, headers=bearer(other)), 401)
    problem(await try_refresh(anonymous, other), 401)
    problem(await anonymous.delete(path, headers=bearer(tokens)), 404)
    assert len(await listed(anonymous, bearer(tokens))) == 1
    await refresh(anonymous, tokens)


async def test_all_other_sessions_can_be_ended(
    anonymous: AsyncClient, tokens: Json, db: Database
) -> None:
    others = [await login(anonymous) for _ in range(3)]
    bob = bearer_of(await add_user(db, BOB))
    assert (await anonymous.delete(SESSIONS, headers=bearer(tokens))).status_code == 204
    for other in others:
        problem(await anonymous.get(ME, headers=bearer(other)), 401)
    for headers in (bearer(tokens), bob):
        assert len(await listed(anonymous, headers)) == 1


async def test_an_access_token_ends_with_its_session(anonymous: AsyncClient, tokens: Json) -> None:
    sent = {"refresh_token": tokens["refresh_token"]}
    assert (await anonymous.post(LOGOUT, json=sent)).status_code == 204
    problem(await anonymous.get(ME, headers=bearer(tokens)), 401)


async def test_the_session_of_another_user_is_404(
    anonymous: AsyncClient, tokens: Json, db: Database
) -> None:
    bob = bearer_of(await add_user(db, BOB))
    (session,) = await listed(anonymous, bearer(tokens))
    for path in (f"{SESSIONS}/{session['id']}", f"{SESSIONS}/{UUID(int=0)}"):
        document = problem(await anonymous.delete(path, headers=bob), 404)
        assert document["detail"] == "There is no such session."
    assert blamed(await anonymous.delete(f"{SESSIONS}/x", headers=bob)) == ["path.session_id"]
    assert (await anonymous.get(ME, headers=bearer(tokens))).status_code == 200


async def test_a_key_can_not_manage_sessions(anonymous: AsyncClient, db: Database) -> None:
    user = await add_user(db, ADA, is_superuser=True)
    key = await add_key(db, user, "read", "write", "admin")
    for path in (f"{SESSIONS}/{user.id}", SESSIONS, f"{USERS}/{user.id}/sessions"):
        problem(await anonymous.delete(path, headers=key), 403)
    problem(await anonymous.get(SESSIONS, headers=key), 403)
    assert len(await listed(anonymous, bearer_of(user))) == 1


async def test_a_superuser_ends_the_sessions_of_any_user(
    anonymous: AsyncClient, tokens: Json, root: Headers
) -> None:
    others = [await login(anonymous) for _ in range(2)]
    user = (await anonymous.get(ME, headers=bearer(tokens))).json()
    path = f"{USERS}/{user['id']}/sessions"
    first, *_ = found = await listed(anonymous, root, path)
    assert len(found) == 3
    assert "is_current" not in first
    assert (await anonymous.delete(f"{path}/{first['id']}", headers=root)).status_code == 204
    problem(await anonymous.get(ME, headers=bearer(tokens)), 401)
    assert (await anonymous.get(ME, headers=bearer(others[0]))).status_code == 200
    assert (await anonymous.delete(path, headers=root)).status_code == 204
    for other in others:
        problem(await anonymous.get(ME, headers=bearer(other)), 401)
    assert await listed(anonymous, root, path) == []
    assert (await anonymous.get(ME, headers=root)).status_code == 200
    assert (await try_login(anonymous)).status_code == 200


async def test_an_unknown_user_has_no_sessions(
    anonymous: AsyncClient, tokens: Json, root: Headers
) -> None:
    (session,) = await listed(anonymous, bearer(tokens))
    nobody = f"{USERS}/{UUID(int=0)}/sessions"
    problem(await anonymous.get(nobody, headers=root), 404)
    for path in (nobody, f"{nobody}/{session['id']}"):
        problem(await anonymous.delete(path, headers=root), 404)


async def test_expired_sessions_are_not_listed_and_are_deleted(
    anonymous: AsyncClient, tokens: Json, db: Database
) -> None:
    (session,) = await listed(anonymous, bearer(tokens))
    async with db.transaction() as writing:
        await writing.execute(update(UserSession).values(expires_at=past(1)))
    assert await listed(anonymous, bearer(tokens)) == []
    await login(anonymous)
    async with db.reading() as reading:
        kept = list(await reading.scalars(select(UserSession.id)))
    assert len(kept) == 1
    assert UUID(session["id"]) not in kept


async def test_ending_a_session_requires_a_recent_login(
    anonymous: AsyncClient, tokens: Json, root: Headers, db: Database
) -> None:
    await login(anonymous)
    first, _ = found = await listed(anonymous, bearer(tokens))
    user = (await anonymous.get(ME, headers=bearer(tokens))).json()
    others = f"{USERS}/{user['id']}/sessions"
    async with db.transaction() as writing:
        await writing.execute(update(UserSession).values(created_at=past(301)))
    for path, headers in (
        (SESSIONS, bearer(tokens)),
        (f"{SESSIONS}/{first['id']}", bearer(tokens)),
        (others, root),
        (f"{others}/{first['id']}", root),
    ):
        response = await anonymous.delete(path, headers=headers)
        assert problem(response, 403)["detail"].startswith("Sign in again: ")
    assert len(await listed(anonymous, bearer(tokens))) == len(found)
    # Logging out of one's own session does not require it.
    sent = {"refresh_token": tokens["refresh_token"]}
    assert (await anonymous.post(LOGOUT, json=sent)).status_code == 204


async def test_a_login_beyond_the_limit_ends_the_oldest_session(
    anonymous: AsyncClient, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.users.repository.MAX_SESSIONS", 3)
    await add_user(db, ADA)  # with a session of its own
    bob = bearer_of(await add_user(db, BOB))
    all_tokens = [await login(anonymous) for _ in range(5)]
    for tokens in all_tokens[:2]:
        problem(await anonymous.get(ME, headers=bearer(tokens)), 401)
        problem(await try_refresh(anonymous, tokens), 401)
    assert len(await listed(anonymous, bearer(all_tokens[2]))) == 3
    assert len(await listed(anonymous, bob)) == 1


async def test_a_login_does_not_read_the_sessions_of_all_users(
    anonymous: AsyncClient, db: Database
) -> None:
    await add_user(db, ADA)
    sent: list[tuple[str, Any]] = []

    def keep(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    event.listen(db.write_engine.sync_engine, "before_cursor_execute", keep)
    await login(anonymous)
    event.remove(db.write_engine.sync_engine, "before_cursor_execute", keep)
    ((statement, parameters),) = [each for each in sent if "DELETE FROM user_sessions" in each[0]]
    async with db.transaction() as session:
        plan = await database.plan(await session.connection(), statement, parameters)
    assert "user_sessions" in plan
    assert f"{database.FULL_SCAN}user_sessions" not in plan
