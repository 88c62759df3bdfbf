"""Helpers for the tests of users."""

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from argon2 import Parameters, PasswordHasher, extract_parameters
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient, Response
from sqlalchemy import func, select

from app.kit.db.engine import Database
from app.kit.db.models import Base, now
from app.users import security
from app.users.models import APIKey, User
from app.users.repository import UserRepository
from tests.caller import session_of
from tests.conftest import problem

Json = dict[str, Any]
Headers = dict[str, str]

USERS = "/v1/users"
ME = f"{USERS}/me"
KEYS = "/v1/api-keys"
TOKEN = "/v1/auth/token"  # noqa: S105 - a path
REFRESH = "/v1/auth/refresh"
LOGOUT = "/v1/auth/logout"
SESSIONS = "/v1/auth/sessions"
NOBODY = f"{USERS}/{UUID(int=0)}"
"""The path of a user who does not exist."""

JSON = {"Content-Type": "application/json"}

ADA = "ada@example.com"
BOB = "bob@example.com"
WORDS = "correct horse battery"
OTHER_WORDS = "staple of another kind"

ROOMY = {
    "throttle_per_email_and_address": 1000,
    "throttle_per_email": 1000,
    "throttle_per_address": 1000,
    "throttle_at_once": 1000,
}
"""The settings of an app without throttling."""

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
"""Argon2id with cheap parameters."""


def blamed(response: Response, status: int = 422) -> list[str]:
    """Return the fields that an error names."""
    return [error["field"] for error in problem(response, status)["errors"]]


def body(email: str = ADA, password: str = WORDS, **more: Any) -> Json:
    """Return the body of a registration."""
    return {"email": email, "password": password, "name": "Ada", **more}


async def register(client: AsyncClient, email: str = ADA, password: str = WORDS) -> Json:
    response = await client.post(USERS, json=body(email, password))
    assert response.status_code == 201, response.text
    user: Json = response.json()
    return user


async def try_login(client: AsyncClient, email: str = ADA, password: str = WORDS) -> Response:
    return await client.post(TOKEN, data={"username": email, "password": password})


async def login(client: AsyncClient, email: str = ADA, password: str = WORDS) -> Json:
    response = await try_login(client, email, password)
    assert response.status_code == 200, response.text
    tokens: Json = response.json()
    return tokens


async def try_refresh(client: AsyncClient, tokens: Json) -> Response:
    return await client.post(REFRESH, json={"refresh_token": tokens["refresh_token"]})


async def refresh(client: AsyncClient, tokens: Json) -> Json:
    response = await try_refresh(client, tokens)
    assert response.status_code == 200, response.text
    fresh: Json = response.json()
    return fresh


def bearer(tokens: Json) -> Headers:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


def with_key(key: Json) -> Headers:
    return {"X-API-Key": key["key"]}


async def create_key(client: AsyncClient, headers: Headers, *scopes: str, **more: Any) -> Json:
    sent = {"name": "key", "scopes": scopes, **more}
    response = await client.post(KEYS, json=sent, headers=headers)
    assert response.status_code == 201, response.text
    key: Json = response.json()
    return key


async def add_user(db: Database, email: str, **values: Any) -> User:
    """Store a user with values that registration does not allow, such as flags."""
    values = {"name": "Somebody", "password_hash": CHEAP.hash(WORDS)} | values
    async with db.transaction() as session:
        user = await UserRepository(session).create({"email": email} | values)
        session.add(session_of(user))
    return user


async def add_key(
    db: Database, user: User, *scopes: str, expires_at: datetime | None = None
) -> Headers:
    """Store an API key; return the headers that contain it."""
    raw = security.opaque_token("key")
    async with db.transaction() as session:
        await UserRepository(session).create_key(
            user.id,
            token_version=user.token_version,
            name="key",
            prefix=raw[:12],
            key_hash=security.hash_token(raw),
            scopes=list(scopes),
            expires_at=expires_at or now() + timedelta(days=1),
        )
    return {"X-API-Key": raw}


async def change_user(db: Database, user: User, **changes: Any) -> None:
    async with db.transaction() as session:
        await UserRepository(session).update(user.id, changes)


async def count(db: Database, model: type[Base]) -> int:
    async with db.reading() as session:
        return (await session.scalars(select(func.count()).select_from(model))).one()


async def stored_user(db: Database, email: str = ADA) -> User:
    async with db.reading() as session:
        return (await session.scalars(select(User).where(User.email == email))).one()


async def stored_keys(db: Database) -> list[APIKey]:
    async with db.reading() as session:
        return list(await session.scalars(select(APIKey).order_by(APIKey.id)))


def past(seconds: float) -> datetime:
    return now() - timedelta(seconds=seconds)


@asynccontextmanager
async def calling_from(app: FastAPI, address: str) -> AsyncIterator[AsyncClient]:
    """Return a client that calls from this address."""
    transport = ASGITransport(app, client=(address, 1))
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@dataclass(frozen=True)
class Work:
    """A call of a hasher."""

    verb: str
    parameters: Parameters | None
    thread: str
    held: int
    """The number of open connections during the call."""


@dataclass
class RecordingHasher:
    """A hasher that records its calls."""

    hasher: PasswordHasher = CHEAP
    held: Callable[[], int] = int
    done: list[Work] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.hasher, name)

    def hash(self, password: str) -> str:
        self._note("hash", None)
        return self.hasher.hash(password)

    def verify(self, stored: str, password: str) -> bool:
        self._note("verify", extract_parameters(stored))
        return self.hasher.verify(stored, password)

    def _note(self, verb: str, parameters: Parameters | None) -> None:
        self.done.append(Work(verb, parameters, threading.current_thread().name, self.held()))
