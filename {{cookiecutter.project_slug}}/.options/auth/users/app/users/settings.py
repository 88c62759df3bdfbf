"""The settings of users and their tokens."""

from typing import Final, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings

LOCAL_SECRET_KEY: Final = SecretStr("local-only-" * 4)
MIN_SECRET_KEY: Final = 32
PLACEHOLDERS: Final = ("local-only", "change", "secret", "example", "placeholder", "password")


class UserSettings(BaseSettings):
    """Settings of registration, tokens and throttling."""

    environment: Literal["local", "staging", "production"] = "production"
    """Where the service runs. ``SECRET_KEY`` is optional in ``local`` only."""
    secret_key: SecretStr = Field(default=SecretStr(""), validate_default=True)
    """Signs access tokens: at least 32 random characters. Required unless local."""
    registration_open: bool = True
    """Whether anyone may register."""
    access_token_lifetime: int = Field(default=15 * 60, ge=1)
    """Seconds until an access token expires."""
    refresh_token_lifetime: int = Field(default=30 * 24 * 3600, ge=1)
    """Seconds until a refresh token expires."""
    password_hash_threads: int = Field(default=2, ge=1, le=64)
    """Passwords that a worker hashes at once; each takes 64 MiB."""
    password_hash_queue: int = Field(default=32, ge=0)
    """Passwords that wait for that in a worker; 503 beyond."""
    throttle_window: int = Field(default=300, ge=1)
    """Seconds over which logins and registrations are counted."""
    throttle_per_address: int = Field(default=100, ge=1)
    """Logins and registrations allowed for a client address in that time."""
    throttle_per_email_and_address: int = Field(default=10, ge=1)
    """Those allowed for an e-mail address from one client address, and guesses of the current
    password by a user who is signed in."""
    throttle_per_email: int = Field(default=100, ge=1)
    """Those allowed for an e-mail address from all client addresses together."""

    @field_validator("secret_key")
    @classmethod
    def _refuse_weak_keys(cls, key: SecretStr, info: ValidationInfo) -> SecretStr:
        value = key.get_secret_value()
        if not value and info.data.get("environment") == "local":
            return LOCAL_SECRET_KEY
        if not value:
            raise ValueError("Required unless ENVIRONMENT=local: try `openssl rand -base64 32`")
        if len(value) < MIN_SECRET_KEY or len(set(value)) < MIN_SECRET_KEY // 4:
            raise ValueError(f"Too weak: take {MIN_SECRET_KEY} random characters at least")
        if any(word in value.lower() for word in PLACEHOLDERS):
            raise ValueError("This is a placeholder: take random characters")
        return key
