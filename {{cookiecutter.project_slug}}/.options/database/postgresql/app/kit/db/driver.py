"""PostgreSQL by asyncpg: the only module that names a dialect."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import asyncpg
from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode
from sqlalchemy import URL, Connection, ExceptionContext, event, make_url, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidatePoolError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.util import await_only

from app.kit import project
from app.kit.errors import (
    READ_ONLY,
    AppError,
    Conflict,
    FieldError,
    TransactionConflict,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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

RENDER_AS_BATCH = False
"""Whether migrations rebuild tables in place of ALTER TABLE."""

NOT_VALID: dict[str, Any] = {"postgresql_not_valid": True}
"""Options of a new constraint that does not check the existing rows."""

# "app migr" in ASCII: the advisory lock that lets one migration run at a time.
_MIGRATION_LOCK = 0x617070206D696772

BEFORE_MIGRATIONS: tuple[str, ...] = (
    "SET LOCAL statement_timeout = 0",
    "SET LOCAL idle_in_transaction_session_timeout = 0",
    "SET LOCAL lock_timeout = 0",
    f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})",
    "SET LOCAL lock_timeout = '5s'",
)
"""The first statements of a migration: no time limit of the role ends the wait for another
migration. After that, lock_timeout is 5 s, because other requests queue behind a lock that a
migration waits for."""

_EXAMPLE = "postgresql://user:password@host:5432/name"

# The parameters of a URL that asyncpg knows. It calls libpq's sslmode ssl.
_PARAMETERS = {
    "host": "host",
    "port": "port",
    "ssl": "ssl",
    "sslmode": "ssl",
    "sslrootcert": "sslrootcert",
}
_VERIFYING = ("require", "verify-ca", "verify-full")
"""Modes that may have a root certificate: as in libpq, ``require`` then means ``verify-ca``."""

_UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

# In seconds. The client waits longer than the server's own time limit for a statement.
_PING_TIMEOUT = 1.0
_COMMAND_GRACE = 0.5

# Classes: connection, login, no database, deadlock, resources, wrong state, ended by an operator.
_UNAVAILABLE = {"08", "28", "3D", "40", "53", "55", "57"}
_MISSING = {
    asyncpg.UndefinedColumnError.sqlstate,
    asyncpg.UndefinedTableError.sqlstate,
}
_CONTENDED = {
    asyncpg.SerializationError.sqlstate,
    asyncpg.DeadlockDetectedError.sqlstate,
}

Seconds = Annotated[float, Field(allow_inf_nan=False, le=86_400)]


def parse_url(value: object) -> URL:
    """Read a ``postgresql://`` or ``postgres://`` URL, or raise ``ValueError``."""
    try:
        # str() of a URL would hide the password.
        url = make_url(value if isinstance(value, URL) else str(value))
    except (ArgumentError, ValueError):  # a port that is no number is a plain ValueError
        raise ValueError(f"Not a database URL: {_EXAMPLE} is one") from None
    if url.drivername.partition("+")[0] not in {"postgresql", "postgres"}:
        raise ValueError(f"This service runs on PostgreSQL ({_EXAMPLE}), not on {url.drivername}")
    if not url.database:
        raise ValueError(f"The URL names no database: {_EXAMPLE} does")
    if unknown := sorted(set(url.query) - set(_PARAMETERS)):
        raise ValueError(f"The driver knows no {unknown[0]!r} in a URL: remove it")
    query = {_PARAMETERS[name]: value for name, value in url.query.items()}
    if root := query.get("sslrootcert"):
        if query.setdefault("ssl", "verify-full") not in _VERIFYING:
            raise ValueError(f"sslrootcert takes an sslmode of {', '.join(_VERIFYING)}")
        if root != "system" and not Path(str(root)).is_file():
            raise ValueError("sslrootcert names a file that does not exist")
    return url.set(drivername="postgresql+asyncpg", query=query)


# URL is a tuple, which pydantic-settings would decode as JSON.
DatabaseURL = Annotated[URL, NoDecode, BeforeValidator(parse_url)]


class DriverSettings(BaseSettings):
    """The settings of the database; ``docs/settings.md`` explains each."""

    database_url: DatabaseURL
    database_read_url: DatabaseURL | None = None
    instances: int = Field(default=1, ge=1, le=10_000)
    database_pooler: Literal["pgbouncer"] | None = None
    database_pool_size: int = Field(default=5, ge=1, le=1000)
    database_read_pool_size: int = Field(default=5, ge=1, le=1000)
    database_max_overflow: int = Field(default=0, ge=0, le=1000)
    database_pool_timeout: Seconds = Field(default=3, gt=0)
    database_session_timeout: Seconds = Field(default=4.5, ge=0)
    database_pool_recycle: int = Field(default=300, ge=-1)
    database_ping_after: Seconds = Field(default=1, ge=0)
    database_connect_timeout: Seconds = Field(default=3, gt=0)
    database_statement_timeout: Seconds = Field(default=4, ge=0)
    database_idle_in_transaction_timeout: Seconds = Field(default=30, ge=0)
    database_application_name: str = project.NAME
    database_echo: bool = False


def write_engine(settings: DriverSettings) -> AsyncEngine:
    """Return the engine of transactions."""
    return _pooled(settings, settings.database_url, settings.database_pool_size, {})


def read_engine(settings: DriverSettings) -> AsyncEngine:
    """Return the engine of reads: in autocommit, and read-only on the server."""
    return _read_engine(settings, settings.database_url)


def replica_engine(settings: DriverSettings) -> AsyncEngine | None:
    """Return the engine of reads from the replica, if there is one."""
    url = settings.database_read_url
    return _read_engine(settings, url, is_replica=True) if url else None


def _read_engine(settings: DriverSettings, url: URL, *, is_replica: bool = False) -> AsyncEngine:
    if settings.database_pooler:
        # In each BEGIN, because a pooler may use another connection for each transaction.
        engine = _pooled(
            settings,
            url,
            settings.database_read_pool_size,
            {},
            # The pooler may be before the primary only.
            try_limits=is_replica,
            execution_options={"postgresql_readonly": True},
        )
    else:
        engine = _pooled(
            settings,
            url,
            settings.database_read_pool_size,
            {"default_transaction_read_only": "on"},
            isolation_level="AUTOCOMMIT",
            skip_autocommit_rollback=True,
        )

    @event.listens_for(engine.sync_engine, "handle_error", retval=True)
    def refuse(context: ExceptionContext) -> Exception | None:
        state = getattr(context.original_exception, "sqlstate", None)
        is_write = state == asyncpg.ReadOnlySQLTransactionError.sqlstate
        return InvalidRequestError(READ_ONLY) if is_write else None

    return engine


def migration_engine(settings: DriverSettings) -> AsyncEngine:
    """Return the engine of ``alembic``: one connection, without a statement timeout."""
    engine = _unpooled(
        settings,
        f"{settings.database_application_name} alembic",
        statement_timeout="0",
        idle_in_transaction_session_timeout="0",
    )
    _reflect_checks_without_options(engine)
    return engine


def _reflect_checks_without_options(engine: AsyncEngine) -> None:
    """Let SQLAlchemy 2.1.8 reflect a table with a NOT VALID CHECK, which it can't by itself."""
    dialect = engine.sync_engine.dialect
    reflect = dialect.get_multi_check_constraints

    def without_options(*arguments: Any, **options: Any) -> list[Any]:
        return [
            (
                table,
                [
                    {name: value for name, value in check.items() if name != "dialect_options"}
                    for check in checks
                ],
            )
            for table, checks in reflect(*arguments, **options)
        ]

    dialect.get_multi_check_constraints = without_options  # type: ignore[method-assign]


def probe_engine(settings: DriverSettings) -> AsyncEngine:
    """Return the engine of health checks, which opens a connection for each."""
    return _unpooled(settings, settings.database_application_name)


async def is_writable(connection: AsyncConnection) -> bool:
    """Return whether the server accepts writes; a standby does not."""
    return bool(await connection.scalar(text("SHOW transaction_read_only")) == "off")


def missing_names(error: DBAPIError) -> list[str]:
    """Return the names in an error that says that there is no such table or column."""
    if getattr(error.orig, "sqlstate", None) not in _MISSING:
        return []
    # The message: column tasks.priority does not exist, or relation "tasks" does not exist
    return re.findall(r'(?:["»„«](?:\w+\.)*|\w+\.)(\w+)', describe(error))


async def try_lock(session: AsyncSession, name: str) -> bool:
    """Take the lock of this name until the transaction ends; return False if it is taken."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    number = int.from_bytes(digest, signed=True)
    locked = await session.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": number})
    return bool(locked)


def index_names(connection: Connection, table: str) -> set[str] | None:
    """Return None: Alembic compares also indexes on expressions."""


def before_migrations(connection: Connection) -> None:
    """Run ``BEFORE_MIGRATIONS``."""
    for statement in BEFORE_MIGRATIONS:
        connection.execute(text(statement))


def after_migrations(connection: Connection) -> None:
    """Do nothing: the lock is released with the transaction."""


async def warnings(connection: AsyncConnection, settings: KitSettings) -> Sequence[str]:
    """Return warnings about the database that matter in production."""
    allowed: int = (
        await connection.execute(
            text(
                "SELECT current_setting('max_connections')::int"
                " - current_setting('superuser_reserved_connections')::int"
                # since PostgreSQL 16
                " - coalesce(current_setting('reserved_connections', true)::int, 0)"
            )
        )
    ).scalar_one()
    sizes = (settings.database_pool_size, settings.database_read_pool_size)
    each = sum(sizes) + len(sizes) * settings.database_max_overflow + 1  # the readiness probe
    wanted = settings.instances * settings.workers * each
    found: list[str] = []
    if wanted > allowed and not settings.database_pooler:
        found.append(
            f"{settings.instances} instances of {settings.workers} workers of {each} connections "
            f"may want {wanted}, the server allows {allowed}: lower DATABASE_POOL_SIZE, "
            "DATABASE_READ_POOL_SIZE or WORKERS, raise its max_connections, or put PgBouncer "
            "before it"
        )
    if settings.database_pooler and settings.database_statement_timeout:
        limit = await connection.scalar(text("SHOW statement_timeout"))
        if limit == "0":
            found.append(
                "A pooler passes no time limits on, and the server has none: "
                "ALTER ROLE ... SET statement_timeout, idle_in_transaction_session_timeout"
            )
    return found


def translate(error: DBAPIError) -> AppError | None:
    """Return the error that clients see for a database error, or None if it is a defect."""
    state = getattr(error.orig, "sqlstate", None) or ""
    cause = error.orig.__cause__ if error.orig else None
    if state == asyncpg.UniqueViolationError.sqlstate:
        return Conflict("This is taken already.", errors=_fields(cause, "Taken already"))
    if state == asyncpg.ForeignKeyViolationError.sqlstate:
        return Conflict(
            "This refers to something that is not there, or is still referred to.",
            errors=_fields(cause, "Not there, or still referred to"),
        )
    if state in _CONTENDED:
        return TransactionConflict(
            "Others changed the same data at the same time.", cause=describe(error)
        )
    # The classes of https://www.postgresql.org/docs/current/errcodes-appendix.html
    if (
        state[:2] in _UNAVAILABLE
        or state == asyncpg.ReadOnlySQLTransactionError.sqlstate  # no longer the primary
        or error.connection_invalidated
    ):
        return Unavailable("The database is temporarily unavailable.", cause=describe(error))
    return None


def describe(error: BaseException | None) -> str:
    """Return class, SQLSTATE and message of an error; the details of a server's have values."""
    error = error.orig if isinstance(error, DBAPIError) else error
    cause = (error.__cause__ if error else None) or error
    state = getattr(cause, "sqlstate", None)
    message = str(cause.args[0] if isinstance(cause, asyncpg.PostgresError) else cause or "")
    name = type(cause).__name__ + (f" {state}" if state else "")
    return f"{name}: {message.partition(chr(10))[0]}" if message else name


def _fields(cause: BaseException | None, message: str) -> list[FieldError]:
    # The message: Key (email, tenant)=(…) already exists.
    keys = re.match(r"Key \(([^)]*)\)=", getattr(cause, "detail", None) or "")
    names = re.findall(r"\w+", keys[1]) if keys else []
    return [FieldError(field=name, message=message) for name in names]


def _pooled(
    settings: DriverSettings,
    url: URL,
    size: int,
    server_settings: dict[str, str],
    *,
    try_limits: bool = False,
    **options: Any,
) -> AsyncEngine:
    limits = {
        "statement_timeout": _milliseconds(settings.database_statement_timeout),
        "idle_in_transaction_session_timeout": _milliseconds(
            settings.database_idle_in_transaction_timeout
        ),
    }
    engine = create_async_engine(
        url.difference_update_query(["sslrootcert"]),
        echo=settings.database_echo,
        hide_parameters=True,
        pool_size=size,
        max_overflow=settings.database_max_overflow,
        pool_timeout=settings.database_pool_timeout,
        pool_recycle=settings.database_pool_recycle,
        connect_args=_connect_args(
            settings,
            url,
            settings.database_application_name,
            # For a frozen server, which does not end a statement by its own time limit.
            command_timeout=settings.database_statement_timeout + _COMMAND_GRACE
            if settings.database_statement_timeout
            else None,
            **limits,
            **server_settings,
        ),
        **options,
    )
    if try_limits:
        _try_server_settings(engine, limits)
    _translate_driver_errors(engine)
    _ping_after(engine, settings.database_ping_after)
    return engine


def _unpooled(
    settings: DriverSettings, application_name: str, **server_settings: str
) -> AsyncEngine:
    url = settings.database_url
    engine = create_async_engine(
        url.difference_update_query(["sslrootcert"]),
        echo=settings.database_echo,
        hide_parameters=True,
        poolclass=NullPool,
        connect_args=_connect_args(settings, url, application_name, None, **server_settings),
    )
    _translate_driver_errors(engine)
    return engine


def _verify_server(url: URL) -> dict[str, ssl.SSLContext]:
    """Return the TLS context that trusts ``sslrootcert`` only, which asyncpg does not read."""
    root = url.query.get("sslrootcert")
    if root is None:
        return {}
    context = ssl.create_default_context(cafile=None if root == "system" else str(root))
    context.check_hostname = url.query["ssl"] == "verify-full"
    return {"ssl": context}


def _connect_args(
    settings: DriverSettings,
    url: URL,
    application_name: str,
    command_timeout: float | None = None,
    **server_settings: str,
) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "timeout": settings.database_connect_timeout,
        "command_timeout": command_timeout,
        **_verify_server(url),
    }
    if not settings.database_pooler:
        return arguments | {
            "server_settings": {"application_name": application_name, **server_settings}
        }
    # The next transaction has another connection: use no named prepared statements, and no
    # settings that PgBouncer does not track.
    return arguments | {
        "server_settings": {"application_name": application_name},
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: "",
    }


def _milliseconds(seconds: float) -> str:
    return str(math.ceil(seconds * 1000))


def _try_server_settings(engine: AsyncEngine, more: dict[str, str]) -> None:
    """Send more settings when connecting, until a pooler refuses them."""
    dialect = engine.sync_engine.dialect
    is_refused = False

    @event.listens_for(engine.sync_engine, "do_connect")
    def connect(_dialect: Any, _record: Any, args: Any, kwargs: Any) -> Any:
        nonlocal is_refused
        if is_refused:
            return None  # the next listener connects
        try:
            settings = {**kwargs["server_settings"], **more}
            return dialect.connect(*args, **{**kwargs, "server_settings": settings})
        except (*_UNREACHABLE, dialect.loaded_dbapi.Error) as error:
            state = getattr(error, "sqlstate", None)
            is_refused = state == asyncpg.ProtocolViolationError.sqlstate
            if is_refused:
                return None
            raise _unreachable(kwargs, error) from error


def _unreachable(kwargs: Mapping[str, Any], error: BaseException) -> Unavailable:
    address = f"{kwargs.get('host', 'localhost')}:{kwargs.get('port', 5432)}"
    return Unavailable("The database can't be reached.", cause=f"{address}: {describe(error)}")


def _translate_driver_errors(engine: AsyncEngine) -> None:
    """Turn errors of asyncpg that SQLAlchemy does not wrap into an ``AppError``."""
    dialect = engine.sync_engine.dialect

    # It returns its error: raised, it would end the chain of listeners.
    @event.listens_for(engine.sync_engine, "handle_error", retval=True)
    def give_up(context: ExceptionContext) -> Exception | None:
        error = context.original_exception
        if isinstance(error, (TimeoutError, asyncio.CancelledError)):
            # Terminate: closing would wait for a server that may be frozen.
            context.is_disconnect = True
            if context.connection is not None:
                _terminate(context.connection.connection)
        if isinstance(error, TimeoutError):
            return Unavailable("The database does not respond.", cause=describe(error))
        return None

    @event.listens_for(engine.sync_engine, "do_connect")
    def connect(_dialect: Any, _record: Any, args: Any, kwargs: Any) -> Any:
        try:
            return dialect.connect(*args, **kwargs)
        except (*_UNREACHABLE, dialect.loaded_dbapi.Error) as error:
            raise _unreachable(kwargs, error) from error


def _terminate(connection: Any) -> None:
    connection.driver_connection.terminate()


def _ping_after(engine: AsyncEngine, idle: float) -> None:
    """Test a connection at checkout if it was idle for ``idle`` seconds.

    SQLAlchemy's own ping takes three round trips and has no time limit.
    """

    @event.listens_for(engine.sync_engine, "checkin")
    def stamp(_connection: Any, record: Any) -> None:
        record.info["idle_since"] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def ping(connection: Any, record: Any, _proxy: Any) -> None:
        since = record.info.pop("idle_since", None)
        if connection.driver_connection.is_closed():
            raise InvalidatePoolError("closed connection")
        if since is None or time.monotonic() - since < idle:
            return
        try:
            await_only(connection.driver_connection.execute("SELECT 1", timeout=_PING_TIMEOUT))
        except asyncio.CancelledError:
            _terminate(connection)
            raise
        except _UNREACHABLE as error:
            _terminate(connection)
            # The pool then drops every connection of that age.
            raise InvalidatePoolError("stale connection") from error
