"""The session dependencies: who owns a transaction."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from sqlalchemy import Executable, Result

from app.kit.db.engine import Database, ReadSession, WriteSession

T = TypeVar("T")


def get_database(request: Request) -> Database:
    """Give the database that the lifespan opened for this app."""
    database: Database = request.app.state.database
    return database


async def entered(request: Request, context: AbstractAsyncContextManager[T]) -> T:
    """Enter a context that lasts until the request's answer is made, and ends before it leaves.

    So a commit that fails can't have answered 201, and no connection is held while a slow client
    reads. FastAPI keeps this stack for dependencies that yield with ``scope="function"``; those do
    the same, but wrap the context twice, which takes a seventh of the time of a request.
    """
    stack: AsyncExitStack = request.scope["fastapi_function_astack"]
    return await stack.enter_async_context(context)


async def write_session(request: Request) -> WriteSession:
    """Open the one transaction of a request that writes."""
    return await entered(request, get_database(request).transaction())


async def read_session(request: Request) -> ReadSession:
    """Open the session of a request that only reads."""
    return await entered(request, get_database(request).reading(fresh=_wants_fresh(request)))


@dataclass(frozen=True)
class Reads:
    """Reads of columns: each statement has a connection while it runs, and no longer."""

    database: Database
    fresh: bool

    async def execute(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> Result[Any]:
        """Run one statement, as ``Database.execute`` does.

        Raises:
            AppError: the database can't answer.
        """
        return await self.database.execute(statement, parameters, fresh=self.fresh)


async def reads(request: Request) -> Reads:
    """Give what a request reads columns with."""
    return Reads(get_database(request), _wants_fresh(request))


def _wants_fresh(request: Request) -> bool:
    """Tell whether a client asks for what no copy may hold yet, as its own last write."""
    return "no-cache" in request.headers.get("cache-control", "")


SessionDep = Annotated[WriteSession, Depends(write_session)]
"""A transaction: committed before the response leaves, rolled back on any exception."""

ReadSessionDep = Annotated[ReadSession, Depends(read_session)]
"""A session that can't write, in autocommit."""

ReadsDep = Annotated[Reads, Depends(reads)]
"""Reads of columns without a session: the quickest, where an answer needs no entities."""
