"""Base models and field types of request and response schemas."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)
from pydantic.alias_generators import to_camel

_RFC_3339_DATE = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]")


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("A NUL character can't be stored")
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can contain escaped lone surrogates: "\\ud800"
        raise ValueError("A lone surrogate can't be stored") from None
    return text


def _rfc_3339(value: Any) -> Any:
    # Pydantic also accepts numbers, as seconds since 1970.
    if not isinstance(value, datetime) and not (
        isinstance(value, str) and _RFC_3339_DATE.match(value)
    ):
        raise ValueError("Input should be an RFC 3339 date and time")
    return value


def _to_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("The time is outside the years 1 to 9999 in UTC") from None


Text = Annotated[
    str,
    AfterValidator(_storable),
    Field(json_schema_extra={"pattern": r"^[^\u0000]*$"}),
]
"""A string that both databases can store. Bound its length with ``Field(max_length=...)``."""

UTCTime = Annotated[AwareDatetime, BeforeValidator(_rfc_3339), AfterValidator(_to_utc)]
"""An RFC 3339 time with an offset, converted to UTC."""


class RequestModel(BaseModel):
    """Base of request bodies. An unknown field is an error."""

    # Python's parser reads NaN, and 1e400 as infinity; neither is JSON.
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ResponseModel(BaseModel):
    """Base of response bodies, read from the attributes of an entity or a row."""

    model_config = ConfigDict(from_attributes=True)


class CamelRequestModel(RequestModel):
    """Base of request bodies in camelCase."""

    model_config = ConfigDict(alias_generator=to_camel)


class CamelResponseModel(ResponseModel):
    """Base of response bodies in camelCase."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)
