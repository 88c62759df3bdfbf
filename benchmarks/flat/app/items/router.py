"""Item routes."""

from typing import Annotated
from uuid import UUID

from fastapi import Query, Request, Response

from app.items.models import Item
from app.items.repository import ITEMS, ItemRepository
from app.items.schemas import ItemBatch, ItemCreate, ItemList, ItemPublic, ItemUpdate
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


@router.post(
    "/items/batch", status_code=201, response_model=ItemList, responses=error_responses(409)
)
@idempotent
async def create_items(body: ItemBatch, items: Items) -> dict[str, object]:
    """Create many items: all of them, or none."""
    return {"items": await items.create_all(body.items)}


@router.get("/items", response_model=Page[ItemPublic])
async def list_items(query: Annotated[PageQuery, Query()], items: Items) -> object:
    """List items, the oldest first, page by page."""
    return await items.page(ITEMS, query)


@router.patch("/items/{item_id}", response_model=ItemPublic, responses=error_responses(404))
async def update_item(item_id: UUID, body: ItemUpdate, items: Items) -> Item:
    """Change the fields that are sent."""
    return await items.update(item_id, body)
