"""A feature for tests only, so that what they show does not hang on the example's."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Literal, cast
from uuid import UUID

from fastapi import BackgroundTasks, FastAPI, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    QueuePool,
    String,
    Table,
    insert,
    select,
)
from sqlalchemy.orm import DeclarativeBase, Mapped

from app import pagination
from app.db.engine import Database
from app.db.models import Base, Identified, Versioned
from app.db.repository import Repository
from app.db.session import ReadsDep, ReadSessionDep, SessionDep, get_database
from app.errors import Conflict, PreconditionFailed
from app.etag import IfMatch, etag
from app.idempotency.session import IdempotentSessionDep
from app.pagination import Order, Page
from app.routing import Router
from app.schemas import Body, PageQuery, Public, Text

metadata = MetaData()
things = Table(
    "tests_things",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", String(10), unique=True),
    # Checked only at commit, on both databases.
    Column("part_of", ForeignKey("tests_things.id", deferrable=True, initially="DEFERRED")),
)


class Models(DeclarativeBase):
    metadata = things.metadata
    type_annotation_map = Base.type_annotation_map


class Entry(Identified, Versioned, Models):
    """What there are lists of: in order of a column that is never null, or of one that may be."""

    __tablename__ = "tests_entries"

    name: Mapped[str]
    at: Mapped[datetime | None]


class Entries(Repository):
    model = Base


ORDERS = {
    order.name: order
    for column in (Entry.name, Entry.at)
    for order in (
        Order(column.key, column, Entry.id),
        Order(f"-{column.key}", column, Entry.id, descending=True),
    )
}

router = Router(prefix="/things")


class Thing(Body):
    id: Annotated[int, Field(ge=0, lt=2**31)]
    name: Annotated[Text, Field(max_length=10)] | None = None
    part_of: int | None = None


@router.post("", status_code=201)
async def create(thing: Thing, session: SessionDep) -> Thing:
    await session.execute(insert(things).values(thing.model_dump()))
    return thing


@router.post("/refused", status_code=201)
async def refuse(thing: Thing, session: SessionDep) -> None:
    await session.execute(insert(things).values(thing.model_dump()))
    raise Conflict("Written, then refused.")


@router.post("/crash", status_code=201)
async def crash(thing: Thing, session: SessionDep) -> None:
    await session.execute(insert(things).values(thing.model_dump()))
    raise RuntimeError("secret: nobody foresaw this")


@router.post("/once", status_code=201)
async def create_once(thing: Thing, session: IdempotentSessionDep, response: Response) -> Thing:
    await session.execute(insert(things).values(thing.model_dump()))
    response.headers["Location"] = f"/things/{thing.id}"
    return thing


@router.post("/savepoint", status_code=201)
async def partly(thing: Thing, session: SessionDep) -> None:
    await session.execute(insert(things).values(id=thing.id))
    async with session.begin_nested() as savepoint:
        await session.execute(insert(things).values(id=thing.id + 1))
        await savepoint.rollback()


@router.post("/background", status_code=202)
async def later(thing: Thing, request: Request, tasks: BackgroundTasks) -> None:
    async def write(database: Database) -> None:
        async with database.transaction() as session:
            await session.execute(insert(things).values(thing.model_dump()))

    tasks.add_task(write, get_database(request))


@router.get("")
async def ids(session: ReadSessionDep) -> list[int]:
    return list(await session.scalars(select(things.c.id).order_by(things.c.id)))


@router.get("/rows")
async def rows(reads: ReadsDep) -> list[dict[str, object]]:
    found = (await reads.execute(select(things))).mappings()
    pool = cast("QueuePool", reads.database.read_engine.pool)
    return [{**row, "in_use": pool.checkedout()} for row in found]


@router.get("/stream")
async def stream(request: Request) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        # A transaction, for a cursor on the server lives in one.
        async with get_database(request).transaction() as session:
            async for number in await session.stream_scalars(select(things.c.id)):
                yield f"{number}\n"

    return StreamingResponse(lines())


class EntryQuery(PageQuery):
    sort: Literal["name", "-name", "at", "-at"] = "name"


class EntryPublic(Public):
    id: UUID
    name: str
    at: datetime | None
    version: int


class Rename(Body):
    name: Text


@router.get("/entries", response_model=Page[EntryPublic])
async def entries(query: Annotated[EntryQuery, Query()], session: ReadSessionDep) -> object:
    order = ORDERS[query.sort]
    position = pagination.decode(order, query.cursor)
    statement = pagination.keyset(select(Entry), order, position.start)
    rows = await Entries(session).all(statement, pagination.parameters(query.limit, position))
    return pagination.cut(rows, query.limit, order)


@router.patch("/entries/{entry_id}", response_model=EntryPublic)
async def rename(
    entry_id: UUID, body: Rename, versions: IfMatch, session: SessionDep, response: Response
) -> Entry:
    entry = await Entries(session).one(select(Entry).where(Entry.id == entry_id))
    if versions is not None and entry.version not in versions:
        raise PreconditionFailed("The entry has changed: read it again.")
    entry.name = body.name
    await session.flush()
    response.headers["ETag"] = etag(entry.version)
    return entry


async def add_things(app: FastAPI) -> None:
    """Mount the feature and make its table; the app must be running."""
    database: Database = app.state.database
    app.include_router(router)
    async with database.write_engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
