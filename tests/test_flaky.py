"""``just flaky`` finds, names and counts tests that fail sometimes."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import flaky
from scripts.flaky import NO_REPORT, Runner, Tally, table
from testing.baking import ROOT, succeeded

SUITE = """
import pathlib

import pytest

def test_good():
    pass

@pytest.mark.parametrize("number", [0, 1])
def test_sometimes(number):
    runs = pathlib.Path(f"runs-{number}")
    before = runs.read_text() if runs.exists() else ""
    runs.write_text(before + ".")
    assert number == 0 or len(before) % 2 == 0
"""

PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]


@pytest.fixture
def suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Return two suites, in one of which a test fails every second time."""
    monkeypatch.setattr(flaky, "KEPT", tmp_path / "kept")
    suites = {name: tmp_path / name for name in ("one", "other")}
    for name, folder in suites.items():
        (folder / "tests").mkdir(parents=True)
        (folder / "tests" / "__init__.py").touch()
        text = SUITE if name == "one" else "def test_good(): pass\n"
        (folder / "tests" / "test_it.py").write_text(text)
    return suites


@pytest.mark.slow
def test_tests_that_fail_sometimes_are_counted(
    suites: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tallies = Runner(suites, PYTEST, rounds=4).run()
    one, other = tallies["one"], tallies["other"]
    assert one.rounds >= 4
    assert dict(one.failures) == {"tests/test_it.py::test_sometimes[1]": one.rounds // 2}
    assert (one.tests, other.tests) == (3, 1)
    # The faster suite continues, so that the last rounds of the other have load, too.
    assert other.rounds >= 4
    assert not other.failures
    rows = [line.split() for line in table(tallies).splitlines()]
    share = f"{one.rounds // 2}/{one.rounds}"
    assert rows[1] == ["tests/test_it.py::test_sometimes[1]", "one", share]
    assert rows[2] == ["all", "3", "tests", "one", share]
    assert "one: round 2 FAILED" in capsys.readouterr().out
    assert "test_sometimes[1]" in (tmp_path / "kept" / "one-2.txt").read_text()


@pytest.mark.slow
def test_a_run_without_a_test_is_a_failure(suites: dict[str, Path]) -> None:
    tallies = Runner(suites, [*PYTEST, "-k", "nothing_of_that_name"], rounds=1).run()
    for tally in tallies.values():
        assert set(tally.failures) == {NO_REPORT}


def test_a_run_without_a_report_is_a_failure(tmp_path: Path) -> None:
    assert not (tally := Tally()).add(tmp_path / "none.xml", status=2)
    assert dict(tally.failures) == {NO_REPORT: 1}


def test_the_workflow_matches_its_schema_and_runs_the_verb() -> None:
    file = ROOT / ".github" / "workflows" / "flaky.yml"
    checker = str(Path(sys.executable).with_name("check-jsonschema"))
    command = [checker, "--builtin-schema", "vendor.github-workflows", str(file)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    succeeded(done)
    assert "run: uv run just flaky" in file.read_text(encoding="utf-8")
