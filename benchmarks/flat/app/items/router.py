"""The HTTP face of items."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query, Request, Response

from app.items.repository import ItemReader, ItemRepository
from app.items.schemas import ItemBatch, ItemCreate, ItemList, ItemPublic, ItemUpdate
from app.kit.db.session import ReadsDep, SessionDep
from app.kit.errors import problems
from app.kit.idempotency.session import IdempotentSessionDep
from app.kit.pagination import Page
from app.kit.routing import Router
from app.kit.schemas import PageQuery

router = Router(tags=["items"])


async def item_reader(reads: ReadsDep) -> ItemReader:
    """Give what answers questions about items."""
    return ItemReader(reads)


async def item_repository(session: SessionDep) -> ItemRepository:
    """Give what changes items, in the request's transaction."""
    return ItemRepository(session)


async def item_creator(session: IdempotentSessionDep) -> ItemRepository:
    """Give what makes items: once, however often a client sends the same request."""
    return ItemRepository(session)


Reader = Annotated[ItemReader, Depends(item_reader)]
Changer = Annotated[ItemRepository, Depends(item_repository)]
Creator = Annotated[ItemRepository, Depends(item_creator)]


# The most asked for comes first: routes are tried in turn.
@router.get("/items/{item_id}", response_model=ItemPublic, responses=problems(404))
async def get_item(item_id: UUID, items: Reader) -> object:
    """Get an item."""
    return await items.get(item_id)


@router.post("/items", status_code=201, response_model=ItemPublic, responses=problems(409))
async def create_item(
    body: ItemCreate, items: Creator, request: Request, response: Response
) -> object:
    """Create an item."""
    item = await items.create(body)
    response.headers["Location"] = f"{request.url.path}/{item.id}"
    return item


@router.post("/items/batch", status_code=201, response_model=ItemList, responses=problems(409))
async def create_items(body: ItemBatch, items: Creator) -> dict[str, object]:
    """Create many items: all of them, or none."""
    return {"items": await items.create_all(body.items)}


@router.get("/items", response_model=Page[ItemPublic])
async def list_items(query: Annotated[PageQuery, Query()], items: Reader) -> object:
    """List items, the oldest first, page by page."""
    return await items.page(query)


@router.patch("/items/{item_id}", response_model=ItemPublic, responses=problems(404))
async def update_item(item_id: UUID, body: ItemUpdate, items: Changer) -> object:
    """Change the fields that are sent."""
    return await items.update(item_id, body.model_dump(exclude_unset=True))
