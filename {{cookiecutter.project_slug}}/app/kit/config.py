"""The settings that every service has, and how they are read from the environment."""

from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.kit.db.driver import DriverSettings

SettingsT = TypeVar("SettingsT", bound=BaseSettings)

CONFIG = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True)


class ServerSettings(BaseSettings):
    """The settings of the server."""

    host: str = "127.0.0.1"
    """Address to listen on; ``0.0.0.0`` in a container."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    workers: int = Field(default=1, ge=1, le=1024)
    """Server processes, each with connection pools of its own."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that the server and the ``app`` loggers write."""
    max_body_size: int = Field(default=2**20, ge=1)
    """Largest request body in bytes; 413 beyond."""
    max_bodies_size: int = Field(default=64 * 2**20, ge=1)
    """Bytes of all bodies that a worker is receiving; beyond, the slowest client's connection is
    closed."""
    max_connections: int = Field(default=900, ge=1)
    """Open connections of a worker; a new one takes the place of the one that is idle longest."""
    request_head_timeout: float = Field(default=20, gt=0)
    """Seconds in which the URL and the headers of a request have to arrive; 408 beyond."""
    request_body_timeout: float = Field(default=60, gt=0)
    """Seconds in which the body of a request has to arrive; 408 beyond."""
    keep_alive_timeout: int = Field(default=75, ge=0)
    """Seconds that an idle connection stays open: longer than the load balancer keeps it."""
    shutdown_timeout: int = Field(default=20, ge=5, le=3600)
    """Seconds that a shutdown may take; requests that are still running then get 503."""
    shutdown_delay: int = Field(default=0, ge=0, le=3600)
    """Seconds to keep serving after a stop signal, reported as not ready, so that a load balancer
    notices. ``SHUTDOWN_TIMEOUT`` starts after that."""
    idempotency_lifetime: int = Field(default=24 * 3600, ge=1)
    """Seconds for which the response to an ``Idempotency-Key`` is stored."""


class KitSettings(ServerSettings, DriverSettings):
    """The settings of the server and of the database."""

    model_config = CONFIG


def read(settings: type[SettingsT], **given: Any) -> SettingsT:
    """Read settings from the environment and ``.env``, except for those that are given.

    Raises:
        SystemExit: a variable is missing or invalid. The message has a line for each and never
            shows a value, which may be a password.
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
