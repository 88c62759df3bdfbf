"""Fixtures: installed renders, a PostgreSQL server, and a stage for each test."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from testing.baking import CHOICES, Project, installed
from testing.postgres import Postgres
from testing.serving import Databases, Stage
from tests.conftest import Bake

Renders = Callable[[str, str], Project]


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """Return a folder on the disk; not pytest's own, which other users can't enter."""
    with tempfile.TemporaryDirectory(prefix="reliability-") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def renders(bake: Bake) -> Iterator[Renders]:
    """Return an installed render for a database and an answer to auth, created once."""
    with ExitStack() as stack:

        @cache
        def render(database: str, auth: str) -> Project:
            return stack.enter_context(installed(bake(database=database, auth=auth)))

        yield render


@pytest.fixture(scope="session")
def databases(folder: Path) -> Iterator[Databases]:
    """Return the factory of databases, which starts a server when one is first needed."""
    with ExitStack() as stack:

        @cache
        def made() -> Postgres:
            server = Postgres.new(folder / "server")
            stack.callback(server.kill)
            return server

        def server() -> Postgres:
            if not made().running():  # a failed test may have left it frozen
                made().start()
            return made()

        yield Databases(folder, server)


@pytest.fixture
async def on_sqlite(renders: Renders, databases: Databases) -> Stage:
    """Return a stage with SQLite."""
    project = renders("sqlite", "none")
    return Stage(project, await databases.make(project))


@pytest.fixture
async def on_postgresql(renders: Renders, databases: Databases) -> Stage:
    """Return a stage with PostgreSQL."""
    project = renders("postgresql", "none")
    return Stage(project, await databases.make(project))


@pytest.fixture(params=CHOICES["database"])
def stage(request: pytest.FixtureRequest) -> Stage:
    """Return a stage with each database in turn."""
    given: Stage = request.getfixturevalue(f"on_{request.param}")
    return given
