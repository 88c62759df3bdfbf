"""The base of repositories: operations on one model, and methods that take a statement."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Generic, TypeVar, cast

from pydantic import BaseModel
from sqlalchemy import (
    ColumnElement,
    Executable,
    Insert,
    Result,
    Row,
    Select,
    Table,
    Update,
    bindparam,
    delete,
    func,
    insert,
    inspect,
    or_,
    select,
    update,
)
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.sql.selectable import TypedReturnsRows

from app.kit.caller import ANONYMOUS, Caller
from app.kit.db import driver
from app.kit.db.engine import (
    ReadSession,
    WriteSession,
    execute_entities,
    has_entities,
    translate_errors,
)
from app.kit.db.loading import (
    EntityBuilder,
    builder_for,
    builder_of,
    check_inheritance,
    primary_key,
)
from app.kit.db.models import Base, SoftDeleteMixin, VersionMixin, now
from app.kit.errors import NotFound, PreconditionFailed
from app.kit.pagination import KeysetList, OffsetQuery, PageQuery, PageResult

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=Base)

Values = Mapping[str, Any] | BaseModel
"""The columns of a row, by name or as a request model."""

# No column may have these names: they are the parameters of the statements below.
_KEY, _OWNER, _VERSIONS = "kit_id", "kit_owner", "kit_versions"


class Repository(Generic[ModelT]):
    """All the SQL of one model and of what belongs to it.

    Rows that are soft-deleted or belong to another user are invisible to every operation, and to
    your own statements that start from ``select()``. Entities are detached: setting an attribute
    writes nothing.
    """

    model: type[ModelT]
    detail: ClassVar[Select[Any] | None] = None
    """The SELECT of ``get``, where an entity comes with joins or loader options."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a model that the statements of this class can't write."""
        super().__init_subclass__(**options)
        if hasattr(cls, "model"):
            check_inheritance(cls.model)

    def __init__(self, session: ReadSession | WriteSession, caller: Caller | None = None) -> None:
        """Work through ``session`` for ``caller``, which a model with owners requires."""
        if caller is None and _is_owned(self.model):
            raise TypeError(f"A {self.model.__name__} has an owner: pass a caller, or SYSTEM")
        self._session = session
        self.caller = caller or ANONYMOUS

    @property
    def session(self) -> WriteSession:
        """Return the session of the transaction; raise ``InvalidRequestError`` if there is none."""
        if isinstance(self._session, ReadSession):
            raise InvalidRequestError("A read session can't write: use a transaction")
        return self._session

    def select(self, *columns: Any) -> Select[Any]:
        """Return a SELECT of the visible rows: of the model, or of some columns."""
        selected: tuple[Any, ...] = columns or (self.model,)
        statement: Any = select(*selected)
        return cast("Select[Any]", statement.where(*self.visible()))

    def visible(self) -> list[ColumnElement[bool]]:
        """Return the conditions of a row that is not deleted and belongs to the caller."""
        return _visible(self.model, self.caller.id, restricted=self._restricted)

    async def get(self, key: Any) -> ModelT:
        """Return the entity with this primary key, or raise ``NotFound``."""
        return await self._get(key, None)

    async def create(self, values: Values) -> ModelT:
        """Write a row, which belongs to the caller, and return it; ``Conflict`` if it exists."""
        session = self.session
        parameters = self._owned(_columns(self.model, values))
        with translate_errors():
            row = (await session.execute(_insert(self.model), parameters)).one()
        return self._track(builder_of(self.model)(row))

    async def create_all(self, values: Iterable[Values]) -> list[ModelT]:
        """Write many rows and return them in the same order. All set the same columns."""
        session = self.session
        parameters = [self._owned(_columns(self.model, each)) for each in values]
        if not parameters:
            return []
        if any(each.keys() != parameters[0].keys() for each in parameters):
            raise TypeError("create_all() takes rows with values for the same columns")
        with translate_errors():
            rows = (await session.execute(_insert_many(self.model), parameters)).all()
        builder = builder_of(self.model)
        return [self._track(builder(row)) for row in rows]

    async def update(
        self,
        key: Any,
        changes: Values,
        versions: Collection[int] | None = None,
        *,
        touch: bool = False,
    ) -> ModelT:
        """Change the columns that ``changes`` names, where the row is at one of ``versions``.

        ``touch`` raises the version and ``updated_at`` even if no column changes.

        Raises:
            NotFound: the caller sees no such row.
            PreconditionFailed: it is at another version.
            Conflict: a unique value is taken.
        """
        columns = self._checked(_columns(self.model, changes, unset=False))
        if not columns and not touch:
            return await self._get(key, versions, plain=True)
        statement = _update(self.model, self._restricted, _checks(versions))
        row = await self._write(statement, key, versions, columns)
        return self._track(builder_of(self.model)(row))

    async def delete(self, key: Any, versions: Collection[int] | None = None) -> None:
        """Delete a row, or mark it as deleted if the model has ``deleted_at``.

        Raises the errors of ``update``.
        """
        checked = _checks(versions)
        if issubclass(self.model, SoftDeleteMixin):
            statement: Executable = _update(self.model, self._restricted, checked)
            columns = {"deleted_at": now()}
        else:
            statement, columns = _delete(self.model, self._restricted, checked), dict[str, Any]()
        await self._write(statement, key, versions, columns)

    async def insert_missing(
        self, into: type[Base] | Table, rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Insert the rows that don't exist. Sort them, so that two requests can't deadlock."""
        await self.session.execute(driver.insert(into).on_conflict_do_nothing(), rows)

    def owner_of(self, row: ModelT | None = None) -> dict[str, Any]:
        """Return the columns that name the owner of ``row``, or of the caller's new rows."""
        if not _is_owned(self.model):
            return {}
        return {"owner_id": self.caller.id if row is None else cast("Any", row).owner_id}

    async def page(
        self, items: KeysetList[T], query: PageQuery | OffsetQuery, **filters: Any
    ) -> PageResult[T]:
        """Return one page of the rows of a list that are visible to the caller.

        ``filters`` are values for the list's filters that are not in ``query``.
        """
        request = items.request(query, filters)
        restricted = not self.caller.is_superuser and any(map(_is_owned, items.models))
        prepared = items.prepare(request, restricted, lambda: _visible_in(items, restricted))
        parameters = request.parameters | {_OWNER: self.caller.id}
        result = await self._execute(prepared.statement, parameters)
        if prepared.builder is not None:
            found: Sequence[Any] = [prepared.builder(row) for row in result]
            self._session.track(*found)
        elif prepared.is_scalar:
            found = result.scalars().unique().all()
        else:
            found = result.all()
        total = None
        if prepared.count is not None:
            total = (await self._execute(prepared.count, parameters)).scalar_one()
        return items.result(request, found, total)

    async def one(
        self, statement: TypedReturnsRows[T], parameters: Mapping[str, Any] | None = None
    ) -> T:
        """Return the one entity or value of ``statement``, or raise ``NotFound``."""
        # A collection loaded by a JOIN repeats its entity.
        found = (await self._execute(statement, parameters)).scalars().unique().one_or_none()
        if found is None:
            raise self.not_found()
        return cast("T", found)

    async def all(
        self, statement: TypedReturnsRows[T], parameters: Mapping[str, Any] | None = None
    ) -> Sequence[T]:
        """Return every entity or value of ``statement``: bound it by a LIMIT."""
        return (await self._execute(statement, parameters)).scalars().unique().all()

    async def rows(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[Row[Any]]:
        """Return every row of columns of ``statement``: bound it by a LIMIT."""
        return (await self._execute(statement, parameters)).all()

    async def count(
        self, statement: Select[*tuple[Any, ...]], parameters: Mapping[str, Any] | None = None
    ) -> int:
        """Return the number of rows of ``statement``. It reads them all: use it sparingly."""
        counted = select(func.count()).select_from(statement.order_by(None).subquery())
        return int((await self._execute(counted, parameters)).scalar_one())

    def not_found(self) -> NotFound:
        """Return the error for a row that does not exist or is not visible to the caller."""
        return NotFound(f"There is no such {self.model.__name__.lower()}.")

    @property
    def _restricted(self) -> bool:
        return _is_owned(self.model) and not self.caller.is_superuser

    def _owned(self, values: dict[str, Any]) -> dict[str, Any]:
        if _is_owned(self.model) and values.setdefault("owner_id", self.caller.id) is None:
            raise TypeError(f"A {self.model.__name__} has an owner: pass a caller or owner_id")
        return self._checked(values)

    def _checked(self, values: dict[str, Any]) -> dict[str, Any]:
        if self._restricted and values.get("owner_id", self.caller.id) != self.caller.id:
            raise TypeError(
                f"Only a superuser or SYSTEM may set the owner of a {self.model.__name__}"
            )
        return values

    def _track(self, entity: T) -> T:
        self._session.track(entity)
        return entity

    async def _execute(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> Result[Any]:
        if isinstance(self._session, ReadSession):
            # It refuses a statement that writes.
            selected: Result[Any] = await self._session.execute(
                cast("Select[Any]", statement), parameters
            )
            return selected
        if not (has_entities(statement) or statement.is_dml):
            return await self._session.execute(statement, parameters)
        connection = await self._session.connection()
        with translate_errors():
            return await connection.run_sync(
                execute_entities, statement, parameters, self._session.track
            )

    async def _get(
        self, key: Any, versions: Collection[int] | None, *, plain: bool = False
    ) -> ModelT:
        detail = None if plain else self.detail
        statement, builder = _get(self.model, detail, self._restricted, _checks(versions))
        result = await self._execute(statement, self._parameters(key, versions))
        if builder is None:
            entity: ModelT | None = result.scalars().unique().one_or_none()
        else:
            row = result.one_or_none()
            entity = None if row is None else self._track(builder(row))
        if entity is None:
            raise await self._missing(key, versions)
        return entity

    async def _write(
        self,
        statement: Executable,
        key: Any,
        versions: Collection[int] | None,
        columns: dict[str, Any],
    ) -> Row[Any]:
        parameters = self._parameters(key, versions) | columns
        with translate_errors():
            result = await self.session.execute(statement, parameters)
        row = result.one_or_none()
        if row is None:
            raise await self._missing(key, versions)
        return row

    def _parameters(self, key: Any, versions: Collection[int] | None) -> dict[str, Any]:
        parameters: dict[str, Any] = {_KEY: key}
        if self._restricted:
            parameters[_OWNER] = self.caller.id
        if versions is not None:
            parameters[_VERSIONS] = list(versions)
        return parameters

    async def _missing(self, key: Any, versions: Collection[int] | None) -> Exception:
        if versions is not None:
            await self._get(key, None, plain=True)  # raises NotFound
            return PreconditionFailed(
                f"The {self.model.__name__.lower()} has changed: read it again."
            )
        return self.not_found()


def _columns(model: type[Base], values: Values, *, unset: bool = True) -> dict[str, Any]:
    """Return the values by the keys of their columns; SQLAlchemy would ignore unknown ones."""
    if isinstance(values, BaseModel):
        values = values.model_dump(exclude_unset=not unset)
    keys = builder_of(model).keys
    if unknown := values.keys() - keys.keys():
        raise TypeError(f"{model.__name__} has no column {min(unknown)!r}")
    return {keys[name]: value for name, value in values.items()}


def _is_owned(model: type[Base]) -> bool:
    return getattr(model, "__owned__", False)


def _checks(versions: Collection[int] | None) -> bool:
    return versions is not None


def _visible(model: type[Base], owner: Any, *, restricted: bool) -> list[ColumnElement[bool]]:
    columns: Any = model
    conditions: list[ColumnElement[bool]] = []
    if issubclass(model, SoftDeleteMixin):
        conditions.append(columns.deleted_at.is_(None))
    if restricted:
        conditions.append(columns.owner_id == owner)
    return conditions


def _visible_in(items: KeysetList[Any], restricted: bool) -> list[ColumnElement[bool]]:  # noqa: FBT001
    """Return the conditions for rows of a list that are visible to the caller."""
    conditions: list[ColumnElement[bool]] = []
    for model in items.models:
        owned = restricted and _is_owned(model)
        visible = _visible(model, bindparam(_OWNER), restricted=owned)
        if model not in {items.entity, items.scope}:  # an outer join may find none
            absent = inspect(model).primary_key[0].is_(None)
            visible = [or_(absent, each) for each in visible]
        conditions += visible
    return conditions


# Building a statement costs more than running it, so each is built once.


def _conditions(
    model: type[Base],
    restricted: bool,  # noqa: FBT001
    checked: bool,  # noqa: FBT001
) -> list[ColumnElement[bool]]:
    columns: Any = model
    conditions = [
        primary_key(model) == bindparam(_KEY),
        *_visible(model, bindparam(_OWNER), restricted=restricted),
    ]
    if checked:
        conditions.append(columns.version.in_(bindparam(_VERSIONS, expanding=True)))
    return conditions


@cache
def _get(
    model: type[Base],
    detail: Select[Any] | None,
    restricted: bool,  # noqa: FBT001
    checked: bool,  # noqa: FBT001
) -> tuple[Select[Any], EntityBuilder[Any] | None]:
    statement = select(model) if detail is None else detail
    builder = builder_for(statement)
    if builder is not None:
        statement = statement.with_only_columns(*builder.columns)
    return statement.where(*_conditions(model, restricted, checked)), builder


@cache
def _insert(model: type[Base]) -> Insert:
    return insert(model.__table__).returning(*builder_of(model).columns)


@cache
def _insert_many(model: type[Base]) -> Insert:
    columns = builder_of(model).columns
    return insert(model.__table__).returning(*columns, sort_by_parameter_order=True)


@cache
def _update(model: type[Base], restricted: bool, checked: bool) -> Update:  # noqa: FBT001
    table = model.__table__
    statement = update(table).where(*_conditions(model, restricted, checked))
    if issubclass(model, VersionMixin):
        statement = statement.values(version=table.c.version + 1)
    return statement.returning(*builder_of(model).columns)


@cache
def _delete(model: type[Base], restricted: bool, checked: bool) -> Executable:  # noqa: FBT001
    conditions = _conditions(model, restricted, checked)
    return delete(model.__table__).where(*conditions).returning(*model.__table__.primary_key)
