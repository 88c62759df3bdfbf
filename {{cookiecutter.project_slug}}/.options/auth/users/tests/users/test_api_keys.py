"""API keys."""

import asyncio
import base64
import hashlib
from collections import Counter
from contextvars import Context
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient
from sqlalchemy import update

from app.kit.db.engine import Database
from app.kit.db.models import now
from app.users import service
from app.users.models import APIKey, UserSession
from app.users.repository import UserRepository
from tests.caller import headers as bearer_of
from tests.conftest import Statements, problem
from tests.users.helpers import (
    ADA,
    BOB,
    KEYS,
    ME,
    USERS,
    Headers,
    add_key,
    add_user,
    bearer,
    blamed,
    create_key,
    login,
    past,
    refresh,
    stored_keys,
    with_key,
)


@pytest.fixture
async def ada(db: Database) -> Headers:
    """Return the headers of a user who has signed in."""
    return bearer_of(await add_user(db, ADA))


async def move(db: Database, **values: Any) -> None:
    """Change the times of every key in the database."""
    async with db.transaction() as session:
        await session.execute(update(APIKey).values(**values))


async def test_a_key_is_shown_once(anonymous: AsyncClient, ada: Headers) -> None:
    key = await create_key(anonymous, ada, "write", "read")
    raw = key.pop("key")
    assert raw.startswith("key_")
    assert len(raw) == 47
    assert raw.startswith(key["prefix"])
    assert len(key["prefix"]) == 12
    assert key["scopes"] == ["read", "write"]
    listed = await anonymous.get(KEYS, headers=ada)
    assert listed.json() == {"items": [key], "next_cursor": None}


async def test_only_the_hash_of_a_key_is_stored(
    anonymous: AsyncClient, ada: Headers, db: Database
) -> None:
    raw = (await create_key(anonymous, ada, "read"))["key"]
    (stored,) = await stored_keys(db)
    assert stored.key_hash == hashlib.sha256(raw.encode()).hexdigest()
    assert raw not in str([getattr(stored, column.key) for column in APIKey.__table__.columns])


async def test_keys_are_unique(anonymous: AsyncClient, ada: Headers) -> None:
    keys = [await create_key(anonymous, ada, "read") for _ in range(5)]
    assert len({key["key"] for key in keys}) == len({key["prefix"] for key in keys}) == 5
    random = [base64.urlsafe_b64decode(f"{key['key'].removeprefix('key_')}=") for key in keys]
    assert {len(each) for each in random} == {32}


async def test_the_default_scope_of_a_key_is_read(anonymous: AsyncClient, ada: Headers) -> None:
    response = await anonymous.post(KEYS, json={"name": "key"}, headers=ada)
    assert response.json()["scopes"] == ["read"]


@pytest.mark.parametrize(
    ("sent", "fields"),
    [
        ({}, ["body.name"]),
        ({"name": ""}, ["body.name"]),
        ({"name": "x" * 101}, ["body.name"]),
        ({"name": "x", "scopes": []}, ["body.scopes"]),
        ({"name": "x", "scopes": None}, ["body.scopes"]),
        ({"name": "x", "scopes": "read"}, ["body.scopes"]),
        ({"name": "x", "expires_at": 1}, ["body.expires_at"]),
        ({"name": "x", "expires_at": "2030-01-01T00:00:00"}, ["body.expires_at"]),
        ({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}, ["body.expires_at"]),
        ({"name": "x", "user_id": str(UUID(int=0))}, ["body.user_id"]),
        ({"name": "x", "key_hash": "x"}, ["body.key_hash"]),
    ],
)
async def test_bad_input_names_the_field(
    anonymous: AsyncClient, ada: Headers, sent: Any, fields: list[str]
) -> None:
    assert blamed(await anonymous.post(KEYS, json=sent, headers=ada)) == fields


async def test_an_unknown_scope_is_refused(anonymous: AsyncClient, ada: Headers) -> None:
    sent = {"name": "x", "scopes": ["read", "all"]}
    response = await anonymous.post(KEYS, json=sent, headers=ada)
    (field,) = blamed(response)
    assert field.startswith("body.scopes")


async def test_a_revoked_key_is_refused(anonymous: AsyncClient, ada: Headers) -> None:
    key = await create_key(anonymous, ada, "read")
    other = await create_key(anonymous, ada, "read")
    path = f"{KEYS}/{key['id']}"
    assert (await anonymous.get(ME, headers=with_key(key))).status_code == 200
    assert (await anonymous.delete(path, headers=ada)).status_code == 204
    problem(await anonymous.get(ME, headers=with_key(key)), 401)
    problem(await anonymous.delete(path, headers=ada), 404)
    assert (await anonymous.get(ME, headers=with_key(other))).status_code == 200


async def test_a_user_can_not_revoke_the_key_of_another(
    anonymous: AsyncClient, ada: Headers, db: Database
) -> None:
    key = await create_key(anonymous, ada, "read")
    path = f"{KEYS}/{key['id']}"
    bob = await add_user(db, BOB, is_superuser=True)
    problem(await anonymous.delete(path, headers=bearer_of(bob)), 404)
    assert (await anonymous.get(ME, headers=with_key(key))).status_code == 200


async def test_an_expired_key_is_refused(
    anonymous: AsyncClient, ada: Headers, db: Database
) -> None:
    expires_at = (now() + timedelta(hours=1)).isoformat()
    key = await create_key(anonymous, ada, "read", expires_at=expires_at)
    assert (await anonymous.get(ME, headers=with_key(key))).status_code == 200
    await move(db, expires_at=past(1))
    problem(await anonymous.get(ME, headers=with_key(key)), 401)


async def test_a_key_can_not_create_or_delete_keys(anonymous: AsyncClient, db: Database) -> None:
    user = await add_user(db, ADA, is_superuser=True)
    headers = await add_key(db, user, "read", "write", "admin")
    (key,) = await stored_keys(db)
    for response in (
        await anonymous.post(KEYS, json={"name": "another"}, headers=headers),
        await anonymous.get(KEYS, headers=headers),
        await anonymous.delete(f"{KEYS}/{key.id}", headers=headers),
    ):
        document = problem(response, 403)
        assert document["detail"] == "An API key can't do this: sign in with a password."
    assert len(await stored_keys(db)) == 1


async def test_creating_a_key_requires_a_recent_login(
    anonymous: AsyncClient, ada: Headers, db: Database
) -> None:
    async with db.transaction() as session:
        await session.execute(update(UserSession).values(created_at=past(301)))
    response = await anonymous.post(KEYS, json={"name": "key"}, headers=ada)
    assert problem(response, 403)["detail"].startswith("Sign in again: ")
    assert await stored_keys(db) == []
    assert (await anonymous.get(KEYS, headers=ada)).status_code == 200


async def test_a_refresh_is_no_recent_login(anonymous: AsyncClient, db: Database) -> None:
    await add_user(db, ADA)
    tokens = await login(anonymous)
    async with db.transaction() as session:
        await session.execute(update(UserSession).values(created_at=past(301)))
    tokens = await refresh(anonymous, tokens)
    problem(await anonymous.post(KEYS, json={"name": "key"}, headers=bearer(tokens)), 403)


@pytest.mark.parametrize("asked", [None, timedelta(days=3650)])
async def test_the_lifetime_of_a_key_is_limited(
    anonymous: AsyncClient, ada: Headers, db: Database, asked: timedelta | None
) -> None:
    expires_at = None if asked is None else (now() + asked).isoformat()
    before = now()
    await create_key(anonymous, ada, "read", expires_at=expires_at)
    (key,) = await stored_keys(db)
    year = timedelta(days=365)
    assert before + year <= key.expires_at <= now() + year


async def test_only_superusers_create_keys_with_the_admin_scope(
    anonymous: AsyncClient, ada: Headers, db: Database
) -> None:
    sent = {"name": "key", "scopes": ["read", "admin"]}
    problem(await anonymous.post(KEYS, json=sent, headers=ada), 403)
    root = bearer_of(await add_user(db, BOB, is_superuser=True))
    key = await create_key(anonymous, root, "read", "admin")
    assert (await anonymous.get(USERS, headers=with_key(key))).status_code == 200
    assert len(await stored_keys(db)) == 1


async def test_the_number_of_keys_of_a_user_is_limited(
    anonymous: AsyncClient, ada: Headers, db: Database
) -> None:
    first, *_ = [await create_key(anonymous, ada, "read") for _ in range(service.MAX_KEYS)]
    refused = await anonymous.post(KEYS, json={"name": "one more"}, headers=ada)
    assert problem(refused, 409)["detail"] == "A user may have 20 API keys: delete one first."
    await add_key(db, await add_user(db, BOB), "read")
    await anonymous.delete(f"{KEYS}/{first['id']}", headers=ada)
    await create_key(anonymous, ada, "read")


async def test_concurrent_requests_can_not_exceed_the_number_of_keys(
    live: AsyncClient, live_app: FastAPI
) -> None:
    sent = [live.post(KEYS, json={"name": "key"}) for _ in range(service.MAX_KEYS + 5)]
    responses = await asyncio.gather(*sent)
    assert Counter(response.status_code for response in responses) == {
        201: service.MAX_KEYS,
        409: 5,
    }
    assert len(await stored_keys(live_app.state.database)) == service.MAX_KEYS


async def test_no_key_is_created_after_credentials_are_revoked(
    live: AsyncClient, live_app: FastAPI
) -> None:
    """A key that is created during a change of the password is invalid after it."""
    db: Database = live_app.state.database
    user = await add_user(db, ADA)
    headers = bearer_of(user)
    async with db.transaction() as session:
        await UserRepository(session).revoke_credentials(user.id)
        creating = asyncio.create_task(
            live.post(KEYS, json={"name": "key"}, headers=headers), context=Context()
        )
        for _ in range(20):  # give it time to reach the row that is locked here
            await live.get(ME)
    problem(await creating, 401)
    assert await stored_keys(db) == []


async def test_the_last_use_is_stored(anonymous: AsyncClient, ada: Headers, db: Database) -> None:
    key = await create_key(anonymous, ada, "read")
    assert key["last_used_at"] is None
    before = now()
    await anonymous.get(ME, headers=with_key(key))
    (stored,) = await stored_keys(db)
    assert stored.last_used_at is not None
    assert before <= stored.last_used_at <= now()
    (listed,) = (await anonymous.get(KEYS, headers=ada)).json()["items"]
    assert listed["last_used_at"] is not None


async def test_the_last_use_is_written_once_a_minute(
    anonymous: AsyncClient, ada: Headers, db: Database, statements: Statements
) -> None:
    key = with_key(await create_key(anonymous, ada, "read"))
    written = []
    for moved in (None, None, past(1), past(61), None):
        if moved is not None:
            await move(db, last_used_at=moved)
        statements.clear()
        assert (await anonymous.get(ME, headers=key)).status_code == 200
        written.append(sum(sent.startswith("UPDATE api_keys") for sent in statements.sent))
    assert written == [1, 0, 0, 1, 0]


async def test_a_refused_request_does_not_count_as_use(
    anonymous: AsyncClient, db: Database
) -> None:
    headers = await add_key(db, await add_user(db, ADA), "read", expires_at=past(1))
    await anonymous.get(ME, headers=headers)
    (stored,) = await stored_keys(db)
    assert stored.last_used_at is None


async def test_keys_are_listed_page_by_page(
    anonymous: AsyncClient, ada: Headers, db: Database
) -> None:
    await add_key(db, await add_user(db, BOB), "read")
    made = [(await create_key(anonymous, ada, "read"))["id"] for _ in range(5)]
    listed, query = [], {"limit": "2"}
    while True:
        page = (await anonymous.get(KEYS, params=query, headers=ada)).json()
        listed += [key["id"] for key in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert listed == made
    response = await anonymous.get(KEYS, params={"cursor": "x"}, headers=ada)
    assert blamed(response) == ["query.cursor"]


async def test_updating_the_last_use_of_a_deleted_key_does_nothing(db: Database) -> None:
    async with db.transaction() as session:
        await UserRepository(session).touch_key(UUID(int=0))
    assert await stored_keys(db) == []
