"""Health checks: ``live`` for the process, ``ready`` for what it depends on."""

import ast
import asyncio
from pathlib import Path
from typing import Literal, NamedTuple

from fastapi import Request
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.kit import project
from app.kit.db import driver
from app.kit.db.engine import Database, translate_errors
from app.kit.db.session import get_database
from app.kit.errors import AppError, Unavailable, error_responses
from app.kit.routing import Router

READY_TIMEOUT = 1.0
"""Seconds that the database has to answer."""

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

        Unknown revisions belong to a newer version, whose schema still serves this one.
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
                    if not await driver.is_writable(connection):
                        return "The database is read-only."
                    revisions = await connection.scalars(REVISIONS)
                    found = set(revisions.all())
    except TimeoutError:
        return "The database does not answer."
    except AppError as error:
        return error.detail
    except DBAPIError:  # there is no such table
        found = set[str]()
    if history.is_behind(found):
        return "The database schema is behind: run `alembic upgrade head`."
    return None


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
