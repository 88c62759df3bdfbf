"""All the SQL of items."""

from collections.abc import Sequence
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, bindparam, insert, select, update

from app import pagination
from app.db.engine import WriteSession
from app.db.repository import Repository
from app.errors import NotFound
from app.items.models import Item
from app.items.schemas import ItemCreate
from app.pagination import Order, Slice, Start
from app.schemas import PageQuery

GET = select(Item).where(Item.id == bindparam("item_id"))
ORDER = Order("created_at", Item.created_at, Item.id)
INSERT = insert(Item.__table__).returning(Item.__table__)
INSERT_ALL = (
    insert(Item)
    .returning(Item, sort_by_parameter_order=True)
    .execution_options(render_nulls=True)  # rows with a null go with the others, in one statement
)


@cache
def _page(start: Start) -> Select[Item]:
    return pagination.keyset(select(Item), ORDER, start)


class ItemReader(Repository):
    """What can be asked about items."""

    model = Item

    async def get(self, item_id: UUID) -> Item:
        """Give an item.

        Raises:
            NotFound: there is no such item.
        """
        return await self.one(GET, {"item_id": item_id})

    async def page(self, query: PageQuery) -> Slice[Item]:
        """List items, the oldest first.

        Raises:
            Unprocessable: the cursor is not one of this list.
        """
        position = pagination.decode(ORDER, query.cursor)
        parameters = pagination.parameters(query.limit, position)
        return pagination.cut(await self.all(_page(position.start), parameters), query.limit, ORDER)


class ItemRepository(ItemReader):
    """What can be done to items, in the caller's transaction."""

    session: WriteSession

    def __init__(self, session: WriteSession) -> None:
        """Work in the transaction of ``session``."""
        super().__init__(session)

    async def create(self, item: ItemCreate) -> Row[Any]:
        """Write a new item; give it as columns: an answer needs no entity."""
        return await self.row(INSERT, item.model_dump())

    async def create_all(self, items: Sequence[ItemCreate]) -> Sequence[Item]:
        """Write new items, in one statement."""
        rows = await self.session.scalars(INSERT_ALL, [item.model_dump() for item in items])
        return rows.all()

    async def update(self, item_id: UUID, changes: dict[str, Any]) -> Item:
        """Change what ``changes`` names.

        Raises:
            NotFound: there is no such item.
        """
        if not changes:
            return await self.get(item_id)
        statement = update(Item).values(**changes).where(Item.id == item_id).returning(Item)
        # Nothing else was read in this session that would have to be kept in step.
        options = {"synchronize_session": False}
        item = await self.session.scalar(statement, execution_options=options)
        if item is None:
            raise NotFound("There is no such item.")
        return item
