"""What every test can ask for.

``client`` calls the app within a transaction that is rolled back after the test; the app's own
commits and rollbacks run for real, as savepoints. ``live`` is for what needs real commits or
several connections: an app of its own on a database of its own.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from tempfile import gettempdir
from typing import Any, cast

import pytest
from alembic import command
from alembic.config import Config
from blockbuster import blockbuster_ctx
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient, Response
from sqlalchemy import URL, Connection, QueuePool, event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from app.kit import health, project
from app.kit.db import engine
from app.kit.db.engine import Database
from app.kit.idempotency import session
from app.main import create_app
from app.settings import Settings
from tests import caller, database

# The developer's own configuration has no say here.
for variable in Settings.model_fields:
    os.environ.pop(variable.upper(), None)


PATIENCE = 120.0
"""Seconds after which a test gives up waiting for an event: only a hang takes that long."""


def _told() -> dict[str, Any]:
    return {"docs": "true"} | caller.SETTINGS | database.SETTINGS | database.PATIENT


def settings_for(url: str | URL, **more: Any) -> Settings:
    """Return settings that come from nowhere but the test."""
    return Settings(_env_file=None, database_url=url, **(_told() | more))


def environment_for(url: str, **more: str) -> dict[str, str]:
    """Return the environment of a process that is told the same."""
    settings = {"database_url": url, **_told(), **more}
    return os.environ | {name.upper(): value for name, value in settings.items()}


def alembic_config(settings: Settings) -> Config:
    """Return what Alembic's command line would have, for this database."""
    return Config(toml_file=project.ROOT / "pyproject.toml", attributes={"settings": settings})


def problem(response: Response, status: int) -> dict[str, Any]:
    """Check that a response is the problem document of ``status``; return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert status != 401 or response.headers["www-authenticate"] == "Bearer"
    document: dict[str, Any] = response.json()
    optional = {"errors", "request_id"}
    assert set(document) - optional == {"type", "title", "status", "detail", "instance"}
    assert document.get("request_id") == response.headers.get("x-request-id")
    assert (document["status"], document["title"]) == (status, HTTPStatus(status).phrase)
    return document


def pool_size(engine: AsyncEngine) -> int:
    """Count the connections that the pool may have."""
    return cast("QueuePool", engine.pool).size()


def checked_out(db: Database) -> int:
    """Count the connections in use."""
    return sum(
        cast("QueuePool", engine.pool).checkedout() for engine in (db.write_engine, db.read_engine)
    )


@asynccontextmanager
async def calling(app: FastAPI) -> AsyncIterator[AsyncClient]:
    """Return a client; a request in which the app blocks the event loop fails."""
    transport = ASGITransport(app)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        with blockbuster_ctx("app") as detector:
            # The driver looks for its files when it connects; that is its own to do.
            for function in detector.functions.values():
                function.can_block_in(*database.CONNECT)
            yield client


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[AsyncClient]:
    """Run the app's lifespan and give a client for it."""
    async with app.router.lifespan_context(app), calling(app) as client:
        yield client


def scratch() -> Path:
    """Return a folder in memory, if there is one with room, for databases of a test run."""
    memory = Path("/dev/shm")  # noqa: S108 - what is made in it has a name of its own
    if memory.is_dir() and shutil.disk_usage(memory).free > 2 * 2**30:
        return memory
    return Path(gettempdir())


@pytest.fixture(scope="session")
async def databases(testrun_uid: str, worker_id: str) -> AsyncIterator[database.Databases]:
    """Return the maker of this process's databases."""
    # Not in pytest's own folder: each run closes that to other users, and a PostgreSQL that was
    # started by root runs as one.
    folder = scratch() / f"{project.NAME}-{testrun_uid}"
    async with database.databases(folder, f"{testrun_uid[:8]}_{worker_id}") as made:
        yield made


@pytest.fixture(scope="session")
async def template(databases: database.Databases) -> str:
    """Return a database at head, built by Alembic, to be copied."""
    url = await databases.create()
    # In a thread, for migrations run a loop of their own.
    await asyncio.to_thread(command.upgrade, alembic_config(settings_for(url)), "head")
    return url


@pytest.fixture(scope="session", autouse=True)
def unhurried() -> None:
    """Let nothing happen only because time has passed, however slow the machine is."""
    # Apps that roll back have one connection, and a test is on it.
    session.FIRST_CLEANUP = timedelta(days=1).total_seconds()
    engine.START_CHECK_TIMEOUT = engine.CLOSE_TIMEOUT = engine.REPLICA_TIMEOUT = PATIENCE
    health.READY_TIMEOUT = PATIENCE


@pytest.fixture(scope="session")
async def shared_app(databases: database.Databases, template: str) -> AsyncIterator[FastAPI]:
    """Run one app for all the tests that roll back."""
    app = create_app(settings_for(await databases.copy(template)))
    app.openapi()  # build it now: the first call reads files
    async with app.router.lifespan_context(app):
        yield app


@asynccontextmanager
async def rolled_back(app: FastAPI) -> AsyncIterator[None]:
    """Put every session of an app inside a transaction that is rolled back after the test."""
    db: Database = app.state.database
    async with db.write_engine.connect() as connection:
        outer = await connection.begin()
        # In the default mode a rollback in the app would undo everything.
        db.write_sessions.configure(bind=connection, join_transaction_mode="create_savepoint")

        @contextmanager
        def connect() -> Iterator[Connection]:
            shared = connection.sync_connection
            assert shared is not None
            with shared.begin_nested():
                yield shared

        def refuse(session: Session) -> None:
            # The session's commit only releases a savepoint: refuse what a real one refuses.
            shared = connection.sync_connection
            if session.bind is shared is not None and not session.in_nested_transaction():
                engine.refuse_failed(shared)

        db.connect = connect
        event.listen(Session, "before_commit", refuse)
        try:
            yield
            await outer.rollback()
        finally:
            event.remove(Session, "before_commit", refuse)
            db.connect = db.read_engine.sync_engine.connect
            db.write_sessions.configure(
                bind=db.write_engine, join_transaction_mode="conditional_savepoint"
            )
            app.dependency_overrides.clear()
    assert checked_out(db) == 0, "a connection was leaked"


@pytest.fixture
async def app(shared_app: FastAPI) -> AsyncIterator[FastAPI]:
    """Return the app, its sessions rolled back after the test."""
    async with rolled_back(shared_app):
        yield shared_app


@pytest.fixture
def db(app: FastAPI) -> Database:
    """Return the app's database."""
    database: Database = app.state.database
    return database


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    """Return a client of the app, who may do everything."""
    async with calling(app) as client:
        client.headers.update(await caller.credentials(app.state.database))
        yield client


@pytest.fixture
async def live_url(databases: database.Databases, template: str) -> AsyncIterator[str]:
    """Return a database of the test's own, at head."""
    url = await databases.copy(template)
    yield url
    await databases.drop(url)


@pytest.fixture
async def live_app(live_url: str) -> FastAPI:
    """Return an app of the test's own, on a database of its own; run it with ``running``."""
    return create_app(settings_for(live_url))


@pytest.fixture
async def live(live_app: FastAPI) -> AsyncIterator[AsyncClient]:
    """Return a client whose requests commit for real, on as many connections as they like."""
    async with running(live_app) as client:
        client.headers.update(await caller.credentials(live_app.state.database))
        yield client


@dataclass
class Statements:
    """The SQL statements sent while it was watching."""

    sent: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sent)

    def clear(self) -> None:
        self.sent.clear()


@pytest.fixture
def statements(db: Database) -> Iterator[Statements]:
    """Count the statements that a request sends, but for those that only steer transactions."""
    statements = Statements()

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith(("BEGIN", "SAVEPOINT", "RELEASE", "ROLLBACK")):
            statements.sent.append(statement)

    engines = [db.write_engine.sync_engine, db.read_engine.sync_engine]
    for each in engines:
        event.listen(each, "before_cursor_execute", count)
    yield statements
    for each in engines:
        event.remove(each, "before_cursor_execute", count)
