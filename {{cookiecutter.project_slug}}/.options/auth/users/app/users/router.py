"""The HTTP face of users: signing up and in, what they may do with themselves, and their keys."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Form, Query, Request

from app.kit.db.engine import Database
from app.kit.db.session import ReadSessionDep, SessionDep, get_database
from app.kit.errors import problems
from app.kit.pagination import Page
from app.kit.routing import Router
from app.kit.schemas import PageQuery
from app.settings import Settings
from app.users import service
from app.users.caller import CallerDep, get_settings, superuser
from app.users.errors import Forbidden
from app.users.models import APIKey, User
from app.users.repository import UserReader, UserRepository
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

auth = Router(prefix="/auth", tags=["auth"])
registration = Router(prefix="/users", tags=["users"])
me = Router(prefix="/users/me", tags=["users"])
keys = Router(prefix="/api-keys", tags=["API keys"])
admin = Router(prefix="/users", tags=["users"], dependencies=[Depends(superuser, scope="function")])


async def database(request: Request) -> Database:
    """Give the database, for what opens its own transactions."""
    return get_database(request)


async def settings(request: Request) -> Settings:
    """Give the settings."""
    return get_settings(request)


async def address(request: Request) -> str:
    """Give the client's address; the server takes it from the proxy in front, where it may."""
    return request.client.host if request.client else "unknown"


async def user_reader(session: ReadSessionDep) -> UserReader:
    """Give what answers questions about users."""
    return UserReader(session)


async def user_repository(session: SessionDep) -> UserRepository:
    """Give what changes users, in the request's transaction."""
    return UserRepository(session)


def _secret(key: APIKey, raw: str) -> APIKeySecret:
    return APIKeySecret(key=raw, **APIKeyPublic.model_validate(key).model_dump())


DatabaseDep = Annotated[Database, Depends(database)]
SettingsDep = Annotated[Settings, Depends(settings)]
AddressDep = Annotated[str, Depends(address)]
ReaderDep = Annotated[UserReader, Depends(user_reader)]
RepositoryDep = Annotated[UserRepository, Depends(user_repository)]


@registration.post("", status_code=201, responses=problems(403, 409, 429))
async def register(
    body: UserCreate,
    database: DatabaseDep,
    settings: SettingsDep,
    address: AddressDep,
    *,
    with_api_key: Annotated[
        bool, Query(description="Make a first API key as well: both or neither.")
    ] = False,
) -> Registered:
    """Register, where registration is open."""
    if not settings.registration_open:
        raise Forbidden("Registration is closed.")
    await service.throttle(database, settings, body.email, address)
    user, key, raw = await service.register(database, body, with_api_key=with_api_key)
    registered = Registered.model_validate(user)
    if key is not None and raw is not None:
        registered.api_key = _secret(key, raw)
    return registered


@auth.post("/token", responses=problems(401, 429))
async def sign_in(
    form: Annotated[Login, Form()],
    database: DatabaseDep,
    settings: SettingsDep,
    address: AddressDep,
) -> Tokens:
    """Sign in by the OAuth2 password form: the e-mail address is the `username`."""
    await service.throttle(database, settings, form.username, address)
    return await service.sign_in(database, settings, form.username, form.password)


@auth.post("/refresh", responses=problems(401))
async def refresh(body: Refresh, database: DatabaseDep, settings: SettingsDep) -> Tokens:
    """Trade a refresh token for new tokens. One that is used twice ends all of its login."""
    return await service.refresh(database, settings, body.refresh_token)


@auth.post("/logout", status_code=204)
async def sign_out(body: Refresh, users: RepositoryDep) -> None:
    """Void a refresh token, with all that come from the same login."""
    await users.revoke_family(hash_token(body.refresh_token.get_secret_value()))


@me.get("", response_model=UserPublic)
async def get_me(caller: CallerDep) -> User:
    """Get the user who is calling."""
    return caller.user


@me.patch("", response_model=UserPublic, responses=problems(409, 429))
async def update_me(
    body: UserUpdate,
    caller: CallerDep,
    database: DatabaseDep,
    settings: SettingsDep,
    address: AddressDep,
) -> User:
    """Change the user who is calling. A new password ends every token issued before."""
    return await service.update(database, settings, caller.user, body, address)


@me.delete("", status_code=204)
async def delete_me(caller: CallerDep, users: RepositoryDep) -> None:
    """Remove the user who is calling, with all tokens and keys."""
    await users.delete(caller.user.id)


@keys.post("", status_code=201)
async def create_key(body: APIKeyCreate, caller: CallerDep, users: RepositoryDep) -> APIKeySecret:
    """Make an API key: this answer is the only one that holds it."""
    if not body.scopes <= caller.scopes:
        raise Forbidden("A key can't make another that may do more.")
    key, raw = await service.create_key(users, caller.user.id, body)
    return _secret(key, raw)


@keys.get("", response_model=Page[APIKeyPublic])
async def list_keys(
    query: Annotated[PageQuery, Query()], caller: CallerDep, users: ReaderDep
) -> object:
    """List the caller's API keys, the oldest first, page by page."""
    return await users.keys(caller.user.id, query)


@keys.delete("/{key_id}", status_code=204, responses=problems(404))
async def delete_key(key_id: UUID, caller: CallerDep, users: RepositoryDep) -> None:
    """Revoke one of the caller's API keys."""
    await users.delete_key(caller.user.id, key_id)


@admin.get("", response_model=Page[UserAdmin])
async def list_users(query: Annotated[PageQuery, Query()], users: ReaderDep) -> object:
    """List users, the oldest first, page by page."""
    return await users.page(query)


@admin.patch("/{user_id}", response_model=UserAdmin, responses=problems(404))
async def update_user(user_id: UUID, body: UserAdminUpdate, users: RepositoryDep) -> User:
    """Change a user. One who is not active can do nothing."""
    return await users.update(user_id, body.model_dump())
