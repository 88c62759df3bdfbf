"""Routes of users: signing up and in, the caller's own account and keys, and administration."""

from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Form, Query, Request

from app.kit.caller import CallerDep
from app.kit.db.engine import Database
from app.kit.db.models import now
from app.kit.db.session import get_database, repository
from app.kit.errors import Conflict, error_responses
from app.kit.pagination import Page, PageQuery, PageResult
from app.kit.routing import Router
from app.kit.security_log import security_event
from app.users import service
from app.users.caller import (
    RECENT_LOGIN,
    RecentLoginDep,
    UserCaller,
    get_settings,
    refused,
    require,
)
from app.users.errors import Forbidden
from app.users.models import APIKey, User
from app.users.permissions import Permission
from app.users.repository import KEYS, SESSIONS, USERS, UserRepository
from app.users.schemas import (
    APIKeyCreate,
    APIKeyPublic,
    APIKeySecret,
    Login,
    OwnSession,
    Refresh,
    Registered,
    SessionPublic,
    Tokens,
    UserAdmin,
    UserAdminUpdate,
    UserCreate,
    UserPublic,
    UserUpdate,
)
from app.users.security import hash_token
from app.users.settings import UserSettings
from app.users.throttle import email_limits, throttled

OWN = require(Permission.MANAGE_ACCOUNT)
READ_USERS = require(Permission.READ_USERS)
MANAGE_USERS = require(Permission.MANAGE_USERS)

auth = Router(prefix="/auth", tags=["auth"], description="Signing in and out.")
registration = Router(prefix="/users", tags=["users"], description="Accounts.")
me = Router(prefix="/users/me", tags=["users"])
sessions = Router(prefix="/auth/sessions", tags=["auth"], dependencies=[OWN])
keys = Router(
    prefix="/api-keys",
    tags=["API keys"],
    dependencies=[OWN],
    description="Credentials for programs.",
)
admin = Router(prefix="/users", tags=["users"])


async def database(request: Request) -> Database:
    """Return the database, for functions that open transactions themselves."""
    return get_database(request)


async def settings(request: Request) -> UserSettings:
    """Return the settings."""
    return get_settings(request)


async def address(request: Request) -> str:
    """Return the client's address, as the server takes it from a trusted proxy."""
    return request.client.host if request.client else "unknown"


async def client(request: Request, address: Annotated[str, Depends(address)]) -> service.Client:
    """Return the client that signs in, with a User-Agent shortened to the length of its column."""
    user_agent = request.headers.get("user-agent", "")[:200]
    return service.Client(address[:45], "".join(filter(str.isprintable, user_agent)))


async def user_id(caller: CallerDep) -> UUID:
    """Return the id of the caller of a closed route."""
    return cast("UUID", caller.id)


def _secret(key: APIKey, raw: str) -> APIKeySecret:
    return APIKeySecret(key=raw, **APIKeyPublic.model_validate(key).model_dump())


DatabaseDep = Annotated[Database, Depends(database)]
SettingsDep = Annotated[UserSettings, Depends(settings)]
AddressDep = Annotated[str, Depends(address)]
ClientDep = Annotated[service.Client, Depends(client)]
UserIdDep = Annotated[UUID, Depends(user_id)]
Users = Annotated[UserRepository, repository(UserRepository)]


@registration.post("", status_code=201, responses=error_responses(403, 409, 429))
async def register(
    body: UserCreate,
    database: DatabaseDep,
    settings: SettingsDep,
    address: AddressDep,
    *,
    with_api_key: Annotated[bool, Query(description="Create a first API key as well.")] = False,
) -> Registered:
    """Register, if registration is open."""
    if not settings.registration_open:
        raise refused(Forbidden("Registration is closed."), "registration_closed")
    limits = email_limits(settings, body.email, address)
    try:
        async with throttled(database, limits, resets=False):
            created = await service.register(database, settings, body, with_api_key=with_api_key)
    except Conflict as error:
        raise refused(error, "email_taken") from None
    user, key, raw = created
    security_event("registered", user=user.id, api_key=key and key.id)
    registered = Registered.model_validate(user)
    if key is not None and raw is not None:
        registered.api_key = _secret(key, raw)
    return registered


@auth.post("/token", responses=error_responses(401, 429))
async def sign_in(
    form: Annotated[Login, Form()],
    database: DatabaseDep,
    settings: SettingsDep,
    client: ClientDep,
) -> Tokens:
    """Sign in with the OAuth2 password form: the e-mail address is the `username`."""
    async with throttled(database, email_limits(settings, form.username, client.address)):
        return await service.sign_in(database, settings, form.username, form.password, client)


@auth.post("/refresh", responses=error_responses(401))
async def refresh(body: Refresh, database: DatabaseDep, settings: SettingsDep) -> Tokens:
    """Exchange a refresh token for new tokens.

    If the response was lost, the same token returns the same new one for 10 seconds. Using it again
    later, or after the new one was used, ends the session.
    """
    return await service.refresh(database, settings, body.refresh_token)


@auth.post("/logout", status_code=204)
async def sign_out(body: Refresh, users: Users) -> None:
    """End the session of a refresh token: its access and refresh tokens."""
    login = await users.end_session_of(hash_token(body.refresh_token.get_secret_value()))
    if login is not None:
        security_event("signed_out", user=login.user_id, session=login.id)


@sessions.get("", response_model=Page[OwnSession])
async def list_sessions(
    query: Annotated[PageQuery, Query()], caller: CallerDep, users: Users
) -> object:
    """List the caller's sessions, the oldest first, page by page."""
    login = cast("UserCaller", caller).session
    page = await users.page(SESSIONS, query, user_id=caller.id, expires_after=now())
    items = [OwnSession.model_validate(item) for item in page.items]
    for item in items:
        item.is_current = login is not None and item.id == login.id
    return PageResult(items, page.next_cursor)


@sessions.delete("", status_code=204)
async def end_other_sessions(user_id: UserIdDep, login: RecentLoginDep, users: Users) -> None:
    """End every session of the caller except the one of this request.

    It requires a login in the last 5 minutes.
    """
    await users.end_sessions(user_id, keep=login.id)
    security_event("sessions_ended")


@sessions.delete(
    "/{session_id}",
    status_code=204,
    dependencies=[RECENT_LOGIN],
    responses=error_responses(404),
)
async def end_session(session_id: UUID, user_id: UserIdDep, users: Users) -> None:
    """End one of the caller's sessions: its access and refresh tokens are invalid at once.

    It requires a login in the last 5 minutes.
    """
    await users.end_session(user_id, session_id)
    security_event("session_ended", session=session_id)


@me.get("", response_model=UserPublic)
async def get_me(user_id: UserIdDep, users: Users) -> User:
    """Get the caller's account."""
    return await users.get(user_id)


@me.patch("", response_model=UserPublic, dependencies=[OWN], responses=error_responses(409, 429))
async def update_me(
    body: UserUpdate,
    user_id: UserIdDep,
    database: DatabaseDep,
    settings: SettingsDep,
    address: AddressDep,
) -> User:
    """Change the caller's account. A new password revokes every session and API key."""
    return await service.update(database, settings, user_id, body, address)


@me.delete("", status_code=204, dependencies=[OWN, RECENT_LOGIN], responses=error_responses(409))
async def delete_me(caller: CallerDep, users: Users) -> None:
    """Delete the caller's account, with everything that belongs to it.

    It requires a login in the last 5 minutes. The last superuser can't be deleted.
    """
    await users.delete_account(cast("UUID", caller.id), is_superuser=caller.is_superuser)
    security_event("user_deleted")


@keys.post("", status_code=201, responses=error_responses(409))
async def create_key(
    body: APIKeyCreate,
    caller: CallerDep,
    login: RecentLoginDep,
    settings: SettingsDep,
    users: Users,
) -> APIKeySecret:
    """Create an API key. The key itself is only in this response.

    It requires a login in the last 5 minutes. The scope `admin` requires a superuser.
    """
    user_id = cast("UUID", caller.id)
    key, raw = await service.create_key(users, settings, user_id, login, body)
    security_event("api_key_created", api_key=key.id, scopes=key.scopes)
    return _secret(key, raw)


@keys.get("", response_model=Page[APIKeyPublic])
async def list_keys(
    query: Annotated[PageQuery, Query()], user_id: UserIdDep, users: Users
) -> object:
    """List the caller's API keys, the oldest first, page by page."""
    return await users.page(KEYS, query, user_id=user_id)


@keys.delete("/{key_id}", status_code=204, responses=error_responses(404))
async def delete_key(key_id: UUID, user_id: UserIdDep, users: Users) -> None:
    """Revoke one of the caller's API keys."""
    await users.delete_key(user_id, key_id)
    security_event("api_key_revoked", api_key=key_id)


@admin.get("", response_model=Page[UserAdmin], dependencies=[READ_USERS])
async def list_users(query: Annotated[PageQuery, Query()], users: Users) -> object:
    """List users, the oldest first, page by page."""
    return await users.page(USERS, query)


@admin.patch(
    "/{user_id}",
    response_model=UserAdmin,
    dependencies=[MANAGE_USERS, RECENT_LOGIN],
    responses=error_responses(404, 409),
)
async def update_user(user_id: UUID, body: UserAdminUpdate, users: Users) -> User:
    """Change a user. Deactivation and a change of role revoke every session and API key.

    It requires a login in the last 5 minutes. The last superuser can't be demoted.
    """
    changes = body.model_dump(exclude_unset=True)
    user = await users.change_by_superuser(user_id, changes)
    security_event("user_changed", user=user_id, **changes)
    return user


@admin.get(
    "/{user_id}/sessions",
    response_model=Page[SessionPublic],
    dependencies=[READ_USERS],
    responses=error_responses(404),
)
async def list_sessions_of_user(
    user_id: UUID, query: Annotated[PageQuery, Query()], users: Users
) -> object:
    """List the sessions of a user, the oldest first, page by page."""
    await users.get(user_id)
    return await users.page(SESSIONS, query, user_id=user_id, expires_after=now())


@admin.delete(
    "/{user_id}/sessions",
    status_code=204,
    dependencies=[MANAGE_USERS, RECENT_LOGIN],
    responses=error_responses(404),
)
async def end_sessions_of_user(user_id: UUID, users: Users) -> None:
    """End every session of a user. It requires a login in the last 5 minutes."""
    await users.get(user_id)
    await users.end_sessions(user_id)
    security_event("sessions_ended", user=user_id)


@admin.delete(
    "/{user_id}/sessions/{session_id}",
    status_code=204,
    dependencies=[MANAGE_USERS, RECENT_LOGIN],
    responses=error_responses(404),
)
async def end_session_of_user(user_id: UUID, session_id: UUID, users: Users) -> None:
    """End a session of a user. It requires a login in the last 5 minutes."""
    await users.end_session(user_id, session_id)
    security_event("session_ended", user=user_id, session=session_id)
