"""The settings that every service has, and how they are read from the environment."""

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.kit.db.driver import DriverSettings
from app.kit.logs import LogFormat

SettingsT = TypeVar("SettingsT", bound=BaseSettings)

CONFIG = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True)


def split_words(value: object) -> object:
    """Return the words of a variable, which are separated by commas or spaces."""
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _check_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    for host in hosts:
        if not re.fullmatch(r"(\*\.)?[\w.-]+|\[[0-9a-fA-F:.]+\]", host):
            raise ValueError("Use names such as api.example.com or *.example.com, without a port")
    return tuple(host.lower() for host in hosts)


def _check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        if not re.fullmatch(r"https?://[\w.-]+(:\d+)?", origin):
            raise ValueError("Use origins such as https://example.com, without a path")
    return origins


# NoDecode: pydantic-settings would read a tuple as JSON.
_Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_words)]
Hosts = Annotated[_Words, AfterValidator(_check_hosts)]
Origins = Annotated[_Words, AfterValidator(_check_origins)]


class LogSettings(BaseSettings):
    """The settings of the logs; ``docs/settings.md`` explains each."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: LogFormat = "auto"
    log_slow_statements: float = Field(default=0, ge=0, le=86_400, allow_inf_nan=False)


class ServerSettings(LogSettings):
    """The settings of the server; ``docs/settings.md`` explains each."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    workers: int = Field(default=1, ge=1, le=1024)
    docs: bool = False
    allowed_hosts: Hosts = ()
    cors_origins: Origins = ()
    hsts_max_age: int = Field(default=365 * 24 * 3600, ge=0)
    max_body_size: int = Field(default=2**20, ge=1)
    max_bodies_size: int = Field(default=64 * 2**20, ge=1)
    max_connections: int = Field(default=900, ge=1)
    request_head_timeout: float = Field(default=20, gt=0)
    request_body_timeout: float = Field(default=60, gt=0)
    keep_alive_timeout: int = Field(default=75, ge=0)
    shutdown_timeout: int = Field(default=20, ge=5, le=3600)
    shutdown_delay: int = Field(default=0, ge=0, le=3600)
    metrics_token: SecretStr | None = Field(default=None, min_length=16)
    idempotency_lifetime: int = Field(default=24 * 3600, ge=1)

    @field_validator("metrics_token")
    @classmethod
    def _one_worker(cls, token: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if token is not None and info.data.get("workers", 1) > 1:
            raise ValueError("Metrics are those of one process: use WORKERS=1 and more instances")
        return token


class KitSettings(ServerSettings, DriverSettings):
    """The settings of the server and of the database."""

    model_config = CONFIG


def read(settings: type[SettingsT], **given: Any) -> SettingsT:
    """Read settings from the environment and ``.env``; arguments take precedence.

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
