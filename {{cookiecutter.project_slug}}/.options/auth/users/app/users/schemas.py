"""What clients send and get. No hash and no flag of the inside is in any of these."""

import unicodedata
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    MISSING,
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    EmailStr,
    Field,
    SecretStr,
    StrictBool,
    TypeAdapter,
    ValidationError,
)

from app.schemas import Body, Public, Text, UTCTime

Scope = Literal["read", "write"]

PASSWORD_LENGTH = (8, 256)


def _normal(password: SecretStr) -> SecretStr:
    # One form for what looks the same: each keyboard makes another one of an "é".
    text = unicodedata.normalize("NFKC", password.get_secret_value())
    return _encodable(SecretStr(text))


def _encodable(secret: SecretStr) -> SecretStr:
    try:
        secret.get_secret_value().encode()
    except UnicodeEncodeError:
        raise ValueError("A lone surrogate is no character") from None
    return secret


def _long_enough(password: SecretStr) -> SecretStr:
    shortest, longest = PASSWORD_LENGTH
    if len(password) < shortest:
        raise ValueError(f"Use {shortest} to {longest} characters")
    return password


def _bounded(password: SecretStr) -> SecretStr:
    shortest, longest = PASSWORD_LENGTH
    if not shortest <= len(password) <= longest:
        raise ValueError(f"Use {shortest} to {longest} characters")
    return password


def _distinct(values: Any) -> Any:
    if isinstance(values, list) and any(values.count(value) > 1 for value in values):
        raise ValueError("A scope is named twice")
    return values


def _as_registered(text: str) -> str:
    try:
        return _EMAIL.validate_python(text)
    except ValidationError:  # nobody's address: it is looked for as it stands
        return text.lower()


# Measured once it is in its normal form, so not by Field's own lengths.
_LENGTHS = dict(zip(("minLength", "maxLength"), PASSWORD_LENGTH, strict=True))
Password = Annotated[
    SecretStr,
    AfterValidator(_long_enough),  # also as it was sent: some characters become several
    AfterValidator(_normal),
    AfterValidator(_bounded),
    Field(json_schema_extra=dict[str, Any](_LENGTHS)),
]
Email = Annotated[EmailStr, Field(max_length=254), AfterValidator(str.lower)]
Name = Annotated[Text, Field(min_length=1, max_length=100)]
OpaqueToken = Annotated[SecretStr, Field(min_length=1, max_length=200), AfterValidator(_encodable)]

_EMAIL: TypeAdapter[str] = TypeAdapter(Email)


class UserCreate(Body):
    """Somebody who registers."""

    email: Email
    password: Password
    name: Name


class UserUpdate(Body):
    """What users may change of themselves; a new password takes the current one."""

    model_config = ConfigDict(
        json_schema_extra={
            "dependentRequired": {"email": ["current_password"], "password": ["current_password"]}
        }
    )

    email: Email | MISSING = MISSING
    name: Name | MISSING = MISSING
    password: Password | MISSING = MISSING
    current_password: Password | MISSING = MISSING


class UserAdminUpdate(Body):
    """What superusers may change of others."""

    name: Name | MISSING = MISSING
    is_active: StrictBool | MISSING = MISSING
    is_superuser: StrictBool | MISSING = MISSING


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

    grant_type: Literal["password"] = "password"
    username: Annotated[Text, Field(min_length=1, max_length=254), AfterValidator(_as_registered)]
    # Four times as long as in the form that is kept: so much shorter can that get.
    password: Annotated[
        SecretStr, Field(min_length=1, max_length=4 * PASSWORD_LENGTH[1]), AfterValidator(_normal)
    ]


class Refresh(Body):
    """A refresh token, to be used up or given back."""

    refresh_token: OpaqueToken


class Tokens(BaseModel):
    """What a login gives."""

    access_token: Annotated[str, Field(repr=False)]
    refresh_token: Annotated[str, Field(repr=False)]
    token_type: Literal["bearer"] = "bearer"  # noqa: S105
    expires_in: int
    """Seconds that the access token is good for."""


class APIKeyCreate(Body):
    """A new API key."""

    name: Name
    scopes: Annotated[set[Scope], Field(min_length=1), BeforeValidator(_distinct)] = Field(
        default={"read"}
    )
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

    key: Annotated[str, Field(repr=False)]


class Registered(UserPublic):
    """A new user, with a first API key where one was asked for."""

    api_key: APIKeySecret | None = None
