"""The tables of notebooks and pages."""

from uuid import UUID

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.kit.db.models import Base, TimestampMixin, UUIDPrimaryKey
from app.users.owner import OwnerMixin, owner_unique


class Notebook(OwnerMixin, UUIDPrimaryKey, TimestampMixin, Base):
    """A notebook, whose name is unique for its owner."""

    __tablename__ = "notebooks"
    __table_args__ = (owner_unique("name"), Index(None, "owner_id", "created_at", "id"))

    name: Mapped[str] = mapped_column(String(100))


class NotePage(OwnerMixin, UUIDPrimaryKey, TimestampMixin, Base):
    """A page of a notebook, with the user who wrote it."""

    __tablename__ = "note_pages"
    __table_args__ = (Index(None, "owner_id", "notebook_id", "created_at", "id"),)

    notebook_id: Mapped[UUID] = mapped_column(
        ForeignKey("notebooks.id", ondelete="CASCADE"), index=True
    )
    author_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    text: Mapped[str] = mapped_column(String(1000))
