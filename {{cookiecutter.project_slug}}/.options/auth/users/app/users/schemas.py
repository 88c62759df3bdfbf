"""The request and response bodies of users. They contain no hashes or internal columns."""

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
    ValidationInfo,
    field_validator,
)

from app.kit.db.models import now
from app.kit.schemas import RequestModel, ResponseModel, Text, UTCTime
from app.users import passwords
from app.users.permissions import ALL_SCOPES, Scope

Flag = Annotated[StrictBool, Field(examples=[True])]

PASSWORD_LENGTH = (8, 256)
# Normalizing can make a text four times shorter.
RAW_PASSWORD_LENGTH = 4 * PASSWORD_LENGTH[1]


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


def _bounded_raw(password: SecretStr) -> SecretStr:
    shortest, longest = PASSWORD_LENGTH
    if not shortest <= len(password) <= RAW_PASSWORD_LENGTH:
        raise ValueError(f"Use {shortest} to {longest} characters")
    return password


def _bounded(password: SecretStr) -> SecretStr:
    shortest, longest = PASSWORD_LENGTH
    if not shortest <= len(password) <= longest:
        raise ValueError(f"Use {shortest} to {longest} characters")
    return password


def _distinct(values: Any) -> Any:
    scopes = cast("list[object]", values) if isinstance(values, list) else []
    if len(scopes) > len(ALL_SCOPES) or any(scopes.count(scope) > 1 for scope in scopes):
        raise ValueError("Scopes must be unique")
    return cast("object", values)


def _as_registered(text: str) -> str:
    try:
        return _EMAIL.validate_python(text)
    except ValidationError:  # an invalid address is an unknown one
        return text.lower()


_LENGTHS: dict[str, Any] = {"minLength": PASSWORD_LENGTH[0], "maxLength": PASSWORD_LENGTH[1]}
Password = Annotated[
    SecretStr,
    # Check the length before NFKC too: it takes more than linear time, and can lengthen a text.
    AfterValidator(_bounded_raw),
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
    name: Name
    password: Password

    @field_validator("password")
    @classmethod
    def _refuse_guessable(cls, password: SecretStr, info: ValidationInfo) -> SecretStr:
        known = {name: info.data.get(name, "") for name in ("email", "name")}
        if wrong := passwords.complaint(password.get_secret_value(), **known):
            raise ValueError(wrong)
        return password


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
    password: Annotated[
        SecretStr,
        Field(min_length=1, max_length=RAW_PASSWORD_LENGTH, examples=["rainy Tuesday in Lisbon"]),
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
    expires_at: UTCTime | None = Field(
        default=None,
        description="At the latest, and by default, after `API_KEY_LIFETIME`.",
        examples=["2099-12-31T00:00:00Z"],
    )

    @field_validator("expires_at")
    @classmethod
    def _refuse_past(cls, moment: datetime | None) -> datetime | None:
        if moment is not None and moment <= now():
            raise ValueError("Must be in the future")
        return moment


class APIKeyPublic(ResponseModel):
    """An API key, without the key itself."""

    id: UUID
    name: str
    prefix: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None


class APIKeySecret(APIKeyPublic):
    """A new API key: the only response that holds the key itself."""

    key: Annotated[str, Field(repr=False)]


class SessionPublic(ResponseModel):
    """A session: a login that has not ended."""

    id: UUID
    user_agent: str
    address: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime


class OwnSession(SessionPublic):
    """One of the caller's sessions."""

    is_current: bool = False
    """Whether the request came from this session."""


class Registered(UserPublic):
    """A new user, with a first API key if requested."""

    api_key: APIKeySecret | None = None
