"""``just flaky [ROUNDS]``: run the suites of rendered services many times and count what fails.

The suites of both databases run at the same time, so that each one is load for the other. The
output of each failed round is kept in ``.rendered/flaky/``.
"""

import argparse
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from cookiecutter.main import cookiecutter

from testing.baking import CHOICES, ROOT, Project, clean_environment, copy_template, installed

KEPT: Final = ROOT / ".rendered" / "flaky"

NO_REPORT: Final = "(pytest itself)"
"""The name in the table for a run without a report, or in which no test ran."""


@dataclass
class Tally:
    """The results of several runs of one suite."""

    rounds: int = 0
    tests: int = 0
    """Number of tests in one run."""
    failures: Counter[str] = field(default_factory=Counter)
    """Number of rounds in which a test failed, by its id."""

    def add(self, report: Path, status: int) -> bool:
        """Count a run by its JUnit report; return whether all tests passed."""
        self.rounds += 1
        failed = set()
        cases = [] if not report.exists() else list(ET.parse(report).iter("testcase"))  # noqa: S314 - written by pytest
        for case in cases:
            if case.find("failure") is not None or case.find("error") is not None:
                module = case.get("classname", "").replace(".", "/")
                failed.add(f"{module}.py::{case.get('name')}")
        if status and not failed:
            failed.add(NO_REPORT)
        self.tests = max(self.tests, len(cases))
        self.failures.update(failed)
        return not failed


class Runner:
    """Runs suites in parallel: each for at least ``rounds`` rounds, and until all are done."""

    def __init__(self, suites: Mapping[str, Path], command: Sequence[str], rounds: int) -> None:
        """Create a runner for folders by name, and the command that runs a suite."""
        self.tallies = {name: Tally() for name in suites}
        self._suites = suites
        self._command = command
        self._rounds = rounds
        self._lock = threading.Lock()

    def run(self) -> dict[str, Tally]:
        """Return the tally of each suite."""
        with ThreadPoolExecutor(len(self._suites)) as pool:
            list(pool.map(self._repeat, self._suites))  # raises the exception of a thread
        return self.tallies

    def _repeat(self, name: str) -> None:
        tally = self.tallies[name]
        while any(other.rounds < self._rounds for other in self.tallies.values()):
            with tempfile.TemporaryDirectory(prefix="flaky-") as folder:
                report = Path(folder, "report.xml")
                done = subprocess.run(
                    [*self._command, "--junit-xml", str(report)],
                    cwd=self._suites[name],
                    env=clean_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    encoding="utf-8",
                    check=False,
                )
                passed = tally.add(report, done.returncode)
            word = "passed" if passed else "FAILED"
            with self._lock:
                print(f"{name}: round {tally.rounds} {word}", flush=True)
            if not passed:
                KEPT.mkdir(parents=True, exist_ok=True)
                kept = KEPT / f"{name}-{tally.rounds}.txt"
                kept.write_text(done.stdout, encoding="utf-8")


def table(tallies: Mapping[str, Tally]) -> str:
    """Return one line for each test that failed, and one for each suite."""
    rows = [
        (test, name, f"{count}/{tally.rounds}")
        for name, tally in tallies.items()
        for test, count in tally.failures.most_common()
    ]
    rows += [
        (f"all {tally.tests} tests", name, f"{tally.failures.total()}/{tally.rounds}")
        for name, tally in tallies.items()
    ]
    rows.insert(0, ("test", "database", "failures/rounds"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def rendered(database: str, folder: Path) -> Project:
    """Render a service with users."""
    answers = {"database": database, "auth": "users"}
    template = copy_template(folder / "template")
    path = cookiecutter(
        str(template),
        no_input=True,
        default_config=True,
        extra_context=answers,
        output_dir=str(folder),
    )
    return Project(Path(path), answers)


def burn() -> None:
    """Keep one core busy."""
    while True:
        pass


def main(arguments: Sequence[str]) -> int:
    """Return 0 if no test failed in any round, else 1."""
    parser = argparse.ArgumentParser(prog="just flaky", description=__doc__)
    parser.add_argument("rounds", nargs="?", type=int, default=50, help="50 if not given")
    parser.add_argument("--burn", type=int, default=0, help="processes that keep a core busy")
    options, more = parser.parse_known_args(arguments)
    shutil.rmtree(KEPT, ignore_errors=True)
    with ExitStack() as stack:
        suites = {}
        for database in CHOICES["database"]:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flaky-")))
            suites[database] = stack.enter_context(installed(rendered(database, folder))).path
        for _ in range(options.burn):
            process = multiprocessing.Process(target=burn, daemon=True)
            process.start()
            stack.callback(process.kill)
        command = ["uv", "run", "--no-sync", "pytest", "-n", "2", "-q", *more]
        tallies = Runner(suites, command, options.rounds).run()
    print(table(tallies))
    return int(any(tally.failures for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
