"""Row ownership without users: rows have no owner."""

from typing import Annotated

from pydantic import Field
from sqlalchemy import Index, UniqueConstraint

from app.kit.caller import Caller
from app.kit.schemas import RequestModel, Text


class OwnerMixin:
    """A row that belongs to the user who created it."""


def owner_indexes(*columns: str) -> tuple[Index, ...]:
    """Return an index for each column by which a user's own rows are listed."""
    return ()


def owner_unique(*columns: str) -> UniqueConstraint:
    """Return a unique constraint on these columns for each owner."""
    return UniqueConstraint(*columns)


class SignedModel(RequestModel):
    """Base of requests that name their author, because callers are anonymous."""

    author: Annotated[Text, Field(min_length=1, max_length=100, examples=["Ada Lovelace"])]

    def author_name(self, caller: Caller) -> str:
        """Return the name of the author."""
        return self.author
