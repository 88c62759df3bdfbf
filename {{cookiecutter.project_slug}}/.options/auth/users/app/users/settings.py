"""The settings of users and their tokens."""

import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from math import log2
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode

from app.kit.config import split_words
from app.users import passwords

LOCAL_SECRET_KEY: Final = SecretStr("local-only-" * 4)
MIN_SECRET_KEY: Final = 32
MIN_ENTROPY: Final = 96
"""In bits. The estimate for `openssl rand -hex 16`, which has 128 bits, is about 115."""
PLACEHOLDERS: Final = ("local-only", "change", "secret", "example", "placeholder", "password")

MIN_CHANGES: Final = 1 / 12
"""Changes between upper case, lower case and digits per character; random text has 1/3."""
PUBLISHED: Final = frozenset(
    {
        # The SHA-256 of the key in FastAPI's tutorial.
        "570dad43de1af4c925f92c16a68a50936da42b7dd6fdeb24850507a1199aac89",
    }
)
GUESSED: Final = ("", "secret", "test", "admin", "changeme", "key", "secret_key")
"""Texts whose hash is refused as a key, besides common passwords."""
DIGESTS: Final = {32: ("md5",), 40: ("sha1",), 64: ("sha256", "sha3_256"), 128: ("sha512",)}
"""Hash functions by the length of their hexadecimal digests."""

MAX_LIFETIME: Final = 10 * 365 * 24 * 3600

SecretKeys = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(split_words)]


class UserSettings(BaseSettings):
    """Settings of registration, tokens and throttling; see ``docs/settings.md``."""

    environment: Literal["local", "staging", "production"] = "production"
    secret_key: SecretStr = Field(default=SecretStr(""), validate_default=True)
    secret_key_fallbacks: SecretKeys = ()
    registration_open: bool = Field(default="", validate_default=True)
    access_token_lifetime: int = Field(default=15 * 60, ge=1)
    refresh_token_lifetime: int = Field(default=30 * 24 * 3600, ge=1, le=MAX_LIFETIME)
    session_lifetime: int = Field(default=90 * 24 * 3600, ge=1, le=MAX_LIFETIME)
    api_key_lifetime: int = Field(default=365 * 24 * 3600, ge=1, le=MAX_LIFETIME)
    password_hash_threads: int = Field(default=2, ge=1, le=64)
    password_hash_queue: int = Field(default=32, ge=0)
    throttle_window: int = Field(default=300, ge=1)
    throttle_per_address: int = Field(default=100, ge=1)
    throttle_per_email_and_address: int = Field(default=10, ge=1)
    throttle_per_email: int = Field(default=100, ge=1)
    throttle_at_once: int = Field(default=4, ge=1)

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
        check_key(value)
        return key

    @field_validator("secret_key_fallbacks")
    @classmethod
    def _refuse_weak_fallbacks(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for key in keys:
            check_key(key.get_secret_value())
        return keys


def check_key(key: str) -> None:
    """Raise ``ValueError`` for a key that is short, repetitive, a placeholder or known."""
    if len(key) < MIN_SECRET_KEY or entropy(key) < MIN_ENTROPY:
        raise ValueError(f"Too weak: use at least {MIN_SECRET_KEY} random characters")
    if any(word in key.lower() for word in PLACEHOLDERS):
        raise ValueError("This is a placeholder: use random characters")
    if _is_words(key) or _is_known(key.lower()):
        raise ValueError("This can be guessed: use random characters")


def _is_words(key: str) -> bool:
    # Words, keyboard rows and numbers seldom mix upper case, lower case and digits.
    words = re.sub(r"[A-Z][a-z]{2,}", lambda word: word[0].lower(), key)
    kinds = [(each.isdigit(), each.isupper()) for each in words if each.isalnum()]
    changes = sum(before != after for before, after in pairwise(kinds))
    return changes < MIN_CHANGES * len(kinds)


def _is_known(key: str) -> bool:
    if hashlib.sha256(key.encode()).hexdigest() in PUBLISHED:
        return True
    names = DIGESTS.get(len(key), ()) if re.fullmatch("[0-9a-f]+", key) else ()
    return any(
        hashlib.new(name, guess.encode()).hexdigest() == key
        for name in names
        for guess in (*GUESSED, *passwords.COMMON)
    )


def entropy(text: str) -> float:
    """Estimate the entropy of a text in bits; it is low for sequences and repetitions."""
    steps = [ord(after) - ord(before) for before, after in pairwise(text)]
    length = min(len(text), len(zlib.compress(text.encode(), 9)))
    return length * min(_entropy(text), _entropy(steps))


def _entropy(symbols: Sequence[str | int]) -> float:
    shares = [count / len(symbols) for count in Counter(symbols).values()]
    return -sum(share * log2(share) for share in shares)
