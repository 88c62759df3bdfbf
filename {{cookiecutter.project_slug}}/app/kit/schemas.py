"""Base models and field types of request and response schemas."""

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

_RFC_3339_DATE = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]")
_FULL_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_AMOUNT = r"^-?(0|[1-9][0-9]{0,9})(\.[0-9]{1,2})?$"

MAX_DEPTH = 50
"""Levels of a ``JsonObject``."""
MAX_JSON_TEXT = 10_000
"""Characters of each text in a ``JsonObject``."""


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


def _full_date(value: Any) -> Any:
    # Pydantic also accepts numbers, and times at midnight.
    if not isinstance(value, str) or not _FULL_DATE.fullmatch(value):
        raise ValueError("Input should be an RFC 3339 date")
    return value


def _amount(value: Any) -> Any:
    # A JSON number is read as a float, which has no exact value.
    if not isinstance(value, str) or not re.fullmatch(_AMOUNT[1:-1], value, re.ASCII):
        raise ValueError('Input should be a decimal number as a string, such as "12.50"')
    return value


def _storable_json(value: dict[str, Any]) -> dict[str, Any]:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += [*each, *each.values()]
            elif isinstance(each, list):
                inner += each
            elif isinstance(each, str) and len(_storable(each)) > MAX_JSON_TEXT:
                raise ValueError(f"A text should have at most {MAX_JSON_TEXT} characters")
        if not inner:
            return value
        level = inner
    raise ValueError(f"Input should have at most {MAX_DEPTH} levels")


Text = Annotated[
    str,
    AfterValidator(_storable),
    Field(json_schema_extra={"pattern": r"^[^\u0000]*$"}),
]
"""A string that both databases can store. Bound its length with ``Field(max_length=...)``."""

UTCTime = Annotated[AwareDatetime, BeforeValidator(_rfc_3339), AfterValidator(_to_utc)]
"""An RFC 3339 time with an offset, converted to UTC."""

Date = Annotated[date, BeforeValidator(_full_date)]
"""An RFC 3339 date, such as 2030-12-31."""

Amount = Annotated[
    Decimal,
    BeforeValidator(_amount),
    WithJsonSchema({"type": "string", "pattern": _AMOUNT, "examples": ["12.50"]}),
]
"""A decimal number as a string. Its column is ``Numeric(12, 2)``."""

JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_storable_json)]
"""A JSON object that both databases can store."""


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
