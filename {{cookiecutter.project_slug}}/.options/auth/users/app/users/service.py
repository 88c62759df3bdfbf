"""The rules of signing up, signing in and staying signed in.

These functions open their own short transactions, so that no connection is held while a password
is hashed.
"""

from logging import WARNING
from typing import Any
from uuid import UUID, uuid4

from pydantic import MISSING, SecretStr

from app.kit.db.engine import Database
from app.kit.errors import FieldError, Unprocessable
from app.kit.security_log import security_event
from app.users import security
from app.users.errors import Forbidden, Unauthorized
from app.users.models import APIKey, User
from app.users.repository import UserRepository
from app.users.schemas import APIKeyCreate, Tokens, UserCreate, UserUpdate
from app.users.settings import UserSettings
from app.users.throttle import password_limits, throttled

KEY_PREFIX_LENGTH = 12
FIRST_KEY = APIKeyCreate(name="first", scopes={"read", "write"})


async def register(
    database: Database, body: UserCreate, *, with_api_key: bool
) -> tuple[User, APIKey | None, str | None]:
    """Create a user, and a first API key if requested: both or neither. Return the key as well.

    Raises:
        Conflict: the e-mail address is taken.
    """
    password_hash = await security.hash_password(body.password)
    async with database.transaction() as session:
        users = UserRepository(session)
        user = await users.create(
            {"email": body.email, "name": body.name, "password_hash": password_hash}
        )
        if not with_api_key:
            return user, None, None
        key, raw = await create_key(users, user.id, FIRST_KEY)
        return user, key, raw


async def create_key(
    users: UserRepository, user_id: UUID, body: APIKeyCreate
) -> tuple[APIKey, str]:
    """Create an API key; return its row and the key itself, which is stored nowhere."""
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
    database: Database, settings: UserSettings, email: str, password: SecretStr
) -> Tokens:
    """Return tokens for an e-mail address and its password.

    Raises:
        Unauthorized: there is no such user, or the password is wrong. Neither the response nor
            its timing says which.
    """
    async with database.reading(primary=True) as session:
        user = await UserRepository(session).by_email(email)
    known = user.password_hash if user is not None and user.is_active else None
    good = await security.verify_password(password, known)
    if user is None or not good:
        security_event("sign_in_failed", user=user and user.id, level=WARNING)
        raise Unauthorized("The e-mail address or the password is wrong.")
    rehashed = None
    if security.needs_rehash(user.password_hash):
        rehashed = await security.hash_password(password)
    async with database.transaction() as session:
        users = UserRepository(session)
        if rehashed is not None:
            await users.rehash(user, rehashed)
        tokens = await _issue(users, settings, user, uuid4())
    security_event("signed_in", user=user.id)
    return tokens


async def refresh(database: Database, settings: UserSettings, token: SecretStr) -> Tokens:
    """Exchange a refresh token for new tokens.

    Raises:
        Unauthorized: the token is invalid. If it was used before, it may be stolen: every
            refresh token of its login is revoked.
    """
    token_hash = security.hash_token(token.get_secret_value())
    async with database.transaction() as session:
        users = UserRepository(session)
        used = await users.use_refresh_token(token_hash)
        if used is not None:
            user = await users.by_token(used.user_id, used.token_version)
            if user is not None:
                return await _issue(users, settings, user, used.family_id)
    # In a transaction of its own: PostgreSQL keeps the lock on a row that was found to be used, and
    # two requests that hold one each of a family would deadlock. The error follows the commit.
    async with database.transaction() as session:
        is_known = await UserRepository(session).revoke_family(token_hash)
    if is_known:
        security_event("refresh_token_reused", level=WARNING)
    raise Unauthorized("The refresh token is invalid: sign in.")


async def _issue(
    users: UserRepository, settings: UserSettings, user: User, family_id: UUID
) -> Tokens:
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
    database: Database, settings: UserSettings, user_id: UUID, body: UserUpdate
) -> User:
    """Change a user's own account.

    A new password or e-mail address requires the current password. A new password revokes every
    token that was issued before.

    Raises:
        Forbidden: the current password is wrong.
        Unprocessable: the current password is missing.
        Conflict: the e-mail address is taken.
        TooManyRequests: there were too many attempts recently.
    """
    changes: dict[str, Any] = body.model_dump(exclude={"password", "current_password"})
    if body.password is MISSING and "email" not in changes:
        async with database.transaction() as session:
            return await UserRepository(session).update(user_id, changes)
    if body.current_password is MISSING:
        raise Unprocessable(
            "A new password or e-mail address requires the current password.",
            errors=[FieldError(field="body.current_password", message="Field required")],
        )
    async with database.reading(primary=True) as reading:
        user = await UserRepository(reading).get(user_id)
    wrong = Forbidden("The current password is wrong.")
    # A stolen access token must not serve to guess the password.
    async with throttled(database, password_limits(settings, user.id)):
        if not await security.verify_password(body.current_password, user.password_hash):
            security_event("password_check_failed", user=user.id, level=WARNING)
            raise wrong
    if body.password is MISSING:
        async with database.transaction() as session:
            changed = await UserRepository(session).update(user.id, changes)
        security_event("email_changed", user=user.id)
        return changed
    password_hash = await security.hash_password(body.password)
    async with database.transaction() as session:
        rehashed = await UserRepository(session).change_password(user, password_hash, changes)
        if rehashed is None:
            raise wrong
    security_event("password_changed", user=user.id)
    return rehashed
