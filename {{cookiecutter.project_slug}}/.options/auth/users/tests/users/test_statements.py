"""How many SQL statements each endpoint sends."""

from typing import Any

import pytest
from argon2 import PasswordHasher
from httpx2 import AsyncClient

from app.kit.db.engine import Database
from tests import caller
from tests.conftest import Statements
from tests.users.helpers import (
    ADA,
    BOB,
    KEYS,
    LOGOUT,
    ME,
    OTHER_WORDS,
    REFRESH,
    SESSIONS,
    TOKEN,
    USERS,
    WORDS,
    Headers,
    add_key,
    add_user,
    body,
    login,
    refresh,
    stored_keys,
)


@pytest.fixture
async def root(db: Database) -> Headers:
    """Return the headers of a superuser with a password, and with keys."""
    user = await add_user(db, ADA, is_superuser=True)
    await add_user(db, "other@example.com", is_superuser=True)
    for _ in range(3):
        await add_key(db, user, "read")
        await add_user(db, f"{_}@example.com")
    return caller.headers(user)


@pytest.mark.parametrize(
    ("method", "url", "sent", "expected"),
    [
        ("GET", ME, None, 1),
        ("PATCH", ME, {}, 1),
        ("PATCH", ME, {"name": "x"}, 1),
        ("PATCH", ME, {"email": BOB, "current_password": WORDS}, 9),
        ("PATCH", ME, {"password": OTHER_WORDS, "current_password": WORDS}, 8),
        ("DELETE", ME, None, 3),
        ("POST", KEYS, {"name": "x"}, 3),
        ("GET", KEYS, None, 1),
        ("GET", f"{KEYS}?limit=1", None, 1),
        ("DELETE", f"{KEYS}/{{key}}", None, 1),
        ("GET", USERS, None, 1),
        ("GET", f"{USERS}?limit=1", None, 1),
        ("PATCH", f"{USERS}/{{user}}", {"name": "x"}, 1),
        ("PATCH", f"{USERS}/{{user}}", {"is_active": False}, 5),
        ("PATCH", f"{USERS}/{{user}}", {"is_superuser": False}, 6),
        ("PATCH", f"{USERS}/{{user}}", {"is_superuser": True}, 2),
        ("GET", SESSIONS, None, 1),
        ("DELETE", SESSIONS, None, 1),
        ("DELETE", f"{SESSIONS}/{{user}}", None, 1),
        ("GET", f"{USERS}/{{user}}/sessions", None, 2),
        ("DELETE", f"{USERS}/{{user}}/sessions", None, 2),
        ("DELETE", f"{USERS}/{{user}}/sessions/{{user}}", None, 1),
    ],
)
async def test_statements(
    anonymous: AsyncClient,
    db: Database,
    root: Headers,
    statements: Statements,
    *,
    method: str,
    url: str,
    sent: Any,
    expected: int,
) -> None:
    (key, *_) = await stored_keys(db)
    statements.clear()
    path = url.format(key=key.id, user=key.user_id)
    response = await anonymous.request(method, path, json=sent, headers=root)
    assert response.is_success, response.text
    assert len(statements) == expected + caller.STATEMENTS, statements.sent


async def test_statements_of_registration(anonymous: AsyncClient, statements: Statements) -> None:
    # Three for throttling: read, count, delete expired ones.
    assert (await anonymous.post(USERS, json=body())).status_code == 201
    assert len(statements) == 3 + 1, statements.sent
    statements.clear()
    response = await anonymous.post(USERS, json=body(BOB), params={"with_api_key": "true"})
    assert response.status_code == 201
    assert len(statements) == 3 + 2, statements.sent


async def test_statements_of_a_session(
    anonymous: AsyncClient, db: Database, statements: Statements
) -> None:
    await add_user(db, ADA)
    statements.clear()
    tokens = await login(anonymous)
    # throttling, user, deletion of expired rows, session, token, reset of the counts
    assert len(statements) == 4 + 4, statements.sent
    statements.clear()
    fresh = await refresh(anonymous, tokens)
    assert len(statements) == 4, statements.sent  # session, mark used, expired, new token
    for path, expected in ((LOGOUT, 1), (LOGOUT, 1), (REFRESH, 1)):
        statements.clear()
        await anonymous.post(path, json={"refresh_token": fresh["refresh_token"]})
        assert len(statements) == expected, statements.sent


async def test_statements_of_a_login_with_an_old_hash(
    anonymous: AsyncClient, db: Database, statements: Statements
) -> None:
    old = PasswordHasher(time_cost=2, memory_cost=8, parallelism=1).hash(WORDS)
    await add_user(db, ADA, password_hash=old)
    statements.clear()
    await login(anonymous)
    assert len(statements) == 4 + 5, statements.sent


async def test_statements_of_a_refused_login(
    anonymous: AsyncClient, db: Database, statements: Statements
) -> None:
    await add_user(db, ADA)
    statements.clear()
    for email in (ADA, BOB):
        await anonymous.post(TOKEN, data={"username": email, "password": OTHER_WORDS})
        assert len(statements) == 3 + 1, statements.sent
        statements.clear()


async def test_statements_of_an_api_key(
    anonymous: AsyncClient, db: Database, statements: Statements
) -> None:
    headers = await add_key(db, await add_user(db, ADA), "read")
    statements.clear()
    for expected in (3, 2, 2):  # the first use is stored
        assert (await anonymous.get(ME, headers=headers)).status_code == 200
        assert len(statements) == expected, statements.sent
        statements.clear()
