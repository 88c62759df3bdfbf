"""Keyset pagination: page parameters in, page out.

A page starts behind the last row of the page before, found through an index, so that the
thousandth page costs what the first does, and rows that come or go meanwhile shift nothing.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter
from pydantic_core import to_json
from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Integer,
    Row,
    Select,
    bindparam,
    tuple_,
    union_all,
)
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.orm.collections import InstrumentedList

from app.kit.errors import FieldError, Unprocessable
from app.kit.schemas import Public, Text, UTCTime

MAX_BYTES = 1_000_000
"""What the rows of one answer may weigh as JSON: a page ends early where they are large."""

# What a row may weigh beside its texts, and what one character may: a control character is \\u0001.
_ROW_BYTES = 1000
_CHARACTER_BYTES = 6

T = TypeVar("T")
SelectT = TypeVar("SelectT", bound=Select[Any])


class Page(Public, Generic[T]):
    """One page of a list, as clients get it."""

    items: list[T]
    next_cursor: str | None
    """Send it as ``cursor`` for the next page; null on the last."""


@dataclass(frozen=True)
class Slice(Generic[T]):
    """One page of a list, as the database gave it."""

    items: Sequence[T]
    next_cursor: str | None


@dataclass(frozen=True)
class Order:
    """The order of a list: by one column, then by a unique key, so that no two rows tie.

    Rows without a value come last, in both directions.
    """

    name: str
    column: InstrumentedAttribute[Any]
    key: InstrumentedAttribute[Any]
    descending: bool = False


class Start(Enum):
    """Where a page starts: at the top, behind a row with a value, or behind one without."""

    TOP = auto()
    FILLED = auto()
    EMPTY = auto()


@dataclass(frozen=True)
class Position:
    """The last row of the page before: what its order's column and key hold."""

    start: Start = Start.TOP
    value: Any = None
    key: Any = None


def keyset(statement: SelectT, order: Order, start: Start) -> SelectT:
    """Order ``statement`` and let it start where ``start`` says; run it with ``parameters``.

    No value goes into the statement: build it once for each start and keep it.
    """
    whole = (order.column, order.key)
    if not order.column.nullable:
        return _walk(statement, order, whole, continued=start is not Start.TOP)
    # "OR column IS NULL" would keep the database from walking the index. So the rows with a value
    # and those without are two short walks of their own, put together.
    keys = statement.with_only_columns(order.key)
    empty = _walk(
        keys.where(order.column.is_(None)), order, (order.key,), continued=start is Start.EMPTY
    )
    found: Select[Any] | CompoundSelect[Any] = empty
    if start is not Start.EMPTY:
        filled = _walk(
            keys.where(order.column.is_not(None)), order, whole, continued=start is Start.FILLED
        )
        # SQLite takes a LIMIT in one part of a union only from inside a subquery.
        found = union_all(filled.subquery().select(), empty.subquery().select())
    return (
        statement.where(order.key.in_(found))
        .order_by(_directed(order, order.column).nulls_last(), _directed(order, order.key))
        .limit(bindparam("rows", type_=Integer))
    )


def _walk(
    statement: SelectT,
    order: Order,
    columns: tuple[InstrumentedAttribute[Any], ...],
    *,
    continued: bool,
) -> SelectT:
    if continued:
        names = ("after_value", "after_key")[-len(columns) :]
        last = tuple_(
            *(
                bindparam(name, type_=column.type)
                for name, column in zip(names, columns, strict=True)
            )
        )
        here = tuple_(*columns)
        statement = statement.where(here < last if order.descending else here > last)
    return statement.order_by(*(_directed(order, column) for column in columns)).limit(
        bindparam("rows", type_=Integer)
    )


def _directed(order: Order, column: InstrumentedAttribute[Any]) -> ColumnElement[Any]:
    return column.desc() if order.descending else column.asc()


def parameters(limit: int, position: Position) -> dict[str, Any]:
    """Give the values that a ``keyset`` statement wants.

    One row more than ``limit`` is asked for: it tells whether there is a next page.
    """
    return {"rows": limit + 1, "after_value": position.value, "after_key": position.key}


def cut(rows: Sequence[T], limit: int, order: Order) -> Slice[T]:
    """Make the page of the rows that ``parameters`` asked for, or of as many as an answer holds."""
    fitting = min(limit, fit(rows))
    if len(rows) <= fitting:
        return Slice(rows, None)
    return Slice(rows[:fitting], _encode(order, rows[fitting - 1]))


def fit(rows: Sequence[object]) -> int:
    """Count how many of the first rows an answer can hold: one at least."""
    characters = sum(len(text) for row in rows for text in _texts(row))
    if _ROW_BYTES * len(rows) + _CHARACTER_BYTES * characters <= MAX_BYTES:
        return len(rows)  # as nearly always, and quickly told
    weight = 0
    for number, row in enumerate(rows):
        weight += _ROW_BYTES + sum(len(to_json(text)) for text in _texts(row))
        if weight > MAX_BYTES:
            return max(1, number)
    return len(rows)


def _texts(row: object) -> list[str]:
    """Give the texts of a row, and of the rows that were loaded with it."""
    texts = []
    for value in row if isinstance(row, Row) else vars(row).values():
        if type(value) is str:
            texts.append(value)
        elif isinstance(value, InstrumentedList):
            texts += [text for item in value for text in vars(item).values() if type(text) is str]
        elif isinstance(value, (dict, list)):  # a JSON column
            texts.append(str(value))
    return texts


def _encode(order: Order, row: object) -> str:
    values = [getattr(row, order.column.key), getattr(row, order.key.key)]
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    text = json.dumps([order.name, *plain], default=str, ensure_ascii=False, separators=(",", ":"))
    return seal(order, text.encode())


def seal(order: Order, position: bytes) -> str:
    """Make a cursor of a position: with a checksum, for one of another list reads as well."""
    return base64.urlsafe_b64encode(position + _checksum(order, position)).decode().rstrip("=")


def _checksum(order: Order, position: bytes) -> bytes:
    return hashlib.blake2b(b"%b %b" % (str(order.key).encode(), position), digest_size=4).digest()


def decode(order: Order, cursor: str | None) -> Position:
    """Read a cursor back; none is the top of the list.

    Raises:
        Unprocessable: it is not one that a page in this order gave.
    """
    if cursor is None:
        return Position()
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        sealed = base64.b64decode(padded, altchars=b"-_", validate=True)
        text, checksum = sealed[:-4], sealed[-4:]
        if checksum != _checksum(order, text):
            raise ValueError  # noqa: TRY301 - as what else may be wrong with it
        name, value, key = json.loads(text)
        key = _adapter(order.key).validate_python(key)
        if value is None and order.column.nullable:
            position = Position(Start.EMPTY, key=key)
        else:
            value = _adapter(order.column).validate_python(value)
            position = Position(Start.FILLED, value, key)
    except (ValueError, TypeError, RecursionError):
        name = position = None
    if position is None or name != order.name:
        raise Unprocessable(
            "The cursor is not one that this list gave in this order.",
            errors=[FieldError(field="query.cursor", message="Not a cursor of this list")],
        )
    return position


_ADAPTERS: dict[type, TypeAdapter[Any]] = {
    str: TypeAdapter(Text),
    datetime: TypeAdapter(UTCTime),
}


def _adapter(column: InstrumentedAttribute[Any]) -> TypeAdapter[Any]:
    python_type = column.type.python_type
    if python_type not in _ADAPTERS:
        _ADAPTERS[python_type] = TypeAdapter(python_type)
    return _ADAPTERS[python_type]
