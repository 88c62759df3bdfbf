"""How passwords are hashed, and how tokens and keys are created and verified."""

import base64
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, lru_cache
from typing import Any, Final
from uuid import UUID, uuid4

import jwt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import SecretStr

from app.kit import project
from app.kit.db.models import now
from app.users import hashing
from app.users.models import UserSession
from app.users.settings import UserSettings

ALGORITHM: Final = "HS256"
CLAIMS: Final = ("exp", "iat", "sub", "sid", "jti", "iss", "aud", "ver")
CLOCK_LEEWAY: Final = 10
"""Seconds by which the clocks of two hosts may differ."""

# Argon2id with the parameters of RFC 9106 for little memory (64 MiB, about 100 ms), but in one
# lane: each further lane is one more thread, beyond `password_hash_threads`.
hasher = PasswordHasher(parallelism=1)


async def hash_password(password: SecretStr) -> str:
    """Hash a password in a thread. Call it outside of transactions.

    Raises:
        Unavailable: too many passwords are being hashed.
    """
    return await hashing.run(hasher.hash, password.get_secret_value())


async def verify_password(password: SecretStr, stored: str | None) -> bool:
    """Return whether a password matches a hash, computed in a thread.

    Without a hash it takes as long and returns False.

    Raises:
        Unavailable: too many passwords are being hashed.
    """
    decoy = stored is None
    return await hashing.run(_verify, stored or _decoy(), password.get_secret_value()) and not decoy


def needs_rehash(stored: str) -> bool:
    """Return whether a hash was made with outdated parameters."""
    return hasher.check_needs_rehash(stored)


def _verify(stored: str, password: str) -> bool:
    try:
        return hasher.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False


def _decoy() -> str:
    # A hash that no password matches, with the current parameters: verifying costs the same.
    salt, digest = "A" * 22, "A" * 43
    return (
        f"$argon2id$v=19$m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
        f"${salt}${digest}"
    )


def opaque_token(prefix: str) -> str:
    """Return a new refresh token or API key: a prefix for its kind and 256 random bits."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def hash_token(token: str) -> str:
    """Hash a random token. 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(token.encode()).hexdigest()


def successor_of(token: str, salt: str) -> str:
    """Return the refresh token that follows ``token``: the same one each time.

    It is derived from the token, which is not stored, and the salt, which is only in the database.
    """
    digest = hmac.digest(salt.encode(), token.encode(), hashlib.sha256)
    return f"refresh_{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


@dataclass(frozen=True)
class AccessClaims:
    """The claims of a valid access token."""

    user_id: UUID
    token_version: int
    session_id: UUID


def access_token(session: UserSession, settings: UserSettings) -> str:
    """Return a signed access token of a login; it expires with the session at the latest."""
    issued = now()
    claims = {
        "sub": str(session.user_id),
        "sid": str(session.id),
        "ver": session.token_version,
        "iat": issued,
        "exp": min(issued + timedelta(seconds=settings.access_token_lifetime), session.ends_at),
        "jti": uuid4().hex,
        "iss": project.NAME,
        "aud": project.NAME,
    }
    return _encode(claims, settings.secret_key)


def read_access_token(token: str, settings: UserSettings) -> AccessClaims | None:
    """Return the claims of a valid token, or None."""
    try:
        claims, expires_at = _decode(token, _key_of(token, settings))
    except (jwt.InvalidTokenError, ValueError, TypeError, AttributeError):
        return None
    return claims if time.time() < expires_at + CLOCK_LEEWAY else None


# A signature stays valid: it is verified once for the requests of a client, which saves 70 us.
@lru_cache(maxsize=1024)
def _decode(token: str, key: SecretStr) -> tuple[AccessClaims, float]:
    claims = jwt.decode(  # pyright: ignore[reportUnknownMemberType]
        token,
        key.get_secret_value(),
        algorithms=[ALGORITHM],  # pinned: the token must not choose how it is verified
        issuer=project.NAME,
        audience=project.NAME,
        leeway=CLOCK_LEEWAY,
        options={"require": list(CLAIMS)},
    )
    found = AccessClaims(UUID(claims["sub"]), int(claims["ver"]), UUID(claims["sid"]))
    return found, float(claims["exp"])


def key_id(key: SecretStr) -> str:
    """Return the public name of a key: the ``kid`` header of its tokens."""
    return hashlib.sha256(b"kid:" + key.get_secret_value().encode()).hexdigest()[:16]


def _encode(claims: dict[str, Any], key: SecretStr) -> str:
    return jwt.encode(  # pyright: ignore[reportUnknownMemberType]
        claims, key.get_secret_value(), ALGORITHM, headers={"kid": key_id(key)}
    )


def _key_of(token: str, settings: UserSettings) -> SecretStr:
    keys = _keys_by_header(settings.secret_key, settings.secret_key_fallbacks)
    return keys.get(token.partition(".")[0], settings.secret_key)


@cache
def _keys_by_header(key: SecretStr, fallbacks: tuple[SecretStr, ...]) -> dict[str, SecretStr]:
    # The encoded header of a key's tokens, so that no header is decoded before it is verified.
    return {_encode({}, each).partition(".")[0]: each for each in (*fallbacks, key)}
