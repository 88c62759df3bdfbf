"""Migrations build what the models say, can be undone, and lose no row."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Column, Enum, insert, inspect

from app.kit import project
from app.kit.db import driver
from app.kit.db.engine import Database
from app.kit.db.models import Base, now
from tests.conftest import alembic_config, environment_for, settings_for
from tests.database import Databases


@pytest.fixture
async def empty(databases: Databases) -> AsyncIterator[Config]:
    url = await databases.create()
    yield alembic_config(settings_for(url))
    await databases.drop(url)


async def run(do: Callable[..., Any], *arguments: Any) -> None:
    """Run an Alembic command, as its command line does."""
    await asyncio.to_thread(do, *arguments)


def history(config: Config) -> ScriptDirectory:
    """Give the revisions: there may be none yet."""
    return ScriptDirectory.from_config(config)


def below(script: Script) -> str:
    """Name what a revision builds on: not "-1", for it may be a merge, or one of two branches."""
    parents = script.down_revision or "base"
    return parents if isinstance(parents, str) else parents[0]


async def tables(config: Config) -> set[str]:
    """Name the tables of the database, but for Alembic's own."""
    engine = driver.migration_engine(config.attributes["settings"])
    async with engine.connect() as connection:
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    await engine.dispose()
    return set(names) - {"alembic_version"}


def test_there_is_one_head_at_most(live_url: str) -> None:
    assert len(history(alembic_config(settings_for(live_url))).get_heads()) <= 1


async def test_up_down_up(empty: Config) -> None:
    await run(command.upgrade, empty, "head")
    assert await tables(empty) == set(Base.metadata.tables)
    await run(command.downgrade, empty, "base")
    assert await tables(empty) == set()
    await run(command.upgrade, empty, "head")
    assert await tables(empty) == set(Base.metadata.tables)


async def test_each_revision_up_down_up(empty: Config) -> None:
    for script in reversed(list(history(empty).walk_revisions())):
        await run(command.upgrade, empty, script.revision)
        await run(command.downgrade, empty, below(script))
        await run(command.upgrade, empty, script.revision)


async def test_the_models_have_not_drifted(empty: Config) -> None:
    await run(command.upgrade, empty, "head")
    await run(command.check, empty)


async def test_a_migration_that_fails_leaves_nothing(
    empty: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("half-way")

    monkeypatch.setattr(driver, "after_migrations", fail)
    with pytest.raises(RuntimeError, match="half-way"):
        await run(command.upgrade, empty, "head")
    assert await tables(empty) == set()


async def test_two_runners_at_once(empty: Config) -> None:
    url = empty.attributes["settings"].database_url.render_as_string(hide_password=False)
    runners = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "alembic", "upgrade", "head"),
            cwd=project.ROOT,
            env=environment_for(url),
        )
        for _ in range(2)
    ]
    assert [await runner.wait() for runner in runners] == [0, 0]
    await run(command.check, empty)


async def test_the_sql_can_be_had_without_a_database(
    empty: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    await asyncio.to_thread(command.upgrade, empty, "head", sql=True)
    printed = capsys.readouterr().out
    assert "COMMIT" in printed
    for script in history(empty).walk_revisions():
        assert f"'{script.revision}'" in printed  # what the database is told to be at
    assert await tables(empty) == set()


async def test_the_newest_revision_goes_down_and_up_over_rows(empty: Config) -> None:
    newest = next(iter(history(empty).walk_revisions()), None)
    if newest is None:
        pytest.skip("there is no revision yet")
    # A column that is added NOT NULL and without a default passes on empty tables alone.
    await run(command.upgrade, empty, "head")
    database = Database(empty.attributes["settings"])
    rows: dict[Column[Any], Any] = {}
    async with database.transaction() as session:
        for table in Base.metadata.sorted_tables:
            values = {column.name: sample(column, rows) for column in table.columns}
            await session.execute(insert(table).values(values))
            rows |= {column: values[column.name] for column in table.columns}
    await database.close()
    await run(command.downgrade, empty, below(newest))
    await run(command.upgrade, empty, "head")
    await run(command.check, empty)


def sample(column: Column[Any], rows: dict[Column[Any], Any]) -> Any:
    """Make up a value for a column; of a foreign key, that of the row it refers to."""
    for key in column.foreign_keys:
        return rows[key.column]
    if isinstance(column.type, Enum):
        return column.type.enums[0]
    values: dict[type, Any] = {
        str: "x",
        int: 1,
        bool: True,
        bytes: b"x",
        UUID: UUID(int=1),
        datetime: now(),
        dict: {},
        object: [],
    }
    return values[column.type.python_type]
