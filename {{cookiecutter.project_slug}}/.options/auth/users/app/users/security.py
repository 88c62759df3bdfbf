"""How passwords are hashed, and how tokens and keys are created and verified."""

import hashlib
import secrets
from datetime import timedelta
from functools import cache
from typing import Any, Final
from uuid import UUID, uuid4

import jwt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import SecretStr

from app.kit import project
from app.kit.db.models import now
from app.users import hashing
from app.users.models import User
from app.users.settings import UserSettings

ALGORITHM: Final = "HS256"
CLAIMS: Final = ("exp", "iat", "sub", "jti", "iss", "aud", "ver")

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


def access_token(user: User, settings: UserSettings) -> str:
    """Return a signed access token for a user."""
    issued = now()
    claims = {
        "sub": str(user.id),
        "ver": user.token_version,
        "iat": issued,
        "exp": issued + timedelta(seconds=settings.access_token_lifetime),
        "jti": uuid4().hex,
        "iss": project.NAME,
        "aud": project.NAME,
    }
    return _encode(claims, settings.secret_key)


def read_access_token(token: str, settings: UserSettings) -> tuple[UUID, int] | None:
    """Return the user id and token version of a valid token, or None."""
    try:
        claims = jwt.decode(  # pyright: ignore[reportUnknownMemberType]
            token,
            _key_of(token, settings).get_secret_value(),
            algorithms=[ALGORITHM],  # pinned: the token must not choose how it is verified
            issuer=project.NAME,
            audience=project.NAME,
            options={"require": list(CLAIMS)},
        )
        return UUID(claims["sub"]), int(claims["ver"])
    except (jwt.InvalidTokenError, ValueError, TypeError):
        return None


def key_id(key: SecretStr) -> str:
    """Return the public name of a key, which the ``kid`` of its tokens has."""
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
