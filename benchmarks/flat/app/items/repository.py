"""All the SQL of items."""

from collections.abc import Sequence
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Result, Row, Select, bindparam, insert, select, update

from app.items.models import Item
from app.items.schemas import ItemCreate
from app.kit import pagination
from app.kit.db.engine import WriteSession
from app.kit.db.repository import RowRepository
from app.kit.pagination import Order, Slice, Start
from app.kit.schemas import PageQuery

ITEMS = Item.__table__
THIS_ITEM = ITEMS.c.id == bindparam("item_id")

GET = select(ITEMS).where(THIS_ITEM)
ORDER = Order("created_at", Item.created_at, Item.id)
INSERT = insert(ITEMS).returning(ITEMS)
INSERT_ALL = (
    insert(Item)
    .returning(ITEMS, sort_by_parameter_order=True)
    .execution_options(render_nulls=True)  # rows with a null go with the others, in one statement
)
UPDATE = update(ITEMS).where(THIS_ITEM).returning(ITEMS)  # its columns come with the parameters


@cache
def _page(start: Start) -> Select[Any]:
    return pagination.keyset(select(ITEMS), ORDER, start)


class ItemReader(RowRepository):
    """What can be asked about items."""

    model = Item

    async def get(self, item_id: UUID) -> Row[Any]:
        """Give an item.

        Raises:
            NotFound: there is no such item.
        """
        return await self.row(GET, {"item_id": item_id})

    async def page(self, query: PageQuery) -> Slice[Row[Any]]:
        """List items, the oldest first.

        Raises:
            Unprocessable: the cursor is not one of this list.
        """
        position = pagination.decode(ORDER, query.cursor)
        parameters = pagination.parameters(query.limit, position)
        rows = await self.rows(_page(position.start), parameters)
        return pagination.cut(rows, query.limit, ORDER)


class ItemRepository(ItemReader):
    """What can be done to items, in the caller's transaction."""

    session: WriteSession

    def __init__(self, session: WriteSession) -> None:
        """Work in the transaction of ``session``."""
        super().__init__(session)

    async def create(self, item: ItemCreate) -> Row[Any]:
        """Write a new item."""
        return await self.row(INSERT, item.model_dump())

    async def create_all(self, items: Sequence[ItemCreate]) -> Sequence[Row[Any]]:
        """Write new items, in one statement."""
        rows: Result[Any] = await self.session.execute(
            INSERT_ALL, [item.model_dump() for item in items]
        )
        return rows.all()

    async def update(self, item_id: UUID, changes: dict[str, Any]) -> Row[Any]:
        """Change what ``changes`` names.

        Raises:
            NotFound: there is no such item.
        """
        if not changes:
            return await self.get(item_id)
        return await self.row(UPDATE, {"item_id": item_id, **changes})
