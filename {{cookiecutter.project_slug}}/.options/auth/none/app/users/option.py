"""The routes and settings of the question `auth`: none."""

from typing import Final

from pydantic_settings import BaseSettings

from app.kit.routing import Mount

CLOSED: Final[tuple[Mount, ...]] = ()
PUBLIC: Final[tuple[Mount, ...]] = ()
GUARD: Final = None
"""The dependency of closed routes."""


class UserSettings(BaseSettings):
    """The settings of users."""
