"""Migrations match the models, can be undone and keep all rows."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from sqlalchemy import JSON, Column, Enum, insert, inspect
from sqlalchemy.exc import IntegrityError

from app import health, project
from app.db import driver
from app.db.engine import Database
from app.db.models import Base, now
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
    """Return the revisions; there may be none yet."""
    return ScriptDirectory.from_config(config)


def below(script: Script) -> str:
    """Return the parent of a revision; "-1" is ambiguous for merges and branches."""
    parents = script.down_revision or "base"
    return parents if isinstance(parents, str) else parents[0]


async def tables(config: Config) -> set[str]:
    """Return the names of the tables, without Alembic's own."""
    engine = driver.migration_engine(config.attributes["settings"])
    async with engine.connect() as connection:
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    await engine.dispose()
    return set(names) - {"alembic_version"}


def test_at_most_one_head(live_url: str) -> None:
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


async def test_no_drift_from_the_models(empty: Config) -> None:
    await run(command.upgrade, empty, "head")
    await run(command.check, empty)


async def test_failed_migration_leaves_nothing(
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


async def test_sql_without_a_database(empty: Config, capsys: pytest.CaptureFixture[str]) -> None:
    await asyncio.to_thread(command.upgrade, empty, "head", sql=True)
    printed = capsys.readouterr().out
    assert "COMMIT" in printed
    for script in history(empty).walk_revisions():
        assert f"'{script.revision}'" in printed  # the version that is written
    assert await tables(empty) == set()


async def test_newest_revision_down_and_up_with_rows(empty: Config) -> None:
    newest = next(iter(history(empty).walk_revisions()), None)
    if newest is None:
        pytest.skip("there is no revision yet")
    # Adding a NOT NULL column without a default fails only if the table has rows.
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
    """Return a value for a column; for a foreign key, that of the row it refers to."""
    for key in column.foreign_keys:
        return rows[key.column]
    if isinstance(column.type, Enum):
        return column.type.enums[0]
    if isinstance(column.type, JSON):
        return {}
    values: dict[type, Any] = {
        str: "x",
        int: 1,
        float: 1.0,
        Decimal: Decimal(1),
        bool: True,
        bytes: b"x",
        UUID: UUID(int=1),
        datetime: now(),
        date: now().date(),
        time: now().time(),
        timedelta: timedelta(seconds=1),
        dict: {},
        object: [],
    }
    if column.nullable or column.server_default is not None:
        return values.get(column.type.python_type)
    return values[column.type.python_type]


REVISION = """
import sqlalchemy as sa
from alembic import op

revision = {name!r}
down_revision = {parent!r}


def upgrade() -> None:
    {upgrade}
"""

TABLE = """op.create_table('things', sa.Column('name', sa.Text()))
    op.execute("INSERT INTO things VALUES ('a'), ('{}')")"""

UNIQUE = """with op.batch_alter_table('things') as batch:
        batch.create_unique_constraint('uq_things_name', ['name'])"""


@pytest.mark.parametrize(("other", "is_added"), [("b", True), ("a", False)])
async def test_unique_constraint_on_rows(
    empty: Config, tmp_path: Path, other: str, *, is_added: bool
) -> None:
    (versions := tmp_path / "versions").mkdir()
    shutil.copy(project.ROOT / "migrations" / "env.py", tmp_path)
    empty.set_main_option("script_location", str(tmp_path))
    for name, parent, upgrade in (("1", None, TABLE.format(other)), ("2", "1", UNIQUE)):
        text = REVISION.format(name=name, parent=parent, upgrade=upgrade)
        (versions / f"{name}.py").write_text(text, encoding="utf-8")
    await run(command.upgrade, empty, "1")
    if is_added:
        await run(command.upgrade, empty, "2")
    else:
        with pytest.raises(IntegrityError):
            await run(command.upgrade, empty, "2")
    engine = driver.migration_engine(empty.attributes["settings"])
    async with engine.connect() as connection:
        found = await connection.run_sync(
            lambda sync: inspect(sync).get_unique_constraints("things")
        )
        assert set(await connection.scalars(health.REVISIONS)) == {"2" if is_added else "1"}
    await engine.dispose()
    assert [each["name"] for each in found] == (["uq_things_name"] if is_added else [])
