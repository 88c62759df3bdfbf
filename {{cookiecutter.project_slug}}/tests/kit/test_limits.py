"""How long anything may take with the database, and what happens then."""

import asyncio
import time
from contextlib import AsyncExitStack
from functools import partial

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient
from sqlalchemy import event, insert, select, text

from app.db import driver
from app.db.engine import Database, WriteSession
from app.errors import AppError, Contended, Unavailable
from app.main import create_app
from tests.conftest import checked_out, pool_size, problem, running, settings_for
from tests.database import RUNAWAY
from tests.kit.things import add_things, things


@pytest.mark.parametrize("kind", ["transaction", "reading"])
async def test_a_session_has_its_time(live_url: str, kind: str) -> None:
    app = create_app(settings_for(live_url, database_session_timeout=0.2))
    async with running(app):
        database: Database = app.state.database
        started = time.monotonic()
        with pytest.raises(Unavailable, match="in time"):
            async with getattr(database, kind)() as session:
                await session.execute(text(RUNAWAY))
        assert time.monotonic() - started < 5
        assert checked_out(database) == 0
        async with getattr(database, kind)() as session:  # whole again
            assert await session.scalar(text("SELECT 1")) == 1


async def test_a_read_of_columns_has_its_time(live_url: str) -> None:
    app = create_app(settings_for(live_url, database_session_timeout=0.2))
    async with running(app):
        database: Database = app.state.database
        started = time.monotonic()
        with pytest.raises(Unavailable, match="in time"):
            await database.execute(text(RUNAWAY))
        assert time.monotonic() - started < 5
        assert checked_out(database) == 0
        assert (await database.execute(text("SELECT 1"))).scalar() == 1  # whole again


async def test_a_commit_that_is_cancelled_leaves_nothing_open(live_url: str) -> None:
    app = create_app(settings_for(live_url))
    async with running(app):
        await add_things(app)
        database: Database = app.state.database

        async def write(number: int) -> None:
            async with database.transaction() as session:
                await session.execute(insert(things), {"id": number})
                writing.set()

        for number in range(20):
            writing = asyncio.Event()
            task = asyncio.create_task(write(number))
            await writing.wait()  # then it commits
            for _ in range(number % 7):  # at one step after the other
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await asyncio.sleep(0)
            # Written or not, but known to the next one, who is not kept waiting.
            async with asyncio.timeout(5), database.transaction() as session:
                await session.execute(select(things).where(things.c.id == number))
        assert checked_out(database) == 0


async def test_whoever_waits_for_a_connection_has_no_more(live_url: str) -> None:
    app = create_app(settings_for(live_url, database_session_timeout=0.2, database_pool_timeout=60))
    async with running(app):
        database: Database = app.state.database
        size = pool_size(database.write_engine)
        held = [await database.write_engine.connect() for _ in range(size)]
        with pytest.raises(Unavailable, match="in time"):
            async with database.transaction() as session:
                await session.execute(text("SELECT 1"))
        for connection in held:
            await connection.close()
        assert checked_out(database) == 0


@pytest.mark.parametrize("kind", ["transaction", "reading"])
async def test_whoever_came_first_is_served_first(live_url: str, kind: str) -> None:
    database = Database(settings_for(live_url))
    engine = database.write_engine if kind == "transaction" else database.read_engine
    opened = getattr(database, kind)
    served: list[str] = []

    async def ask(name: str) -> None:
        async with opened() as session:
            _ = await session.connection()
            served.append(name)

    async with AsyncExitStack() as held, asyncio.TaskGroup() as group:
        for _ in range(pool_size(engine)):
            session = await held.enter_async_context(opened())
            _ = await session.connection()
        group.create_task(ask("waited"))
        await asyncio.sleep(0)

        @event.listens_for(engine.sync_engine, "checkin", once=True)
        def come(*_: object) -> None:  # just when a connection is free
            group.create_task(ask("came later"))

        await held.aclose()
    await database.close()
    assert served == ["waited", "came later"]


async def test_a_script_takes_its_time(live_url: str) -> None:
    app = create_app(settings_for(live_url, database_session_timeout=0.05))
    async with running(app):
        database: Database = app.state.database
        for kind in (database.transaction, database.reading):
            async with kind(limited=False) as session:
                await asyncio.sleep(0.1)
                assert await session.scalar(text("SELECT 1")) == 1


async def test_time_of_ones_own_is_not_the_databases(live_app: FastAPI, live: AsyncClient) -> None:
    database: Database = live_app.state.database
    with pytest.raises(TimeoutError):
        async with database.transaction():
            raise TimeoutError


async def test_a_request_that_is_out_of_time_is_503(live_url: str) -> None:
    app = create_app(settings_for(live_url, database_session_timeout=0.2))
    async with running(app) as client:
        await add_things(app)
        database: Database = app.state.database
        size = pool_size(database.write_engine)
        held = [await database.write_engine.connect() for _ in range(size)]
        answer = await client.post("/things", json={"id": 1})
        problem(answer, 503)
        assert answer.headers["retry-after"] == "1"
        for connection in held:
            await connection.close()
        assert (await client.post("/things", json={"id": 1})).status_code == 201


async def test_a_transaction_that_others_were_preferred_to_is_done_again(
    live_app: FastAPI, live: AsyncClient
) -> None:
    database: Database = live_app.state.database
    tries: list[WriteSession] = []

    async def work(session: WriteSession) -> str:
        tries.append(session)
        if len(tries) < 3:
            raise Contended("Others changed the same data at the same time.")
        return "done"

    assert await database.retrying(work) == "done"
    assert len(set(map(id, tries))) == 3


async def test_it_is_not_tried_for_ever(live_app: FastAPI, live: AsyncClient) -> None:
    database: Database = live_app.state.database
    tries: list[WriteSession] = []

    async def work(session: WriteSession, error: type[AppError] = Contended) -> None:
        tries.append(session)
        raise error("no")

    with pytest.raises(Contended):
        await database.retrying(work, attempts=3)
    assert len(tries) == 3
    with pytest.raises(Unavailable):  # for what is no contention, once is enough
        await database.retrying(lambda session: work(session, Unavailable))
    assert len(tries) == 4


async def test_the_end_does_not_wait_for_a_database_that_is_gone(
    live_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(settings_for(live_url))

    async def never() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("app.db.engine.CLOSE_TIMEOUT", 0.05)
    dispose = database.write_engine.dispose
    with monkeypatch.context() as patched:
        patched.setattr(type(database.write_engine), "dispose", lambda _: never())
        await asyncio.wait_for(database.close(), 5)
    assert "does not answer" in caplog.text
    await dispose()


async def test_a_replica_is_read_from_and_done_without_while_it_is_away(
    live_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # The same database stands for its replica: what is shown is which of two engines is asked.
    monkeypatch.setattr(driver, "replica_engine", driver.read_engine)
    monkeypatch.setattr("app.db.engine.REPLICA_RETRY", 0.1)
    database = Database(settings_for(live_url))
    asked: list[str] = []
    away = False

    def ask(name: str, *_: object) -> None:
        asked.append(name)
        if away and name == "replica":
            raise Unavailable("Away.")

    for name, engine in database.engines.items():
        event.listen(engine.sync_engine, "checkout", partial(ask, name))

    async def read(*, fresh: bool = False) -> None:
        async with database.reading(fresh=fresh) as session:
            assert await session.scalar(text("SELECT 1")) == 1

    await read()
    await read(fresh=True)
    assert asked == ["replica", "read"]
    away = True
    await asyncio.gather(*(read() for _ in range(20)))
    assert asked.count("read") == 21
    assert caplog.text.count("reads go to the primary") == 1
    away = False
    asked.clear()
    while "replica" not in asked:  # it is asked again by and by
        await read()
        await asyncio.sleep(0.02)
    for fresh, name in ((False, "replica"), (True, "read")):  # columns likewise
        asked.clear()
        assert (await database.execute(text("SELECT 1"), fresh=fresh)).scalar() == 1
        assert asked == [name]
    assert checked_out(database) == 0
    await database.close()
