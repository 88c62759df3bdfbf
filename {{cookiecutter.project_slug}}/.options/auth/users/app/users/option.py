"""The routes, dependencies and settings of the question `auth`."""

from typing import Final

from app.kit.routing import Guard, Mount
from app.users.caller import SCHEMES, authorize
from app.users.router import admin, auth, keys, me, registration, sessions
from app.users.settings import UserSettings

__all__ = ["CLOSED", "GUARD", "PUBLIC", "UserSettings"]

CLOSED: Final[tuple[Mount, ...]] = (
    ("/v1", me),
    ("/v1", keys),
    ("/v1", sessions),
    ("/v1", admin),
)
PUBLIC: Final[tuple[Mount, ...]] = (("/v1", auth), ("/v1", registration))
GUARD: Final = Guard(authorize, SCHEMES)
"""What closed routes require."""
