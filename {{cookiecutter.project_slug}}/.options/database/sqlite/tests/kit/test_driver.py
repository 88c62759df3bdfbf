"""The SQLite driver."""

import asyncio
import sqlite3
import stat
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from fastapi import FastAPI
from httpx2 import AsyncClient
from sqlalchemy import Connection, Integer, NullPool, insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.kit.db import driver
from app.kit.db.engine import Database
from app.kit.errors import Unavailable
from app.main import create_app
from app.settings import Settings
from tests.conftest import PATIENCE, problem, running, settings_for
from tests.database import PATIENT
from tests.kit.sample_feature import add_things, things


@pytest.mark.parametrize(
    ("given", "database"),
    [
        ("sqlite:///app.db", "app.db"),
        ("sqlite+aiosqlite:///app.db", "app.db"),
        ("sqlite+pysqlite:////tmp/app.db", "/tmp/app.db"),  # noqa: S108
    ],
)
def test_urls_are_converted_for_the_driver(given: str, database: str) -> None:
    url = driver.parse_url(given)
    assert (url.drivername, url.database) == ("sqlite+aiosqlite", database)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("app.db", "Not a database URL"),
        ("postgresql://host/name", "runs on SQLite .* not on postgresql"),
        ("sqlite://", "needs the path of a file"),
        ("sqlite:///:memory:", "needs the path of a file"),
        ("sqlite:///file::memory:?uri=true", "takes no parameters"),
        ("sqlite:///no/such/folder/app.db", "no file in a folder that exists"),
        ("sqlite:////tmp", "no file in a folder that exists"),
    ],
)
def test_other_urls_are_refused(given: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        driver.parse_url(given)


@pytest.mark.parametrize(
    ("pragma", "write", "read"),
    [
        ("journal_mode", "wal", "wal"),
        ("synchronous", 2, 2),  # FULL: an acknowledged write is on the disk
        ("foreign_keys", 1, 0),
        ("query_only", 0, 1),
        ("busy_timeout", 100, 1000 * int(PATIENT["database_busy_timeout"])),
    ],
)
async def test_connections_are_set_up(
    live_app: FastAPI, live: AsyncClient, pragma: str, write: object, read: object
) -> None:
    database: Database = live_app.state.database
    async with database.transaction() as session:
        assert await session.scalar(text(f"PRAGMA {pragma}")) == write
    async with database.reading() as session:
        assert await session.scalar(text(f"PRAGMA {pragma}")) == read


async def test_synchronous_is_a_setting(live_url: str) -> None:
    async with running(app := create_app(settings_for(live_url, database_synchronous="NORMAL"))):
        database: Database = app.state.database
        async with database.transaction() as session:
            assert await session.scalar(text("PRAGMA synchronous")) == 1


async def test_waiting_for_another_writing_process_times_out(live_url: str) -> None:
    async with running(app := create_app(settings_for(live_url, database_busy_timeout=0.1))):
        database: Database = app.state.database
        other = sqlite3.connect(live_url.removeprefix("sqlite:///"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable):
            async with database.transaction() as session:
                await session.execute(text("SELECT 1"))
        other.rollback()
        other.close()
        async with database.transaction() as session:
            await session.execute(text("SELECT 1"))


async def test_processes_that_read_and_then_write_are_serialized(live_url: str) -> None:
    # With a deferred BEGIN, one of them would fail with "database is locked".
    processes = [Database(settings_for(live_url)) for _ in range(2)]
    async with processes[0].transaction() as session:
        await session.execute(text("CREATE TABLE counted (number INTEGER)"))
        await session.execute(text("INSERT INTO counted VALUES (0)"))

    async def count(process: Database) -> None:
        for _ in range(20):
            async with process.transaction() as session:
                number = await session.scalar(text("SELECT number FROM counted"))
                await session.execute(text("UPDATE counted SET number = :n"), {"n": number + 1})

    await asyncio.gather(*(count(process) for process in processes))
    async with processes[0].reading() as reader:
        assert await reader.scalar(text("SELECT number FROM counted")) == 40
    for process in processes:
        await process.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
@pytest.mark.parametrize("engine", [driver.write_engine, driver.migration_engine])
async def test_a_new_file_is_readable_by_its_owner_only(
    tmp_path: Path, engine: Callable[[Settings], AsyncEngine]
) -> None:
    creating = engine(settings_for(f"sqlite:///{tmp_path / 'new.db'}"))
    async with creating.begin() as connection:
        await connection.execute(text("CREATE TABLE counted (number INTEGER)"))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    await creating.dispose()
    assert "new.db" in modes
    assert len(modes) > 1  # the journal has the values, too
    assert set(modes.values()) == {0o600}


async def test_no_wal_file_is_left_after_the_shutdown(live_url: str) -> None:
    async with running(create_app(settings_for(live_url))) as client:
        await client.get("/health/ready")
    path = Path(live_url.removeprefix("sqlite:///"))
    assert [file.name for file in path.parent.glob(f"{path.name}*")] == [path.name]


@pytest.mark.parametrize("broken", [False, True], ids=["sound", "broken"])
async def test_rebuilding_a_table_keeps_the_rows_that_refer_to_it(
    live_url: str, *, broken: bool
) -> None:
    settings = settings_for(live_url)
    engine = driver.migration_engine(settings)

    def migrate(connection: Connection) -> None:
        operations = Operations(MigrationContext.configure(connection))
        with operations.batch_alter_table("parents") as batch:
            batch.alter_column("number", existing_type=Integer(), nullable=False)
        if broken:
            connection.execute(text("DELETE FROM parents"))
        driver.after_migrations(connection)

    async with engine.begin() as connection:
        for statement in (
            "CREATE TABLE parents (id INTEGER PRIMARY KEY, number INTEGER)",
            "CREATE TABLE children (id INTEGER REFERENCES parents (id) ON DELETE CASCADE)",
            "INSERT INTO parents VALUES (1, 1)",
            "INSERT INTO children VALUES (1)",
        ):
            await connection.execute(text(statement))
    if broken:
        with pytest.raises(RuntimeError, match=r"1 foreign keys in .*children"):
            async with engine.begin() as connection:
                await connection.run_sync(migrate)
    else:
        async with engine.begin() as connection:
            await connection.run_sync(migrate)
    async with engine.connect() as connection:
        for table in ("parents", "children"):
            count = await connection.scalar(text(f"SELECT count(*) FROM {table}"))  # noqa: S608
            assert count == 1
    await engine.dispose()


async def test_a_file_without_wal_logs_a_warning(
    live_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(live_url)
    engine = driver.migration_engine(settings)  # keeps the file without WAL
    async with engine.connect() as connection:
        await connection.exec_driver_sql("ROLLBACK")
        await connection.exec_driver_sql("PRAGMA journal_mode = DELETE")
        (warning,) = await driver.warnings(connection, settings)
        assert "without WAL (delete)" in warning
        await connection.exec_driver_sql("BEGIN")
    await engine.dispose()


async def test_a_read_does_not_wait_for_a_writer(live_app: FastAPI, live: AsyncClient) -> None:
    await add_things(live_app)
    database: Database = live_app.state.database
    async with database.transaction() as writer:
        await writer.execute(insert(things).values(id=1))
        async with asyncio.timeout(PATIENCE), database.reading() as reader:
            assert (await reader.scalars(select(things.c.id))).all() == []


@pytest.mark.parametrize("mode", ["mode=ro", "immutable=1"])
async def test_a_read_only_file_is_not_ready(
    live_app: FastAPI, live: AsyncClient, live_url: str, mode: str
) -> None:
    # As on a volume that is mounted read-only, where BEGIN IMMEDIATE succeeds.
    path = live_url.removeprefix("sqlite:///")
    database: Database = live_app.state.database
    database.probe_engine = create_async_engine(
        f"sqlite+aiosqlite:///file:{path}?{mode}&uri=true",
        connect_args={"timeout": 0, "isolation_level": None},
        isolation_level="AUTOCOMMIT",
        poolclass=NullPool,
    )
    response = await live.get("/health/ready")
    assert problem(response, 503)["detail"] == "The database is read-only."


async def test_the_readiness_check_changes_no_file(live_url: str, live: AsyncClient) -> None:
    path = live_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 7")
        for _ in range(2):
            assert (await live.get("/health/ready")).status_code == 200
        assert other.execute("PRAGMA user_version").fetchone() == (7,)
