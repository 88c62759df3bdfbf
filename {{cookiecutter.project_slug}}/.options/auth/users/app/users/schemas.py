"""The request and response bodies of users. Hashes and internal columns are in none of them."""

import unicodedata
from datetime import datetime
from typing import Annotated, Any, Literal, cast
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

from app.kit.schemas import RequestModel, ResponseModel, Text, UTCTime

Scope = Literal["read", "write"]
Flag = Annotated[StrictBool, Field(examples=[True])]

PASSWORD_LENGTH = (8, 256)


def _normal(password: SecretStr) -> SecretStr:
    # Keyboards differ in how they compose an "é": NFKC makes them equal.
    text = unicodedata.normalize("NFKC", password.get_secret_value())
    return _encodable(SecretStr(text))


def _encodable(secret: SecretStr) -> SecretStr:
    try:
        secret.get_secret_value().encode()
    except UnicodeEncodeError:
        raise ValueError("A lone surrogate is not a character") from None
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
    scopes = cast("list[object]", values) if isinstance(values, list) else []
    if any(scopes.count(scope) > 1 for scope in scopes):
        raise ValueError("Scopes must be unique")
    return cast("object", values)


def _as_registered(text: str) -> str:
    try:
        return _EMAIL.validate_python(text)
    except ValidationError:  # no valid address: nobody has registered with it
        return text.lower()


# Checked after normalizing, and therefore not by Field.
_LENGTHS: dict[str, Any] = {"minLength": PASSWORD_LENGTH[0], "maxLength": PASSWORD_LENGTH[1]}
Password = Annotated[
    SecretStr,
    AfterValidator(_long_enough),  # also as it was sent: some characters become several
    AfterValidator(_normal),
    AfterValidator(_bounded),
    Field(json_schema_extra=_LENGTHS, examples=["rainy Tuesday in Lisbon"]),
]
Email = Annotated[
    EmailStr, Field(max_length=254, examples=["ada@example.com"]), AfterValidator(str.lower)
]
Name = Annotated[Text, Field(min_length=1, max_length=100, examples=["Ada Lovelace"])]
OpaqueToken = Annotated[
    SecretStr,
    Field(min_length=1, max_length=200, examples=["the refresh_token of the last response"]),
    AfterValidator(_encodable),
]

_EMAIL: TypeAdapter[str] = TypeAdapter(Email)


class UserCreate(RequestModel):
    """A new user."""

    email: Email
    password: Password
    name: Name


class UserUpdate(RequestModel):
    """Changes to the caller's account; e-mail and password require the current password."""

    model_config = ConfigDict(
        json_schema_extra={
            "dependentRequired": {"email": ["current_password"], "password": ["current_password"]}
        }
    )

    email: Email | MISSING = MISSING
    name: Name | MISSING = MISSING
    password: Password | MISSING = MISSING
    current_password: Password | MISSING = MISSING


class UserAdminUpdate(RequestModel):
    """Changes to any user, by a superuser."""

    name: Name | MISSING = MISSING
    is_active: Flag | MISSING = MISSING
    is_superuser: Flag | MISSING = MISSING


class UserPublic(ResponseModel):
    """A user."""

    id: UUID
    email: str
    name: str
    created_at: datetime


class UserAdmin(UserPublic):
    """A user, for superusers."""

    is_active: bool
    is_superuser: bool


class Login(BaseModel):
    """The OAuth2 password form. Other fields are ignored."""

    model_config = ConfigDict(extra="ignore")

    grant_type: Literal["password"] = "password"
    username: Annotated[
        Text,
        Field(min_length=1, max_length=254, examples=["ada@example.com"]),
        AfterValidator(_as_registered),
    ]
    # Normalizing can make a text four times shorter.
    password: Annotated[
        SecretStr,
        Field(
            min_length=1, max_length=4 * PASSWORD_LENGTH[1], examples=["rainy Tuesday in Lisbon"]
        ),
        AfterValidator(_normal),
    ]


class Refresh(RequestModel):
    """A refresh token to exchange or revoke."""

    refresh_token: OpaqueToken


class Tokens(BaseModel):
    """The tokens of a login."""

    access_token: Annotated[str, Field(repr=False)]
    refresh_token: Annotated[str, Field(repr=False)]
    token_type: Literal["bearer"] = "bearer"  # noqa: S105
    expires_in: int
    """Seconds until the access token expires."""


class APIKeyCreate(RequestModel):
    """A new API key."""

    name: Name
    scopes: Annotated[set[Scope], Field(min_length=1), BeforeValidator(_distinct)] = Field(
        default={"read"}, examples=[["read", "write"]]
    )
    expires_at: UTCTime | None = Field(default=None, examples=["2031-01-01T00:00:00Z"])


class APIKeyPublic(ResponseModel):
    """An API key, without the key itself."""

    id: UUID
    name: str
    prefix: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class APIKeySecret(APIKeyPublic):
    """A new API key: the only response that holds the key itself."""

    key: Annotated[str, Field(repr=False)]


class Registered(UserPublic):
    """A new user, with a first API key if requested."""

    api_key: APIKeySecret | None = None
