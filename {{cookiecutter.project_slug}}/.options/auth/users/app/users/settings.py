"""The settings of users and their tokens."""

from typing import Final, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings

LOCAL_SECRET_KEY: Final = SecretStr("local-only-" * 4)
MIN_SECRET_KEY: Final = 32
PLACEHOLDERS: Final = ("local-only", "change", "secret", "example", "placeholder", "password")

MAX_LIFETIME: Final = 10 * 365 * 24 * 3600


class UserSettings(BaseSettings):
    """Settings of registration, tokens and throttling; see ``docs/settings.md``."""

    environment: Literal["local", "staging", "production"] = "production"
    secret_key: SecretStr = Field(default=SecretStr(""), validate_default=True)
    registration_open: bool = Field(default="", validate_default=True)
    access_token_lifetime: int = Field(default=15 * 60, ge=1)
    refresh_token_lifetime: int = Field(default=30 * 24 * 3600, ge=1, le=MAX_LIFETIME)
    session_lifetime: int = Field(default=90 * 24 * 3600, ge=1, le=MAX_LIFETIME)
    api_key_lifetime: int = Field(default=365 * 24 * 3600, ge=1, le=MAX_LIFETIME)
    throttle_window: int = Field(default=300, ge=1)
    throttle_per_email: int = Field(default=10, ge=1)
    throttle_per_address: int = Field(default=100, ge=1)

    @field_validator("registration_open", mode="before")
    @classmethod
    def _open_locally(cls, value: object, info: ValidationInfo) -> object:
        return info.data.get("environment") == "local" if value == "" else value

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
