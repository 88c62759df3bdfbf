"""Registration: valid and invalid requests."""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient

from app.kit.db.engine import Database
from app.main import create_app
from app.users import security
from app.users.models import APIKey, User
from tests.conftest import problem, running, settings_for
from tests.users.helpers import (
    ADA,
    BOB,
    JSON,
    ME,
    ROOMY,
    TOKEN,
    USERS,
    WORDS,
    RecordingHasher,
    add_user,
    bearer,
    blamed,
    body,
    count,
    login,
    register,
    stored_keys,
    stored_user,
    try_login,
    with_key,
)


async def test_a_user_registers(anonymous: AsyncClient, db: Database) -> None:
    user = await register(anonymous)
    stored = await stored_user(db)
    assert user == {
        "id": str(stored.id),
        "email": ADA,
        "name": "Ada",
        "created_at": stored.created_at.isoformat().replace("+00:00", "Z"),
        "api_key": None,
    }
    assert (stored.is_active, stored.is_superuser, stored.token_version) == (True, False, 1)
    assert await count(db, APIKey) == 0
    await login(anonymous)


@pytest.mark.parametrize(
    "more",
    [
        {"is_superuser": True},
        {"is_active": False},
        {"role": "admin"},
        {"scopes": ["write"]},
        {"token_version": 0},
        {"password_hash": "x"},
        {"id": "00000000-0000-0000-0000-000000000000"},
    ],
    ids=lambda more: next(iter(more)),
)
async def test_users_can_not_set_their_own_role(
    anonymous: AsyncClient, db: Database, more: dict[str, Any]
) -> None:
    response = await anonymous.post(USERS, json=body(**more))
    assert blamed(response) == [f"body.{next(iter(more))}"]
    assert await count(db, User) == 0


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"email": "ada"}, "email"),
        ({"email": "ada@"}, "email"),
        ({"email": ""}, "email"),
        ({"email": "ada@example.com\x00"}, "email"),
        ({"email": f"{'a' * 243}@example.com"}, "email"),
        ({"email": f"ada@{'x.' * 150}com"}, "email"),
        ({"email": "\\ud800@example.com"}, "email"),
        ({"email": None}, "email"),
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": "\\ud800"}, "name"),
        ({"password": "\\ud800" * 8}, "password"),
        ({"password": None}, "password"),
        ({"password": 12345678}, "password"),
        ({"password": ["12345678"]}, "password"),
    ],
)
async def test_bad_input_names_the_field(
    anonymous: AsyncClient, more: dict[str, Any], field: str
) -> None:
    # JSON can contain escaped lone surrogates.
    sent = json.dumps(body() | more).replace(r"\\ud800", r"\ud800")
    response = await anonymous.post(USERS, content=sent, headers=JSON)
    assert blamed(response) == [f"body.{field}"]


async def test_registration_can_be_closed(live_url: str, recorded: RecordingHasher) -> None:
    app = create_app(settings_for(live_url, registration_open=False))
    async with running(app) as client:
        for query in ({}, {"with_api_key": "true"}):
            problem(await client.post(USERS, json=body(), params=query), 403)
        assert await count(app.state.database, User) == 0
        assert recorded.done == []
        # Registered users can still sign in.
        await add_user(app.state.database, ADA)
        await login(client)


@pytest.mark.parametrize("again", [ADA, ADA.upper(), "Ada@Example.COM", f" {ADA} "])
async def test_an_address_can_be_registered_once(
    anonymous: AsyncClient, db: Database, again: str
) -> None:
    await register(anonymous)
    response = await anonymous.post(USERS, json=body(again))
    assert blamed(response, 409) == ["body.email"]
    assert ADA not in response.text
    assert await count(db, User) == 1


async def test_an_address_is_stored_in_lower_case(anonymous: AsyncClient, db: Database) -> None:
    assert (await register(anonymous, "ADA@Example.COM"))["email"] == ADA
    assert (await stored_user(db)).email == ADA


@pytest.mark.parametrize(
    "address",
    ["ÄDA@example.com", "A\u0308da@example.com", "ada@xn--bcher-kva.example.com", "K@example.com"],
)
async def test_a_registered_user_can_sign_in_with_the_same_input(
    anonymous: AsyncClient, address: str
) -> None:
    user = await register(anonymous, address)
    for spelling in (address, address.upper(), address.lower(), user["email"]):
        await login(anonymous, spelling)


async def test_one_of_fifty_concurrent_registrations_succeeds(live_url: str) -> None:
    app = create_app(settings_for(live_url, **ROOMY))
    async with running(app) as client:
        responses = await asyncio.gather(
            *(
                client.post(USERS, json=body(ADA.upper() if number % 2 else ADA))
                for number in range(50)
            )
        )
        assert Counter(response.status_code for response in responses) == {201: 1, 409: 49}
        for response in responses:
            if response.status_code == 409:
                assert blamed(response, 409) == ["body.email"]
        assert await count(app.state.database, User) == 1
        await login(client)


async def test_registration_can_create_an_api_key(anonymous: AsyncClient, db: Database) -> None:
    response = await anonymous.post(USERS, json=body(), params={"with_api_key": "true"})
    assert response.status_code == 201
    key = response.json()["api_key"]
    assert key["scopes"] == ["read", "write"]
    assert (await anonymous.get(ME, headers=with_key(key))).json()["email"] == ADA
    (stored,) = await stored_keys(db)
    assert str(stored.id) == key["id"]


@pytest.fixture
def same_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Always generate the same key, so that the second insert violates its unique hash."""
    monkeypatch.setattr(security, "opaque_token", lambda prefix: f"{prefix}_the_same_for_all")


@pytest.mark.usefixtures("same_key")
async def test_user_and_key_are_created_in_one_transaction(
    live_app: FastAPI, live: AsyncClient
) -> None:
    db: Database = live_app.state.database
    users = await count(db, User)
    with_a_key = {"with_api_key": "true"}
    first = await live.post(USERS, json=body(BOB), params=with_a_key)
    assert first.status_code == 201
    response = await live.post(USERS, json=body(ADA), params=with_a_key)
    assert blamed(response, 409) == ["key_hash"]
    assert (await count(db, User), await count(db, APIKey)) == (users + 1, 1)
    problem(await try_login(live), 401)
    # The address can still be registered.
    await register(live)


async def test_a_duplicate_address_creates_no_key(anonymous: AsyncClient, db: Database) -> None:
    await register(anonymous)
    response = await anonymous.post(USERS, json=body(), params={"with_api_key": "true"})
    problem(response, 409)
    assert await count(db, APIKey) == 0


async def test_a_signed_in_user_may_register_another(client: AsyncClient, db: Database) -> None:
    await register(client)
    headers = bearer(await login(client))
    assert (await client.get(ME, headers=headers)).json()["email"] == ADA


async def test_the_address_is_the_username(anonymous: AsyncClient) -> None:
    user = await register(anonymous)
    form = {"grant_type": "password", "username": ADA, "password": WORDS, "scope": "", "x": "y"}
    response = await anonymous.post(TOKEN, data=form)
    headers = {"Authorization": f"Bearer {response.json()['access_token']}"}
    assert (await anonymous.get(ME, headers=headers)).json()["id"] == user["id"]
