"""Squawk with `.squawk.toml` refuses dangerous revisions, and accepts the documented advice."""

import re
import shutil
from pathlib import Path

import pytest

from testing.baking import installed, succeeded
from tests.conftest import Bake

RULES = Path(__file__).parent / "squawk" / "test_rules.py"


@pytest.mark.slow
def test_squawk_refuses_dangerous_revisions_and_passes_the_advice(bake: Bake) -> None:
    with installed(bake(database="postgresql", auth="users")) as project:
        (own,) = project.path.glob("tests/**/test_squawk.py")
        copy = str(shutil.copy(RULES, own.parent))
        revisions = len(list(project.path.glob("migrations/versions/*.py")))

        succeeded(project.run("uv", "run", "just", "lint"))
        folder = str(project.path.parent)  # the embedded PostgreSQL can read it
        printed = succeeded(project.run("uv", "run", "pytest", str(own), copy, TMPDIR=folder))

    # The rules: one for the new table, six refused, seven twice; and one for each revision.
    assert re.search(rf"\b{1 + 6 + 2 * 7 + revisions} passed", printed)
    assert "skipped" not in printed
