"""Time limits of sessions and connections, and retries."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient
from sqlalchemy import Connection, event, func, insert, select, text
from sqlalchemy.util import await_only

from app.kit.db import driver
from app.kit.db.engine import Database, WriteSession
from app.kit.errors import AppError, TransactionConflict, Unavailable
from app.main import create_app
from tests.conftest import PATIENCE, checked_out, pool_size, problem, running, settings_for
from tests.database import RUNAWAY
from tests.kit.sample_feature import add_things, things


@pytest.mark.parametrize("kind", ["transaction", "reading"])
async def test_a_session_has_a_time_limit(live_url: str, kind: str) -> None:
    app = create_app(settings_for(live_url, database_session_timeout=0.2))
    async with running(app):
        database: Database = app.state.database
        with pytest.raises(Unavailable, match="in time"):
            async with asyncio.timeout(PATIENCE), getattr(database, kind)() as session:
                await session.execute(text(RUNAWAY))
        assert checked_out(database) == 0
        async with getattr(database, kind)(timeout=None) as session:  # the pool is complete again
            assert await session.scalar(text("SELECT 1")) == 1


async def test_a_read_of_columns_has_a_time_limit(live_url: str) -> None:
    app = create_app(settings_for(live_url, database_session_timeout=0.2))
    async with running(app):
        database: Database = app.state.database
        with pytest.raises(Unavailable, match="in time"):
            async with asyncio.timeout(PATIENCE):
                await database.read_session().execute(text(RUNAWAY))
        assert checked_out(database) == 0
        async with database.reading(timeout=None) as session:  # the pool is complete again
            assert await session.scalar(text("SELECT 1")) == 1


async def test_a_cancelled_commit_leaves_no_transaction_open(live_url: str) -> None:
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
            # The commit may have succeeded or not, but the next transaction does not wait.
            async with asyncio.timeout(PATIENCE), database.transaction() as session:
                await session.execute(select(things).where(things.c.id == number))
        assert checked_out(database) == 0


async def test_waiting_for_a_connection_counts_towards_the_limit(live_url: str) -> None:
    app = create_app(settings_for(live_url, database_session_timeout=0.2))
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


@pytest.mark.parametrize("kind", ["write", "read"])
async def test_requests_are_served_in_order_of_arrival(live_url: str, kind: str) -> None:
    database = Database(settings_for(live_url))
    engine = database.engines[kind]
    free, held = asyncio.Event(), asyncio.Semaphore(0)
    served: list[str] = []

    def hold(connection: Connection) -> None:
        held.release()
        await_only(free.wait())

    async def use(work: Callable[[Connection], None]) -> None:
        if kind == "read":
            await database.run_read(work)
        else:
            async with database.transaction() as session:
                await (await session.connection()).run_sync(work)

    async with asyncio.TaskGroup() as group:
        for _ in range(pool_size(engine)):
            group.create_task(use(hold))
        for _ in range(pool_size(engine)):
            await held.acquire()
        group.create_task(use(lambda _: served.append("waited")))
        await asyncio.sleep(0)

        @event.listens_for(engine.sync_engine, "checkin", once=True)
        def come(*_: object) -> None:  # just when a connection is free
            group.create_task(use(lambda _: served.append("came later")))

        free.set()
    await database.close()
    assert served == ["waited", "came later"]


async def test_a_script_has_no_time_limit(live_url: str) -> None:
    app = create_app(settings_for(live_url, database_session_timeout=0.05))
    async with running(app):
        database: Database = app.state.database
        for kind in (database.transaction, database.reading):
            async with kind(timeout=None) as session:
                await asyncio.sleep(0.1)
                assert await session.scalar(text("SELECT 1")) == 1


async def test_a_timeout_of_the_application_is_not_a_database_error(
    live_app: FastAPI, live: AsyncClient
) -> None:
    database: Database = live_app.state.database
    with pytest.raises(TimeoutError):
        async with database.transaction():
            raise TimeoutError


async def test_a_request_that_times_out_is_503(live_url: str) -> None:
    app = create_app(settings_for(live_url, database_session_timeout=0.2))
    async with running(app) as client:
        await add_things(app)
        database: Database = app.state.database
        size = pool_size(database.write_engine)
        held = [await database.write_engine.connect() for _ in range(size)]
        response = await client.post("/things", json={"id": 1})
        problem(response, 503)
        assert response.headers["retry-after"] == "1"
        for connection in held:
            await connection.close()
        async with database.transaction(timeout=None) as session:
            assert await session.scalar(select(func.count()).select_from(things)) == 0


async def test_a_serialization_failure_is_retried(live_app: FastAPI, live: AsyncClient) -> None:
    database: Database = live_app.state.database
    tries: list[WriteSession] = []

    async def work(session: WriteSession) -> str:
        tries.append(session)
        if len(tries) < 3:
            raise TransactionConflict("Others changed the same data at the same time.")
        return "done"

    assert await database.retrying(work) == "done"
    assert len(set(map(id, tries))) == 3


async def test_retries_are_limited(live_app: FastAPI, live: AsyncClient) -> None:
    database: Database = live_app.state.database
    tries: list[WriteSession] = []

    async def work(session: WriteSession, error: type[AppError] = TransactionConflict) -> None:
        tries.append(session)
        raise error("no")

    with pytest.raises(TransactionConflict):
        await database.retrying(work, attempts=3)
    assert len(tries) == 3
    with pytest.raises(Unavailable):  # other errors are not retried
        await database.retrying(lambda session: work(session, Unavailable))
    assert len(tries) == 4


async def test_shutdown_does_not_wait_for_a_dead_database(
    live_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(settings_for(live_url))

    async def never() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("app.kit.db.engine.CLOSE_TIMEOUT", 0.05)
    dispose = database.write_engine.dispose
    with monkeypatch.context() as patched:
        patched.setattr(type(database.write_engine), "dispose", lambda _: never())
        await asyncio.wait_for(database.close(), PATIENCE)
    assert "does not respond" in caplog.text
    await dispose()


class Asked:
    """Records which engine opens connections, and can simulate a replica that is down."""

    def __init__(self, database: Database) -> None:
        self.names: list[str] = []
        self.away = False
        for name, engine in database.engines.items():
            event.listen(engine.sync_engine, "checkout", partial(self._ask, name))

    def _ask(self, name: str, *_: object) -> None:
        self.names.append(name)
        if self.away and name == "replica":
            raise Unavailable("Away.")


@pytest.fixture
async def replicated(
    live_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Database, Asked]]:
    """Return a database with a replica, and the record of connections."""
    # The same database serves as its replica: the test shows which engine is used.
    monkeypatch.setattr(driver, "replica_engine", driver.read_engine)
    database = Database(settings_for(live_url))
    yield database, Asked(database)
    assert checked_out(database) == 0
    await database.close()


async def read(database: Database, *, primary: bool = False) -> None:
    async with database.reading(primary=primary) as session:
        assert await session.scalar(text("SELECT 1")) == 1


async def test_reads_use_the_replica_unless_primary_is_requested(
    replicated: tuple[Database, Asked],
) -> None:
    database, asked = replicated
    for primary, name in ((False, "replica"), (True, "read")):
        asked.names.clear()
        await read(database, primary=primary)
        assert asked.names == [name]


async def test_a_replica_that_is_down_is_not_tried_for_a_while(
    replicated: tuple[Database, Asked],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("app.kit.db.engine.REPLICA_RETRY", 3600.0)
    database, asked = replicated
    asked.away = True
    await read(database)
    await asyncio.gather(*(read(database) for _ in range(20)))
    assert asked.names == ["replica", *["read"] * 21]
    assert caplog.text.count("reads go to the primary") == 1


async def test_a_replica_is_tried_again_and_its_failure_is_logged_once(
    replicated: tuple[Database, Asked],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("app.kit.db.engine.REPLICA_RETRY", 0.0)
    database, asked = replicated
    asked.away = True
    await asyncio.gather(*(read(database) for _ in range(20)))
    assert asked.names.count("read") == 20
    assert caplog.text.count("reads go to the primary") == 1
    asked.away = False
    asked.names.clear()
    monkeypatch.setattr("app.kit.db.engine.REPLICA_RETRY", 3600.0)
    for _ in range(2):
        await read(database)
    assert asked.names == ["replica", "replica"]
