"""Migrations match the models, can be undone and keep all rows."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Double,
    Enum,
    Float,
    ForeignKey,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    Time,
    Uuid,
    insert,
    inspect,
)
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.types import TypeDecorator, TypeEngine, UserDefinedType

from app.kit import health, project
from app.kit.db import driver
from app.kit.db.engine import Database
from app.kit.db.models import Base, UTCDateTime, now
from tests import examples
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


@pytest.mark.skipif(driver.RENDER_AS_BATCH, reason="batch mode reads the tables it rebuilds")
async def test_sql_without_a_database(empty: Config, capsys: pytest.CaptureFixture[str]) -> None:
    await asyncio.to_thread(command.upgrade, empty, "head", sql=True)
    printed = capsys.readouterr().out
    assert "COMMIT" in printed
    for script in history(empty).walk_revisions():
        assert f"'{script.revision}'" in printed  # the current version
    assert await tables(empty) == set()


async def test_newest_revision_down_and_up_with_rows(empty: Config) -> None:
    newest = next(iter(history(empty).walk_revisions()), None)
    if newest is None:
        pytest.skip("there is no revision yet")
    # Adding a NOT NULL column without a default fails only if the table has rows.
    await run(command.upgrade, empty, "head")
    database = Database(empty.attributes["settings"])
    async with database.transaction() as session:
        for table, row in generated_rows(Base.metadata.sorted_tables).items():
            try:
                await session.execute(insert(table).values(row))
            except StatementError as error:
                pytest.fail(f"No row of {table.name} can be generated ({error.orig}): {HOW}")
    await database.close()
    await run(command.downgrade, empty, below(newest))
    await run(command.upgrade, empty, "head")
    await run(command.check, empty)


HOW = 'add a value to VALUES in tests/examples.py, by "table.column"'

SAMPLES: dict[type, Any] = {
    bool: True,
    bytes: b"x",
    date: now().date(),
    datetime: now(),
    dict: {},
    float: 1.0,
    int: 1,
    list: [],
    str: "x",
    time: now().time(),
    timedelta: timedelta(seconds=1),
    UUID: UUID(int=1),
}


def generated_rows(tables: Iterable[Table]) -> dict[Table, dict[Column[Any], Any]]:
    """Return a row of each table; a foreign key has the value of the row it refers to."""
    rows: dict[Table, dict[Column[Any], Any]] = {}
    for table in tables:
        rows[table] = {}
        for column in sorted(table.columns, key=lambda column: bool(column.foreign_keys)):
            if column.computed is None and column.identity is None:
                rows[table][column] = value_of(column, rows)
    return rows


def value_of(column: Column[Any], rows: dict[Table, dict[Column[Any], Any]]) -> Any:
    """Return a value for a column, or None if there is no other and the column allows it."""
    name = f"{column.table.name}.{column.name}"
    if name in examples.VALUES:
        return examples.VALUES[name]
    for key in column.foreign_keys:
        if key.column in (row := rows.get(key.column.table, {})):
            return row[key.column]
    value = None if column.foreign_keys else sample(column.type)
    if value is None and not column.nullable:
        pytest.fail(f"No value of {name} can be generated: {HOW}")
    return value


def sample(kind: TypeEngine[Any]) -> Any:
    """Return a value of a type; None if none can be generated."""
    if isinstance(kind, Enum):
        return next(iter(kind.enum_class or kind.enums))
    if isinstance(kind, JSON):
        return {}
    if isinstance(kind, Numeric):
        return Decimal(1).scaleb(-(kind.scale or 0)) if kind.asdecimal else 1.0
    try:
        return SAMPLES.get(kind.python_type)
    except NotImplementedError:
        return sample(kind.impl_instance) if isinstance(kind, TypeDecorator) else None


EVERY_TYPE: list[tuple[Any, type]] = [
    (ARRAY(Integer), list),
    (BigInteger(), int),
    (Boolean(), bool),
    (Date(), date),
    (DateTime(), datetime),
    (Double(), float),
    (Enum("a", "b"), str),
    (Float(), float),
    (Interval(), timedelta),
    (JSON(), dict),
    (LargeBinary(), bytes),
    (Numeric(2, 2), Decimal),
    (Numeric(asdecimal=False), float),
    (String(1), str),
    (Text(), str),
    (Time(), time),
    (UTCDateTime(), datetime),
    (Uuid(), UUID),
]


@pytest.mark.parametrize(("kind", "python_type"), EVERY_TYPE, ids=repr)
def test_a_value_of_every_type_is_generated(kind: TypeEngine[Any], python_type: type) -> None:
    assert isinstance(sample(kind), python_type)


class Unknown(UserDefinedType[object]):
    """A type without information about its values."""


def test_generated_rows_refer_to_existing_rows() -> None:
    metadata = MetaData()
    parents = Table("parents", metadata, Column("id", Integer, primary_key=True))
    children = Table(
        "children",
        metadata,
        Column("sibling_id", ForeignKey("children.id"), nullable=False),
        Column("parent_id", ForeignKey("parents.id")),
        Column("id", Uuid, primary_key=True),
        Column("unknown", Unknown),
    )
    row = generated_rows([parents, children])[children]
    assert row == {
        children.c.sibling_id: UUID(int=1),
        children.c.parent_id: 1,
        children.c.id: UUID(int=1),
        children.c.unknown: None,
    }
    # A table that refers to one of the tables after it.
    assert generated_rows([children])[children][children.c.parent_id] is None


def test_a_column_without_a_generated_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table("places", MetaData(), Column("position", Unknown, nullable=False))
    with pytest.raises(pytest.fail.Exception, match=r"places\.position .* tests/examples\.py"):
        generated_rows([table])
    monkeypatch.setitem(examples.VALUES, "places.position", "here")
    assert generated_rows([table])[table] == {table.c.position: "here"}


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


def write_history(config: Config, folder: Path, *upgrades: str) -> None:
    """Replace the revisions of ``config`` by 1, 2, and so on."""
    (versions := folder / "versions").mkdir()
    shutil.copy(project.ROOT / "migrations" / "env.py", folder)
    config.set_main_option("script_location", str(folder))
    for number, upgrade in enumerate(upgrades, start=1):
        parent = str(number - 1) if number > 1 else None
        text = REVISION.format(name=str(number), parent=parent, upgrade=upgrade)
        (versions / f"{number}.py").write_text(text, encoding="utf-8")


async def test_a_failed_migration_is_rolled_back(
    empty: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("half-way")

    write_history(empty, tmp_path, TABLE.format("b"), UNIQUE)
    monkeypatch.setattr(driver, "after_migrations", fail)
    with pytest.raises(RuntimeError, match="half-way"):
        await run(command.upgrade, empty, "head")
    assert await tables(empty) == set()


RUNNER = """
import sys
from alembic import command
from alembic.config import Config

config = Config(toml_file="pyproject.toml")
config.set_main_option("script_location", sys.argv[1])
command.upgrade(config, "head")
"""


async def test_concurrent_migrations(empty: Config, tmp_path: Path) -> None:
    write_history(empty, tmp_path, TABLE.format("b"), UNIQUE)
    url = empty.attributes["settings"].database_url.render_as_string(hide_password=False)
    runners = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", RUNNER, str(tmp_path)),
            cwd=project.ROOT,
            env=environment_for(url),
        )
        for _ in range(2)
    ]
    assert [await runner.wait() for runner in runners] == [0, 0]
    assert await tables(empty) == {"things"}


@pytest.mark.parametrize(("other", "is_added"), [("b", True), ("a", False)])
async def test_unique_constraint_on_rows(
    empty: Config, tmp_path: Path, other: str, *, is_added: bool
) -> None:
    write_history(empty, tmp_path, TABLE.format(other), UNIQUE)
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
