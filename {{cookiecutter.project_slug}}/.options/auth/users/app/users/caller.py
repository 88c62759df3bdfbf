"""Who is calling, and what they may do."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, OAuth2PasswordBearer

from app.kit.db.models import now
from app.kit.db.session import get_database
from app.settings import Settings
from app.users import security
from app.users.errors import Forbidden, Unauthorized
from app.users.models import User
from app.users.repository import UserReader, UserRepository

ALL_SCOPES: Final = frozenset({"read", "write"})
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

LAST_USE_PRECISION = timedelta(minutes=1)
"""An API key's last use is written at most this often, so that reads stay reads."""

_bearer = OAuth2PasswordBearer("v1/auth/token", auto_error=False)  # from where the docs lie
_api_key = APIKeyHeader(name="X-API-Key", auto_error=False)


@dataclass(frozen=True)
class Caller:
    """Whoever sent the request."""

    user: User
    scopes: frozenset[str]


def get_settings(request: Request) -> Settings:
    """Give the settings that the app was made with."""
    settings: Settings = request.app.state.settings
    return settings


async def identify(
    request: Request,
    bearer: Annotated[str | None, Depends(_bearer)],
    api_key: Annotated[str | None, Depends(_api_key)],
) -> Caller:
    """Tell who is calling, by an access token or an API key.

    Raises:
        Unauthorized: by neither, or by one that is not good.
    """
    caller = None
    if bearer is not None:
        caller = await _by_token(request, bearer)
    elif api_key is not None:
        caller = await _by_key(request, api_key)
    if caller is None:
        raise Unauthorized("Sign in: with an access token, or with an API key.")
    request.state.caller = str(caller.user.id)  # for who knows of no users, as idempotency
    return caller


async def _by_token(request: Request, token: str) -> Caller | None:
    found = security.read_access_token(token, get_settings(request))
    if found is None:
        return None
    # A session of its own, closed again at once: the handler's is not held up by this. Fresh, for a
    # token that was revoked must not be good for as long as a replica lags behind.
    async with get_database(request).reading(fresh=True) as session:
        user = await UserReader(session).by_token(*found)
    return None if user is None else Caller(user, ALL_SCOPES)


async def _by_key(request: Request, raw: str) -> Caller | None:
    database = get_database(request)
    async with database.reading(fresh=True) as session:
        key = await UserReader(session).by_key(security.hash_token(raw))
    if key is None:
        return None
    if key.last_used_at is None or now() - key.last_used_at > LAST_USE_PRECISION:
        async with database.transaction() as writing:
            await UserRepository(writing).touch_key(key.id)
    return Caller(key.user, frozenset(key.scopes))


CallerDep = Annotated[Caller, Depends(identify, scope="function")]
"""Whoever sent the request; 401 for whoever does not say so."""


async def authorise(request: Request, caller: CallerDep) -> None:
    """Let a caller pass who may do what is asked for: ``read`` for GET, ``write`` for the rest.

    Raises:
        Unauthorized: nobody is calling.
        Forbidden: the API key has not that scope.
    """
    scope = "read" if request.method in SAFE_METHODS else "write"
    if scope not in caller.scopes:
        raise Forbidden(f"This API key lacks the scope {scope!r}.")


async def superuser(caller: CallerDep) -> None:
    """Let superusers pass.

    Raises:
        Forbidden: the caller is none.
    """
    if not caller.user.is_superuser:
        raise Forbidden("This is for superusers.")
