"""The databases of the tests: on a server of the test run, or on ``TEST_DATABASE_URL``."""

import os
import re
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import URL, NullPool, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.kit.db.driver import parse_url
from scripts.embedded_postgres import embedded_postgres

POOLER = os.environ.get("TEST_DATABASE_POOLER")
"""``host:port`` of a PgBouncer in front of the server in ``TEST_DATABASE_URL``."""

SETTINGS: dict[str, str] = {"database_pooler": "pgbouncer"} if POOLER else {}
"""The settings that the service needs."""

PATIENT = {
    "database_pool_timeout": "120",
    "database_session_timeout": "120",
    "database_connect_timeout": "60",
    "database_statement_timeout": "100",
    "database_idle_in_transaction_timeout": "600",
}
"""Time limits that even a slow machine does not reach. Tests of a limit set their own."""

RUNAWAY = "SELECT pg_sleep(600)"
"""A statement that takes much longer than any limit."""

FULL_SCAN = "Seq Scan on "
"""What a plan has before the name of a table that is read completely."""

CONNECT = ("asyncpg/connection.py", "connect")
"""The file and the function in which the driver connects."""


async def plan(connection: AsyncConnection, statement: str, parameters: Any) -> str:
    """Return the plan of a statement that uses the indexes where it can, as for large tables."""
    await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    rows = await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
    return "\n".join(map(str, rows))


class Databases:
    """Creates databases for one test process."""

    def __init__(self, server: URL, worker: str) -> None:
        self._server = server
        self._prefix = f"{server.database}_{worker}"
        self._numbers = count()
        self._made: list[str] = []

    async def create(self, template: str = "template0") -> str:
        """Create an empty database, or a copy of ``template``."""
        name = f"{self._prefix}_{next(self._numbers)}"
        await self.run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        # Copying files is faster for a small database.
        await self.run(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
        self._made.append(name)
        url = self._server.set(database=name)
        if POOLER:
            host, _, port = POOLER.rpartition(":")
            url = url.set(host=host, port=int(port), query={})
        return url.render_as_string(hide_password=False)

    async def copy(self, template: str) -> str:
        """Copy a database without connections."""
        await self._end_pooled(template)
        return await self.create(template=make_url(template).database or "")

    async def _end_pooled(self, url: str) -> None:
        # Connections that a pooler keeps open prevent a copy, and ignore new settings.
        if POOLER:
            name = make_url(url).database
            end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname ="
            await self.run(f"{end} '{name}'")

    @asynccontextmanager
    async def read_only(self, url: str) -> AsyncIterator[None]:
        """Make new connections to a database read-only."""
        alter = f'ALTER DATABASE "{make_url(url).database}"'
        await self.run(f"{alter} SET default_transaction_read_only = on")
        await self._end_pooled(url)
        yield
        await self.run(f"{alter} RESET default_transaction_read_only")
        await self._end_pooled(url)

    async def drop(self, url: str) -> None:
        """Remove a database, also if it has connections."""
        name = make_url(url).database or ""
        await self.run(f'DROP DATABASE "{name}" WITH (FORCE)')
        self._made.remove(name)

    async def drop_all(self) -> None:
        """Remove every database that was created here."""
        for name in list(self._made):
            await self.run(f'DROP DATABASE "{name}" WITH (FORCE)')

    async def run(self, statement: str) -> None:
        """Run a statement on the server."""
        engine = create_async_engine(
            self._server.set(database="postgres"),
            isolation_level="AUTOCOMMIT",
            poolclass=NullPool,
        )
        async with engine.connect() as connection:
            await connection.execute(text(statement))


@asynccontextmanager
async def databases(folder: Path, worker: str) -> AsyncIterator[Databases]:
    """Start a server on ``folder``, shared by all processes, or use ``TEST_DATABASE_URL``.

    Raises:
        RuntimeError: ``TEST_DATABASE_URL`` names a database that may hold more than tests.
    """
    with ExitStack() as stack:
        if given := os.environ.get("TEST_DATABASE_URL"):
            server = parse_url(given)
            if not re.search(r"(^|[_-])tests?([_-]|$)", server.database or ""):
                raise RuntimeError(
                    f"TEST_DATABASE_URL names the database {server.database!r}: tests run only "
                    "where the name says test"
                )
        else:
            running = stack.enter_context(embedded_postgres(folder, keep=False))
            server = parse_url(running).set(database="test")
        made = Databases(server, worker)
        if not given:  # temporary data needs no durability
            for setting in ("fsync", "full_page_writes", "synchronous_commit"):
                await made.run(f"ALTER SYSTEM SET {setting} = off")
            await made.run("SELECT pg_reload_conf()")
        try:
            yield made
        finally:
            await made.drop_all()
