"""Health: ``live`` for the process, ``ready`` for what it needs."""

import ast
import asyncio
from pathlib import Path
from typing import Literal

from fastapi import Request
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app import project
from app.db import driver
from app.db.engine import translated
from app.db.session import get_database
from app.errors import Unavailable, problems
from app.routing import Router

READY_TIMEOUT = 1.0
"""Seconds that the database has for its answer."""

REVISIONS = text("SELECT version_num FROM alembic_version")

VERSIONS = project.ROOT / "migrations" / "versions"

router = Router(prefix="/health", tags=["health"])


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"] = "ok"


@router.get("/live")
async def live() -> Health:
    """Tell that the process answers. It never asks the database."""
    return Health()


@router.get("/ready", responses=problems(503))
async def ready(request: Request) -> Health:
    """Tell that requests can be served: the database answers, takes writes, and is at head."""
    # By a connection of its own: a busy service is not one that should get no requests.
    engine = get_database(request).probe_engine
    try:
        async with asyncio.timeout(READY_TIMEOUT):
            with translated():
                async with engine.connect() as connection:
                    if not await driver.is_writable(connection):
                        raise Unavailable("The database is read-only.")
                    revisions = await connection.scalars(REVISIONS)
                    found = set(revisions.all())
    except TimeoutError:
        raise Unavailable("The database does not answer.") from None
    except DBAPIError:  # no such table
        found = set()
    if found != request.app.state.schema_heads:
        raise Unavailable("The database schema is not at head: run `alembic upgrade head`.")
    return Health()


def schema_heads(versions: Path = VERSIONS) -> set[str]:
    """Give the revisions that the schema has to be at: those that no other builds upon.

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
                ) if name in {"revision", "down_revision"}:
                    literal = ast.literal_eval(value)
                    values = (literal,) if isinstance(literal, str) else literal or ()
                    (revisions if name == "revision" else built_upon).update(values)
    return revisions - built_upon
