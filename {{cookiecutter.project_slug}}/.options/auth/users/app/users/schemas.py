"""What clients send and get. No hash and no flag of the inside is in any of these."""

import unicodedata
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import (
    MISSING,
    AfterValidator,
    BaseModel,
    ConfigDict,
    EmailStr,
    Field,
    SecretStr,
)

from app.schemas import Body, Public, Text, UTCTime

Scope = Literal["read", "write"]

PASSWORD_LENGTH = (8, 256)


def _password(password: SecretStr) -> SecretStr:
    # One form for what looks the same: each keyboard makes another one of an "é".
    text = unicodedata.normalize("NFKC", password.get_secret_value())
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("A lone surrogate is no character") from None
    shortest, longest = PASSWORD_LENGTH
    if not shortest <= len(text) <= longest:
        raise ValueError(f"Use {shortest} to {longest} characters")
    return SecretStr(text)


Password = Annotated[SecretStr, AfterValidator(_password)]
Email = Annotated[EmailStr, Field(max_length=254), AfterValidator(str.lower)]
Name = Annotated[Text, Field(min_length=1, max_length=100)]
OpaqueToken = Annotated[SecretStr, Field(min_length=1, max_length=200)]


class UserCreate(Body):
    """Somebody who registers."""

    email: Email
    password: Password
    name: Name


class UserUpdate(Body):
    """What users may change of themselves; a new password takes the current one."""

    email: Email | MISSING = MISSING
    name: Name | MISSING = MISSING
    password: Password | MISSING = MISSING
    current_password: Password | MISSING = MISSING


class UserAdminUpdate(Body):
    """What superusers may change of others."""

    name: Name | MISSING = MISSING
    is_active: bool | MISSING = MISSING
    is_superuser: bool | MISSING = MISSING


class UserPublic(Public):
    """A user."""

    id: UUID
    email: str
    name: str
    created_at: datetime


class UserAdmin(UserPublic):
    """A user, as superusers see one."""

    is_active: bool
    is_superuser: bool


class Login(BaseModel):
    """The OAuth2 password form. It may hold what we have no use for."""

    model_config = ConfigDict(extra="ignore")

    grant_type: Literal["password"] | None = None
    username: Annotated[Text, Field(max_length=254)]
    password: Annotated[SecretStr, Field(max_length=4 * PASSWORD_LENGTH[1])]


class Refresh(Body):
    """A refresh token, to be used up or given back."""

    refresh_token: OpaqueToken


class Tokens(BaseModel):
    """What a login gives."""

    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105
    expires_in: int
    """Seconds that the access token is good for."""


class APIKeyCreate(Body):
    """A new API key."""

    name: Name
    scopes: Annotated[set[Scope], Field(min_length=1)] = Field(default={"read"})
    expires_at: UTCTime | None = None


class APIKeyPublic(Public):
    """An API key, without what opens the door."""

    id: UUID
    name: str
    prefix: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class APIKeySecret(APIKeyPublic):
    """A new API key: the only answer that ever holds the key itself."""

    key: str


class Registered(UserPublic):
    """A new user, with a first API key where one was asked for."""

    api_key: APIKeySecret | None = None
