"""The engines, sessions and connection limits of one process, opened and closed as one object."""

import asyncio
import logging
import random
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, TypeVar, TypeVarTuple, cast, overload

from sqlalchemy import (
    Connection,
    ExceptionContext,
    Executable,
    QueuePool,
    Result,
    ScalarResult,
    Select,
    SelectBase,
    TextClause,
    event,
    exc,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import FromStatement, InstanceState, Session
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.util import greenlet_spawn

from app.kit.config import KitSettings
from app.kit.db import driver, metrics
from app.kit.db.loading import primary_key
from app.kit.db.models import Base
from app.kit.db.slow import log_slow_statements
from app.kit.db.tracing import trace_statements
from app.kit.errors import (
    NOT_MIGRATED,
    READ_ONLY,
    AppError,
    Conflict,
    TransactionConflict,
    Unavailable,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

ReadStatement = SelectBase | TextClause | FromStatement[*tuple[Any, ...]]

# In seconds.
START_CHECK_TIMEOUT = 2.0
CLOSE_TIMEOUT = 1.0
REPLICA_TIMEOUT = 1.0
REPLICA_RETRY = 5.0

MAX_TRACKED: Final = 1000
"""The number of tracked entities after which a session forgets unused ones."""

_FAILED: Final = "kit_statement_failed"

FROM_SETTINGS: Final = -1.0
"""The default of ``timeout``: ``DATABASE_SESSION_TIMEOUT``."""


class _Tracked:
    """Detects changes to detached entities, which are not written."""

    def __init__(self) -> None:
        self._states: list[InstanceState[Any]] = []
        self._most = MAX_TRACKED

    def track(self, *entities: object) -> None:
        """Remember detached entities, for as long as other code holds them."""
        # An entity's state records changes, and does not keep the entity in memory.
        self._states += map(instance_state, entities)
        if len(self._states) > self._most:
            self.check_unchanged()
            self._states = [state for state in self._states if state.obj() is not None]
            self._most = MAX_TRACKED + 2 * len(self._states)

    def check_unchanged(self) -> None:
        """Raise ``InvalidRequestError`` if a detached entity was changed."""
        for state in self._states:
            if state.modified:
                raise exc.InvalidRequestError(
                    f"A {state.class_.__name__} was changed, but this is not written: use "
                    "Repository.update()"
                )


class WriteSession(_Tracked, AsyncSession):
    """A session in the one transaction that it was opened for."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Accept what ``AsyncSession`` does."""
        AsyncSession.__init__(self, *arguments, **options)
        _Tracked.__init__(self)


class ReadSession(_Tracked):
    """A session that only reads, in autocommit.

    Each statement holds a connection only while it runs. Entities are detached; if one was changed,
    the end of the session raises ``InvalidRequestError``.
    """

    def __init__(self, database: "Database", *, primary: bool, timeout: float | None) -> None:
        """Read through ``database``; see ``Database.reading`` for the arguments."""
        self._database = database
        self._primary = primary
        self._timeout = timeout
        self._deadline: float | None = None
        self._closed = False
        super().__init__()

    @overload
    async def execute(
        self, statement: Select[*Ts], parameters: Mapping[str, Any] | None = None
    ) -> Result[*Ts]: ...

    @overload
    async def execute(
        self, statement: ReadStatement, parameters: Mapping[str, Any] | None = None
    ) -> Result[*tuple[Any, ...]]: ...

    async def execute(
        self, statement: ReadStatement, parameters: Mapping[str, Any] | None = None
    ) -> Result[*tuple[Any, ...]]:
        """Run a statement and return its buffered result.

        Raises:
            InvalidRequestError: the statement writes.
            AppError: the database is unavailable.
        """
        if self._closed:
            raise exc.InvalidRequestError("This session is closed: open another one")
        if statement.is_dml:
            raise exc.InvalidRequestError(READ_ONLY)
        if self._timeout is not None and self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._timeout
        with translate_errors():
            async with _TimeLimit(self._deadline):
                return await self._database.run_read(
                    # Skipping the ORM saves a third of the time of a statement.
                    execute_entities if has_entities(statement) else _execute_columns,
                    statement,
                    parameters,
                    self.track,
                    primary=self._primary,
                )

    @overload
    async def scalars(
        self, statement: Select[T], parameters: Mapping[str, Any] | None = None
    ) -> ScalarResult[T]: ...

    @overload
    async def scalars(
        self, statement: ReadStatement, parameters: Mapping[str, Any] | None = None
    ) -> ScalarResult[Any]: ...

    async def scalars(
        self, statement: ReadStatement, parameters: Mapping[str, Any] | None = None
    ) -> ScalarResult[Any]:
        """Return the first column of the rows of a statement."""
        return (await self.execute(statement, parameters)).scalars()

    @overload
    async def scalar(
        self, statement: Select[T], parameters: Mapping[str, Any] | None = None
    ) -> T | None: ...

    @overload
    async def scalar(
        self, statement: ReadStatement, parameters: Mapping[str, Any] | None = None
    ) -> Any: ...

    async def scalar(
        self, statement: ReadStatement, parameters: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the first column of the first row of a statement, or None."""
        return (await self.execute(statement, parameters)).scalar()

    async def get_one(self, model: type[T], key: Any) -> T:
        """Return the entity with this primary key, or raise ``NoResultFound``."""
        return (await self.scalars(select(model).where(primary_key(model) == key))).one()

    def close(self) -> None:
        """End the session; raise ``InvalidRequestError`` if an entity was changed."""
        self._closed = True
        self.check_unchanged()


def has_entities(statement: Executable | ReadStatement) -> bool:
    """Return whether a statement selects entities, not only columns."""
    if isinstance(statement, FromStatement):
        return True
    return isinstance(statement, Select) and any(
        # The public way, `column_descriptions`, costs 30 us.
        column.is_selectable and "parententity" in column._annotations  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        for column in statement._raw_columns  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    )


def _execute_columns(
    connection: Connection,
    statement: Executable,
    parameters: Mapping[str, Any] | None,
    _track: Callable[..., None],
) -> Result[Any]:
    return connection.execute(statement, parameters)


def execute_entities(
    connection: Connection,
    statement: Executable,
    parameters: Mapping[str, Any] | None,
    track: Callable[..., None],
) -> Result[Any]:
    """Run a statement; its entities are detached, and passed to ``track``."""
    with Session(
        connection,
        autoflush=False,
        expire_on_commit=False,
        join_transaction_mode="rollback_only",  # close() ends no transaction
    ) as session:
        result = session.execute(statement, parameters, execution_options={"prebuffer_rows": True})
        track(*session.identity_map.values())
        return result


class _TranslateErrors(AbstractContextManager[None]):
    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        match error:
            case None:
                pass
            case exc.TimeoutError():
                raise Unavailable("Every database connection is in use.") from error
            case StaleDataError():
                raise Conflict("Another request changed this at the same time.") from error
            case exc.DBAPIError():
                if (known := driver.translate(error)) is not None:
                    if _writes_owned(error):
                        # Not a field of the API, but it may be a part of the constraint.
                        known.errors = [each for each in known.errors if each.field != "owner_id"]
                    raise known from error
                if _is_not_migrated(error):
                    raise Unavailable(NOT_MIGRATED, cause=driver.describe(error)) from error
            case _:
                pass


def _writes_owned(error: exc.DBAPIError) -> bool:
    """Return whether a statement that failed names the table of a model with owners."""
    words = re.findall(r"\w+", error.statement or "")
    return any(
        str(mapper.local_table) in words
        for mapper in Base.registry.mappers
        if getattr(mapper.class_, "__owned__", False)
    )


def _is_not_migrated(error: exc.DBAPIError) -> bool:
    """Return whether a statement failed because a table or column of the models is missing."""
    missing = set(driver.missing_names(error))
    used = set(re.findall(r"\w+", error.statement or "")) if missing else set[str]()
    return any(
        table.name in used and ({table.name} | set(table.columns.keys())) & missing
        for table in Base.metadata.tables.values()
    )


_TRANSLATE_ERRORS: Final = _TranslateErrors()


def translate_errors() -> AbstractContextManager[None]:
    """Map database errors that have a meaning for clients to an ``AppError``."""
    return _TRANSLATE_ERRORS


class _TimeLimit(AbstractAsyncContextManager[None]):
    def __init__(self, deadline: float | None) -> None:
        self._timeout = asyncio.timeout_at(deadline)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:  # the timeout of this limit; others are not caught here
            raise Unavailable("The database does not respond in time.") from None


class ConnectionLimiter(AbstractAsyncContextManager[None]):
    """A first-come, first-served queue for the connections of a pool.

    SQLAlchemy's pool lets new requests overtake those that wait: under load some clients were
    served twice as often as others.
    """

    def __init__(self, engine: AsyncEngine, timeout: float) -> None:
        """Admit as many holders as the pool has connections; others wait ``timeout`` seconds."""
        pool = cast("QueuePool", engine.pool)
        self.size = pool.size() + pool._max_overflow  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        self.waiting = 0
        self._permits = asyncio.Semaphore(self.size)
        self._timeout = timeout

    async def __aenter__(self) -> None:
        """Wait for a free connection; raise ``Unavailable`` after the timeout."""
        if not self._permits.locked():
            await self._permits.acquire()
            return
        self.waiting += 1
        try:
            async with asyncio.timeout(self._timeout):
                await self._permits.acquire()
        except TimeoutError:
            raise Unavailable("Every database connection is in use.") from None
        finally:
            self.waiting -= 1

    async def __aexit__(self, *_: object) -> None:
        """Admit the next holder."""
        self._permits.release()


async def _undo(session: WriteSession) -> None:
    try:
        # After a failed commit, close() alone would leave SQLite in the transaction.
        await session.rollback()
    finally:
        await session.close()


def _refuse_failed_commits(engine: AsyncEngine) -> None:
    """Refuse to commit after a statement failed and its error was swallowed.

    PostgreSQL turns such a COMMIT into a ROLLBACK without an error. A savepoint that is rolled
    back clears the failure.
    """
    sync_engine = engine.sync_engine

    def fail(context: ExceptionContext) -> None:
        if context.connection is not None and not context.is_disconnect:
            context.connection.info[_FAILED] = True

    def clear(connection: Connection, *_: object) -> None:
        connection.info.pop(_FAILED, None)

    event.listen(sync_engine, "handle_error", fail)
    event.listen(sync_engine, "begin", clear)
    event.listen(sync_engine, "rollback_savepoint", clear)
    event.listen(sync_engine, "commit", refuse_failed)


def refuse_failed(connection: Connection) -> None:
    """Raise ``InvalidRequestError`` if a statement failed in the transaction and was swallowed."""
    if connection.info.pop(_FAILED, False):
        raise exc.InvalidRequestError(
            "A statement failed and its error was swallowed: use session.begin_nested()"
        )


class _Open:
    """A transaction that is open in this context; tasks that it starts inherit it."""

    def __init__(self, database: "Database") -> None:
        self.database: Database | None = database
        self.outer = _open.get()
        while self.outer is not None and self.outer.database is None:  # it has ended
            self.outer = self.outer.outer
        self.task = asyncio.current_task()


_open: ContextVar[_Open | None] = ContextVar("open_transaction", default=None)


class Database:
    """The engines and sessions of one process.

    Nothing connects before the first statement, so a service can start before its database.
    """

    def __init__(self, settings: KitSettings) -> None:
        """Create the engines."""
        self._settings = settings
        self.write_engine = driver.write_engine(settings)
        _refuse_failed_commits(self.write_engine)
        self.read_engine = driver.read_engine(settings)
        self.replica_engine = driver.replica_engine(settings)
        self.probe_engine = driver.probe_engine(settings)
        for name, engine in self.engines.items():
            trace_statements(engine, name)
            if settings.log_slow_statements:
                log_slow_statements(engine, name, settings.log_slow_statements)
        # Tests replace it with the connection of their transaction.
        self.connect: Callable[[], AbstractContextManager[Connection]] = (
            self.read_engine.sync_engine.connect
        )
        self._replica_missed_until = 0.0
        self.committed = self.rolled_back = self.retried = 0
        self.limiters = {
            name: ConnectionLimiter(engine, settings.database_pool_timeout)
            for name, engine in self.engines.items()
        }
        # No autobegin: a closed session can't be used again.
        self.write_sessions = async_sessionmaker(
            self.write_engine,
            class_=WriteSession,
            expire_on_commit=False,
            autoflush=False,
            autobegin=False,
            close_resets_only=False,
        )

    @property
    def engines(self) -> dict[str, AsyncEngine]:
        """Return the engines that have a connection pool, by name."""
        engines = {"write": self.write_engine, "read": self.read_engine}
        if self.replica_engine is not None:
            engines["replica"] = self.replica_engine
        return engines

    async def open(
        self, unfit: Callable[[AsyncConnection], Awaitable[str | None]] | None = None
    ) -> None:
        """Export the metrics of the pools and transactions, and log warnings about the database.

        ``unfit`` returns why the schema does not fit this code, or None.
        """
        metrics.watch(self)
        try:
            async with (
                asyncio.timeout(START_CHECK_TIMEOUT),
                self.write_engine.connect() as connection,
            ):
                for warning in await driver.warnings(connection, self._settings):
                    logger.warning("%s", warning)
                if unfit is not None and (reason := await unfit(connection)):
                    logger.warning("Not ready: %s", reason)
        except exc.DBAPIError as error:
            missing = "alembic_version" in driver.missing_names(error)
            logger.warning("Not ready: %s", NOT_MIGRATED if missing else driver.describe(error))
        except Unavailable as error:
            logger.warning("Not ready: %s", error.cause or error.detail)
        except (AppError, exc.SQLAlchemyError, OSError, TimeoutError) as error:
            cause = str(error) or "the database does not respond"
            logger.warning("Not ready: %s", cause)

    async def close(self) -> None:
        """Close every connection; give up after ``CLOSE_TIMEOUT`` seconds."""
        metrics.forget(self)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                for engine in self.engines.values():
                    await engine.dispose()
        except TimeoutError:
            logger.warning("The database does not respond: its connections were left open")

    @asynccontextmanager
    async def transaction(
        self,
        *,
        timeout: float | None = FROM_SETTINGS,  # noqa: ASYNC109 - of the whole context
    ) -> AsyncGenerator[WriteSession]:
        """Open a session in a transaction: commit at the end, roll back on any exception.

        ``timeout`` limits the transaction, in seconds; None is no limit, for scripts and streams.

        Raises:
            RuntimeError: a transaction of this database is open in the same request or task.
            AppError: the database refused the transaction or is unavailable.
        """
        outer = _open.get()
        while outer is not None and outer.database is not self:
            outer = outer.outer
        if outer is not None:
            if outer.task is not asyncio.current_task():
                raise RuntimeError(
                    "This task was started in a transaction that is still open, and could wait for "
                    "it forever: start the task after the transaction, or with "
                    "asyncio.create_task(..., context=contextvars.Context())"
                )
            raise RuntimeError(
                "A transaction is open already, and a second one could wait for it forever: pass "
                "its session on, or use session.begin_nested() for a partial rollback"
            )
        current = _Open(self)
        _open.set(current)
        try:
            with translate_errors():
                async with _TimeLimit(self._deadline(timeout)), self.limiters["write"]:
                    session = self.write_sessions()
                    # `sessionmaker.begin()` would do the same, but start two tasks for a session.
                    session.sync_session.begin()
                    try:
                        yield session
                        session.check_unchanged()
                        if session.in_transaction():  # not ended by the code above
                            await session.commit()
                    except BaseException:
                        self.rolled_back += 1
                        await asyncio.shield(_undo(session))
                        raise
                    self.committed += 1
                    session.sync_session.close()  # its connection has been returned already
        finally:
            current.database = None

    @asynccontextmanager
    async def reading(
        self,
        *,
        primary: bool = False,
        timeout: float | None = FROM_SETTINGS,  # noqa: ASYNC109 - of the whole context
    ) -> AsyncGenerator[ReadSession]:
        """Open a session for reading, on the replica unless ``primary``.

        ``timeout`` is as in ``transaction``, counted from the first statement.
        """
        session = self.read_session(primary=primary, timeout=timeout)
        yield session
        session.close()

    def read_session(
        self, *, primary: bool = False, timeout: float | None = FROM_SETTINGS
    ) -> ReadSession:
        """Return a session for reading, which need not be closed. See ``reading``."""
        if timeout == FROM_SETTINGS:
            timeout = self._settings.database_session_timeout or None
        return ReadSession(self, primary=primary, timeout=timeout)

    async def run_read(self, work: Callable[..., T], *arguments: Any, primary: bool = False) -> T:
        """Call ``work(connection, *arguments)`` in one greenlet, on the replica or the primary."""
        if self.replica_engine is not None and not primary:
            async with self._replica_connection(self.replica_engine) as replica:
                if replica is not None:
                    return await greenlet_spawn(work, replica, *arguments)

        def run() -> T:
            with self.connect() as connection:
                return work(connection, *arguments)

        async with self.limiters["read"]:
            return await greenlet_spawn(run)

    async def retrying(
        self, work: Callable[[WriteSession], Awaitable[T]], *, attempts: int = 5
    ) -> T:
        """Run ``work`` in a transaction, and again in a new one after a ``TransactionConflict``.

        A rollback must undo everything that ``work`` does. The last conflict is raised.
        """
        for attempt in range(1, attempts):
            try:
                async with self.transaction() as session:
                    return await work(session)
            except TransactionConflict:
                self.retried += 1
                await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311 - no secret
        async with self.transaction() as session:
            return await work(session)

    def _deadline(self, timeout: float | None) -> float | None:
        if timeout == FROM_SETTINGS:
            timeout = self._settings.database_session_timeout or None
        return None if timeout is None else asyncio.get_running_loop().time() + timeout

    @asynccontextmanager
    async def _replica_connection(self, engine: AsyncEngine) -> AsyncGenerator[Connection | None]:
        """Open a connection to the replica; yield None if it does not respond."""
        connection = None
        if not self._replica_is_missed():
            async with self.limiters["replica"]:
                if not self._replica_is_missed():
                    connection = await self._connect_to_replica(engine)
                if connection is not None:
                    try:
                        yield connection
                    finally:
                        await greenlet_spawn(connection.close)
                    return
        yield None

    def _replica_is_missed(self) -> bool:
        return time.monotonic() < self._replica_missed_until

    async def _connect_to_replica(self, engine: AsyncEngine) -> Connection | None:
        if self._replica_missed_until:  # one request tries; the others go to the primary meanwhile
            self._replica_missed_until = time.monotonic() + REPLICA_RETRY
        try:
            async with asyncio.timeout(REPLICA_TIMEOUT):
                connection = await greenlet_spawn(engine.sync_engine.connect)
        except (AppError, exc.SQLAlchemyError, OSError, TimeoutError) as error:
            if not self._replica_missed_until:  # log once for each outage
                logger.warning(
                    "The replica can't be reached: reads go to the primary (%s)",
                    str(error) or "it does not respond",
                )
            self._replica_missed_until = time.monotonic() + REPLICA_RETRY
            return None
        self._replica_missed_until = 0.0
        return connection
