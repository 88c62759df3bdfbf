"""``just update`` moves ``exclude-newer``."""

import re
import tomllib
from datetime import date, timedelta

import pytest

from app.kit import project
from scripts.update import chosen_day, moved

TODAY = date(2026, 11, 21)


def test_the_date_moves_to_a_week_ago_or_to_the_given_day() -> None:
    assert chosen_day([], TODAY) == TODAY - timedelta(days=7)
    assert chosen_day(["2026-11-20"], TODAY) == date(2026, 11, 20)
    assert chosen_day(["2026-11-21"], TODAY) == TODAY


@pytest.mark.parametrize("given", ["2026-11-22", "yesterday", "2026-13-01", ""])
def test_an_invalid_day_is_refused_in_one_sentence(given: str) -> None:
    with pytest.raises(SystemExit, match=r"^[^\n]+\.$"):
        chosen_day([given], TODAY)


def test_only_that_line_changes() -> None:
    text = 'a = 1\n[tool.uv]\nexclude-newer = "2026-01-01T00:00:00Z"\nb = 2\n'
    changed = moved(text, TODAY)
    assert changed == text.replace("2026-01-01", "2026-11-21")
    with pytest.raises(SystemExit, match="has no exclude-newer"):
        moved("[tool.uv]\n", TODAY)


def test_the_project_can_be_moved() -> None:
    text = (project.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    if "exclude-newer" in tomllib.loads(text)["tool"]["uv"]:
        found = tomllib.loads(moved(text, TODAY))["tool"]["uv"]["exclude-newer"]
        assert re.match(str(TODAY), str(found))
