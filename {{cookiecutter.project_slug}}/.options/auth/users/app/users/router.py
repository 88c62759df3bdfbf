"""Routes of users: signing up and in, the caller's own account and keys, and administration."""

from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Form, Query, Request

from app.kit.caller import CallerDep
from app.kit.db.engine import Database
from app.kit.db.session import get_database, repository
from app.kit.errors import error_responses
from app.kit.pagination import Page, PageQuery
from app.kit.routing import Router
from app.users import service
from app.users.caller import UserCaller, get_settings, superuser
from app.users.errors import Forbidden
from app.users.models import APIKey, User
from app.users.repository import KEYS, USERS, UserRepository
from app.users.schemas import (
    APIKeyCreate,
    APIKeyPublic,
    APIKeySecret,
    Login,
    Refresh,
    Registered,
    Tokens,
    UserAdmin,
    UserAdminUpdate,
    UserCreate,
    UserPublic,
    UserUpdate,
)
from app.users.security import hash_token
from app.users.settings import UserSettings

auth = Router(prefix="/auth", tags=["auth"], description="Signing in and out.")
registration = Router(prefix="/users", tags=["users"], description="Accounts.")
me = Router(prefix="/users/me", tags=["users"])
keys = Router(prefix="/api-keys", tags=["API keys"], description="Credentials for programs.")
admin = Router(prefix="/users", tags=["users"], dependencies=[Depends(superuser, scope="function")])


async def database(request: Request) -> Database:
    """Return the database, for functions that open transactions themselves."""
    return get_database(request)


async def settings(request: Request) -> UserSettings:
    """Return the settings."""
    return get_settings(request)


async def address(request: Request) -> str:
    """Return the client's address, as the server takes it from a trusted proxy."""
    return request.client.host if request.client else "unknown"


async def user_id(caller: CallerDep) -> UUID:
    """Return the id of the caller of a closed route."""
    return cast("UUID", caller.id)


def _secret(key: APIKey, raw: str) -> APIKeySecret:
    return APIKeySecret(key=raw, **APIKeyPublic.model_validate(key).model_dump())


DatabaseDep = Annotated[Database, Depends(database)]
SettingsDep = Annotated[UserSettings, Depends(settings)]
AddressDep = Annotated[str, Depends(address)]
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
        raise Forbidden("Registration is closed.")
    await service.throttle(database, settings, body.email, address)
    user, key, raw = await service.register(database, body, with_api_key=with_api_key)
    registered = Registered.model_validate(user)
    if key is not None and raw is not None:
        registered.api_key = _secret(key, raw)
    return registered


@auth.post("/token", responses=error_responses(401, 429))
async def sign_in(
    form: Annotated[Login, Form()],
    database: DatabaseDep,
    settings: SettingsDep,
    address: AddressDep,
) -> Tokens:
    """Sign in with the OAuth2 password form: the e-mail address is the `username`."""
    await service.throttle(database, settings, form.username, address)
    return await service.sign_in(database, settings, form.username, form.password)


@auth.post("/refresh", responses=error_responses(401))
async def refresh(body: Refresh, database: DatabaseDep, settings: SettingsDep) -> Tokens:
    """Exchange a refresh token for new tokens. Using one twice ends its login."""
    return await service.refresh(database, settings, body.refresh_token)


@auth.post("/logout", status_code=204)
async def sign_out(body: Refresh, users: Users) -> None:
    """Revoke a refresh token and all others of the same login."""
    await users.revoke_family(hash_token(body.refresh_token.get_secret_value()))


@me.get("", response_model=UserPublic)
async def get_me(user_id: UserIdDep, users: Users) -> User:
    """Get the caller's account."""
    return await users.get(user_id)


@me.patch("", response_model=UserPublic, responses=error_responses(409, 429))
async def update_me(
    body: UserUpdate,
    user_id: UserIdDep,
    database: DatabaseDep,
    settings: SettingsDep,
    address: AddressDep,
) -> User:
    """Change the caller's account. A new password revokes every token issued before."""
    return await service.update(database, settings, user_id, body, address)


@me.delete("", status_code=204)
async def delete_me(user_id: UserIdDep, users: Users) -> None:
    """Delete the caller's account, with everything that belongs to it."""
    await users.delete(user_id)


@keys.post("", status_code=201)
async def create_key(body: APIKeyCreate, caller: CallerDep, users: Users) -> APIKeySecret:
    """Create an API key. No later response holds the key itself."""
    user = cast("UserCaller", caller)
    if not body.scopes <= user.scopes:
        raise Forbidden("A key can't create one with more scopes.")
    key, raw = await service.create_key(users, cast("UUID", user.id), body)
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


@admin.get("", response_model=Page[UserAdmin])
async def list_users(query: Annotated[PageQuery, Query()], users: Users) -> object:
    """List users, the oldest first, page by page."""
    return await users.page(USERS, query)


@admin.patch("/{user_id}", response_model=UserAdmin, responses=error_responses(404))
async def update_user(user_id: UUID, body: UserAdminUpdate, users: Users) -> User:
    """Change a user. An inactive one can't sign in or call the service."""
    return await users.update(user_id, body)
