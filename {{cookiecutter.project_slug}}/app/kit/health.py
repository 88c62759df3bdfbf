"""Health: ``live`` for the process, ``ready`` for what it needs."""

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
from app.kit.db.engine import Database, Translated
from app.kit.db.session import get_database
from app.kit.errors import AppError, Unavailable, problems
from app.kit.routing import Router

READY_TIMEOUT = 1.0
"""Seconds that the database has for its answer."""

REVISIONS = text("SELECT version_num FROM alembic_version")

VERSIONS = project.ROOT / "migrations" / "versions"

router = Router(prefix="/health", tags=["health"])


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"] = "ok"


class History(NamedTuple):
    """The revisions that this code knows."""

    heads: set[str]
    """Those that no other builds upon: where the schema has to be."""
    passed: set[str]
    """All the others."""

    def is_behind(self, found: set[str]) -> bool:
        """Tell whether the schema, at the revisions ``found``, lacks what this code builds upon.

        A revision that is not known was made by a newer version, which has migrated already: what
        this code needs is still there, for changes are made by adding first (README, Migrate).
        """
        known = self.heads | self.passed
        return bool(found & self.passed) or (found <= known and found != self.heads)


@router.get("/live")
async def live() -> Health:
    """Tell that the process answers. It never asks the database."""
    return Health()


@router.get("/ready", responses=problems(503))
async def ready(request: Request) -> Health:
    """Tell that requests can be served: the database answers, takes writes, and is not behind.

    At head it is ready, and also ahead of this code: while a new version is rolled out, it migrates
    before the old instances are gone. Behind, or without any revision, it is not. Nor when it is
    about to end, though it serves on for ``SHUTDOWN_DELAY``.
    """
    state = request.app.state
    if state.ending:
        raise Unavailable("The server is about to end.")
    # All who ask at the same time are told the same: asking takes a connection of its own.
    if getattr(state, "probe", None) is None or state.probe.done():
        state.probe = asyncio.create_task(_unready(get_database(request), state.schema_history))
    reason: str | None = await asyncio.shield(state.probe)
    if reason is not None:
        raise Unavailable(reason)
    return Health()


async def _unready(database: Database, history: History) -> str | None:
    """Tell why no requests can be served, if none can."""
    try:
        # Not from the pools: a busy service is not one that should get no requests.
        async with asyncio.timeout(READY_TIMEOUT):
            with Translated():
                async with database.probe_engine.connect() as connection:
                    if not await driver.is_writable(connection):
                        return "The database is read-only."
                    revisions = await connection.scalars(REVISIONS)
                    found = set(revisions.all())
    except TimeoutError:
        return "The database does not answer."
    except AppError as error:
        return error.detail
    except DBAPIError:  # no such table
        found = set()
    if history.is_behind(found):
        return "The database schema is behind: run `alembic upgrade head`."
    return None


def schema_history(versions: Path = VERSIONS) -> History:
    """Give the revisions that this code knows.

    Read from the files themselves: importing Alembic would cost each worker 11 MiB.
    """
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
    return History(heads=revisions - built_upon, passed=revisions & built_upon)
