"""Registration, login and refresh, API keys and account changes.

These functions open their own short transactions, so that no connection is held while a password
is hashed.
"""

from dataclasses import dataclass
from datetime import timedelta
from logging import WARNING
from typing import Any, Final
from uuid import UUID

from pydantic import MISSING, SecretStr

from app.kit.db.engine import Database
from app.kit.db.models import now
from app.kit.errors import Conflict, FieldError, Unprocessable
from app.kit.security_log import security_event
from app.users import passwords, security
from app.users.caller import SessionClaims, refused
from app.users.errors import Forbidden, Unauthorized
from app.users.models import APIKey, User, UserSession
from app.users.repository import UserRepository
from app.users.schemas import APIKeyCreate, Tokens, UserCreate, UserUpdate
from app.users.settings import UserSettings
from app.users.throttle import in_progress, throttled, user_limits

KEY_PREFIX_LENGTH = 12
FIRST_KEY = APIKeyCreate(name="first", scopes={"read", "write"})
MAX_KEYS: Final = 20
"""The maximum number of API keys of a user."""
REFRESH_LEEWAY: Final = timedelta(seconds=10)
"""The time after its first use in which a refresh token returns the same new token again."""


@dataclass(frozen=True)
class Client:
    """The client that signs in: its network address and its User-Agent header."""

    address: str
    user_agent: str


async def register(
    database: Database, settings: UserSettings, body: UserCreate, *, with_api_key: bool
) -> tuple[User, APIKey | None, str | None]:
    """Create a user, and a first API key if requested; raise ``Conflict`` for a taken e-mail."""
    password_hash = await security.hash_password(body.password)
    async with database.transaction() as session:
        users = UserRepository(session)
        user = await users.create(
            {"email": body.email, "name": body.name, "password_hash": password_hash}
        )
        if not with_api_key:
            return user, None, None
        key, raw = await _write_key(users, settings, user.id, user.token_version, FIRST_KEY)
        return user, key, raw


async def create_key(
    users: UserRepository,
    settings: UserSettings,
    user_id: UUID,
    login: SessionClaims,
    body: APIKeyCreate,
) -> tuple[APIKey, str]:
    """Create an API key; return its row and the key itself, which is stored nowhere.

    Raises:
        Unauthorized: the caller's credentials were revoked meanwhile.
        Forbidden: the scope is ``admin``, and the user is no superuser.
        Conflict: the user has too many keys.
    """
    user = await users.lock(user_id, login.token_version, login.id)
    if user is None:
        raise Unauthorized("Sign in with an access token or an API key.")
    if "admin" in body.scopes and not user.is_superuser:
        error = Forbidden("Only superusers may create a key with the scope 'admin'.")
        raise refused(error, "not_superuser")
    if await users.count_keys(user_id) >= MAX_KEYS:
        raise Conflict(f"A user may have {MAX_KEYS} API keys: delete one first.")
    return await _write_key(
        users, settings, user_id, login.token_version, body, session_id=login.id
    )


async def _write_key(
    users: UserRepository,
    settings: UserSettings,
    user_id: UUID,
    token_version: int,
    body: APIKeyCreate,
    *,
    session_id: UUID | None = None,
) -> tuple[APIKey, str]:
    raw = security.opaque_token("key")
    latest = now() + timedelta(seconds=settings.api_key_lifetime)
    key = await users.create_key(
        user_id,
        token_version=token_version,
        session_id=session_id,
        name=body.name,
        prefix=raw[:KEY_PREFIX_LENGTH],
        key_hash=security.hash_token(raw),
        scopes=sorted(body.scopes),
        expires_at=latest if body.expires_at is None else min(body.expires_at, latest),
    )
    return key, raw


async def sign_in(
    database: Database, settings: UserSettings, email: str, password: SecretStr, client: Client
) -> Tokens:
    """Begin a session with an e-mail address and its password; return its tokens.

    Neither the response nor its timing shows whether there is such a user.
    """
    async with database.reading(primary=True) as session:
        user = await UserRepository(session).by_email(email)
    known = user.password_hash if user is not None and user.is_active else None
    good = await security.verify_password(password, known)
    wrong = Unauthorized("The e-mail address or the password is wrong.")
    if user is None or not good:
        security_event("sign_in_failed", user=user and user.id, level=WARNING)
        raise wrong
    rehashed = None
    if security.needs_rehash(user.password_hash):
        rehashed = await security.hash_password(password)
    token = security.opaque_token("refresh")
    try:
        async with database.transaction() as session:
            users = UserRepository(session)
            if rehashed is not None:
                await users.rehash(user, rehashed)
            login = await _create_session(users, settings, user, client)
            await users.add_refresh_token(login.id, security.hash_token(token))
    except Conflict:  # the user was deleted meanwhile
        raise wrong from None
    security_event("signed_in", user=user.id, session=login.id)
    return _tokens(settings, login, token)


async def _create_session(
    users: UserRepository, settings: UserSettings, user: User, client: Client
) -> UserSession:
    moment = now()
    ends_at = moment + timedelta(seconds=settings.session_lifetime)
    unused_until = moment + timedelta(seconds=settings.refresh_token_lifetime)
    return await users.create_session(
        user,
        user_agent=client.user_agent,
        address=client.address,
        expires_at=min(ends_at, unused_until),
        ends_at=ends_at,
    )


async def refresh(database: Database, settings: UserSettings, token: SecretStr) -> Tokens:
    """Exchange a refresh token for new tokens, or raise ``Unauthorized``.

    The same token may be sent again within ``REFRESH_LEEWAY``, for a client that got no response,
    until its successor was used. After that it may be stolen, and the session ends.
    """
    raw = token.get_secret_value()
    lifetime = timedelta(seconds=settings.refresh_token_lifetime)
    async with database.transaction() as session:
        users = UserRepository(session)
        login = await users.renew_session(security.hash_token(raw), lifetime)
        successor = None
        if login is not None:
            successor = await _successor(users, login, raw, lifetime)
            if successor is None:
                await users.end_stolen_session(login)
    if login is not None and successor is None:
        security_event("refresh_token_reused", user=login.user_id, session=login.id, level=WARNING)
    if login is None or successor is None:  # raised after the commit
        if login is None:
            security_event("refused", status=401, reason="invalid_refresh_token", level=WARNING)
        raise Unauthorized("The refresh token is invalid: sign in.")
    return _tokens(settings, login, successor)


async def _successor(
    users: UserRepository, login: UserSession, raw: str, lifetime: timedelta
) -> str | None:
    """Return the next refresh token of a locked session; None if ``token`` was reused."""
    token_hash = security.hash_token(raw)
    salt = await users.use_refresh_token(token_hash)
    if salt is not None:
        successor = security.successor_of(raw, salt)
        await users.delete_used_tokens(login.id, now() - lifetime)
        await users.add_refresh_token(login.id, security.hash_token(successor))
        return successor
    salt = await users.salt_used_since(token_hash, now() - REFRESH_LEEWAY)
    if salt is None:
        return None
    successor = security.successor_of(raw, salt)
    return successor if await users.is_unused(security.hash_token(successor)) else None


def _tokens(settings: UserSettings, login: UserSession, token: str) -> Tokens:
    return Tokens(
        access_token=security.access_token(login, settings),
        refresh_token=token,
        expires_in=settings.access_token_lifetime,
    )


async def update(
    database: Database, settings: UserSettings, user_id: UUID, body: UserUpdate, address: str
) -> User:
    """Change a user's own account.

    A new password or address requires the current password. A new password revokes every session
    and API key.

    Raises:
        Forbidden: the current password is wrong.
        Unprocessable: the current password is missing, or the new one is easy to guess.
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
    # Throttled, so that a stolen access token can't be used to guess the password.
    limits = user_limits(settings, user.id, address, "password")
    async with throttled(database, limits):
        if not await security.verify_password(body.current_password, user.password_hash):
            security_event("password_check_failed", user=user.id, level=WARNING)
            raise Forbidden("The current password is wrong.")
    if "email" not in changes:
        with in_progress(limits):
            return await _write_account(database, user, body, changes)
    # Success is counted, too: each change tells whether an address is taken.
    email_changes = user_limits(settings, user.id, address, "email_change")
    try:
        async with throttled(database, email_changes, resets=False):
            return await _write_account(database, user, body, changes)
    except Conflict as error:
        raise refused(error, "email_taken") from None


async def _write_account(
    database: Database, user: User, body: UserUpdate, changes: dict[str, Any]
) -> User:
    wrong = Forbidden("The current password is wrong.")
    if body.password is MISSING:
        async with database.transaction() as session:
            changed = await UserRepository(session).change_email(user, changes)
            if changed is None:
                raise wrong
        security_event("email_changed", user=user.id)
        return changed
    known = {"email": user.email, "name": user.name} | changes
    if reason := passwords.complaint(body.password.get_secret_value(), **known):
        raise Unprocessable(
            "The new password is refused.",
            errors=[FieldError(field="body.password", message=reason)],
        )
    password_hash = await security.hash_password(body.password)
    async with database.transaction() as session:
        rehashed = await UserRepository(session).change_password(user, password_hash, changes)
        if rehashed is None:
            raise wrong
    security_event("password_changed", user=user.id)
    return rehashed
