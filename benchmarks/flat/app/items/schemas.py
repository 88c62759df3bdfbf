"""What clients send and get."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import MISSING, Field

from app.kit.schemas import Body, Public, Text

Name = Annotated[Text, Field(min_length=1, max_length=100)]
Description = Annotated[Text, Field(max_length=1000)]
Quantity = Annotated[int, Field(ge=0, lt=2**31)]
Cents = Annotated[int, Field(ge=0, lt=2**31)]


class ItemCreate(Body):
    """A new item."""

    name: Name
    description: Description | None = None
    quantity: Quantity = 0
    price_cents: Cents
    active: bool = True


class ItemUpdate(Body):
    """What shall change: a field that is not sent stays as it is."""

    name: Name | MISSING = MISSING
    description: Description | MISSING | None = MISSING
    quantity: Quantity | MISSING = MISSING
    price_cents: Cents | MISSING = MISSING
    active: bool | MISSING = MISSING


class ItemBatch(Body):
    """Many new items: all of them, or none."""

    items: Annotated[list[ItemCreate], Field(min_length=1, max_length=1000)]


class ItemPublic(Public):
    """An item."""

    id: UUID
    name: str
    description: str | None
    quantity: int
    price_cents: int
    active: bool
    created_at: datetime
    updated_at: datetime


class ItemList(Public):
    """Items that were made together."""

    items: list[ItemPublic]
