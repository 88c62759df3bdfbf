"""The base of repositories: its verbs take a statement, so that the SQL stays visible."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from sqlalchemy import Executable, Row, Select, func, select
from sqlalchemy.sql.selectable import TypedReturnsRows

from app.db.engine import ReadSession
from app.db.models import Base
from app.errors import NotFound

T = TypeVar("T")


class Repository:
    """All the SQL of one aggregate.

    What only reads takes a ``ReadSession``; a subclass that writes asks for a ``WriteSession``
    in its ``__init__``, so that the type checker refuses to write through a session that can't.
    """

    model: ClassVar[type[Base]]

    def __init__(self, session: ReadSession) -> None:
        """Work through ``session``; whoever opened it ends its transaction."""
        self.session = session

    async def one(
        self, statement: TypedReturnsRows[T], parameters: Mapping[str, Any] | None = None
    ) -> T:
        """Give the one row that ``statement`` finds, or has written.

        Raises:
            NotFound: there is none.
        """
        # Unique: a collection that is loaded by a JOIN repeats its row.
        row = (await self.session.scalars(statement, parameters)).unique().one_or_none()
        if row is None:
            raise NotFound(f"There is no such {self.model.__name__.lower()}.")
        return row

    async def row(self, statement: Executable, parameters: Mapping[str, Any]) -> Row[Any]:
        """Give the one row that ``statement`` writes, as columns: for who needs no entity."""
        return (await self.session.execute(statement, parameters)).one()

    async def all(
        self, statement: TypedReturnsRows[T], parameters: Mapping[str, Any] | None = None
    ) -> Sequence[T]:
        """Give every row that ``statement`` finds: bound it by a ``LIMIT``."""
        return (await self.session.scalars(statement, parameters)).all()

    async def count(
        self, statement: Select[Any], parameters: Mapping[str, Any] | None = None
    ) -> int:
        """Count the rows of ``statement``. It reads them all: too dear for every page of a list."""
        counted = select(func.count()).select_from(statement.order_by(None).subquery())
        return (await self.session.scalars(counted, parameters)).one()
