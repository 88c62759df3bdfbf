"""The revisions that ``just migration`` writes for changed models."""

from collections.abc import Awaitable, Callable
from enum import Enum as PythonEnum

import pytest
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations.ops import MigrationScript
from alembic.util import CommandError
from sqlalchemy import (
    DDL,
    CheckConstraint,
    Column,
    Connection,
    Enum,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    event,
)
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.schema import SchemaItem

from app.kit.db import autogenerate, driver
from app.kit.db.models import Base
from tests.conftest import settings_for
from tests.database import Databases

Operations = tuple[str, str]
Generate = Callable[[MetaData, MetaData], Awaitable[Operations]]


def models(*more: SchemaItem, kinds: tuple[str, ...] = ("a", "b"), least: int = 1) -> MetaData:
    """Return the metadata of one table with two CHECK constraints."""
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)
    kind = Enum(*kinds, name="kind", native_enum=False, create_constraint=True, length=20)
    Table(
        "things",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("kind", kind),
        Column("number", Integer),
        CheckConstraint(f"number >= {least} AND (number < 9 OR kind = 'a')", name="bounds"),
        *more,
    )
    return metadata


@pytest.fixture
async def generate(databases: Databases) -> Generate:
    """Return a function that returns the operations of a revision between two metadata."""

    async def generate_revision(before: MetaData, after: MetaData) -> Operations:
        def compare(connection: Connection) -> Operations:
            before.create_all(connection)
            options = {
                "autogenerate_plugins": autogenerate.PLUGINS,
                "render_as_batch": driver.RENDER_AS_BATCH,
            }
            context = MigrationContext.configure(connection, opts=options)
            script: MigrationScript = produce_migrations(context, after)
            autogenerate.rewrite(context, None, [script])
            batch = driver.RENDER_AS_BATCH
            assert script.upgrade_ops
            assert script.downgrade_ops
            return (
                render_python_code(script.upgrade_ops, render_as_batch=batch),
                render_python_code(script.downgrade_ops, render_as_batch=batch),
            )

        url = await databases.create()
        engine = driver.migration_engine(settings_for(url))
        async with engine.begin() as connection:
            found = await connection.run_sync(compare)
        await engine.dispose()
        await databases.drop(url)
        return found

    return generate_revision


async def test_unchanged_models_generate_no_changes(generate: Generate) -> None:
    upgrade, downgrade = await generate(models(), models())
    assert "pass" in upgrade
    assert "pass" in downgrade


@pytest.mark.skipif(not driver.NOT_VALID, reason="constraints are always valid")
async def test_a_constraint_that_is_not_validated_generates_no_change(generate: Generate) -> None:
    before = models()
    added = "ALTER TABLE things ADD CONSTRAINT ck_things_not_five CHECK (number <> 5) NOT VALID"
    event.listen(before.tables["things"], "after_create", DDL(added))  # type: ignore[no-untyped-call]
    after = models(CheckConstraint("number <> 5", name="not_five"))
    upgrade, _ = await generate(before, after)
    assert "pass" in upgrade


@pytest.mark.parametrize(
    ("after", "constraint", "new", "old"),
    [
        (models(kinds=("a", "b", "c")), "ck_things_kind", "'a', 'b', 'c'", "'b'"),
        (models(kinds=("a", "b ")), "ck_things_kind", "'b '", "'b'"),
        (models(least=2), "ck_things_bounds", "number >= 2", "number >= 1"),
    ],
    ids=["an enum", "a space in a value", "a condition"],
)
async def test_a_changed_check_is_replaced(
    generate: Generate, after: MetaData, constraint: str, new: str, old: str
) -> None:
    upgrade, downgrade = await generate(models(), after)
    for code, text in ((upgrade, new), (downgrade, old)):
        dropped, created = code.split("create_check_constraint")
        assert constraint in dropped
        assert constraint in created
        assert text in created
        assert code.count("ck_things_") == 2
    assert ("NOT VALID" in upgrade) == bool(driver.NOT_VALID)


async def test_a_dropped_column_logs_a_warning(
    generate: Generate, caplog: pytest.LogCaptureFixture
) -> None:
    before = models(Column("name", String(10), nullable=False))
    upgrade, downgrade = await generate(before, models())
    warning = "things.name is dropped with its values. If it was renamed, keep them: "
    assert f"# {warning}" in upgrade
    assert warning in caplog.text
    # The values of the rows are lost.
    assert "nullable=True" in downgrade
    assert warning not in downgrade


async def test_an_added_enum_has_one_check(generate: Generate) -> None:
    kind = Enum("x", "y", name="other", native_enum=False, create_constraint=True, length=20)
    upgrade, _ = await generate(models(), models(Column("other", kind)))
    assert "sa.Column('other', sa.String(length=20)" in upgrade
    assert upgrade.count("ck_things_other") == 1


@pytest.mark.skipif(not driver.NOT_VALID, reason="constraints are always valid")
async def test_the_comment_on_not_valid_stands_above_the_first_constraint(
    generate: Generate,
) -> None:
    upgrade, _ = await generate(models(), models(Column("size", Integer), least=2))
    lines = [line.strip() for line in upgrade.splitlines()]
    (comment,) = (number for number, line in enumerate(lines) if line.startswith("# NOT VALID"))
    assert lines[comment + 1].startswith("op.create_check_constraint(")


async def test_a_dropped_table_is_warned_of(
    generate: Generate, caplog: pytest.LogCaptureFixture
) -> None:
    before = models()
    Table("others", before, Column("id", Integer, primary_key=True))
    upgrade, downgrade = await generate(before, models())
    warning = "others is dropped with its rows. If it was renamed, keep them: docs/migrations.md"
    assert upgrade.index(f"# {warning}") < upgrade.index("op.drop_table('others')")
    assert warning in caplog.text
    assert warning not in downgrade


@pytest.mark.filterwarnings("ignore:.*expression-based index")  # as env.py does
async def test_an_index_on_an_expression_is_created_once(generate: Generate) -> None:
    index = "ix_things_number_doubled"

    def after() -> MetaData:
        return models(Index(index, sql("(number + number)")))

    upgrade, downgrade = await generate(models(), after())
    assert upgrade.count("create_index") == upgrade.count(index) == 1
    assert "number + number" in upgrade
    assert downgrade.count("drop_index") == downgrade.count(index) == 1
    upgrade, _ = await generate(after(), after())
    assert "pass" in upgrade
    # Where a table is copied for another change, apart from that.
    changed = models(Index(index, sql("(number + number)")), least=2)
    upgrade, downgrade = await generate(models(), changed)
    if driver.RENDER_AS_BATCH:
        assert upgrade.count("batch_alter_table") == downgrade.count("batch_alter_table") == 2
        assert upgrade.index("ck_things_bounds") < upgrade.index(index)
        assert downgrade.index(index) < downgrade.index("ck_things_bounds")


async def test_a_native_enum_is_refused(generate: Generate) -> None:
    with pytest.raises(CommandError, match=r"things\.level is a native enum"):
        await generate(models(), models(Column("level", Enum("low", "high", name="level"))))


class Level(PythonEnum):
    LOW = "low"
    HIGH = "high"


class MoreLevels(PythonEnum):
    LOW = "low"
    HIGH = "high"
    EXTREME = "extreme"


class Plain(Base):
    __abstract__ = True
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)


class Peak(Plain):
    __tablename__ = "tests_peaks"

    id: Mapped[int] = mapped_column(primary_key=True)


class Levelled(Base):
    __abstract__ = True
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)


class LevelledPeak(Levelled):
    __tablename__ = "tests_peaks"

    id: Mapped[int] = mapped_column(primary_key=True)
    level: Mapped[Level | None]
    former: Mapped[Level | None]


class MoreLevelled(Base):
    __abstract__ = True
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)


class MoreLevelledPeak(MoreLevelled):
    __tablename__ = "tests_peaks"

    id: Mapped[int] = mapped_column(primary_key=True)
    level: Mapped[MoreLevels | None]
    former: Mapped[Level | None]


def copy(models: type[Base]) -> MetaData:
    """Return a copy of the metadata: a comparison leaves constraints in it."""
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)
    for table in models.metadata.sorted_tables:
        table.to_metadata(metadata)
    return metadata


async def test_an_annotated_enum_is_a_text_with_a_check(generate: Generate) -> None:
    upgrade, _ = await generate(copy(Plain), copy(Levelled))
    for name in ("level", "former"):
        assert f"sa.Column('{name}', sa.String(length=50)" in upgrade
        assert upgrade.count(f"ck_tests_peaks_{name}'") == 1
    assert upgrade.count("'low', 'high'") == 2
    upgrade, _ = await generate(copy(Levelled), copy(MoreLevelled))
    assert "'low', 'high', 'extreme'" in upgrade
    assert upgrade.count("ck_tests_peaks_level") == 2
    assert "former" not in upgrade
    upgrade, _ = await generate(copy(Levelled), copy(Levelled))
    assert "pass" in upgrade
