"""Who calls in the tests: a user with an access token."""

from uuid import uuid4

import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI

from app.db.engine import Database
from app.users import security
from app.users.caller import authorise
from app.users.models import User
from app.users.repository import UserRepository
from app.users.security import access_token
from app.users.settings import UserSettings

STATEMENTS = 1
"""How many statements it takes to know who is calling."""

SETTINGS = {"environment": "local"}
"""What the service has to be told."""


async def credentials(database: Database, *, is_superuser: bool = False) -> dict[str, str]:
    """Create a user; return the headers that sign them in."""
    async with database.transaction() as session:
        user = await UserRepository(session).create(
            email=f"caller-{uuid4()}@example.com",
            name="Caller",
            password_hash="none",  # noqa: S106 - no password has this hash
            is_superuser=is_superuser,
        )
    return headers(user)


async def superuser(database: Database) -> dict[str, str]:
    """Create a superuser; return the headers that sign them in."""
    return await credentials(database, is_superuser=True)


CALLERS = (credentials, superuser)
"""Who calls in the generic tests: the next one, where the one before gets 403."""


def headers(user: User) -> dict[str, str]:
    """Give the headers of a user who has signed in."""
    settings = UserSettings(environment="local")
    return {"Authorization": f"Bearer {access_token(user, settings)}"}


def admit_anybody(app: FastAPI) -> None:
    """Let requests of this app pass without asking who is calling."""
    app.dependency_overrides[authorise] = lambda: None


def hash_cheaply(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash passwords quickly, for tests that are about something else."""
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(security, "hasher", cheap)
