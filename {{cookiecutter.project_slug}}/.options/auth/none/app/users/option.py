"""What the question `auth` adds to the service: nothing."""

from typing import Final

from pydantic_settings import BaseSettings

from app.kit.routing import Mount

CLOSED: Final[tuple[Mount, ...]] = ()
PUBLIC: Final[tuple[Mount, ...]] = ()
GUARD: Final = None
"""The dependency of closed routes."""


class UserSettings(BaseSettings):
    """The settings of users."""
