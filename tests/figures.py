"""The figures that tests measure: a table at the end of the run, and in docs/reliability.md.

A plugin. Figures are part of the tests' reports, so parallel processes can send them.
"""

from collections.abc import Callable

import pytest

from testing.baking import ROOT

DOCUMENT = ROOT / "docs" / "reliability.md"
MARKERS = ("<!-- figures -->", "<!-- /figures -->")
HEAD = ["| promise | database | measured |", "|---|---|---|"]

Measured = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--write-figures`."""
    parser.getgroup("template").addoption(
        "--write-figures",
        action="store_true",
        help=f"write the figures of this run into docs/{DOCUMENT.name}",
    )


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Record figures for a promise: ``measured("Killed", "SQLite", lost=0)``."""

    def note(promise: str, database: str, **figures: object) -> None:
        text = "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in figures.items())
        request.node.user_properties.append(("figures", f"| {promise} | {database} | {text} |"))

    return note


def _rows(reporter: pytest.TerminalReporter, *outcomes: str) -> list[str]:
    reports = [report for outcome in outcomes for report in reporter.getreports(outcome)]
    return sorted(
        str(value)
        for report in reports
        if report.when == "call"
        for name, value in report.user_properties
        if name == "figures"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures, and write them if requested."""
    rows = _rows(terminalreporter, "passed", "failed")
    if not rows:
        return
    terminalreporter.section("figures")
    for line in HEAD + rows:
        terminalreporter.write_line(line)
    if terminalreporter.config.getoption("--write-figures"):
        before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(MARKERS[0])
        _, _, after = rest.partition(MARKERS[1])
        kept = _rows(terminalreporter, "passed")  # figures of passed tests only
        table = "\n".join([MARKERS[0], "", *HEAD, *kept, "", MARKERS[1]])
        DOCUMENT.write_text(before + table + after, encoding="utf-8")
