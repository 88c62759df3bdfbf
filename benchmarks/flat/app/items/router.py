"""Item routes: the same resource as entities and as rows of columns."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request, Response
from sqlalchemy import Row

from app.items.models import Item
from app.items.repository import ITEMS, ROWS, ItemRepository
from app.items.schemas import ItemCreate, ItemPublic, ItemUpdate
from app.kit.db.session import repository
from app.kit.errors import error_responses
from app.kit.idempotency.session import idempotent
from app.kit.pagination import Page, PageQuery
from app.kit.routing import Router

router = Router(tags=["items"])

Items = Annotated[ItemRepository, repository(ItemRepository)]


# The most frequent route comes first: routes are tried in order.
@router.get("/items/{item_id}", response_model=ItemPublic, responses=error_responses(404))
async def get_item(item_id: UUID, items: Items) -> Item:
    """Get an item."""
    return await items.get(item_id)


@router.post("/items", status_code=201, response_model=ItemPublic, responses=error_responses(409))
@idempotent
async def create_item(body: ItemCreate, items: Items, request: Request, response: Response) -> Item:
    """Create an item."""
    item = await items.create(body)
    response.headers["Location"] = f"{request.url.path}/{item.id}"
    return item


@router.get("/items", response_model=Page[ItemPublic])
async def list_items(query: Annotated[PageQuery, Query()], items: Items) -> object:
    """List items, the oldest first, page by page."""
    return await items.page(ITEMS, query)


@router.patch("/items/{item_id}", response_model=ItemPublic, responses=error_responses(404))
async def update_item(item_id: UUID, body: ItemUpdate, items: Items) -> Item:
    """Change the fields that are sent."""
    return await items.update(item_id, body)


@router.get("/item-rows/{item_id}", response_model=ItemPublic, responses=error_responses(404))
async def get_row(item_id: UUID, items: Items) -> Row[Any]:
    """Get an item."""
    return await items.get_row(item_id)


@router.post(
    "/item-rows", status_code=201, response_model=ItemPublic, responses=error_responses(409)
)
@idempotent
async def create_row(
    body: ItemCreate, items: Items, request: Request, response: Response
) -> Row[Any]:
    """Create an item."""
    row = await items.create_row(body.model_dump())
    response.headers["Location"] = f"{request.url.path}/{row.id}"
    return row


@router.get("/item-rows", response_model=Page[ItemPublic])
async def list_rows(query: Annotated[PageQuery, Query()], items: Items) -> object:
    """List items, the oldest first, page by page."""
    return await items.page(ROWS, query)


@router.patch("/item-rows/{item_id}", response_model=ItemPublic, responses=error_responses(404))
async def update_row(item_id: UUID, body: ItemUpdate, items: Items) -> Row[Any]:
    """Change the fields that are sent."""
    return await items.update_row(item_id, body.model_dump(exclude_unset=True))
