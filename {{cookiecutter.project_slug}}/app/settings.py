"""Every environment variable of the service, read once when the process starts."""

from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import SettingsConfigDict

from app.db.driver import DriverSettings


class Settings(DriverSettings):
    """The whole configuration. The database's own part lies in ``app.db.driver``."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    host: str = "127.0.0.1"
    """Address to listen on; ``0.0.0.0`` in a container."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    workers: int = Field(default=1, ge=1, le=1024)
    """Server processes. Each has connection pools of its own."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What the server and ``app`` loggers let through."""


def load_settings() -> Settings:
    """Read the environment and ``.env``.

    Raises:
        SystemExit: a variable is missing or unreadable; the message has one line for each and
            never shows a value, for it may hold a password.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise SystemExit(
            "\n".join(
                f"{str(item['loc'][0]).upper()}: {item['msg'].removeprefix('Value error, ')}"
                for item in error.errors(include_url=False, include_input=False)
            )
        ) from None
