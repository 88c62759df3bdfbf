"""Lists in pages: keyset pages, and offset pages where a contract needs them.

A keyset page starts after the last row of the previous page, found by an index: every page costs
the same, and concurrent writes don't shift rows.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum, auto
from functools import cache, cached_property
from typing import Annotated, Any, Final, Generic, TypeVar, cast, overload
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic_core import to_json
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Integer,
    Numeric,
    Row,
    Select,
    bindparam,
    func,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.orm import InstanceState, InstrumentedAttribute
from sqlalchemy.sql import visitors

from app.kit.db.engine import has_entities
from app.kit.db.loading import EntityBuilder, builder_for, primary_key
from app.kit.db.models import Base
from app.kit.errors import FieldError, Unprocessable
from app.kit.schemas import CamelResponseModel, ResponseModel, Text, UTCTime

MAX_BYTES: Final = 1_000_000
"""Maximum bytes of a page as JSON: beyond, a keyset page has fewer rows, an offset page is 422."""
MAX_OFFSET: Final = 10_000
"""The maximum offset: the database reads every row before it."""

# Upper bounds of a row's JSON apart from its texts, and of one character (as an escape).
_ROW_BYTES: Final = 1000
_CHARACTER_BYTES: Final = 6

_WITHOUT_TEXT: Final = frozenset(
    {bool, date, datetime, float, int, type(None), InstanceState, UUID}
)

T = TypeVar("T")
SelectT = TypeVar("SelectT", bound=Select[Any])

Filter = InstrumentedAttribute[Any] | Callable[[BindParameter[Any]], ColumnElement[bool]]
"""A column that has to be equal to the value, or a condition on the value."""


class PageQuery(BaseModel):
    """The query parameters of a keyset list. Subclass it to add ``sort`` and filters."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=20, ge=1, le=100, description="The maximum number of items.")
    cursor: Text | None = Field(
        default=None,
        max_length=10_000,
        description="`next_cursor` of the previous page; omit it for the first page.",
    )


class OffsetQuery(BaseModel):
    """The query parameters of a list with offset pages and a total."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=20, ge=1, le=100, description="The maximum number of items.")
    offset: int = Field(default=0, ge=0, le=MAX_OFFSET, description="Items to skip.")


class _NamedByItem(BaseModel):
    # `TaskPage` instead of `Page_TaskPublic_` in OpenAPI.
    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        """Return the name of a page of these items."""
        (item,) = params
        if isinstance(item, type) and issubclass(item, BaseModel):
            return item.__name__.removesuffix("Public") + cls.__name__
        return super().model_parametrized_name(params)


class Page(_NamedByItem, ResponseModel, Generic[T]):
    """One page of a list."""

    items: list[T]
    next_cursor: str | None


class OffsetPage(_NamedByItem, ResponseModel, Generic[T]):
    """One page of a list, with the number of items on all pages."""

    items: list[T]
    total: int


class CamelPage(_NamedByItem, CamelResponseModel, Generic[T]):
    """One page of a list, for contracts in camelCase."""

    items: list[T]
    next_cursor: str | None


@dataclass(frozen=True)
class PageResult(Generic[T]):
    """One page of a list, before it is turned into a response."""

    items: Sequence[T]
    next_cursor: str | None = None
    total: int | None = None


@dataclass(frozen=True)
class Order:
    """The order of a list: by one column, nulls last, then by a unique key."""

    name: str
    column: InstrumentedAttribute[Any]
    key: InstrumentedAttribute[Any]
    descending: bool = False


class Start(Enum):
    """Where a page starts: at the first row, or after one with a value or with a null."""

    FIRST = auto()
    AFTER_VALUE = auto()
    AFTER_NULL = auto()


@dataclass(frozen=True)
class Position:
    """The last row of the previous page: its values in the order's column and key."""

    start: Start = Start.FIRST
    value: Any = None
    key: Any = None


@dataclass(frozen=True)
class PageRequest:
    """The page that a request asks for; ``start`` is None for an offset page."""

    order: Order
    start: Start | None
    limit: int
    filters: frozenset[str]
    parameters: dict[str, Any]


@dataclass(frozen=True)
class PreparedPage:
    """The statements of a page, without values, so that they are built once.

    ``count`` counts the rows of all offset pages.
    """

    statement: Select[Any]
    builder: EntityBuilder[Any] | None
    is_scalar: bool
    count: Select[Any] | None


class KeysetList(Generic[T]):
    """A list that is declared once and read by ``Repository.page``."""

    @overload
    def __init__(
        self,
        statement: Select[T],
        *,
        sorts: Sequence[InstrumentedAttribute[Any]],
        filters: Mapping[str, Filter] = ...,
        scope: type[Base] | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self: "KeysetList[Row[Any]]",
        statement: Select[*tuple[Any, ...]],
        *,
        sorts: Sequence[InstrumentedAttribute[Any]],
        filters: Mapping[str, Filter] = ...,
        scope: type[Base] | None = ...,
    ) -> None: ...

    def __init__(
        self,
        statement: Select[Any],
        *,
        sorts: Sequence[InstrumentedAttribute[Any]],
        filters: Mapping[str, Filter] | None = None,
        scope: type[Base] | None = None,
    ) -> None:
        """Declare a list.

        Args:
            statement: the rows, without ORDER BY and LIMIT: of an entity, or of columns.
            sorts: the columns that clients may sort by (``title`` or ``-title``); the first is the
                default. Each needs an index on the column and the key.
            filters: conditions by the name of the query field that has their value.
            scope: another model whose rows must be visible to the caller as well.

        Raises:
            TypeError: the order or the owner of the rows would be unknown.
        """
        self.statement = statement
        self.filters = dict(filters or {})
        self.scope = scope
        if len({column.class_ for column in sorts}) != 1:
            raise TypeError("The sorts of a list must be columns of one model")
        self.entity = cast("type[Base]", sorts[0].class_)
        self._key = primary_key(self.entity)
        selected = statement.columns_clause_froms
        if not selected or selected[0] != self.entity.__table__:
            raise TypeError(
                f"A list sorted by {self.entity.__name__} must select {self.entity.__name__} first"
            )
        if not has_entities(statement):
            names = {column.key for column in statement.selected_columns}
            names |= set(statement.selected_columns.keys())
            for column in (*sorts, self._key):
                if column.key not in names:
                    raise TypeError(f"A list of columns must select sorts and key: add {column}")
        self.models = [
            mapper.class_
            for table in selected
            for mapper in self.entity.registry.mappers
            if mapper.local_table == table
        ]
        if scope is not None and scope not in self.models:
            tables = {getattr(each, "table", each) for each in visitors.iterate(statement)}
            if scope.__table__ not in tables:
                raise TypeError(f"The scope of a list must be joined: add .join({scope.__name__})")
            self.models.append(scope)
        self.orders = {
            order.name: order
            for column in sorts
            for order in (
                Order(column.key, column, self._key),
                Order(f"-{column.key}", column, self._key, descending=True),
            )
        }
        self._default = sorts[0].key
        self._prepared: dict[Any, PreparedPage] = {}

    def request(self, query: PageQuery | OffsetQuery, values: Mapping[str, Any]) -> PageRequest:
        """Read a query; raise ``Unprocessable`` for the cursor of another list or order."""
        order = self.orders[getattr(query, "sort", None) or self._default]
        parameters = self._values(query, values)
        filters = frozenset(parameters)
        if isinstance(query, OffsetQuery):
            parameters |= {"kit_rows": query.limit, "kit_offset": query.offset}
            return PageRequest(order, None, query.limit, filters, parameters)
        position = self._decode(order, query.cursor)
        parameters |= {
            "kit_rows": query.limit + 1,  # one more shows whether there is a next page
            "kit_value": position.value,
            "kit_key": position.key,
        }
        return PageRequest(order, position.start, query.limit, filters, parameters)

    def _values(self, query: BaseModel, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the filters; a forgotten one must not list every row."""
        if unknown := values.keys() - self.filters.keys():
            raise TypeError(f"This list has no filter {min(unknown)!r}")
        fields = type(query).model_fields
        found: dict[str, Any] = {}
        for name in self.filters:
            if name in values:
                if values[name] is None:
                    raise TypeError(f"The filter {name!r} has no value")
                found[name] = values[name]
            elif name not in fields:
                raise TypeError(f"Pass the filter {name!r}, or add it to {type(query).__name__}")
            elif (value := getattr(query, name)) is not None:
                found[name] = value
        return found

    def prepare(
        self,
        request: PageRequest,
        restricted: bool,  # noqa: FBT001 - part of the key
        visible: Callable[[], Sequence[ColumnElement[bool]]],
    ) -> PreparedPage:
        """Return the statements of a page, built once for each kind of request."""
        key = (request.order.name, request.start, request.filters, restricted)
        if key not in self._prepared:
            self._prepared[key] = self._build(request, visible())
        return self._prepared[key]

    def result(self, request: PageRequest, rows: Sequence[Any], total: int | None) -> PageResult[T]:
        """Return the page of the rows that were found."""
        if request.start is None:
            if (most := rows_within_limit(rows)) < len(rows):
                # Fewer items would shift the offsets of the next pages.
                raise Unprocessable(
                    f"The items are too large for one page: ask for at most {most}.",
                    errors=[FieldError(field="query.limit", message=f"At most {most} items here")],
                )
            return PageResult(rows, None, total)
        fitting = min(request.limit, rows_within_limit(rows))
        if len(rows) <= fitting:
            return PageResult(rows, None)
        return PageResult(rows[:fitting], self._encode(request.order, rows[fitting - 1]))

    @cached_property
    def _digest(self) -> bytes:
        """Identifies this list: a cursor is bound to it, whatever columns it selects."""
        rows = self.statement.with_only_columns(self._key).compile()
        scope = self.scope and self.scope.__name__
        text = f"{rows} {rows.params} {sorted(self.filters)} {scope}"
        return hashlib.blake2b(text.encode(), digest_size=16).digest()

    def seal(self, position: bytes) -> str:
        """Return the cursor of a position, with a checksum that binds it to this list."""
        sealed = position + self._checksum(position)
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def _checksum(self, position: bytes) -> bytes:
        return hashlib.blake2b(position, digest_size=4, key=self._digest).digest()

    def _encode(self, order: Order, row: object) -> str:
        values = [getattr(row, order.column.key), getattr(row, order.key.key)]
        plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
        position = json.dumps(
            [order.name, *plain], default=str, ensure_ascii=False, separators=(",", ":")
        )
        return self.seal(position.encode())

    def _decode(self, order: Order, cursor: str | None) -> Position:
        """Return the position of a cursor, or raise ``Unprocessable`` for that of another list."""
        if cursor is None:
            return Position()
        try:
            padded = cursor + "=" * (-len(cursor) % 4)
            sealed = base64.b64decode(padded, altchars=b"-_", validate=True)
            text, checksum = sealed[:-4], sealed[-4:]
            if checksum != self._checksum(text):
                raise ValueError  # noqa: TRY301 - handled with the other errors
            name, value, key = json.loads(text)
            key = _adapter(order.key).validate_python(key)
            if value is None and order.column.nullable:
                position = Position(Start.AFTER_NULL, key=key)
            else:
                value = _adapter(order.column).validate_python(value)
                position = Position(Start.AFTER_VALUE, value, key)
        except (ValueError, TypeError, RecursionError):
            name = position = None
        if position is None or name != order.name:
            raise Unprocessable(
                "The cursor does not belong to this list in this order.",
                errors=[FieldError(field="query.cursor", message="Not a cursor of this list")],
            )
        return position

    def _build(self, request: PageRequest, visible: Sequence[ColumnElement[bool]]) -> PreparedPage:
        statement = self.statement.where(*visible)
        for name in sorted(request.filters):
            condition = self.filters[name]
            statement = statement.where(
                condition == bindparam(name, type_=condition.type)
                if isinstance(condition, InstrumentedAttribute)
                else condition(bindparam(name))
            )
        count = None
        if request.start is None:
            count = select(func.count()).select_from(
                statement.with_only_columns(request.order.key).order_by(None).subquery()
            )
            ordered = _by_offset(statement, request.order)
        else:
            ordered = keyset(statement, request.order, request.start)
        builder = builder_for(self.statement)
        if builder is not None:
            ordered = ordered.with_only_columns(*builder.columns)
        is_scalar = len(self.statement.column_descriptions) == 1
        return PreparedPage(ordered, builder, is_scalar, count)


def _by_offset(statement: SelectT, order: Order) -> SelectT:
    return (
        statement.order_by(_directed(order, order.column).nulls_last(), _directed(order, order.key))
        .limit(bindparam("kit_rows", type_=Integer))
        .offset(bindparam("kit_offset", type_=Integer))
    )


def keyset(statement: SelectT, order: Order, start: Start) -> SelectT:
    """Return ``statement`` sorted and starting after the position that is bound later."""
    whole = (order.column, order.key)
    if not order.column.nullable:
        return _walk(statement, order, whole, continued=start is not Start.FIRST)
    # "OR column IS NULL" would not use the index: unite the rows with a value and those without.
    keys = statement.with_only_columns(order.key)
    empty = _walk(
        keys.where(order.column.is_(None)), order, (order.key,), continued=start is Start.AFTER_NULL
    )
    found: Select[Any] | CompoundSelect[Any] = empty
    if start is not Start.AFTER_NULL:
        filled = _walk(
            keys.where(order.column.is_not(None)),
            order,
            whole,
            continued=start is Start.AFTER_VALUE,
        )
        # SQLite accepts a LIMIT in one part of a union only in a subquery.
        found = union_all(filled.subquery().select(), empty.subquery().select())
    return (
        statement.where(order.key.in_(found))
        .order_by(_directed(order, order.column).nulls_last(), _directed(order, order.key))
        .limit(bindparam("kit_rows", type_=Integer))
    )


def _walk(
    statement: SelectT,
    order: Order,
    columns: tuple[InstrumentedAttribute[Any], ...],
    *,
    continued: bool,
) -> SelectT:
    if continued:
        names = ("kit_value", "kit_key")[-len(columns) :]
        last = tuple_(
            *(
                bindparam(name, type_=column.type)
                for name, column in zip(names, columns, strict=True)
            )
        )
        here = tuple_(*columns)
        statement = statement.where(here < last if order.descending else here > last)
    return statement.order_by(*(_directed(order, column) for column in columns)).limit(
        bindparam("kit_rows", type_=Integer)
    )


def _directed(order: Order, column: InstrumentedAttribute[Any]) -> ColumnElement[Any]:
    return column.desc() if order.descending else column.asc()


def rows_within_limit(rows: Sequence[object]) -> int:
    """Return the number of rows that fit into a response: at least one."""
    characters = sum(len(text) for row in rows for text in _texts(row))
    if _ROW_BYTES * len(rows) + _CHARACTER_BYTES * characters <= MAX_BYTES:
        return len(rows)  # an upper bound, cheaper than the exact size below
    weight = 0
    for number, row in enumerate(rows):
        weight += _ROW_BYTES + sum(len(to_json(text)) for text in _texts(row))
        if weight > MAX_BYTES:
            return max(1, number)
    return len(rows)


def _texts(row: object, outer: tuple[object, ...] = ()) -> list[str]:
    """Return the texts of a row and of the entities that were loaded with it."""
    texts: list[str] = []
    for value in row if isinstance(row, Row) else vars(row).values():
        if type(value) is str:
            texts.append(value)
        elif type(value) in _WITHOUT_TEXT:
            continue
        elif hasattr(value, "__mapper__"):
            # An entity that refers back to its parent is not written again.
            if all(value is not each for each in (*outer, row)):
                texts += _texts(value, (*outer, row))
        elif hasattr(value, "_sa_adapter"):  # a collection of entities
            entities = cast("Any", value)
            for each in entities.values() if isinstance(value, dict) else entities:
                if all(each is not one for one in (*outer, row)):
                    texts += _texts(each, (*outer, row))
        elif isinstance(value, (bytes, dict, list)):  # a JSON column
            # Base64 is shorter than hexadecimal.
            texts.append(value.hex() if isinstance(value, bytes) else str(cast("object", value)))
    return texts


_ADAPTERS: dict[type, TypeAdapter[Any]] = {
    int: TypeAdapter(Annotated[int, Field(ge=-(2**63), lt=2**63)]),  # the range of BIGINT
    str: TypeAdapter(Text),
    datetime: TypeAdapter(UTCTime),
}


@cache
def _decimal_adapter(precision: int | None, scale: int | None) -> TypeAdapter[Any]:
    # PostgreSQL refuses a number with more digits than the column has.
    return TypeAdapter(Annotated[Decimal, Field(max_digits=precision, decimal_places=scale)])


def _adapter(column: InstrumentedAttribute[Any]) -> TypeAdapter[Any]:
    kind = column.type
    if isinstance(kind, Numeric) and kind.asdecimal:
        return _decimal_adapter(kind.precision, kind.scale)
    python_type = kind.python_type
    if python_type not in _ADAPTERS:
        _ADAPTERS[python_type] = TypeAdapter(python_type)
    return _ADAPTERS[python_type]
