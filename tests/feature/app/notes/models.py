"""The table of notes."""

from sqlalchemy import Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.kit.db.models import Base, TimestampMixin, UUIDPrimaryKey


class Note(UUIDPrimaryKey, TimestampMixin, Base):
    """A line of text."""

    __tablename__ = "notes"
    __table_args__ = (Index(None, "created_at", "id"),)

    body: Mapped[str] = mapped_column(Text)
