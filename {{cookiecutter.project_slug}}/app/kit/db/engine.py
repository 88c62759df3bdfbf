"""Engines and session factories of one process: one object that is opened and closed."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, NoReturn, TypeVar, cast

from sqlalchemy import Connection, Executable, QueuePool, Result, event, exc
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.util import greenlet_spawn

from app.kit.db import driver, metrics
from app.kit.errors import AppError, Conflict, TransactionConflict, Unavailable
from app.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

# How long the start may wait for a database that doesn't answer, and the end, in seconds.
START_CHECK_TIMEOUT = 2.0
CLOSE_TIMEOUT = 1.0

# How long a replica may take to give a connection, and how long reads then go to the primary.
REPLICA_TIMEOUT = 1.0
REPLICA_RETRY = 5.0


class _UnflushableSession(Session):
    def flush(self, objects: Any = None) -> NoReturn:
        raise exc.InvalidRequestError("A read session can't write: take a transaction")


class ReadSession(AsyncSession):
    """A session that only reads: each statement for itself, no ``BEGIN`` and no ``COMMIT``.

    Objects that were added to it or changed are an error, at a flush and at its end; whatever else
    tries to write through it is refused by the database.
    """

    sync_session_class: type[Session] = _UnflushableSession


class WriteSession(ReadSession):
    """A session that also writes, within the one transaction that it was opened for.

    It is a kind of ``ReadSession``: what asks for one of those takes this as well.
    """

    sync_session_class = Session


class Translated(AbstractContextManager[None]):
    """Turns what the database raises into the error family, in this one place.

    Raises:
        AppError: in the place of every database error that has a meaning for clients.
    """

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        """Raise what the error means, if it means anything."""
        match error:
            case exc.TimeoutError():
                raise Unavailable("Every database connection is in use.") from error
            case StaleDataError():
                raise Conflict("Somebody else changed this at the same time.") from error
            case exc.DBAPIError():
                if (known := driver.translate(error)) is not None:
                    raise known from error


class _TimeLimit(AbstractAsyncContextManager[None]):
    def __init__(self, seconds: float | None) -> None:
        self._timeout = asyncio.timeout(seconds or None)

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
        except TimeoutError:  # its own: another one passes by
            raise Unavailable("The database does not answer in time.") from None


class ConnectionLimiter(AbstractAsyncContextManager[None]):
    """Those who want a connection of a pool: first come, first served.

    The pool itself gives one that comes back to whoever asks just then, before those who wait.
    """

    def __init__(self, engine: AsyncEngine, timeout: float) -> None:
        pool = cast("QueuePool", engine.pool)
        # SQLAlchemy shows what a pool may have beyond its size nowhere else.
        self._permits = asyncio.Semaphore(pool.size() + pool._max_overflow)  # noqa: SLF001
        self._timeout = timeout

    async def __aenter__(self) -> None:
        if not self._permits.locked():
            await self._permits.acquire()
            return
        try:
            async with asyncio.timeout(self._timeout):
                await self._permits.acquire()
        except TimeoutError:
            raise Unavailable("Every database connection is in use.") from None

    async def __aexit__(self, *_: object) -> None:
        self._permits.release()


def _see_unchanged(session: ReadSession) -> None:
    if not session.sync_session._is_clean():  # noqa: SLF001 - new, dirty, deleted: in one, quickly
        # Nothing would flush it: it would be lost without a word.
        raise exc.InvalidRequestError("A read session can't write: take a transaction")


async def _undo(session: WriteSession) -> None:
    try:
        # Not by closing alone: SQLite is still in a transaction whose commit failed.
        await session.rollback()
    finally:
        await session.close()


def _stay_in_autocommit(_connection: object, options: dict[str, Any]) -> None:
    if "isolation_level" in options:
        raise exc.InvalidRequestError(
            "A read session is in autocommit: for reads that must agree, take a transaction"
        )


class Database:
    """The engines and session factories of one process.

    Nothing connects before the first statement, so that the service starts while the database
    is down, and turns ready when it comes up.
    """

    def __init__(self, settings: Settings) -> None:
        """Make the engines that ``settings`` describe."""
        self._settings = settings
        self.write_engine = driver.write_engine(settings)
        self.read_engine = driver.read_engine(settings)
        self.replica_engine = driver.replica_engine(settings)
        self.probe_engine = driver.probe_engine(settings)
        # How ``execute`` comes by a connection: tests give it theirs.
        self.connect: Callable[[], AbstractContextManager[Connection]] = (
            self.read_engine.sync_engine.connect
        )
        self._replica_missed_until = 0.0
        # The engine whose sessions end without a word to the database: no need to wait for them.
        self._silent_engine = self.read_engine if driver.read_close_is_local(settings) else None
        event.listen(
            self.read_engine.sync_engine, "set_connection_execution_options", _stay_in_autocommit
        )
        self._limiters = {
            name: ConnectionLimiter(engine, settings.database_pool_timeout)
            for name, engine in self.engines.items()
        }
        # Rows stay readable once the transaction is over (the response is made from them), only an
        # explicit flush sends SQL, and a session that is over can't begin anew, unseen.
        self.write_sessions = async_sessionmaker(
            self.write_engine,
            class_=WriteSession,
            expire_on_commit=False,
            autoflush=False,
            autobegin=False,
            close_resets_only=False,
        )
        self.read_sessions = async_sessionmaker(
            self.read_engine,
            class_=ReadSession,
            expire_on_commit=False,
            autoflush=False,
            close_resets_only=False,
        )

    @property
    def engines(self) -> dict[str, AsyncEngine]:
        """The engines that keep connections, by name."""
        engines = {"write": self.write_engine, "read": self.read_engine}
        if self.replica_engine is not None:
            engines["replica"] = self.replica_engine
        return engines

    async def open(self) -> None:
        """Export the pools' state as metrics; warn of what the configuration asks too much."""
        metrics.watch(self)
        try:
            async with (
                asyncio.timeout(START_CHECK_TIMEOUT),
                self.write_engine.connect() as connection,
            ):
                for warning in await driver.warnings(connection, self._settings):
                    logger.warning("%s", warning)
        except (AppError, exc.SQLAlchemyError, OSError, TimeoutError) as error:
            logger.warning("The database can't be reached yet: %s", error)

    async def close(self) -> None:
        """Close every connection; of a database that doesn't answer, within ``CLOSE_TIMEOUT``."""
        metrics.forget(self)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                for engine in self.engines.values():
                    await engine.dispose()
        except TimeoutError:
            logger.warning("The database does not answer: its connections were left open")

    @asynccontextmanager
    async def transaction(self, *, limited: bool = True) -> AsyncIterator[WriteSession]:
        """Open a session in a transaction: committed at the end, rolled back on any exception.

        Args:
            limited: whether it has to end within ``DATABASE_SESSION_TIMEOUT``, as nobody waits for
                an answer for ever; not for scripts, or for streaming to a client.

        Raises:
            AppError: what the database refused, or that it can't answer, in words for a client.
        """
        with Translated():
            async with self._limit(limited=limited), self._limiters["write"]:
                session = self.write_sessions()
                # By hand: ``begin()`` of the factory ends a session in tasks of its own, twice.
                session.sync_session.begin()  # nothing is sent before the first statement
                try:
                    yield session
                    if session.in_transaction():  # whoever ended it could do nothing more
                        await session.commit()
                except BaseException:
                    await asyncio.shield(_undo(session))
                    raise
                session.sync_session.close()  # it has given its connection back

    @asynccontextmanager
    async def reading(
        self, *, fresh: bool = False, limited: bool = True
    ) -> AsyncIterator[ReadSession]:
        """Open a session for reading, on the replica if there is one.

        Args:
            fresh: whether it has to see what was committed last, which a replica may not have yet.
            limited: as in ``transaction``.

        Raises:
            AppError: the database can't answer.
        """
        with Translated():
            async with self._limit(limited=limited):
                if self.replica_engine is not None and not fresh:
                    async with self._replica_session(self.replica_engine) as replica:
                        if replica is not None:
                            yield replica
                            _see_unchanged(replica)
                            return
                async with self._limiters["read"]:
                    session = self.read_sessions()
                    silent = False
                    try:
                        yield session
                        _see_unchanged(session)
                        silent = session.bind is self._silent_engine
                    finally:
                        if silent:
                            session.sync_session.close()
                        else:
                            await session.close()

    async def execute(
        self,
        statement: Executable,
        parameters: Mapping[str, Any] | None = None,
        *,
        fresh: bool = False,
    ) -> Result[Any]:
        """Run one statement that reads, and give its rows as columns.

        It takes a connection for no longer than that, and no session: a third quicker than one.

        Args:
            statement: one of tables or columns; entities are what sessions are for.
            parameters: the values that it is run with.
            fresh: as in ``reading``.

        Raises:
            AppError: the database can't answer.
        """
        if self.replica_engine is not None and not fresh:
            async with self.reading() as session:
                return await session.execute(statement, parameters)

        def run() -> Result[Any]:
            with self.connect() as connection:
                return connection.execute(statement, parameters)

        with Translated():
            async with self._limit(limited=True), self._limiters["read"]:
                # One switch for all: an ``AsyncConnection`` takes one each to open, run and close.
                return await greenlet_spawn(run)

    async def retrying(
        self, work: Callable[[WriteSession], Awaitable[T]], *, attempts: int = 5
    ) -> T:
        """Do ``work`` in a transaction; in a new one if the database had to end the first.

        For what runs into deadlocks or, at the isolation level SERIALIZABLE, into others: all of
        ``work`` is done again, so what it does must be undone by a rollback.

        Raises:
            AppError: as ``transaction``; ``TransactionConflict`` if no attempt got through.
        """
        for attempt in range(1, attempts):
            try:
                async with self.transaction() as session:
                    return await work(session)
            except TransactionConflict:
                # At random, so that those who collided don't meet again.
                await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311 - no secret
        async with self.transaction() as session:
            return await work(session)

    def _limit(self, *, limited: bool) -> AbstractAsyncContextManager[None]:
        return _TimeLimit(self._settings.database_session_timeout if limited else None)

    @asynccontextmanager
    async def _replica_session(self, engine: AsyncEngine) -> AsyncIterator[ReadSession | None]:
        """Open a session of the replica; none if it does not answer."""
        if self._replica_is_missed():
            yield None
            return
        async with self._limiters["replica"], self.read_sessions(bind=engine) as session:
            # Asked again: another one may have found out while this one stood in line.
            if not self._replica_is_missed() and await self._reaches_replica(session):
                yield session
                return
        yield None

    def _replica_is_missed(self) -> bool:
        return time.monotonic() < self._replica_missed_until

    async def _reaches_replica(self, session: ReadSession) -> bool:
        if self._replica_missed_until:  # one tries whether it is back, the others need not wait
            self._replica_missed_until = time.monotonic() + REPLICA_RETRY
        try:
            async with asyncio.timeout(REPLICA_TIMEOUT):
                _ = await session.connection()  # now: a session can't change its database later
        except (AppError, exc.SQLAlchemyError, OSError, TimeoutError) as error:
            if not self._replica_missed_until:  # once for each time that it goes away
                logger.warning(
                    "The replica gives no connection: reads go to the primary (%s)",
                    str(error) or "it does not answer",
                )
            self._replica_missed_until = time.monotonic() + REPLICA_RETRY
            return False
        self._replica_missed_until = 0.0
        return True
