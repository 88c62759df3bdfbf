"""The service in processes of its own, and its databases."""

import asyncio
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import psutil

from testing.baking import Project, clean_environment, free_port, succeeded
from testing.client import Client, CutError
from testing.postgres import Postgres

POLL = 0.02
"""Seconds between two checks of another process, which can't be awaited."""


async def until(
    condition: Callable[[], Awaitable[bool] | bool], what: str, *, seconds: float = 60
) -> float:
    """Wait until a condition is true.

    Args:
        condition: what is looked at, again and again.
        what: its name in the error.
        seconds: the time after which it hangs; a promise says how long it may take.

    Returns:
        The seconds that it took.

    """
    started = time.monotonic()
    while True:
        found = condition()
        if found is True or (not isinstance(found, bool) and await found):
            return time.monotonic() - started
        assert time.monotonic() - started < seconds, f"not within {seconds} s: {what}"
        await asyncio.sleep(POLL)


async def listens(port: int) -> bool:
    """Return whether a port accepts connections."""
    with Client(port) as client:
        try:
            await client.connect()
        except ConnectionError:
            return False
        return True


class Database(Protocol):
    """A migrated database for one test."""

    @property
    def url(self) -> str:
        """The URL for the service."""
        ...

    async def fetch(self, sql: str) -> list[Any]:
        """Run a statement without the service."""
        ...

    def locked(self) -> AbstractAsyncContextManager[None]:
        """Block all other writes for a while; on PostgreSQL, also reads of tasks."""
        ...


@dataclass(frozen=True)
class SQLite:
    """A SQLite file."""

    path: Path

    @property
    def url(self) -> str:
        """The URL for the service."""
        return f"sqlite:///{self.path}"

    async def fetch(self, sql: str) -> list[Any]:
        """Run a statement without the service."""
        with self.connected() as connection:
            return connection.execute(sql).fetchall()

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Block all other writes."""
        with self.connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        """Connect without the service."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            yield connection


@dataclass(frozen=True)
class PostgreSQL:
    """A database on a server that can be killed."""

    server: Postgres
    name: str

    @property
    def url(self) -> str:
        """The URL for the service."""
        return self.server.url(self.name)

    async def fetch(self, sql: str) -> list[Any]:
        """Run a statement without the service."""
        async with self.connected() as connection:
            rows: list[Any] = await connection.fetch(sql)
            return rows

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Any]:
        """Connect without the service."""
        connection = await asyncpg.connect(self.url, server_settings={"application_name": "test"})
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Block all other access to tasks."""
        async with self.connected() as connection, connection.transaction():
            await connection.execute("LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE")
            yield

    async def connections(self, where: str = "true") -> int:
        """Count the connections of the service on the server."""
        (row,) = await self.fetch(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"  # noqa: S608 - ours
            f" AND application_name <> 'test' AND ({where})"
        )
        return int(row[0])


@dataclass
class Service:
    """A running service."""

    process: subprocess.Popen[bytes]
    port: int
    log_file: Path
    headers: dict[str, str] = field(default_factory=dict)

    def client(self) -> Client:
        """Return a further client of it."""
        return Client(self.port, **self.headers)

    def log(self) -> str:
        """Return what it has logged."""
        return self.log_file.read_text(encoding="utf-8")

    def processes(self) -> list[psutil.Process]:
        """Return its processes, the first one first."""
        first = psutil.Process(self.process.pid)
        return [first, *first.children(recursive=True)]

    def resident(self) -> float:
        """Return the memory of all its processes, in MiB."""
        return sum(process.memory_info().rss for process in self.processes()) / 2**20

    async def alive(self) -> bool:
        """Return whether it is live, regardless of its database."""
        return await self._answers("/health/live")

    async def ready(self) -> bool:
        """Return whether it is ready."""
        return await self._answers("/health/ready")

    async def _answers(self, path: str) -> bool:
        assert self.process.poll() is None, self.log()
        with self.client() as client:
            try:
                return (await client.get(path)).status == 200
            except (ConnectionError, CutError):
                return False

    def kill(self) -> None:
        """Kill every process of it."""
        for process in reversed(self.processes()):
            process.kill()
        self.process.wait(10)

    def terminate(self) -> None:
        """Send SIGTERM to its first process, as an orchestrator does."""
        self.process.send_signal(signal.SIGTERM)

    async def ended(self, seconds: float) -> float:
        """Wait for its end; return the seconds that it took."""
        return await until(lambda: self.process.poll() is not None, "the end", seconds=seconds)


@dataclass(frozen=True)
class Stage:
    """A rendered service, and a database for it."""

    project: Project
    database: Database

    @property
    def label(self) -> str:
        """The name of the database, for people."""
        return "SQLite" if isinstance(self.database, SQLite) else "PostgreSQL"

    @asynccontextmanager
    async def serving(
        self, *, port: int | None = None, wait: bool = True, **settings: str
    ) -> AsyncIterator[Service]:
        """Run the service, and leave no process of it behind."""
        port = port or free_port()
        log_file = self.project.path.parent / f"{port}.log"
        environment = {"DATABASE_URL": self.database.url, "ENVIRONMENT": "local", "DOCS": "true"}
        environment |= settings
        with (
            log_file.open("ab") as log,
            subprocess.Popen(  # noqa: ASYNC220 - it starts at once, and ends by itself
                [python(self.project), "-m", "app"],
                cwd=self.project.path,
                env=clean_environment(PORT=str(port), **environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            ) as process,
        ):
            service = Service(process, port, log_file)
            try:
                await until(service.alive, "the start") if wait else None
                yield service
            finally:
                if process.poll() is None:
                    service.kill()


def python(project: Project) -> str:
    """Return the interpreter of an installed render."""
    return str(scripts(project) / "python")


def scripts(project: Project) -> Path:
    """Return the folder of an installed render's programs."""
    return project.path / ".venv" / ("Scripts" if sys.platform == "win32" else "bin")


def migrated(project: Project, url: str) -> None:
    """Migrate a database."""
    succeeded(project.run(str(scripts(project) / "alembic"), "upgrade", "head", DATABASE_URL=url))


class Databases:
    """Makes a database for each test: a copy of one that was migrated once."""

    def __init__(self, folder: Path, server: Callable[[], Postgres]) -> None:
        """Keep files in ``folder``; start the server when it is needed."""
        self._folder = folder
        self._server = server
        self._made = 0
        self._templates: set[Path] = set()

    async def make(self, project: Project) -> Database:
        """Make a database for a render."""
        first = project.path not in self._templates
        self._templates.add(project.path)
        self._made += 1
        label = f"{project.answers['database']}_{project.answers['auth']}"
        if project.answers["database"] == "sqlite":
            template = SQLite(self._folder / f"{label}.db")
            if first:
                migrated(project, template.url)
            made = SQLite(self._folder / f"{label}_{self._made}.db")
            shutil.copy(template.path, made.path)
            return made
        server = self._server()
        root = PostgreSQL(server, "postgres")
        if first:
            await root.fetch(f"CREATE DATABASE {label}")
            migrated(project, server.url(label))
        await root.fetch(f"CREATE DATABASE test_{self._made} TEMPLATE {label}")
        return PostgreSQL(server, f"test_{self._made}")
