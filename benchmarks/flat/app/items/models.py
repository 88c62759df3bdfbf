"""The table of items."""

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.kit.db.models import Base, TimestampMixin, UUIDPrimaryKey


class Item(UUIDPrimaryKey, TimestampMixin, Base):
    """An item in stock: a row of eight columns."""

    __tablename__ = "items"
    __table_args__ = (Index(None, "created_at", "id"),)

    name: Mapped[str] = mapped_column(String(100))
    description: Mapped[str | None] = mapped_column(Text)
    quantity: Mapped[int]
    price_cents: Mapped[int]
    active: Mapped[bool]
