"""The session dependencies: who owns a transaction."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request

from app.db.engine import Database, ReadSession, WriteSession


def get_database(request: Request) -> Database:
    """Give the database that the lifespan opened for this app."""
    database: Database = request.app.state.database
    return database


async def write_session(request: Request) -> AsyncIterator[WriteSession]:
    """Open the one transaction of a request that writes."""
    async with get_database(request).transaction() as session:
        yield session


async def read_session(request: Request) -> AsyncIterator[ReadSession]:
    """Open the session of a request that only reads.

    ``Cache-Control: no-cache`` asks for what no copy may hold yet, as a client's own last write.
    """
    fresh = "no-cache" in request.headers.get("cache-control", "")
    async with get_database(request).reading(fresh=fresh) as session:
        yield session


# scope="function": the transaction ends after the response is made and before it leaves, so that
# a commit that fails can't have answered 201, and no connection is held while a slow client reads.
SessionDep = Annotated[WriteSession, Depends(write_session, scope="function")]
"""A transaction: committed before the response leaves, rolled back on any exception."""

ReadSessionDep = Annotated[ReadSession, Depends(read_session, scope="function")]
"""A session that can't write, in autocommit."""
