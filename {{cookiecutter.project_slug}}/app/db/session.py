"""The session dependencies: who owns a transaction."""

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from app.db.engine import Database, ReadSession, WriteSession

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
    """Open the session of a request that only reads.

    ``Cache-Control: no-cache`` asks for what no copy may hold yet, as a client's own last write.
    """
    fresh = "no-cache" in request.headers.get("cache-control", "")
    return await entered(request, get_database(request).reading(fresh=fresh))


SessionDep = Annotated[WriteSession, Depends(write_session)]
"""A transaction: committed before the response leaves, rolled back on any exception."""

ReadSessionDep = Annotated[ReadSession, Depends(read_session)]
"""A session that can't write, in autocommit."""
