"""The field types of request bodies."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from app.kit.schemas import MAX_DEPTH, MAX_JSON_TEXT, Amount, Date, JsonObject


def nested(levels: int) -> dict[str, Any]:
    """Return an object with this many levels of objects in it, and a text."""
    value: dict[str, Any] = {"x": "x"}
    for _ in range(levels):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        (Date, "2030-12-31", date(2030, 12, 31)),
        (Amount, "12.5", Decimal("12.5")),
        (Amount, "-0.01", Decimal("-0.01")),
        (Amount, "9999999999.99", Decimal("9999999999.99")),
        (JsonObject, {"x": [1, 1.5, None, {"y": "ä"}]}, {"x": [1, 1.5, None, {"y": "ä"}]}),
        (JsonObject, {"x": "x" * MAX_JSON_TEXT}, {"x": "x" * MAX_JSON_TEXT}),
        (JsonObject, nested(MAX_DEPTH - 2), nested(MAX_DEPTH - 2)),
    ],
)
def test_what_is_read(kind: Any, value: object, read: object) -> None:
    assert TypeAdapter(kind).validate_python(value) == read


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Date, 0),
        (Date, "86400"),
        (Date, "2030-12-31T00:00:00"),
        (Date, "2030-12-31\n"),
        (Date, "2030-13-01"),
        (Amount, 1),
        (Amount, 1.5),
        (Amount, True),
        (Amount, "1.234"),
        (Amount, "10000000000"),
        (Amount, "01"),
        (Amount, "1e2"),
        (Amount, "1\n"),
        (Amount, "\u0661"),
        (JsonObject, []),
        (JsonObject, {"x": "\0"}),
        (JsonObject, {"\0": 1}),
        (JsonObject, {"x": [{"y": "\ud800"}]}),
        (JsonObject, {"x": float("nan")}),
        (JsonObject, {"x": "x" * (MAX_JSON_TEXT + 1)}),
        (JsonObject, nested(MAX_DEPTH)),
    ],
)
def test_what_is_refused(kind: Any, value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind, config={"allow_inf_nan": False}).validate_python(value)
