"""The request and response bodies of items."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import MISSING, Field

from app.kit.schemas import RequestModel, ResponseModel, Text

Name = Annotated[Text, Field(min_length=1, max_length=100)]
Description = Annotated[Text, Field(max_length=1000)]
Quantity = Annotated[int, Field(ge=0, lt=2**31)]
Cents = Annotated[int, Field(ge=0, lt=2**31)]


class ItemCreate(RequestModel):
    """A new item."""

    name: Name
    description: Description | None = None
    quantity: Quantity = 0
    price_cents: Cents
    active: bool = True


class ItemUpdate(RequestModel):
    """Changes to an item: a field that is not sent stays as it is."""

    name: Name | MISSING = MISSING
    description: Description | MISSING | None = MISSING
    quantity: Quantity | MISSING = MISSING
    price_cents: Cents | MISSING = MISSING
    active: bool | MISSING = MISSING


class ItemPublic(ResponseModel):
    """An item."""

    id: UUID
    name: str
    description: str | None
    quantity: int
    price_cents: int
    active: bool
    created_at: datetime
    updated_at: datetime
