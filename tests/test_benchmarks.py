"""The benchmarks work. How fast anything is, is not for tests to judge."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import harness, report
from benchmarks.__main__ import CHOICES, parsed
from benchmarks.report import Compared, Fairness, Memory, Report, Side
from testing.baking import ENVIRONMENTS, ROOT, Project, clean_environment, installed, succeeded
from testing.usage import just
from tests.conftest import Bake


@pytest.mark.slow
def test_a_quick_run_measures_every_endpoint(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    printed = succeeded(
        subprocess.run(
            [sys.executable, "-m", "benchmarks", "--quick", "--json", str(file)],
            cwd=ROOT,
            env=clean_environment(**{ENVIRONMENTS: os.environ[ENVIRONMENTS]}),
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    )

    figures = json.loads(file.read_text(encoding="utf-8"))
    databases, services, endpoints, _ = CHOICES.values()
    assert [
        (each["database"], each["service"], each["endpoint"], each["connections"])
        for each in figures["compared"]
    ] == list(itertools.product(databases, services, endpoints, [32]))
    for each in figures["compared"]:
        assert {"rate", "p50", "p99", "worst", "errors", "cpu"} == set(each["ours"])
    assert {each["database"] for each in figures["fairness"]} == set(databases)
    assert figures["postgresql"]["fsync"] == figures["postgresql"]["synchronous_commit"] == "on"
    assert "**PostgreSQL, flat: ours / the limit**" in printed


@pytest.mark.slow
@pytest.mark.parametrize("database", CHOICES["database"])
def test_the_flat_resource_is_one_as_the_template_wants_it(bake: Bake, database: str) -> None:
    with installed(bake(database=database, auth="none")) as project:
        harness.with_items(project)

        just(project, "lint")
        just(
            project,
            "test",
            "tests/test_smoke.py",
            "tests/kit/test_migrations.py",
            "-k",
            "head or drifted",
        )


def test_the_flat_resource_is_mounted(bake: Bake, tmp_path: Path) -> None:
    rendered = bake(database="sqlite", auth="none")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "api.py").write_text(rendered.text("app/api.py"), encoding="utf-8")
    project = Project(tmp_path, rendered.answers)

    harness.with_items(project)

    assert '    ("/v1", items),\n    ("/v1", tasks),\n' in project.text("app/api.py")
    assert (tmp_path / "app" / "items" / "router.py").exists()
    assert not (tmp_path / "ruff.toml").exists()


@pytest.mark.parametrize(
    "arguments",
    ["--only database=oracle", "--only speed", "--publish --quick", "--rows 10"],
)
def test_what_makes_no_sense_is_refused(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(arguments.split())

    assert "error: --" in capsys.readouterr().err


@pytest.fixture
def made() -> Report:
    """Return the figures of no run."""
    side = Side(rate=100, p50=1, p99=2, worst=3, errors=0, cpu=500)
    return Report(
        commit="0123456789ab",
        date="2026-11-20T00:00:00+00:00",
        cpus=2,
        pinned=True,
        generator="wrk",
        rows=100_000,
        duration=2,
        seconds={"render": [0.3, 0.5, 0.4]},
        compared=[
            Compared("postgresql", "flat", endpoint, 32, 3, 0.25, side, side)
            for endpoint in CHOICES["endpoint"]
        ],
        fairness=[Fairness("postgresql", "flat", "get", 128, 9, 10, 12, 80, 70, 0)],
        memory=[Memory("postgresql", "flat", report.BUSY, 70, 40)],
    )


def test_a_report_says_what_was_promised(made: Report) -> None:
    text = re.sub(" +", " ", made.text())

    assert "| share of the limit, flat, PATCH | 0.25 | 0.15 | 0.24 |" in text
    assert "PostgreSQL, flat, get | 20%, 0 errors | 20 %, none | |" in text
    assert "| depth 100,000 against page 1, PostgreSQL, flat | 1.00 times | 1.2 | 1.1 |" in text
    assert "| render | 0.40 s | 0.45 s | 0.36 s |" in text


def test_publishing_replaces_the_figures_and_nothing_else(
    made: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, picture = tmp_path / "performance.md", tmp_path / "performance.svg"
    for name, file in {"DOCUMENT": document, "PICTURE": picture}.items():
        monkeypatch.setattr(report, name, file)
    start, end = report.MARKERS
    document.write_text(f"Before.\n{start}\nold\n{end}\nAfter.\n", encoding="utf-8")

    made.publish()
    once = document.read_text(encoding="utf-8")
    made.publish()

    assert document.read_text(encoding="utf-8") == once
    assert once.startswith("Before.\n")
    assert once.endswith("\nAfter.\n")
    assert "old" not in once
    drawn = ET.parse(picture).getroot()  # noqa: S314 - ours
    bars = drawn.findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == 2 + 4 * 2  # the legend, and each series for each endpoint


def test_the_page_has_a_place_for_figures() -> None:
    text = report.DOCUMENT.read_text(encoding="utf-8")

    assert text.index(report.MARKERS[0]) < text.index(report.MARKERS[1])
