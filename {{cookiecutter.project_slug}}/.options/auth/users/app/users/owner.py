"""Row ownership: a row belongs to the user who created it."""

from typing import ClassVar
from uuid import UUID

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.kit.caller import Caller
from app.kit.schemas import RequestModel


class OwnerMixin:
    """A row that belongs to the user who created it. ``Repository`` hides it from others."""

    __owned__: ClassVar[bool] = True

    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), sort_order=1)


def owner_indexes(*columns: str) -> tuple[Index, ...]:
    """Return an index for each column by which a user's own rows are listed."""
    return tuple(Index(None, "owner_id", column, "id") for column in columns)


def owner_unique(*columns: str) -> UniqueConstraint:
    """Return a unique constraint on these columns for each owner."""
    return UniqueConstraint("owner_id", *columns)


class SignedModel(RequestModel):
    """Base of requests whose author is the caller."""

    def author_name(self, caller: Caller) -> str:
        """Return the name of the author."""
        return caller.name
