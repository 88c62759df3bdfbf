"""The service with a connection pooler, and with a replica."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from testing.baking import free_port
from testing.client import Answer, Client
from testing.load import loaded, slowest
from testing.postgres import Postgres
from testing.requirements import require
from testing.serving import PostgreSQL, Stage, listens, scripts, until
from tests.figures import Measured

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="processes are stopped by POSIX signals"),
]

POOL = 5
"""The default pool size for reads: so many reads can be running when the replica is killed."""


@asynccontextmanager
async def pgbouncer(server: Postgres, folder: Path) -> AsyncIterator[int]:
    """Run PgBouncer in transaction mode in front of a server, and yield its port."""
    program = require("pgbouncer")
    port = free_port()
    settings, log = folder / "pgbouncer.ini", folder / "pgbouncer.log"
    settings.write_text(
        "[databases]\n"
        f"* = host=127.0.0.1 port={server.port} user=postgres\n"
        "[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        "auth_type = any\npool_mode = transaction\nmax_client_conn = 1000\n"
        # Without its support for prepared statements, which exists since 1.21.
        f"{'max_prepared_statements = 0' if pgbouncer_version(program) >= (1, 21) else ''}\n"
    )
    with (
        log.open("wb") as output,
        subprocess.Popen(  # noqa: ASYNC220 - it starts at once, and is awaited below
            [program, str(settings)], cwd="/", user=server.user, stdout=output, stderr=output
        ) as process,
    ):

        async def up() -> bool:
            assert process.poll() is None, log.read_text()
            return await listens(port)

        try:
            await until(up, "PgBouncer")
            yield port
        finally:
            process.kill()


def pgbouncer_version(program: str) -> tuple[int, ...]:
    """Return the major and minor version of PgBouncer."""
    printed = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return tuple(int(part) for part in printed.stdout.split()[1].split(".")[:2])


@asynccontextmanager
async def without_fsync(database: PostgreSQL) -> AsyncIterator[None]:
    """Turn off fsync of the server for a while, as in the service's own tests."""
    names = ("fsync", "full_page_writes", "synchronous_commit")
    for name in names:
        await database.fetch(f"ALTER SYSTEM SET {name} = off")
    await database.fetch("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        for name in names:
            await database.fetch(f"ALTER SYSTEM RESET {name}")
        await database.fetch("SELECT pg_reload_conf()")


async def test_the_services_own_tests_pass_through_pgbouncer(
    on_postgresql: Stage, folder: Path, measured: Measured, *, full: bool
) -> None:
    require("pgbouncer")
    assert isinstance(on_postgresql.database, PostgreSQL)
    server = on_postgresql.database.server
    project = on_postgresql.project
    chosen = "tests" if full else "tests/kit"  # by default, the tests that use the database most
    async with without_fsync(on_postgresql.database), pgbouncer(server, folder) as port:
        done = await asyncio.to_thread(
            project.run,
            *(str(scripts(project) / "pytest"), "-n", "auto", "-q", chosen),
            TEST_DATABASE_URL=server.url("pooled_test"),
            TEST_DATABASE_POOLER=f"127.0.0.1:{port}",
            TMPDIR=str(project.path.parent),
        )

    logins = (folder / "pgbouncer.log").read_text().count("login attempt")
    last = done.stdout.strip().splitlines()[-1].strip("= ")
    measured(
        "The service's own tests pass through PgBouncer",
        on_postgresql.label,
        result=last,
        connections_to_the_pooler=logins,
    )
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    assert (failed, done.returncode) == ([], 0)
    assert logins > 100


@asynccontextmanager
async def replicated(stage: Stage, folder: Path) -> AsyncIterator[PostgreSQL]:
    """Return a replica of the stage's database."""
    assert isinstance(stage.database, PostgreSQL)
    replica = await asyncio.to_thread(Postgres.replica_of, stage.database.server, folder / "copy")
    try:
        yield PostgreSQL(replica, stage.database.name)
    finally:
        replica.kill()


async def titles(client: Client, **headers: str) -> set[str]:
    """List the newest tasks."""
    answer = await client.get("/v1/tasks?limit=100", **headers)
    assert answer.status == 200, answer.body
    return {task["title"] for task in answer.json()["items"]}


async def check_reads_use(replica: PostgreSQL, client: Client) -> None:
    """Pause replication: new rows are then visible on the primary only."""
    await client.post("/v1/tasks", {"title": "early"})

    async def caught_up() -> bool:
        return "early" in await titles(client)

    async def is_paused() -> bool:
        (row,) = await replica.fetch("SELECT pg_get_wal_replay_pause_state()")
        return bool(row[0] == "paused")

    await until(caught_up, "the replica to catch up")
    await replica.fetch("SELECT pg_wal_replay_pause()")
    await until(is_paused, "the replica to be paused")
    title = uuid4().hex
    assert (await client.post("/v1/tasks", {"title": title})).status == 201
    assert title not in await titles(client)
    assert title in await titles(client, cache_control="no-cache")
    await replica.fetch("SELECT pg_wal_replay_resume()")

    async def caught_up_again() -> bool:
        return title in await titles(client)

    await until(caught_up_again, "the replica to catch up again")


async def read(client: Client, _: int) -> Answer:
    """List the newest tasks."""
    return await client.get("/v1/tasks?limit=5")


async def test_reads_go_to_the_replica_and_to_the_primary_when_it_is_down(
    on_postgresql: Stage, folder: Path, measured: Measured
) -> None:
    async with (
        replicated(on_postgresql, folder) as replica,
        on_postgresql.serving(DATABASE_READ_URL=replica.url) as service,
    ):
        with service.client() as client:
            await check_reads_use(replica, client)

        async def reads_return() -> bool:
            return await replica.connections("application_name <> 'walreceiver'") > 0

        async with loaded(service, 16, read) as load:
            await until(lambda: len(load.answers) > 200, "a busy service")
            await asyncio.to_thread(replica.server.kill)
            before = len(load.answers)
            await until(lambda: len(load.answers) > before + 1000, "1000 reads without a replica")
            log = service.log()
            await asyncio.to_thread(replica.server.start)
            seconds = await until(reads_return, "reads to return to the replica", seconds=40)
        assert await service.ready()

    refused = load.statuses()[503]
    measured(
        "Reads go to the replica, and to the primary while it is down",
        on_postgresql.label,
        reads=len(load.answers),
        responses_503=refused,
        slowest=f"{slowest([answer for _, _, answer in load.answers]):.2f} s",
        back_on_the_replica_after=f"{seconds:.1f} s",
    )
    assert set(load.statuses()) <= {200, 503}
    assert refused <= POOL
    assert "replica" in log
