"""Who calls in the tests: a user with an access token."""

from fastapi import FastAPI

from app.db.engine import Database
from app.users.caller import authorise
from app.users.models import User
from app.users.repository import UserRepository
from app.users.security import access_token
from app.users.settings import UserSettings

STATEMENTS = 1
"""How many statements it takes to know who is calling."""

SETTINGS = {"environment": "local"}
"""What the service has to be told."""


async def credentials(database: Database) -> dict[str, str]:
    """Give the headers of a caller who may do everything."""
    async with database.transaction() as session:
        user = await UserRepository(session).create(
            email="caller@example.com",
            name="Caller",
            password_hash="none",  # noqa: S106 - no password has this hash
        )
    return headers(user)


def headers(user: User) -> dict[str, str]:
    """Give the headers of a user who has signed in."""
    settings = UserSettings(environment="local")
    return {"Authorization": f"Bearer {access_token(user, settings)}"}


def admit_anybody(app: FastAPI) -> None:
    """Let requests of this app pass without asking who is calling."""
    app.dependency_overrides[authorise] = lambda: None
