"""Authentication: who sent a request, and what a credential may do."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from logging import WARNING
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, OAuth2PasswordBearer

from app.kit.caller import ANONYMOUS, Caller, CallerDep, requirement
from app.kit.db.models import now
from app.kit.db.session import SAFE_METHODS, get_database, is_session_open
from app.kit.errors import AppError
from app.kit.security_log import security_event
from app.users import security
from app.users.errors import Forbidden, Unauthorized
from app.users.permissions import SCOPES, Permission, permissions_of_key, permissions_of_user
from app.users.repository import UserRepository, caller_by_key, caller_by_token
from app.users.settings import UserSettings

RECENT_SIGN_IN: Final = timedelta(minutes=5)
"""The time after a login during which ``recent_sign_in`` accepts its access tokens."""

LAST_USE_PRECISION: Final = timedelta(minutes=1)
"""The last use of an API key is written at most this often."""

_bearer = OAuth2PasswordBearer("v1/auth/token", auto_error=False)  # relative to the docs page
_api_key = APIKeyHeader(name="X-API-Key", auto_error=False)
SCHEMES: Final = (_bearer, _api_key)
"""The credentials that closed routes accept."""


@dataclass(frozen=True)
class UserCaller(Caller):
    """A user who sent a request, and what the credential may do."""

    permissions: frozenset[Permission] = frozenset()
    session: "SessionClaims | None" = None
    """The login that the access token comes from; None for an API key."""


@dataclass(frozen=True)
class SessionClaims:
    """The login of a caller."""

    id: UUID
    token_version: int
    signed_in_at: datetime


def refused(error: AppError, reason: str) -> AppError:
    """Log a refused request to the security log; return the error to raise."""
    security_event("refused", level=WARNING, status=error.status.value, reason=reason)
    return error


def get_settings(request: Request) -> UserSettings:
    """Return the settings that the app was created with."""
    settings: UserSettings = request.app.state.settings
    return settings


async def identify(
    request: Request,
    bearer: Annotated[str | None, Depends(_bearer)],
    api_key: Annotated[str | None, Depends(_api_key)],
) -> Caller:
    """Return the caller of a request, or raise ``Unauthorized`` for an invalid credential."""
    return await _identify(request, bearer, api_key)


async def _identify(request: Request, bearer: str | None, api_key: str | None) -> Caller:
    if is_session_open(request):
        raise RuntimeError("Authenticate before the session or the repository is opened")
    if bearer is None and api_key is None:
        return ANONYMOUS
    caller = None
    if bearer is not None:
        caller = await _by_token(request, bearer)
    elif api_key is not None:
        caller = await _by_key(request, api_key)
    if caller is None:
        error = Unauthorized("Sign in with an access token or an API key.")
        raise refused(error, "invalid_key" if bearer is None else "invalid_token")
    request.state.caller = caller
    return caller


async def _by_token(request: Request, token: str) -> UserCaller | None:
    claims = security.read_access_token(token, get_settings(request))
    if claims is None:
        return None
    # From the primary: a revoked token must not stay valid for as long as a replica lags.
    session = get_database(request).read_session(primary=True)
    user = await caller_by_token(session, claims)
    if user is None:
        return None
    permissions = permissions_of_user(is_superuser=user.is_superuser)
    login = SessionClaims(claims.session_id, claims.token_version, user.signed_in_at)
    return UserCaller(user.id, user.name, user.is_superuser, permissions, login)


async def _by_key(request: Request, raw: str) -> UserCaller | None:
    database = get_database(request)
    session = database.read_session(primary=True)
    key = await caller_by_key(session, security.hash_token(raw))
    if key is None or key.expires_at <= now():
        return None
    if key.last_used_at is None or now() - key.last_used_at > LAST_USE_PRECISION:
        async with database.transaction() as writing:
            await UserRepository(writing).touch_key(key.key_id)
    permissions = permissions_of_key(key.scopes, is_superuser=key.is_superuser)
    return UserCaller(key.id, key.name, Permission.ALL_ROWS in permissions, permissions)


OptionalCallerDep = Annotated[Caller, Depends(identify, scope="function")]
"""The caller of a public route, or ``ANONYMOUS``. Put it before the repository."""


@requirement("signed in")
async def authorize(request: Request) -> None:
    """Require the permission to read for GET and HEAD, else the permission to write."""
    # Called, not declared as dependencies: FastAPI takes 20 us for each one.
    caller = await _identify(request, await _bearer(request), await _api_key(request))
    if not isinstance(caller, UserCaller):
        error = Unauthorized("Sign in with an access token or an API key.")
        raise refused(error, "no_credential")
    reads = request.method in SAFE_METHODS
    _check(caller, Permission.READ if reads else Permission.WRITE)


def require(permission: Permission) -> Any:
    """Return a dependency of a closed route or router that requires another permission."""

    @requirement(permission)
    async def check(caller: CallerDep) -> None:
        _check(caller, permission)

    return Depends(check, scope="function")


def _check(caller: Caller, permission: Permission) -> None:
    if isinstance(caller, UserCaller) and permission in caller.permissions:
        return
    if isinstance(caller, UserCaller) and caller.session is None:
        scopes = [scope for scope, allowed in SCOPES.items() if permission in allowed]
        if scopes:
            error = Forbidden(f"This requires an API key with the scope {scopes[0]!r}.")
            raise refused(error, "scope")
        raise refused(Forbidden("An API key can't do this: sign in with a password."), "api_key")
    raise refused(Forbidden("Only superusers may do this."), "not_superuser")


@requirement("recent login")
async def recent_sign_in(caller: CallerDep) -> SessionClaims:
    """Require an access token of a login in the last 5 minutes; return the login.

    Raises:
        Forbidden: the credential is an API key, or the login was longer ago.
    """
    login = caller.session if isinstance(caller, UserCaller) else None
    if login is None:
        raise refused(Forbidden("An API key can't do this: sign in with a password."), "api_key")
    if now() - login.signed_in_at > RECENT_SIGN_IN:
        error = Forbidden("Sign in again: this requires a login in the last 5 minutes.")
        raise refused(error, "old_sign_in")
    return login


RECENT_LOGIN: Final = Depends(recent_sign_in, scope="function")
"""The dependency of a route that requires a recent login. Put it after ``require``."""
RecentLoginDep = Annotated[SessionClaims, RECENT_LOGIN]
"""The login of a caller who has just signed in."""
