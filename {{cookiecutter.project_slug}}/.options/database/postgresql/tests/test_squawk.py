"""What a migration does to a table that is in use: squawk reads the SQL of every revision."""

import asyncio
import re
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from app import health, project
from app.db import driver
from tests.conftest import alembic_config, settings_for

SQUAWK = shutil.which("squawk", path=str(Path(sys.executable).parent))

URL = "postgresql://localhost/nobody_connects"

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

# As README.md has it, under Change what is in use.
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


def sql(config: Config) -> dict[str, str]:
    """Give the SQL of each revision, as if it came to a database that has all before it."""
    config.output_buffer = output = StringIO()
    command.upgrade(config, "base:head", sql=True)
    # In one piece, each table would be one that is new in this transaction, and hurt nobody.
    head, *parts = re.split(
        r"^-- Running upgrade .*-> (\S+)\n", output.getvalue(), flags=re.MULTILINE
    )
    settings = head.partition("CREATE TABLE")[0]
    assert "lock_timeout" in settings
    parts[-1:] = [part.removesuffix("COMMIT;\n\n") for part in parts[-1:]]
    return {
        revision: f"{settings}{statements}COMMIT;\n"
        for revision, statements in zip(parts[::2], parts[1::2], strict=True)
    }


def complaints(config: Config, folder: Path) -> str:
    """Give what squawk has to say, with the revision that it says it of."""
    assert SQUAWK
    files = []
    for revision, statements in sql(config).items():
        file = folder / f"{revision}.sql"
        file.write_text(statements, encoding="utf-8")
        files.append(file.name)
    if not files:
        return ""
    settings = project.ROOT / ".squawk.toml"
    told = subprocess.run(
        [SQUAWK, "--config", settings, "--reporter", "gcc", *files],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == bool(told.stdout), told.stderr
    return told.stdout


@pytest.fixture
def config() -> Config:
    return alembic_config(settings_for(URL))


@pytest.fixture
def config_with(config: Config, tmp_path: Path) -> Config:
    """Give the configuration of a copy of the migrations, for a test to add to."""
    shutil.copytree(project.ROOT / "migrations", tmp_path / "migrations")
    config.set_main_option("script_location", str(tmp_path / "migrations"))
    return config


def add(config: Config, upgrade: str, revision: str = "next") -> None:
    """Add a revision to a copy of the migrations."""
    script = ScriptDirectory.from_config(config)
    head = script.get_current_head()
    text = REVISION.format(revision=revision, head=head, upgrade=upgrade)
    (Path(script.versions) / f"{revision}.py").write_text(text, encoding="utf-8")


def test_a_table_that_is_new_may_be_treated_as_one_likes(
    config_with: Config, tmp_path: Path
) -> None:
    add(config_with, f"{TABLE}; {INDEX})")
    assert complaints(config_with, tmp_path) == ""


def test_no_revision_hurts_who_is_being_served(config: Config, tmp_path: Path) -> None:
    assert complaints(config, tmp_path) == ""


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
    config_with: Config, tmp_path: Path, upgrade: str, rule: str
) -> None:
    add(config_with, upgrade)
    found = complaints(config_with, tmp_path)
    assert found.startswith("next.sql:")
    assert rule in found


@each_advice
def test_what_is_advised_passes(config_with: Config, tmp_path: Path, upgrade: str) -> None:
    add(config_with, upgrade)
    assert complaints(config_with, tmp_path) == ""


@each_advice
async def test_what_is_advised_works(config_with: Config, live_url: str, upgrade: str) -> None:
    add(config_with, TABLE, "first")
    add(config_with, upgrade)
    config_with.attributes["settings"] = settings_for(live_url)
    await asyncio.to_thread(command.upgrade, config_with, "head")
    async with driver.probe_engine(settings_for(live_url)).connect() as connection:
        assert set(await connection.scalars(health.REVISIONS)) == {"next"}
