"""The PostgreSQL driver."""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import func, insert, make_url, select, text, update
from sqlalchemy.exc import DBAPIError

from app.kit import project
from app.kit.db import driver
from app.kit.db.engine import Database, WriteSession
from app.kit.errors import AppError, Conflict, Unavailable
from app.main import create_app
from tests import database as testdb
from tests.conftest import PATIENCE, alembic_config, problem, running, settings_for
from tests.kit.sample_feature import add_things, things

direct = pytest.mark.skipif(
    testdb.POOLER is not None, reason="a pooler shares connections between clients"
)


@pytest.fixture(scope="module")
async def database(databases: testdb.Databases, template: str) -> AsyncIterator[Database]:
    """Return the open database of an app, shared by the tests that leave nothing in it."""
    url = await databases.copy(template)
    limits = {"database_statement_timeout": 101, "database_idle_in_transaction_timeout": 601}
    database = Database(settings_for(url, **limits))
    await database.open()
    yield database
    await database.close()
    await databases.drop(url)


@pytest.mark.parametrize(
    "given",
    ["postgres://u:p@h:1/name", "postgresql://u:p@h:1/name", "postgresql+psycopg://u:p@h:1/name"],
)
def test_urls_are_converted_for_the_driver(given: str) -> None:
    url = driver.parse_url(given).render_as_string(hide_password=False)
    assert url == "postgresql+asyncpg://u:p@h:1/name"
    again = settings_for(driver.parse_url(given)).database_url  # a URL's repr hides its password
    assert again.render_as_string(hide_password=False) == url


def test_urls_of_providers_are_accepted() -> None:
    url = driver.parse_url("postgres://u:p@host/name?sslmode=require")
    assert dict(url.query) == {"ssl": "require"}


@pytest.mark.parametrize(
    ("mode", "checks_name"),
    [("", True), ("&sslmode=verify-full", True), ("&sslmode=verify-ca", False)],
)
def test_a_root_certificate_verifies_the_server(mode: str, *, checks_name: bool) -> None:
    url = driver.parse_url(f"postgresql://u:p@host/name?sslrootcert=system{mode}")
    context = driver._verify_server(url)["ssl"]  # noqa: SLF001
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname is checks_name


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("postgresql://host/name?sslrootcert=/none/ca.pem", "a file that does not exist"),
        ("postgresql://host/name?sslrootcert=system&sslmode=prefer", "takes an sslmode of"),
        ("name", "Not a database URL"),
        ("postgresql://host:port/name", "Not a database URL"),
        ("sqlite:///app.db", "runs on PostgreSQL .* not on sqlite"),
        ("postgresql://host", "names no database"),
        ("postgresql://host/name?channel_binding=require", "no 'channel_binding' in a URL"),
    ],
)
def test_other_urls_are_refused(given: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        driver.parse_url(given)


@pytest.mark.parametrize(
    ("setting", "write", "read"),
    [
        ("application_name", project.NAME, project.NAME),
        pytest.param("statement_timeout", "101s", "101s", marks=direct),
        pytest.param("idle_in_transaction_session_timeout", "601s", "601s", marks=direct),
        ("transaction_read_only", "off", "on"),
        ("transaction_isolation", "read committed", "read committed"),
    ],
)
async def test_connections_are_set_up(
    database: Database, setting: str, write: str, read: str
) -> None:
    async with database.transaction() as session:
        assert await session.scalar(text(f"SHOW {setting}")) == write
    async with database.reading() as session:
        assert await session.scalar(text(f"SHOW {setting}")) == read


@direct
async def test_a_read_begins_no_transaction(database: Database) -> None:
    now = text("SELECT now()")  # idle in a transaction
    async with database.reading() as session:
        assert await session.scalar(now) != await session.scalar(now)
    async with database.transaction() as session:
        assert await session.scalar(now) == await session.scalar(now)


async def test_a_long_statement_is_cancelled(database: Database) -> None:
    # Another test shows that the server gets the setting. Here, the limit applies to one statement
    # only, so that no other exceeds it on a slow machine.
    async def run_away() -> None:
        async with asyncio.timeout(PATIENCE), database.transaction() as session:
            await session.execute(text("SET LOCAL statement_timeout = 50"))
            await session.execute(text(testdb.RUNAWAY))

    with pytest.raises(Unavailable, match="temporarily unavailable"):
        await run_away()
    await select_one(database)


async def end_connections(database: Database) -> None:
    """Close every other connection to the database, as a restart of the server does."""
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    )
    url = database.write_engine.url
    other = Database(settings_for(url.render_as_string(hide_password=False)))
    async with other.transaction() as session:
        await session.execute(text(f"{end} AND pid <> pg_backend_pid()"))
    await other.close()


@direct
async def test_a_stale_connection_is_never_used(live_url: str) -> None:
    app = create_app(settings_for(live_url, database_ping_after=0, database_pool_size=3))
    async with running(app):
        database: Database = app.state.database
        for _ in range(3):
            await asyncio.gather(*(select_one(database) for _ in range(3)))
            await end_connections(database)
        await asyncio.gather(*(select_one(database) for _ in range(3)))


async def select_one(database: Database) -> None:
    async with database.transaction() as session:
        assert await session.scalar(text("SELECT 1")) == 1


@pytest.mark.parametrize("pooler", [pytest.param(None, marks=direct), "pgbouncer"])
async def test_a_migration_has_a_lock_timeout_but_no_statement_timeout(
    live_url: str, databases: testdb.Databases, pooler: str | None
) -> None:
    name = make_url(live_url).database
    await databases.run(f'ALTER DATABASE "{name}" SET statement_timeout = 60000')
    engine = driver.migration_engine(settings_for(live_url, database_pooler=pooler))
    async with engine.connect() as connection:
        await connection.run_sync(driver.before_migrations)
        assert (await connection.execute(text("SHOW lock_timeout"))).scalar_one() == "5s"
        assert (await connection.execute(text("SHOW statement_timeout"))).scalar_one() == "0"
    await engine.dispose()


async def driver_connection(database: Database) -> Any:
    """Return the driver's connection, from a pool of one."""
    async with database.write_engine.connect() as connection:
        return (await connection.get_raw_connection()).driver_connection


async def test_a_server_that_does_not_respond_times_out(live_url: str) -> None:
    app = create_app(settings_for(live_url, database_pool_size=1))
    async with running(app):
        database: Database = app.state.database
        connection = await driver_connection(database)
        # A little longer than the server's own limit, which a frozen server does not enforce.
        limit = float(testdb.PATIENT["database_statement_timeout"])
        config = connection._config  # noqa: SLF001 - it has no public name
        assert limit < config.command_timeout < 2 * limit
        connection._config = config._replace(command_timeout=0.1)  # noqa: SLF001
        with pytest.raises(Unavailable, match="does not respond"):
            async with asyncio.timeout(PATIENCE), database.transaction() as session:
                await session.execute(text(testdb.RUNAWAY))
        assert connection.is_closed()
        await select_one(database)


@pytest.mark.parametrize(("after", "pings"), [(60, []), (0, ["SELECT 1"])])
async def test_a_busy_connection_is_not_pinged(
    live_url: str, after: float, pings: list[str]
) -> None:
    app = create_app(settings_for(live_url, database_ping_after=after, database_pool_size=1))
    async with running(app):
        database: Database = app.state.database
        sent: list[str] = []
        connection = await driver_connection(database)
        connection.add_query_logger(lambda query: sent.append(query.query))
        async with database.write_engine.connect():
            await asyncio.sleep(0)  # the event loop logs
        assert sent == pings


@direct
async def test_a_connection_closed_by_the_server_is_detected_without_a_ping(live_url: str) -> None:
    app = create_app(settings_for(live_url, database_ping_after=60, database_pool_size=1))
    async with running(app):
        database: Database = app.state.database
        closed = asyncio.Event()
        connection = await driver_connection(database)
        connection.add_termination_listener(lambda _: closed.set())
        await end_connections(database)
        await asyncio.wait_for(closed.wait(), PATIENCE)
        await select_one(database)


async def test_connecting_to_a_missing_server() -> None:
    app = create_app(settings_for("postgresql://u:hush@/name?host=/nowhere"))
    async with running(app) as client:  # the app starts anyway
        assert (await client.get("/health/live")).status_code == 200
        response = await client.get("/health/ready")
        assert response.status_code == 503
        assert response.headers["retry-after"]
        assert "hush" not in response.text


@direct
@pytest.mark.parametrize("wrong", ["database", "username"])
async def test_a_wrong_database_or_role_is_not_reported_as_behind(
    live_url: str, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    parts: dict[str, Any] = {wrong: "nobody_has_this"}
    url = make_url(live_url).set(**parts)
    async with running(create_app(settings_for(url))) as client:
        assert "nobody_has_this" in caplog.text  # once, at start
        assert len(caplog.messages) == 1
        response = await client.get("/health/ready")
        assert problem(response, 503)["detail"] == "The database can't be reached."


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("SELECT 1 / 0", DBAPIError),
        ("SELECT 2147483647 + 1", DBAPIError),
        ("DO $$ BEGIN RAISE unique_violation; END $$", Conflict),
        ("DO $$ BEGIN RAISE foreign_key_violation; END $$", Conflict),
        ("DO $$ BEGIN RAISE not_null_violation; END $$", DBAPIError),
        ("DO $$ BEGIN RAISE serialization_failure; END $$", Unavailable),
        ("DO $$ BEGIN RAISE deadlock_detected; END $$", Unavailable),
        ("DO $$ BEGIN RAISE lock_not_available; END $$", Unavailable),
        ("DO $$ BEGIN RAISE invalid_password; END $$", Unavailable),
        ("DO $$ BEGIN RAISE invalid_catalog_name; END $$", Unavailable),
        ("DO $$ BEGIN RAISE too_many_connections; END $$", Unavailable),
        ("SELECT * FROM no_such_table", DBAPIError),  # a defect of ours: 500
    ],
)
async def test_errors_are_mapped_to_responses(
    database: Database, statement: str, error: type[AppError | DBAPIError]
) -> None:
    with pytest.raises(error):
        async with database.transaction() as session:
            await session.execute(text(statement))


@direct
async def test_too_many_connections_for_the_server_log_a_warning(
    live_url: str, databases: testdb.Databases, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(create_app(settings_for(live_url, workers=8))):
        assert caplog.text == ""
    async with running(create_app(settings_for(live_url, workers=100))):
        assert "1 instances of 100 workers of 11 connections may want 1100" in caplog.text
        assert "DATABASE_POOL_SIZE" in caplog.text
    # Each of them alone is within the limit.
    async with running(create_app(settings_for(live_url, workers=8, instances=7))):
        assert "7 instances of 8 workers of 11 connections may want 616" in caplog.text
    # A replica does not change this: while it is down, the primary gets its reads.
    replica = await databases.create()
    settings = settings_for(live_url, instances=100, database_read_url=replica)
    async with running(create_app(settings)):
        assert "100 instances of 1 workers of 11 connections may want 1100" in caplog.text
    await databases.drop(replica)


@direct
async def test_reserved_connections_are_subtracted(
    live_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(app := create_app(settings_for(live_url))):
        database: Database = app.state.database
        async with database.reading() as session:
            total = int(await session.scalar(text("SHOW max_connections")) or 0)
            superusers = int(await session.scalar(text("SHOW superuser_reserved_connections")) or 0)
            reserved = int(await session.scalar(text("SHOW reserved_connections")) or 0)
    allowed = total - superusers - reserved
    size = {"database_pool_size": allowed - 2, "database_read_pool_size": 1}
    async with running(create_app(settings_for(live_url, **size))):
        assert caplog.text == ""
    size["database_read_pool_size"] = 2
    async with running(create_app(settings_for(live_url, **size))):
        assert f"may want {allowed + 1}, the server allows {allowed}" in caplog.text


async def test_reads_can_go_to_a_replica(live_url: str, databases: testdb.Databases) -> None:
    replica = await databases.create()
    app = create_app(settings_for(live_url, database_read_url=replica))
    async with running(app):
        database: Database = app.state.database
        name = text("SELECT current_database()")
        async with database.transaction() as session:
            assert await session.scalar(name) == make_url(live_url).database
        async with database.reading() as session:
            assert await session.scalar(name) == make_url(replica).database
    await databases.drop(replica)


async def test_reads_go_to_the_primary_while_the_replica_is_down(
    live_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.kit.db.engine.REPLICA_RETRY", 0.0)
    away = "postgresql://user@/name?host=/nowhere"
    app = create_app(settings_for(live_url, database_read_url=away))
    async with running(app):
        database: Database = app.state.database
        assert database.engines.keys() == {"write", "read", "replica"}
        async with database.reading() as session:
            assert await session.scalar(text("SELECT 1")) == 1
            assert await session.scalar(text("SHOW transaction_read_only")) == "on"
        assert "reads go to the primary" in caplog.text


async def test_a_client_can_read_its_own_writes(live_url: str, databases: testdb.Databases) -> None:
    replica = await databases.create()  # if the table does not exist yet
    app = create_app(settings_for(live_url, database_read_url=replica))
    async with running(app) as client:
        await add_things(app)
        assert (await client.get("/things")).status_code == 500
        fresh = await client.get("/things", headers={"Cache-Control": "no-cache"})
        assert (fresh.status_code, fresh.json()) == (200, [])
    await databases.drop(replica)


async def test_serialization_failures_are_retried(live_url: str) -> None:
    async with running(app := create_app(settings_for(live_url))):
        await add_things(app)
        database: Database = app.state.database
        all_have_counted = asyncio.Barrier(3)
        tries: Counter[int] = Counter()

        async def add_one(session: WriteSession, number: int) -> None:
            tries[number] += 1
            first = tries[number] == 1
            _ = await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
            count = await session.scalar(select(func.count()).select_from(things))
            if first:
                await all_have_counted.wait()
            # A different key, because a duplicate key would be another error.
            await session.execute(insert(things).values(id=number, name=f"{count}"))

        await asyncio.gather(
            *(database.retrying(partial(add_one, number=number)) for number in range(3))
        )
        # Of transactions that read the same count, one commits, and the others have to retry.
        assert min(tries.values()) == 1
        assert tries.total() > 3
        async with database.reading() as session:
            names = await session.scalars(select(things.c.name).order_by(things.c.name))
            assert names.all() == ["0", "1", "2"]


async def test_deadlocks_are_retried(live_url: str) -> None:
    async with running(app := create_app(settings_for(live_url))):
        await add_things(app)
        database: Database = app.state.database
        async with database.transaction() as session:
            await session.execute(insert(things), [{"id": 1}, {"id": 2}])
        both_hold_one = asyncio.Barrier(2)
        tries: Counter[int] = Counter()

        async def change(session: WriteSession, first: int, second: int) -> None:
            tries[first] += 1
            again = tries[first] > 1
            for number in (first, second):
                await session.execute(
                    update(things).where(things.c.id == number).values(name=f"{number}")
                )
                if number == first and not again:
                    await both_hold_one.wait()

        await asyncio.gather(
            database.retrying(partial(change, first=1, second=2)),
            database.retrying(partial(change, first=2, second=1)),
        )
        assert sorted(tries.values()) == [1, 2]


@pytest.mark.skipif(not testdb.POOLER, reason="TEST_DATABASE_POOLER names none")
async def test_a_pooler_without_time_limits_logs_a_warning(
    live_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(create_app(settings_for(live_url))):
        assert "ALTER ROLE" in caplog.text


async def test_tests_refuse_a_database_that_is_not_for_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_DATABASE_URL", "postgresql://localhost/production")
    with pytest.raises(RuntimeError, match="tests run only"):
        async with testdb.databases(tmp_path, "worker"):
            pass


async def test_a_named_server_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live_url: str
) -> None:
    monkeypatch.setenv("TEST_DATABASE_URL", live_url)
    async with testdb.databases(tmp_path, "worker") as made:
        url = await made.create()
        assert make_url(url).database == f"{make_url(live_url).database}_worker_0"
    assert not list(tmp_path.iterdir())


@direct
async def test_a_second_migration_waits_despite_limits_of_the_role(
    databases: testdb.Databases,
) -> None:
    url = await databases.create()
    name = make_url(url).database
    # Behind a pooler, a migration has the limits of the role or of the database.
    for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        await databases.run(f'ALTER DATABASE "{name}" SET {limit} = 50')
    config = alembic_config(settings_for(url, database_pooler="pgbouncer"))
    first = driver.migration_engine(settings_for(url))
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    async with first.connect() as connection:
        await connection.run_sync(driver.before_migrations)
        second = asyncio.create_task(asyncio.to_thread(command.upgrade, config, "head"))
        async with asyncio.timeout(PATIENCE):
            while not await connection.scalar(waiting):
                assert not second.done()
        _ = await connection.scalar(text("SELECT pg_sleep(0.2)"))  # four times the limits
        assert not second.done()
        await connection.rollback()
    await second
    await first.dispose()
    await databases.drop(url)


LIMITS = ("statement_timeout", "idle_in_transaction_session_timeout")


@direct
@pytest.mark.parametrize("is_pooler", [False, True], ids=["a server", "a pooler"])
async def test_a_replica_has_time_limits_unless_a_pooler_refuses_them(
    live_url: str, *, is_pooler: bool
) -> None:
    connections: list[bool] = []
    url = make_url(live_url)
    folder = str(url.query.get("host") or url.host or "localhost")
    port = url.port or 5432

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward a connection, but refuse the parameters that PgBouncer refuses."""
        length = int.from_bytes(start := await reader.readexactly(4))
        start += await reader.readexactly(length - 4)
        connections.append(b"statement_timeout" in start)
        if is_pooler and connections[-1]:
            error = b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter\0\0"
            writer.write(b"E" + (len(error) + 4).to_bytes(4) + error)
            writer.close()
            return
        if folder.startswith("/"):
            path = f"{folder}/.s.PGSQL.{port}"
            server_reader, server_writer = await asyncio.open_unix_connection(path)
        else:
            server_reader, server_writer = await asyncio.open_connection(folder, port)
        server_writer.write(start)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while part := await source.read(65536):
                target.write(part)
            target.close()

        await asyncio.gather(
            copy(reader, server_writer), copy(server_reader, writer), return_exceptions=True
        )

    proxy = await asyncio.start_server(relay, "127.0.0.1", 0)
    through = url.set(
        host="127.0.0.1", port=proxy.sockets[0].getsockname()[1], query={"ssl": "disable"}
    )
    settings = settings_for(live_url, database_read_url=through, database_pooler="pgbouncer")
    database = Database(settings)
    found = {}
    for _ in range(2):
        async with database.reading() as session:
            found = {limit: await session.scalar(text(f"SHOW {limit}")) for limit in LIMITS}
        assert database.replica_engine is not None
        await database.replica_engine.dispose()
    assert (set(found.values()) == {"0"}) == is_pooler
    # Once refused, the parameter is not sent again.
    assert connections == ([True, False, False] if is_pooler else [True, True])
    await database.close()
    proxy.close()
