"""Engines and session factories of one process: one object that is opened and closed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NoReturn

from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from app.db import driver, metrics
from app.errors import AppError, Conflict, Unavailable
from app.settings import Settings

logger = logging.getLogger(__name__)

# How long the start may wait for a database that doesn't answer, in seconds.
START_CHECK_TIMEOUT = 2.0


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


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the database raises into the error family, in this one place.

    Raises:
        AppError: in the place of every database error that has a meaning for clients.
    """
    try:
        yield
    except exc.TimeoutError as error:
        raise Unavailable("Every database connection is in use.") from error
    except StaleDataError as error:
        raise Conflict("Somebody else changed this at the same time.") from error
    except exc.DBAPIError as error:
        if (known := driver.translate(error)) is None:
            raise
        raise known from error


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
        # Rows stay readable once the transaction is over (the response is made from them), and
        # only an explicit flush sends SQL.
        self.write_sessions = async_sessionmaker(
            self.write_engine, class_=WriteSession, expire_on_commit=False, autoflush=False
        )
        self.read_sessions = async_sessionmaker(
            self.read_engine, class_=ReadSession, expire_on_commit=False, autoflush=False
        )

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
        """Close every connection."""
        metrics.forget(self)
        await self.write_engine.dispose()
        await self.read_engine.dispose()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[WriteSession]:
        """Open a session in a transaction: committed at the end, rolled back on any exception.

        Raises:
            AppError: what the database refused, or that it can't answer, in words for a client.
        """
        with translated():
            async with self.write_sessions.begin() as session:
                yield session

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[ReadSession]:
        """Open a session for reading, on the replica if there is one.

        Raises:
            AppError: the database can't answer.
        """
        with translated():
            async with self.read_sessions() as session:
                yield session
                if session.new or session.dirty or session.deleted:
                    # Nothing would flush it: it would be lost without a word.
                    raise exc.InvalidRequestError("A read session can't write: take a transaction")
