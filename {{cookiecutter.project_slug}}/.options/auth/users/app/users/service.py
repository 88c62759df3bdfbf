"""The rules of signing up, signing in and staying signed in.

Hashing a password takes its time: nothing here holds a connection meanwhile. So these functions
open their own transactions, each as short as it can be.
"""

import hashlib
from typing import Any
from uuid import UUID, uuid4

from pydantic import MISSING, SecretStr

from app.db.engine import Database
from app.db.models import now
from app.errors import FieldError, Unprocessable
from app.settings import Settings
from app.users import security
from app.users.errors import Forbidden, TooManyRequests, Unauthorized
from app.users.models import APIKey, User
from app.users.repository import UserReader, UserRepository
from app.users.schemas import APIKeyCreate, Tokens, UserCreate, UserUpdate

KEY_PREFIX_LENGTH = 12
FIRST_KEY = APIKeyCreate(name="first", scopes={"read", "write"})


async def throttle(database: Database, settings: Settings, email: str, address: str) -> None:
    """Count an attempt to sign in or up.

    Raises:
        TooManyRequests: there were too many for this e-mail or client address of late.
    """
    limits = {
        _subject("email", email): settings.throttle_per_email,
        _subject("address", address): settings.throttle_per_address,
    }
    async with database.transaction() as session:
        counted = await UserRepository(session).count_attempts(
            list(limits), settings.throttle_window
        )
    if any(count == 1 for count, _ in counted.values()):  # once in a window is often enough
        async with database.transaction() as session:
            await UserRepository(session).sweep_attempts()
    waits = [
        (resets_at - now()).total_seconds()
        for subject, (count, resets_at) in counted.items()
        if count > limits[subject]
    ]
    if waits:
        raise TooManyRequests(max(waits))


def _subject(kind: str, value: str) -> str:
    return hashlib.sha256(f"{kind}:{value}".encode()).hexdigest()


async def register(
    database: Database, body: UserCreate, *, with_api_key: bool
) -> tuple[User, APIKey | None, str | None]:
    """Make a user, with a first API key if asked for: both or neither; give the key as well.

    Raises:
        Conflict: the e-mail address is taken.
    """
    password_hash = await security.hash_password(body.password)
    async with database.transaction() as session:
        users = UserRepository(session)
        user = await users.create(email=body.email, name=body.name, password_hash=password_hash)
        if not with_api_key:
            return user, None, None
        key, raw = await create_key(users, user.id, FIRST_KEY)
        return user, key, raw


async def create_key(
    users: UserRepository, user_id: UUID, body: APIKeyCreate
) -> tuple[APIKey, str]:
    """Make an API key; give it and, this once, the key itself."""
    raw = security.opaque_token("key")
    key = await users.create_key(
        user_id,
        name=body.name,
        prefix=raw[:KEY_PREFIX_LENGTH],
        key_hash=security.hash_token(raw),
        scopes=sorted(body.scopes),
        expires_at=body.expires_at,
    )
    return key, raw


async def sign_in(
    database: Database, settings: Settings, email: str, password: SecretStr
) -> Tokens:
    """Give tokens for an e-mail address and its password.

    Raises:
        Unauthorized: there is no such user, or it is another password; the answer and the time
            that it takes tell nobody which.
    """
    async with database.reading(fresh=True) as session:
        user = await UserReader(session).by_email(email)
    known = user.password_hash if user is not None and user.is_active else None
    good = await security.verify_password(password, known)
    if user is None or not good:
        raise Unauthorized("The e-mail address or the password is wrong.")
    rehashed = None
    if security.needs_rehash(user.password_hash):
        rehashed = await security.hash_password(password)
    async with database.transaction() as session:
        users = UserRepository(session)
        if rehashed is not None:
            await users.rehash(user, rehashed)
        return await _issue(users, settings, user, uuid4())


async def refresh(database: Database, settings: Settings, token: SecretStr) -> Tokens:
    """Trade a refresh token for new tokens; it is used up by that.

    Raises:
        Unauthorized: it is not good. If it was used before, somebody has stolen it, from or by
            whoever asks: every token of its family is void from now on.
    """
    token_hash = security.hash_token(token.get_secret_value())
    async with database.transaction() as session:
        users = UserRepository(session)
        used = await users.use_refresh_token(token_hash)
        if used is not None:
            user = await users.by_token(used.user_id, used.generation)
            if user is not None:
                return await _issue(users, settings, user, used.family_id)
    # In a transaction of its own: PostgreSQL keeps the lock on a row that was found to be used, and
    # two that hold one each of a family would wait for each other. The error waits for the commit.
    async with database.transaction() as session:
        await UserRepository(session).end_family(token_hash)
    raise Unauthorized("The refresh token is not good: sign in.")


async def _issue(users: UserRepository, settings: Settings, user: User, family_id: UUID) -> Tokens:
    token = security.opaque_token("refresh")
    await users.add_refresh_token(
        user, family_id, security.hash_token(token), settings.refresh_token_lifetime
    )
    return Tokens(
        access_token=security.access_token(user, settings),
        refresh_token=token,
        expires_in=settings.access_token_lifetime,
    )


async def update(
    database: Database, settings: Settings, user: User, body: UserUpdate, address: str
) -> User:
    """Change what users may change of themselves.

    A new password, or another e-mail address, takes the current password; a new password ends
    every token that was issued before.

    Raises:
        Forbidden: the current password is another one.
        Unprocessable: it is needed and was not sent.
        Conflict: the e-mail address is taken.
        TooManyRequests: the current password was tried too often of late.
    """
    changes: dict[str, Any] = body.model_dump(exclude={"password", "current_password"})
    if body.password is MISSING and "email" not in changes:
        async with database.transaction() as session:
            return await UserRepository(session).update(user.id, changes)
    if body.current_password is MISSING:
        raise Unprocessable(
            "A new password or e-mail address takes the current password.",
            errors=[FieldError(field="body.current_password", message="Field required")],
        )
    # A stolen access token shall not serve to guess the password.
    await throttle(database, settings, user.email, address)
    wrong = Forbidden("The current password is another one.")
    if not await security.verify_password(body.current_password, user.password_hash):
        raise wrong
    if body.password is MISSING:
        async with database.transaction() as session:
            return await UserRepository(session).update(user.id, changes)
    password_hash = await security.hash_password(body.password)
    async with database.transaction() as session:
        changed = await UserRepository(session).change_password(user, password_hash, changes)
        if changed is None:
            raise wrong
        return changed
