"""The settings that every service has, and how they are read from the environment."""

from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.kit.db.driver import DriverSettings

SettingsT = TypeVar("SettingsT", bound=BaseSettings)

CONFIG = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True)


class ServerSettings(BaseSettings):
    """The settings of the server; ``docs/settings.md`` explains each."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    workers: int = Field(default=1, ge=1, le=1024)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    max_body_size: int = Field(default=2**20, ge=1)
    shutdown_timeout: int = Field(default=20, ge=5, le=3600)
    shutdown_delay: int = Field(default=0, ge=0, le=3600)
    idempotency_lifetime: int = Field(default=24 * 3600, ge=1)


class KitSettings(ServerSettings, DriverSettings):
    """The settings of the server and of the database."""

    model_config = CONFIG


def read(settings: type[SettingsT], **given: Any) -> SettingsT:
    """Read settings from the environment and ``.env``, except for those that are given.

    Raises:
        SystemExit: a variable is missing or invalid. Values, which may be secret, are not shown.
    """
    try:
        return settings(**given)
    except ValidationError as error:
        raise SystemExit(
            "\n".join(
                f"{str(item['loc'][0]).upper()}: {item['msg'].removeprefix('Value error, ')}"
                for item in error.errors(include_url=False, include_input=False)
            )
        ) from None
