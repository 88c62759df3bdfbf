"""How the environment is read, and the settings that every service has."""

from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

SettingsT = TypeVar("SettingsT", bound=BaseSettings)

CONFIG = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True)


class ServerSettings(BaseSettings):
    """The settings of the server."""

    host: str = "127.0.0.1"
    """Address to listen on; ``0.0.0.0`` in a container."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    workers: int = Field(default=1, ge=1, le=1024)
    """Server processes. Each has connection pools of its own."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What the server and ``app`` loggers let through."""
    max_body_size: int = Field(default=2**20, ge=1)
    """Bytes that the body of a request may have; 413 beyond."""
    shutdown_timeout: int = Field(default=20, ge=5, le=3600)
    """Seconds within which the server ends when it is told to; requests still running get 503."""
    shutdown_delay: int = Field(default=0, ge=0, le=3600)
    """Seconds for which the server still serves when it is told to end, but is not ready: for a
    balancer to find out. ``SHUTDOWN_TIMEOUT`` begins after that."""
    idempotency_lifetime: int = Field(default=24 * 3600, ge=1)
    """Seconds for which the answer to an ``Idempotency-Key`` is kept."""


def read(settings: type[SettingsT], **given: Any) -> SettingsT:
    """Read settings from the environment and ``.env``, but for those that are given.

    Raises:
        SystemExit: a variable is missing or unreadable; the message has one line for each and
            never shows a value, for it may hold a password.
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
