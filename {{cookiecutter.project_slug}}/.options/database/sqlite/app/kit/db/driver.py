"""SQLite by aiosqlite: the only module that names a dialect.

One connection writes, with a first-come-first-served queue, because SQLite's lock is not fair.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode
from sqlalchemy import (
    URL,
    Connection,
    Delete,
    ExceptionContext,
    ForeignKeyConstraint,
    Insert,
    Table,
    Update,
    event,
    exists,
    make_url,
    select,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.util import await_only

from app.kit.errors import (
    READ_ONLY,
    AppError,
    Conflict,
    FieldError,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.kit.config import KitSettings

__all__ = [
    "BEFORE_MIGRATIONS",
    "NOT_VALID",
    "RENDER_AS_BATCH",
    "DriverSettings",
    "after_migrations",
    "before_migrations",
    "describe",
    "index_names",
    "insert",
    "is_writable",
    "migration_engine",
    "missing_names",
    "parse_url",
    "probe_engine",
    "read_engine",
    "replica_engine",
    "translate",
    "try_lock",
    "warnings",
    "write_engine",
]

# At DEBUG it logs the parameters of every statement.
logging.getLogger("aiosqlite").setLevel(logging.INFO)

BEFORE_MIGRATIONS: tuple[str, ...] = ()

RENDER_AS_BATCH = True
"""Whether migrations rebuild tables in place of ALTER TABLE."""

NOT_VALID: dict[str, Any] = {}
"""Options of a new constraint: none, as the table is rebuilt with its rows checked."""


def parse_url(text: object) -> URL:
    """Read ``sqlite:///relative.db`` or ``sqlite:////absolute.db``, or raise ``ValueError``."""
    try:
        url = make_url(text if isinstance(text, URL) else str(text))
    except ArgumentError:
        raise ValueError("Not a database URL: sqlite:///app.db is one") from None
    if url.get_backend_name() != "sqlite":
        raise ValueError(
            f"This service runs on SQLite (sqlite:///app.db), not on {url.get_backend_name()}"
        )
    if url.host or not url.database or url.database == ":memory:":
        raise ValueError("SQLite needs the path of a file: sqlite:///app.db is one")
    if url.query:
        raise ValueError("A SQLite URL takes no parameters here: there are settings for them")
    path = Path(url.database).absolute()
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"This is no file in a folder that exists: {url.database}")
    return url.set(drivername="sqlite+aiosqlite")


# Errors after which the same statement may succeed.
_TEMPORARY = (
    "SQLITE_BUSY",
    "SQLITE_CANTOPEN",
    "SQLITE_FULL",
    "SQLITE_INTERRUPT",
    "SQLITE_IOERR",
    "SQLITE_LOCKED",
    "SQLITE_READONLY",
)

# KiB of each connection's page cache. The default of 2 MiB was not faster.
_CACHE_SIZE = 512

# Milliseconds that the driver waits for the lock at a time.
_BUSY_TURN = 100

# The attribute of an error that holds the columns of a violated foreign key.
_FIELDS = "app_fields"

Seconds = Annotated[float, Field(allow_inf_nan=False, le=86_400)]
# URL is a tuple, which pydantic-settings would decode as JSON.
DatabaseURL = Annotated[URL, NoDecode, BeforeValidator(parse_url)]


class DriverSettings(BaseSettings):
    """The settings of the database; ``docs/settings.md`` explains each."""

    database_url: DatabaseURL = parse_url("sqlite:///app.db")
    database_read_pool_size: int = Field(default=5, ge=1, le=1000)
    database_pool_timeout: Seconds = Field(default=10, gt=0)
    database_session_timeout: Seconds = Field(default=15, ge=0)
    database_busy_timeout: Seconds = Field(default=5, ge=0)
    database_synchronous: Literal["FULL", "NORMAL"] = "FULL"
    database_echo: bool = False


def write_engine(settings: DriverSettings) -> AsyncEngine:
    """Return the engine of the one write connection."""
    _create_file(settings.database_url)
    engine = _engine(settings, pool_size=1)
    _on_connect(engine, settings, "PRAGMA foreign_keys = ON", f"PRAGMA busy_timeout = {_BUSY_TURN}")
    _begin_immediate(engine, wait=settings.database_busy_timeout)
    return engine


def read_engine(settings: DriverSettings) -> AsyncEngine:
    """Return the engine of the connections that only read."""
    engine = _engine(
        settings,
        pool_size=settings.database_read_pool_size,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
    )
    _on_connect(engine, settings, "PRAGMA query_only = ON")

    # It returns its error: raised, it would end the chain of listeners.
    @event.listens_for(engine.sync_engine, "handle_error", retval=True)
    def refuse(context: ExceptionContext) -> Exception | None:
        name = getattr(context.original_exception, "sqlite_errorname", "")
        # The extended code of a read-only file is longer.
        return InvalidRequestError(READ_ONLY) if name == "SQLITE_READONLY" else None

    return engine


def migration_engine(settings: DriverSettings) -> AsyncEngine:
    """Return the engine of ``alembic``: one connection, foreign keys checked at the end.

    If they were enforced, rebuilding a table would delete every row that refers to it.
    """
    _create_file(settings.database_url)
    engine = create_async_engine(
        settings.database_url,
        connect_args=_connect_args(settings),
        echo=settings.database_echo,
        hide_parameters=True,
        poolclass=NullPool,
    )
    _begin_immediate(engine)
    return engine


def replica_engine(settings: DriverSettings) -> AsyncEngine | None:
    """Return None: a file has no replica."""


def probe_engine(settings: DriverSettings) -> AsyncEngine:
    """Return the engine of health checks, which opens a connection for each."""
    return create_async_engine(
        settings.database_url,
        connect_args={"timeout": 0, "isolation_level": None},
        isolation_level="AUTOCOMMIT",
        poolclass=NullPool,
    )


async def is_writable(connection: AsyncConnection) -> bool:
    """Return whether the file accepts writes; one on a read-only disk does not."""
    try:
        await connection.exec_driver_sql("BEGIN IMMEDIATE")
        # BEGIN succeeds on a read-only file, too.
        version = (await connection.exec_driver_sql("PRAGMA user_version")).scalar_one()
        await connection.exec_driver_sql(f"PRAGMA user_version = {version}")
        await connection.exec_driver_sql("ROLLBACK")
    except DBAPIError as error:
        if _is_busy(error):
            return True  # another connection writes
        if getattr(error.orig, "sqlite_errorname", "").startswith("SQLITE_READONLY"):
            return False
        raise
    return True


def missing_names(error: DBAPIError) -> list[str]:
    """Return the names in an error that says that there is no such table or column."""
    # The message: no such column: tasks.priority, or table tasks has no column named priority
    said = re.match(r"no such (?:table|column): |table \w+ has no column named ", str(error.orig))
    return [str(error.orig).rpartition(".")[2].split()[-1]] if said else []


def describe(error: DBAPIError) -> str:
    """Return class and message of an error; SQLite's messages contain no values."""
    name = getattr(error.orig, "sqlite_errorname", type(error.orig).__name__)
    return f"{name}: {error.orig}"


async def try_lock(session: AsyncSession, name: str) -> bool:
    """Return True: there is only one write transaction at a time."""
    return True


def index_names(connection: Connection, table: str) -> set[str] | None:
    """Return the names of the indexes of a table, also of those on expressions."""
    rows = connection.exec_driver_sql(f'PRAGMA index_list("{table}")')
    return {row[1] for row in rows}


def before_migrations(connection: Connection) -> None:
    """Do nothing: ``BEGIN IMMEDIATE`` admits one runner at a time."""


def after_migrations(connection: Connection) -> None:
    """Check the foreign keys, which are not enforced during a migration.

    Raises:
        RuntimeError: rows refer to missing rows; the migration is rolled back.
    """
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if broken:
        tables = sorted({row[0] for row in broken})
        raise RuntimeError(f"The migration broke {len(broken)} foreign keys in {tables}")


async def warnings(connection: AsyncConnection, settings: KitSettings) -> Sequence[str]:
    """Return warnings about the database that matter in production."""
    mode = (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar_one()
    if mode == "wal":
        return []
    return [f"SQLite runs without WAL ({mode}): is the file on a network drive? Reads wait."]


def translate(error: DBAPIError) -> AppError | None:
    """Return the error that clients see for a database error, or None if it is a defect."""
    name = getattr(error.orig, "sqlite_errorname", "")
    message = str(error.orig)
    if name in {"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"}:
        # The message: UNIQUE constraint failed: users.email, users.tenant
        fields = re.findall(r"\w+\.(\w+)", message)
        return Conflict(
            "This is taken already.",
            errors=[FieldError(field=field, message="Taken already") for field in fields],
        )
    if name == "SQLITE_CONSTRAINT_FOREIGNKEY":
        return Conflict(
            "This refers to something that is not there, or is still referred to.",
            errors=[
                FieldError(field=field, message="Not there, or still referred to")
                for field in getattr(error.orig, _FIELDS, ())
            ],
        )
    if name.startswith(_TEMPORARY):
        return Unavailable("The database is temporarily unavailable.", cause=describe(error))
    return None


def _create_file(url: URL) -> None:
    """Create a missing database for its owner only: SQLite would let every user read it."""
    with suppress(OSError):  # it exists, or connecting reports the error
        os.close(os.open(url.database or "", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _engine(settings: DriverSettings, **options: Any) -> AsyncEngine:
    engine = create_async_engine(
        settings.database_url,
        connect_args=_connect_args(settings),
        echo=settings.database_echo,
        hide_parameters=True,
        max_overflow=0,
        pool_timeout=settings.database_pool_timeout,
        **options,
    )

    @event.listens_for(engine.sync_engine, "handle_error")
    def complete(context: ExceptionContext) -> None:
        error = context.original_exception
        if context.connection is None:
            return
        if isinstance(error, asyncio.CancelledError):
            # Closing alone would keep the transaction open for as long as the cursor.
            driver: Any = context.connection.connection.driver_connection
            await_only(driver.interrupt())
            await_only(driver.rollback())
        if getattr(error, "sqlite_errorname", "") == "SQLITE_CONSTRAINT_FOREIGNKEY":
            setattr(error, _FIELDS, _broken_keys(context.connection, context))

    return engine


def _broken_keys(connection: Connection, context: ExceptionContext) -> list[str]:
    """Return the columns of a violated foreign key: SQLite names none, so look for the parents."""
    execution = context.execution_context
    if execution is None:  # at the commit
        rows = _fetch(connection, "PRAGMA foreign_key_check")
        found = {(row[0], row[3]) for row in rows}
        return sorted(
            key[3]
            for table, number in found
            for key in _fetch(connection, f'PRAGMA foreign_key_list("{table}")')
            if key[0] == number
        )
    statement = getattr(execution.compiled, "statement", None)
    table = getattr(statement, "table", None)
    if not isinstance(table, Table):
        return []
    if isinstance(statement, Delete):  # others refer to it
        return sorted(column.key for column in table.primary_key)
    if not isinstance(statement, (Insert, Update)):
        return []
    keys: Iterable[ForeignKeyConstraint] = table.foreign_key_constraints
    if len(table.foreign_key_constraints) > 1:
        rows = getattr(execution, "compiled_parameters", [])
        keys = [key for key in keys if _misses(connection, key, rows)]
    return sorted(name for key in keys for name in key.column_keys)


def _misses(
    connection: Connection, key: ForeignKeyConstraint, rows: Iterable[Mapping[str, Any]]
) -> bool:
    """Return whether the parent of one of these rows is missing."""
    for row in rows:
        values = [row.get(name) for name in key.column_keys]
        if None in values:
            continue
        parent = exists().where(
            *(element.column == value for element, value in zip(key.elements, values, strict=True))
        )
        if not connection.scalar(select(parent)):
            return True
    return False


def _fetch(connection: Connection, pragma: str) -> Sequence[Any]:
    cursor = connection.connection.cursor()
    try:
        cursor.execute(pragma)
        return cursor.fetchall()
    finally:
        cursor.close()


def _connect_args(settings: DriverSettings) -> dict[str, Any]:
    # isolation_level None: the driver does not begin transactions by itself.
    return {"timeout": settings.database_busy_timeout, "isolation_level": None}


def _on_connect(engine: AsyncEngine, settings: DriverSettings, *more: str) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        for statement in (
            "PRAGMA journal_mode = WAL",
            f"PRAGMA synchronous = {settings.database_synchronous}",
            f"PRAGMA cache_size = -{_CACHE_SIZE}",
            *more,
        ):
            cursor.execute(statement)
        cursor.close()


def _begin_immediate(engine: AsyncEngine, wait: float = 0) -> None:
    """Begin every transaction with the write lock, and wait for it for ``wait`` seconds.

    A deferred BEGIN fails with "database is locked" when two transactions read and then write.
    """

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        until = time.monotonic() + wait
        while True:
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            except DBAPIError as error:
                # In short waits, between which a cancelled request ends.
                if not _is_busy(error) or time.monotonic() >= until:
                    raise
            else:
                return


def _is_busy(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlite_errorname", "").startswith("SQLITE_BUSY")
