"""A feature for tests only, so that what they show does not hang on the example's."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import Field
from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, insert, select

from app.db.engine import Database
from app.db.session import ReadSessionDep, SessionDep, get_database
from app.errors import Conflict
from app.schemas import Body, Text

metadata = MetaData()
things = Table(
    "things",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", String(10), unique=True),
    # Checked only at commit, on both databases.
    Column("part_of", ForeignKey("things.id", deferrable=True, initially="DEFERRED")),
)

router = APIRouter(prefix="/things")


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


@router.get("/stream")
async def stream(request: Request) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        # A transaction, for a cursor on the server lives in one.
        async with get_database(request).transaction() as session:
            async for number in await session.stream_scalars(select(things.c.id)):
                yield f"{number}\n"

    return StreamingResponse(lines())


async def add_things(app: FastAPI) -> None:
    """Mount the feature and make its table; the app must be running."""
    database: Database = app.state.database
    app.include_router(router)
    async with database.write_engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
