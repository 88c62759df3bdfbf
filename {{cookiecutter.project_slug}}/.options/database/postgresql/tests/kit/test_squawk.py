"""Squawk reports no revision that would block or break running instances."""

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

from app.kit import project
from tests.conftest import alembic_config, settings_for

SQUAWK = shutil.which("squawk", path=str(Path(sys.executable).parent))


def offline_config() -> Config:
    """Return a configuration for SQL output without a database."""
    return alembic_config(settings_for("postgresql://localhost/nobody_connects"))


def sql(config: Config) -> dict[str, str]:
    """Return the SQL of each revision, for a database at the revision before it."""
    config.output_buffer = output = StringIO()
    command.upgrade(config, "base:head", sql=True)
    # In a single script every table is new, and squawk would report nothing.
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


def complaints(config: Config, revision: str, folder: Path) -> str:
    """Return what squawk reports for a revision."""
    assert SQUAWK
    file = folder / f"{revision}.sql"
    file.write_text(sql(config)[revision], encoding="utf-8")
    done = subprocess.run(
        [SQUAWK, "--config", project.ROOT / ".squawk.toml", "--reporter", "gcc", file.name],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == bool(done.stdout), done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "revision",
    [script.revision for script in ScriptDirectory.from_config(offline_config()).walk_revisions()],
)
def test_a_revision_does_not_block_running_instances(revision: str, tmp_path: Path) -> None:
    found = complaints(offline_config(), revision, tmp_path)
    assert not found, f"{found}See Change tables that are in use in docs/migrations.md"
