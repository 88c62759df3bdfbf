"""The changes of the schema that squawk refuses, and the documented alternatives.

``tests/test_squawk.py`` copies this module into a render, beside the render's own test_squawk.py.
"""

import asyncio
import shutil
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from app.kit import project
from tests.conftest import settings_for

from .test_squawk import complaints, offline_config

REVISION = """
import sqlalchemy as sa
from alembic import op

revision = {revision!r}
down_revision = {head!r}


def upgrade() -> None:
    {upgrade}
"""

TABLE = (
    "op.create_table('things', sa.Column('id', sa.Uuid(), primary_key=True), "
    "sa.Column('old', sa.Text(), nullable=True))"
)
INDEX = "op.create_index('ix_things', 'things', ['id']"

# The steps of docs/migrations.md, section "Change tables that are in use".
ADVICE = {
    "a nullable column": "op.add_column('things', sa.Column('size', sa.Text(), nullable=True))",
    "a default": "op.add_column('things', "
    "sa.Column('size', sa.Text(), server_default='', nullable=False))",
    "an index": f"with op.get_context().autocommit_block():\n        {INDEX}, if_not_exists=True, "
    "postgresql_concurrently=True)",
    "a unique constraint": "with op.get_context().autocommit_block():\n        "
    "op.create_index('uq_things_old', 'things', ['old'], unique=True, if_not_exists=True, "
    "postgresql_concurrently=True)\n    "
    "op.execute('ALTER TABLE things ADD CONSTRAINT uq_things_old '\n        "
    "'UNIQUE USING INDEX uq_things_old')",
    "a foreign key": "op.create_foreign_key('fk', 'things', 'things', ['id'], ['id'], "
    "postgresql_not_valid=True)",
    "a check": "op.execute('ALTER TABLE things ADD CONSTRAINT old_is_there "
    "CHECK (old IS NOT NULL) NOT VALID')",
    "a drop": "op.execute('-- squawk-ignore ban-drop-column\\nALTER TABLE things DROP COLUMN old')",
}

each_advice = pytest.mark.parametrize("upgrade", ADVICE.values(), ids=ADVICE)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Return the configuration of a copy of the migrations, for a test to add to."""
    config = offline_config()
    shutil.copytree(project.ROOT / "migrations", tmp_path / "migrations")
    config.set_main_option("script_location", str(tmp_path / "migrations"))
    return config


def add(config: Config, upgrade: str, revision: str = "next") -> None:
    """Add a revision to a copy of the migrations."""
    script = ScriptDirectory.from_config(config)
    head = script.get_current_head()
    text = REVISION.format(revision=revision, head=head, upgrade=upgrade)
    (Path(script.versions) / f"{revision}.py").write_text(text, encoding="utf-8")


def test_changes_to_a_new_table_are_allowed(config: Config, tmp_path: Path) -> None:
    add(config, f"{TABLE}; {INDEX})")
    assert complaints(config, "next", tmp_path) == ""


@pytest.mark.parametrize(
    ("upgrade", "rule"),
    [
        (
            "op.add_column('things', sa.Column('size', sa.Text(), nullable=False))",
            "adding-required-field",
        ),
        (f"{INDEX})", "require-concurrent-index-creation"),
        ("op.alter_column('things', 'size', nullable=False)", "adding-not-nullable-field"),
        ("op.alter_column('things', 'size', new_column_name='width')", "renaming-column"),
        ("op.drop_column('things', 'size')", "ban-drop-column"),
        (
            "op.create_foreign_key('fk', 'things', 'others', ['id'], ['id'])",
            "adding-foreign-key-constraint",
        ),
    ],
)
def test_a_dangerous_revision_is_found(
    config: Config, tmp_path: Path, upgrade: str, rule: str
) -> None:
    add(config, upgrade)
    found = complaints(config, "next", tmp_path)
    assert found.startswith("next.sql:")
    assert rule in found


@each_advice
def test_the_advice_passes_squawk(config: Config, tmp_path: Path, upgrade: str) -> None:
    add(config, upgrade)
    assert complaints(config, "next", tmp_path) == ""


@each_advice
async def test_the_advice_works(config: Config, live_url: str, upgrade: str) -> None:
    add(config, TABLE, "first")
    add(config, upgrade)
    config.attributes["settings"] = settings_for(live_url)
    await asyncio.to_thread(command.upgrade, config, "head")
    await asyncio.to_thread(command.current, config, check_heads=True)
