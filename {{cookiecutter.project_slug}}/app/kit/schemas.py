"""Field types and base models that every feature's schemas share."""

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

_RFC_3339_DATE = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]")


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("A NUL character can't be stored")
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can escape what is no character: "\\ud800"
        raise ValueError("A lone surrogate can't be stored") from None
    return text


def _rfc_3339(value: Any) -> Any:
    # Pydantic also takes numbers, as seconds since 1970; the contract doesn't.
    if not isinstance(value, datetime) and not (
        isinstance(value, str) and _RFC_3339_DATE.match(value)
    ):
        raise ValueError("Input should be an RFC 3339 date and time")
    return value


def _to_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("The time lies outside the years 1 to 9999 in UTC") from None


Text = Annotated[
    str,
    AfterValidator(_storable),
    Field(json_schema_extra={"pattern": r"^[^\u0000]*$"}),
]
"""Any text that both databases can store. Bound its length with ``Field(max_length=...)``."""

UTCTime = Annotated[AwareDatetime, BeforeValidator(_rfc_3339), AfterValidator(_to_utc)]
"""An RFC 3339 time with an offset, turned to UTC."""


class Body(BaseModel):
    """Base of what clients send: an unknown field is an error, not a silent loss."""

    # Python reads NaN, and 1e400 as infinity; neither is JSON.
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Public(BaseModel):
    """Base of what clients get, read from the attributes of a model."""

    model_config = ConfigDict(from_attributes=True)


class PageQuery(BaseModel):
    """The query of every list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=20, ge=1, le=100, description="The most items to answer with.")
    cursor: Text | None = Field(
        default=None,
        max_length=2000,
        description="`next_cursor` of the page before; the first page has none.",
    )
