"""How passwords are hashed, and how tokens and keys are created and verified."""

import asyncio
import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar
from uuid import UUID, uuid4

import jwt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import SecretStr

from app.kit import project
from app.kit.db.models import now
from app.users.models import UserSession
from app.users.settings import UserSettings

T = TypeVar("T")

ALGORITHM: Final = "HS256"
CLAIMS: Final = ("exp", "iat", "sub", "sid", "jti", "iss", "aud", "ver")
CLOCK_LEEWAY: Final = 10
"""Seconds by which the clocks of two hosts may differ."""

# Argon2id with the parameters of RFC 9106 for little memory (64 MiB, some 100 ms), but in one lane:
# four would take four threads to a hash, and with them the core that the event loop runs on.
hasher = PasswordHasher(parallelism=1)

# Threads of its own, one core less than there are: hashing a crowd's passwords must neither hold
# the event loop nor starve it. argon2 lets go of the interpreter's lock meanwhile.
_threads = ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="argon2")


async def hash_password(password: SecretStr) -> str:
    """Hash a password in a thread. Call it outside of transactions."""
    return await _run(hasher.hash, password.get_secret_value())


async def verify_password(password: SecretStr, stored: str | None) -> bool:
    """Return whether a password matches a hash, computed in a thread.

    Without a hash it takes as long and returns False.
    """
    decoy = stored is None
    return await _run(_verify, stored or _decoy(), password.get_secret_value()) and not decoy


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


async def _run(function: Callable[..., T], *arguments: str) -> T:
    return await asyncio.get_running_loop().run_in_executor(_threads, function, *arguments)


def opaque_token(prefix: str) -> str:
    """Return a new refresh token or API key: a prefix for its kind and 256 random bits."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def hash_token(token: str) -> str:
    """Hash a random token. 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(token.encode()).hexdigest()


def successor_of(token: str, salt: str) -> str:
    """Return the refresh token that follows ``token``: the same one each time.

    It takes the token, which is not stored, and the salt, which only the database has.
    """
    digest = hmac.digest(salt.encode(), token.encode(), hashlib.sha256)
    return f"refresh_{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


@dataclass(frozen=True)
class AccessClaims:
    """What a valid access token says."""

    user_id: UUID
    token_version: int
    session_id: UUID


def access_token(session: UserSession, settings: UserSettings) -> str:
    """Return a signed access token of a login, which it does not outlive."""
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
    key = settings.secret_key.get_secret_value()
    return jwt.encode(claims, key, ALGORITHM)  # pyright: ignore[reportUnknownMemberType]


def read_access_token(token: str, settings: UserSettings) -> AccessClaims | None:
    """Return the claims of a valid token, or None."""
    try:
        claims = jwt.decode(  # pyright: ignore[reportUnknownMemberType]
            token,
            settings.secret_key.get_secret_value(),
            algorithms=[ALGORITHM],  # pinned: the token must not choose how it is verified
            issuer=project.NAME,
            audience=project.NAME,
            leeway=CLOCK_LEEWAY,
            options={"require": list(CLAIMS)},
        )
        return AccessClaims(UUID(claims["sub"]), int(claims["ver"]), UUID(claims["sid"]))
    except (jwt.InvalidTokenError, ValueError, TypeError, AttributeError):
        return None
