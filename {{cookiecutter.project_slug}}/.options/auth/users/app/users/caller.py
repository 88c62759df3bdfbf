"""Authentication: who sent a request, and what a credential may do."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, OAuth2PasswordBearer

from app.kit.caller import ANONYMOUS, Caller, CallerDep
from app.kit.db.models import now
from app.kit.db.session import SAFE_METHODS, get_database, is_session_open
from app.users import security
from app.users.errors import Forbidden, Unauthorized
from app.users.repository import UserRepository
from app.users.settings import UserSettings

ALL_SCOPES: Final = frozenset({"read", "write"})

LAST_USE_PRECISION: Final = timedelta(minutes=1)
"""The last use of an API key is written at most this often."""

_bearer = OAuth2PasswordBearer("v1/auth/token", auto_error=False)  # relative to the docs page
_api_key = APIKeyHeader(name="X-API-Key", auto_error=False)


@dataclass(frozen=True)
class UserCaller(Caller):
    """A user who sent a request, and the scopes of the credential."""

    scopes: frozenset[str] = frozenset()


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
    if bearer is None and api_key is None:
        return ANONYMOUS
    caller = None
    if bearer is not None:
        caller = await _by_token(request, bearer)
    elif api_key is not None:
        caller = await _by_key(request, api_key)
    if caller is None:
        raise Unauthorized("Sign in with an access token or an API key.")
    if is_session_open(request):
        raise RuntimeError("Authenticate before the session or the repository is opened")
    request.state.caller = caller
    return caller


async def _by_token(request: Request, token: str) -> UserCaller | None:
    claims = security.read_access_token(token, get_settings(request))
    if claims is None:
        return None
    # From the primary: a revoked token must not stay valid for as long as a replica lags.
    session = get_database(request).read_session(primary=True)
    user = await UserRepository(session).caller_by_token(*claims)
    if user is None:
        return None
    return UserCaller(user.id, user.name, user.is_superuser, ALL_SCOPES)


async def _by_key(request: Request, raw: str) -> UserCaller | None:
    database = get_database(request)
    users = UserRepository(database.read_session(primary=True))
    key = await users.caller_by_key(security.hash_token(raw))
    if key is None or (key.expires_at is not None and key.expires_at <= now()):
        return None
    if key.last_used_at is None or now() - key.last_used_at > LAST_USE_PRECISION:
        async with database.transaction() as session:
            await UserRepository(session).touch_key(key.key_id)
    return UserCaller(key.id, key.name, key.is_superuser, frozenset(key.scopes))


OptionalCallerDep = Annotated[Caller, Depends(identify, scope="function")]
"""The caller of a public route, or ``ANONYMOUS``. Put it before the repository."""


async def authorize(request: Request, caller: OptionalCallerDep) -> None:
    """Require a caller with the scope of the method: ``read`` for GET and HEAD, else ``write``."""
    if not isinstance(caller, UserCaller):
        raise Unauthorized("Sign in with an access token or an API key.")
    scope = "read" if request.method in SAFE_METHODS else "write"
    if scope not in caller.scopes:
        raise Forbidden(f"This API key lacks the scope {scope!r}.")


async def superuser(caller: CallerDep) -> None:
    """Raise ``Forbidden`` unless the caller is a superuser."""
    if not caller.is_superuser:
        raise Forbidden("Only superusers may do this.")
