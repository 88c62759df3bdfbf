"""All the SQL of items: as entities, and as rows of columns by statements that are built once."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, bindparam, insert, select, update

from app.items.models import Item
from app.kit.db.repository import Repository
from app.kit.pagination import KeysetList

_TABLE = Item.__table__
_COLUMNS = (
    Item.id,
    Item.name,
    Item.description,
    Item.quantity,
    Item.price_cents,
    Item.active,
    Item.created_at,
    Item.updated_at,
)
_GET = select(*_COLUMNS).where(Item.id == bindparam("key"))
_INSERT = insert(_TABLE).returning(*_TABLE.c)
_UPDATE = update(_TABLE).where(_TABLE.c.id == bindparam("key")).returning(*_TABLE.c)

ITEMS = KeysetList(select(Item), sorts=[Item.created_at])
ROWS = KeysetList(select(*_COLUMNS), sorts=[Item.created_at])


class ItemRepository(Repository[Item]):
    """Items."""

    model = Item

    async def get_row(self, key: UUID) -> Row[Any]:
        """Return the row of an item, or raise ``NotFound``."""
        return self._found(await self.rows(_GET, {"key": key}))

    async def create_row(self, values: Mapping[str, Any]) -> Row[Any]:
        """Write an item and return its row."""
        return (await self.session.execute(_INSERT, values)).one()

    async def update_row(self, key: UUID, changes: Mapping[str, Any]) -> Row[Any]:
        """Change the columns that are named and return the row, or raise ``NotFound``."""
        return self._found((await self.session.execute(_UPDATE, {**changes, "key": key})).all())

    def _found(self, rows: Sequence[Row[Any]]) -> Row[Any]:
        if not rows:
            raise self.not_found()
        return rows[0]
