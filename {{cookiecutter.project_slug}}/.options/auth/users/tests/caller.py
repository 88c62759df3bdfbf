"""The caller in the tests: a user with an access token."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI, Request
from httpx2 import AsyncClient

from app.kit.db.engine import Database
from app.kit.db.models import now
from app.users import security
from app.users.caller import SessionClaims, UserCaller, authorize
from app.users.models import User, UserSession
from app.users.owner import OwnerMixin
from app.users.permissions import permissions_of_user
from app.users.repository import UserRepository
from app.users.security import access_token, read_access_token
from app.users.settings import UserSettings
from tests.kit.openapi import Example, Examples

STATEMENTS = 1
"""The number of statements for authentication."""

SETTINGS = {"environment": "local"}
"""The settings that the service needs."""

COMMENT: dict[str, str] = {}
"""The fields of a comment that name its author: the author is the caller."""

AUTHOR = "Caller"
"""The author of comments."""

CALLERS_CREATED: list[UUID] = []
"""The users that were created here, in this order."""

SUPERUSERS: set[UUID] = set()
"""The superusers that were created here."""


async def credentials(database: Database, *, is_superuser: bool = False) -> dict[str, str]:
    """Create a user; return the headers that sign them in."""
    async with database.transaction() as session:
        user = await UserRepository(session).create(
            {
                "email": f"caller-{uuid4()}@example.com",
                "name": "Caller",
                "password_hash": "none",  # no password has this hash
                "is_superuser": is_superuser,
            }
        )
        session.add_all([session_of(user), session_of(user, uuid4())])
    CALLERS_CREATED.append(user.id)
    if is_superuser:
        SUPERUSERS.add(user.id)
    return headers(user)


async def superuser(database: Database) -> dict[str, str]:
    """Create a superuser; return the headers that sign them in."""
    return await credentials(database, is_superuser=True)


CALLERS = (credentials, superuser)
"""The callers of the generic tests: if one gets 403, the next one is used."""


def session_of(user: User, session_id: UUID | None = None) -> UserSession:
    """Return a session; its id is that of the user by default, so that tests know it."""
    ends_at = now() + timedelta(days=1)
    return UserSession(
        id=session_id or user.id,
        user_id=user.id,
        token_version=user.token_version,
        user_agent="tests",
        address="192.0.2.1",
        created_at=now(),
        last_used_at=now(),
        expires_at=ends_at,
        ends_at=ends_at,
    )


def headers(user: User) -> dict[str, str]:
    """Return the headers of a user who was created with ``session_of``."""
    settings = UserSettings(environment="local")
    return {"Authorization": f"Bearer {access_token(session_of(user), settings)}"}


async def _own_session(client: AsyncClient) -> Example:
    """Return the path of another session of the caller."""
    user = (await client.get("/v1/users/me")).json()
    sessions = (await client.get("/v1/auth/sessions")).json()["items"]
    other = next(each["id"] for each in sessions if not each["is_current"])
    return Example(path={"user_id": user["id"], "session_id": other})


EXAMPLES: Examples = {
    "DELETE /v1/auth/sessions/{session_id}": _own_session,
    "GET /v1/users/{user_id}/sessions": _own_session,
    "DELETE /v1/users/{user_id}/sessions/{session_id}": _own_session,
}
"""Requests that the generic tests can't generate, because only a login creates a session."""

RULES = frozenset({"body.password", "body.expires_at"})
"""Fields with a rule that the OpenAPI document can't express."""


def own(*rows: OwnerMixin) -> None:
    """Let rows belong to the latest caller."""
    for row in rows:
        row.owner_id = CALLERS_CREATED[-1]


def admit_anybody(app: FastAPI) -> None:
    """Authenticate access tokens without a statement."""

    async def trust(request: Request) -> None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        claims = read_access_token(token, UserSettings(environment="local"))
        if claims is not None:
            is_superuser = claims.user_id in SUPERUSERS
            request.state.caller = UserCaller(
                claims.user_id,
                "Caller",
                is_superuser,
                permissions_of_user(is_superuser=is_superuser),
                SessionClaims(claims.session_id, claims.token_version, now()),
            )

    app.dependency_overrides[authorize] = trust


def hash_cheaply(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash passwords quickly, for tests that are about something else."""
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(security, "hasher", cheap)
