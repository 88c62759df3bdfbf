"""A feature for the tests of the kit, so that they don't depend on the example."""

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
from sqlalchemy.orm import Mapped

from app.kit.db.engine import Database
from app.kit.db.models import Base, UUIDPrimaryKey, VersionMixin
from app.kit.db.repository import Repository
from app.kit.db.session import ReadSessionDep, SessionDep, get_database, repository
from app.kit.errors import Conflict, error_responses
from app.kit.etag import IfMatch
from app.kit.idempotency.session import idempotent
from app.kit.pagination import KeysetList, OffsetPage, OffsetQuery, Page, PageQuery
from app.kit.routing import Router
from app.kit.schemas import RequestModel, ResponseModel, Text

metadata = MetaData()
things = Table(
    "tests_things",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", String(10), unique=True),
    # Checked only at commit, on both databases.
    Column("part_of", ForeignKey("tests_things.id", deferrable=True, initially="DEFERRED")),
)


class Models(Base):
    __abstract__ = True
    metadata = things.metadata  # separate from the tables of the service


class Entry(UUIDPrimaryKey, VersionMixin, Models):
    """Rows for lists that are sorted by a column with or without nulls."""

    __tablename__ = "tests_entries"

    name: Mapped[str]
    at: Mapped[datetime | None]


ENTRIES = KeysetList(select(Entry), sorts=[Entry.name, Entry.at])
FILTERED = KeysetList(
    select(Entry),
    sorts=[Entry.name],
    filters={"name": Entry.name, "before": lambda name: Entry.name < name},
)
NAMES = KeysetList(select(Entry.id, Entry.name), sorts=[Entry.name])
LATE = KeysetList(select(Entry).where(Entry.name > "b"), sorts=[Entry.name])
VERSIONS = KeysetList(select(Entry), sorts=[Entry.version])


class Entries(Repository[Entry]):
    model = Entry


EntriesDep = Annotated[Entries, repository(Entries)]

router = Router(prefix="/things")


class Thing(RequestModel):
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
    raise RuntimeError("secret: unexpected")


@router.post("/once", status_code=201)
@idempotent
async def create_once(thing: Thing, session: SessionDep, response: Response) -> Thing:
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
async def rows(session: ReadSessionDep, request: Request) -> list[dict[str, object]]:
    found = (await session.execute(select(things))).mappings()
    pool = cast("QueuePool", get_database(request).read_engine.pool)
    return [{**row, "in_use": pool.checkedout()} for row in found]


@router.get("/stream")
async def stream(request: Request) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        # A transaction, because a server-side cursor needs one.
        async with get_database(request).transaction() as session:
            async for number in await session.stream_scalars(select(things.c.id)):
                yield f"{number}\n"

    return StreamingResponse(lines())


class EntryQuery(PageQuery):
    sort: Literal["name", "-name", "at", "-at"] = "name"


class EntryPublic(ResponseModel):
    id: UUID
    name: str
    at: datetime | None
    version: int


class EntryCreate(RequestModel):
    name: Text
    at: datetime | None = None


class Rename(RequestModel):
    name: Text


class NamePublic(ResponseModel):
    name: str


@router.post("/entries", status_code=201, response_model=EntryPublic)
async def create_entry(body: EntryCreate, entries: EntriesDep) -> Entry:
    return await entries.create(body)


@router.get("/entries", response_model=Page[EntryPublic])
async def list_entries(query: Annotated[EntryQuery, Query()], entries: EntriesDep) -> object:
    return await entries.page(ENTRIES, query)


@router.get("/entries/offset", response_model=OffsetPage[EntryPublic])
async def list_by_offset(query: Annotated[OffsetQuery, Query()], entries: EntriesDep) -> object:
    return await entries.page(ENTRIES, query)


@router.get("/entries/names", response_model=Page[NamePublic])
async def list_names(query: Annotated[PageQuery, Query()], entries: EntriesDep) -> object:
    return await entries.page(NAMES, query)


@router.get("/entries/late", response_model=Page[NamePublic])
async def list_late(query: Annotated[PageQuery, Query()], entries: EntriesDep) -> object:
    return await entries.page(LATE, query)


@router.get("/entries/versions", response_model=Page[NamePublic])
async def list_versions(query: Annotated[PageQuery, Query()], entries: EntriesDep) -> object:
    return await entries.page(VERSIONS, query)


@router.get("/entries/named/{name}")
async def echo(name: str) -> str:
    return name


@router.get("/entries/{entry_id}", response_model=EntryPublic, responses=error_responses(304))
async def get_entry(entry_id: UUID, entries: EntriesDep, response: Response) -> Entry:
    entry = await entries.get(entry_id)
    response.headers["ETag"] = entry.etag
    return entry


@router.patch("/entries/{entry_id}", response_model=EntryPublic)
async def rename(
    entry_id: UUID, body: Rename, versions: IfMatch, entries: EntriesDep, response: Response
) -> Entry:
    entry = await entries.update(entry_id, body, versions)
    response.headers["ETag"] = entry.etag
    return entry


@router.delete("/entries/{entry_id}", status_code=204)
async def delete_entry(entry_id: UUID, versions: IfMatch, entries: EntriesDep) -> None:
    await entries.delete(entry_id, versions)


async def add_things(app: FastAPI) -> None:
    """Mount the feature and create its tables; the app must be running."""
    database: Database = app.state.database
    app.include_router(router)
    async with database.write_engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
