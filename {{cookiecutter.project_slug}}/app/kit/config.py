"""The settings that every service has, and how they are read from the environment."""

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.kit.db.driver import DriverSettings

SettingsT = TypeVar("SettingsT", bound=BaseSettings)

CONFIG = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True)


def split_words(value: object) -> object:
    """Return the words of a variable, which are separated by commas or spaces."""
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _check_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    for host in hosts:
        if not re.fullmatch(r"(\*\.)?[\w.-]+|\[[0-9a-fA-F:.]+\]", host):
            raise ValueError("Give names such as api.example.com or *.example.com, without a port")
    return tuple(host.lower() for host in hosts)


def _check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        if not re.fullmatch(r"https?://[\w.-]+(:\d+)?", origin):
            raise ValueError("Give origins such as https://example.com, without a path")
    return origins


# NoDecode: pydantic-settings would read a tuple as JSON.
_Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_words)]
Hosts = Annotated[_Words, AfterValidator(_check_hosts)]
Origins = Annotated[_Words, AfterValidator(_check_origins)]


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
    docs: bool = False
    """Whether ``/docs`` and ``/openapi.json`` are served; ``just dev`` turns them on."""
    allowed_hosts: Hosts = ()
    """Host names of the service, such as ``api.example.com`` or ``*.example.com``; any if empty."""
    cors_origins: Origins = ()
    """Origins of the web pages that may call the service, such as ``https://example.com``."""
    hsts_max_age: int = Field(default=365 * 24 * 3600, ge=0)
    """Seconds for which browsers use TLS only, told in responses over TLS; 0 tells nothing."""
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
