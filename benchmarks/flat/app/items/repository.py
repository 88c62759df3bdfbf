"""All the SQL of items."""

from sqlalchemy import select

from app.items.models import Item
from app.kit.db.repository import Repository
from app.kit.pagination import KeysetList

ITEMS = KeysetList(select(Item), sorts=[Item.created_at])


class ItemRepository(Repository[Item]):
    """Items."""

    model = Item
