"""What the template installs is recent, and the same day is named everywhere."""

import json
import re
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scripts.refresh import refreshed
from testing.baking import ROOT, TREE, copy_template
from tests.conftest import Bake

OLDEST = timedelta(days=120)

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
QUESTIONS = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))


def test_what_is_installed_is_recent() -> None:
    day = datetime.fromisoformat(QUESTIONS["_exclude_newer"])
    assert datetime.now(UTC) - day < OLDEST, "time for `uv run just refresh`"


def test_one_day_and_one_version_are_named_everywhere(bake: Bake) -> None:
    project = bake()
    rendered = tomllib.loads(project.text("pyproject.toml"))
    assert PYPROJECT["tool"]["uv"]["exclude-newer"] == QUESTIONS["_exclude_newer"]
    assert rendered["tool"]["uv"]["exclude-newer"] == QUESTIONS["_exclude_newer"]
    version = PYPROJECT["project"]["version"]
    assert QUESTIONS["_template_version"] == version
    assert f"cookiecutter-fastapi-sqlalchemy {version}." in project.text("README.md")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d\S+)\]", changes, re.MULTILINE)
    assert f"To become {version}." in changes or released[:1] == [version]


@pytest.mark.slow
def test_refresh_moves_the_day_and_raises_the_lower_bounds(tmp_path: Path) -> None:
    old = copy_template(tmp_path / "old")
    files = [old / "cookiecutter.json", old / "pyproject.toml", old / TREE.name / "pyproject.toml"]
    (old / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    now = {file: file.read_text(encoding="utf-8") for file in files}
    day = QUESTIONS["_exclude_newer"].partition("T")[0]
    for file in files:
        text = now[file].replace(day, "2026-01-01")
        text = re.sub(r'("_uv_version": )"[^"]*"', r'\1"0.1.0"', text)
        text = re.sub(r'"(alembic|pytest|fastapi)>=[\d.]+"', r'"\1>=0"', text)
        assert text != now[file] or file == files[2]
        file.write_text(re.sub(r">=0\"", '>=0.0.0"' if file == files[2] else '>=0.0"', text))

    new = refreshed(old, day)

    assert new == now
    assert all(file.read_text(encoding="utf-8") != now[file] for file in files)  # not written yet
