"""Health checks: ``live`` for the process, ``ready`` for the database that it needs."""

import ast
import asyncio
import logging
from pathlib import Path
from typing import Literal, NamedTuple

from fastapi import Request
from pydantic import BaseModel
from sqlalchemy import exists, false, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.kit import project
from app.kit.db import driver
from app.kit.db.engine import Database, translate_errors
from app.kit.db.models import Base
from app.kit.db.session import get_database
from app.kit.errors import NOT_MIGRATED, AppError, Unavailable, error_responses
from app.kit.routing import Router

logger = logging.getLogger(__name__)

READY_TIMEOUT = 1.0
"""Seconds within which the database has to respond."""

STRANGE = (
    "The database is at a revision that this version does not know, and lacks tables or columns: "
    "it belongs to another service, or is too old or too new."
)

REVISIONS = text("SELECT version_num FROM alembic_version")

VERSIONS = project.ROOT / "migrations" / "versions"

router = Router(prefix="/health", tags=["health"], description="Whether the service runs.")


class Health(BaseModel):
    """The response of a healthy service."""

    status: Literal["ok"] = "ok"


class History(NamedTuple):
    """The revisions in ``migrations/versions``: the newest, and those before them."""

    heads: set[str]
    passed: set[str]

    def is_behind(self, found: set[str]) -> bool:
        """Return whether a schema at the revisions ``found`` is older than this code.

        An unknown revision is not behind, if the database has all tables and columns: it belongs to
        a newer version, whose schema still serves this one.
        """
        known = self.heads | self.passed
        return bool(found & self.passed) or (found <= known and found != self.heads)


@router.get("/live")
async def live() -> Health:
    """Report that the process responds. It never uses the database."""
    return Health()


@router.get("/ready", responses=error_responses(503))
async def ready(request: Request) -> Health:
    """Report whether requests can be served: the database accepts writes and is not behind.

    The service is not ready during ``SHUTDOWN_DELAY``, although it still serves.
    """
    state = request.app.state
    if state.ending:
        raise Unavailable("The service is shutting down.")
    # Concurrent requests share one check, which opens a connection of its own.
    if getattr(state, "probe", None) is None or state.probe.done():
        state.probe = asyncio.create_task(_unready(get_database(request), state.schema_history))
    reason: str | None = await asyncio.shield(state.probe)
    if reason is not None:
        raise Unavailable(reason)
    return Health()


async def _unready(database: Database, history: History) -> str | None:
    """Return why no requests can be served, or None."""
    try:
        # Outside the pools: a busy service is still ready.
        async with asyncio.timeout(READY_TIMEOUT):
            with translate_errors():
                async with database.probe_engine.connect() as connection:
                    return await _unfit(connection, history)
    except TimeoutError:
        return "The database does not respond."
    except AppError as error:
        return error.detail
    except DBAPIError as error:
        if "alembic_version" in driver.missing_names(error):
            return NOT_MIGRATED if history.is_behind(set()) else None
        logger.warning("The schema's revision can't be read: %s", driver.describe(error))
        return "The revision of the schema can't be read."


async def _unfit(connection: AsyncConnection, history: History) -> str | None:
    """Return why this code can't work with a database that responds, or None."""
    if not await driver.is_writable(connection):
        return "The database is read-only."
    return await unfit_schema(connection, history)


async def unfit_schema(connection: AsyncConnection, history: History) -> str | None:
    """Return why this code can't work with the schema of a database, or None."""
    found = set((await connection.scalars(REVISIONS)).all())
    if history.is_behind(found):
        return NOT_MIGRATED
    if found - history.heads and not await _fits(connection):
        return STRANGE
    return None


async def _fits(connection: AsyncConnection) -> bool:
    """Return whether the database has every table and column of the models."""
    everything = select(
        *(exists(select(*table.columns).where(false())) for table in Base.metadata.sorted_tables)
    )
    try:
        await connection.execute(everything)
    except DBAPIError as error:
        if driver.translate(error) is not None:  # it does not describe the schema
            raise
        return False
    return True


def schema_history(versions: Path = VERSIONS) -> History:
    """Return the revisions of this code, read from the files: Alembic would cost 11 MiB."""
    revisions: set[str] = set()
    built_upon: set[str] = set()
    for path in versions.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            match node:
                case (
                    ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
                    | ast.Assign(targets=[ast.Name(id=name)], value=value)
                ) if name in {"revision", "down_revision", "depends_on"}:
                    literal = ast.literal_eval(value)
                    values = (literal,) if isinstance(literal, str) else literal or ()
                    (revisions if name == "revision" else built_upon).update(values)
                case _:
                    pass
    return History(heads=revisions - built_upon, passed=revisions & built_upon)
