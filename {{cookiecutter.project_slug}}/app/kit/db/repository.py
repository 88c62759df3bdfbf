"""The bases of repositories: their verbs take a statement, so that the SQL stays visible."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from sqlalchemy import Executable, Row, Select, func, select
from sqlalchemy.sql.selectable import TypedReturnsRows

from app.kit.db.engine import ReadSession
from app.kit.db.models import Base
from app.kit.db.session import Reads
from app.kit.errors import NotFound

T = TypeVar("T")


class RowRepository:
    """All the SQL of one table, as rows of columns: no entities, which take a third of the time.

    Statements are those of ``Model.__table__``. What only reads takes ``Reads`` or a
    ``ReadSession``; a subclass that writes asks for a ``WriteSession`` in its ``__init__``, so that
    the type checker refuses to write through what can't.
    """

    model: ClassVar[type[Base]]

    def __init__(self, session: ReadSession | Reads) -> None:
        """Work through ``session``; whoever opened it ends its transaction."""
        self.session = session

    async def row(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> Row[Any]:
        """Give the one row that ``statement`` finds, or has written.

        Raises:
            NotFound: there is none.
        """
        row = (await self.session.execute(statement, parameters)).one_or_none()
        if row is None:
            raise self._not_found()
        return row

    async def rows(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[Row[Any]]:
        """Give every row that ``statement`` finds: bound it by a ``LIMIT``."""
        return (await self.session.execute(statement, parameters)).all()

    def _not_found(self) -> NotFound:
        return NotFound(f"There is no such {self.model.__name__.lower()}.")


class Repository(RowRepository):
    """All the SQL of one aggregate: of an entity and of what belongs to it."""

    session: ReadSession

    def __init__(self, session: ReadSession) -> None:
        """Work through ``session``; whoever opened it ends its transaction."""
        super().__init__(session)

    async def one(
        self, statement: TypedReturnsRows[T], parameters: Mapping[str, Any] | None = None
    ) -> T:
        """Give the one entity that ``statement`` finds, or has written.

        Raises:
            NotFound: there is none.
        """
        # Unique: a collection that is loaded by a JOIN repeats its row.
        found = (await self.session.scalars(statement, parameters)).unique().one_or_none()
        if found is None:
            raise self._not_found()
        return found

    async def all(
        self, statement: TypedReturnsRows[T], parameters: Mapping[str, Any] | None = None
    ) -> Sequence[T]:
        """Give every entity that ``statement`` finds: bound it by a ``LIMIT``."""
        return (await self.session.scalars(statement, parameters)).all()

    async def count(
        self, statement: Select[Any], parameters: Mapping[str, Any] | None = None
    ) -> int:
        """Count the rows of ``statement``. It reads them all: too dear for every page of a list."""
        counted = select(func.count()).select_from(statement.order_by(None).subquery())
        return (await self.session.scalars(counted, parameters)).one()
