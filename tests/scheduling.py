"""Selects and orders the tests, and runs some of them alone. A plugin.

- Tests marked `nightly` run with `--full`, which also raises the number of repetitions.
- Tests marked `docker` run with `-m docker`.
- Tests marked `alone` run one after the other, while no other process runs a test, because they
measure times or put load on all cores.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Generator
from functools import cached_property
from pathlib import Path
from typing import Final

import pytest
from filelock import ReadWriteLock
from xdist.scheduler import LoadScopeScheduling

from testing.baking import ENVIRONMENTS

ALONE: Final = "alone"
FIRST_OTHERS: Final = 4
"""The number of quick tests that are given to other processes while tests run alone."""


KEPT: Final = pytest.StashKey[ReadWriteLock]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--full` and `--rounds`."""
    group = parser.getgroup("template")
    group.addoption(
        "--full", action="store_true", help="also nightly tests, and every repetition: hours"
    )
    group.addoption(
        "--rounds",
        type=int,
        help="the number of times that the database and the service are killed (5; 20 with --full)",
    )


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether all repetitions of a nightly run are made."""
    return bool(request.config.getoption("--full"))


@pytest.fixture(scope="session")
def rounds(request: pytest.FixtureRequest, *, full: bool) -> int:
    """Return the number of kills."""
    given: int | None = request.config.getoption("--rounds")
    return given or (20 if full else 5)


def is_worker() -> bool:
    """Return whether this process is a worker of xdist."""
    return "PYTEST_XDIST_WORKER" in os.environ


def pytest_configure() -> None:
    """Create the folder of the shared virtual environments, once for all processes."""
    if not is_worker():
        # Not pytest's own folder, which other users can't enter.
        folder = tempfile.mkdtemp(prefix="environments-")
        Path(folder).chmod(0o755)
        os.environ[ENVIRONMENTS] = folder


def pytest_unconfigure() -> None:
    """Remove that folder."""
    if not is_worker():
        shutil.rmtree(os.environ.pop(ENVIRONMENTS, ""), ignore_errors=True)


def selected(item: pytest.Item) -> bool:
    """Return whether a test is part of this run."""
    asked = item.config.getoption("markexpr")
    if item.get_closest_marker("docker") and "docker" not in asked:
        return False
    return not item.get_closest_marker("nightly") or item.config.getoption("--full")


def is_alone(item: pytest.Item) -> bool:
    """Return whether a test has to run alone."""
    return item.get_closest_marker(ALONE) is not None


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests that were not chosen; put exclusive tests first and quick ones last."""
    left_out = [item for item in items if not selected(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
    chosen = [item for item in items if selected(item)]
    alone = [item for item in chosen if is_alone(item)]
    for item in alone:
        item.add_marker(pytest.mark.xdist_group(ALONE))
    others = [item for item in chosen if not is_alone(item)]
    slow = [item for item in others if item.get_closest_marker("slow")]
    quick = [item for item in others if not item.get_closest_marker("slow")]
    for item in quick:
        if "bake" in getattr(item, "fixturenames", ()):  # each process renders for itself
            item.add_marker(pytest.mark.xdist_group("quick"))
    items[:] = [*alone, *quick[:FIRST_OTHERS], *slow, *quick[FIRST_OTHERS:]]
    if os.environ.get("PYTEST_XDIST_WORKER") == "gw0":  # they are the same in each process
        by_test = {
            item.nodeid: mark.args[0]
            for item in items
            if (mark := item.get_closest_marker("xdist_group"))
        }
        groups_file().write_text(json.dumps(by_test), encoding="utf-8")


def groups_file() -> Path:
    """Return the file with the groups of tests, for the scheduler."""
    return Path(os.environ[ENVIRONMENTS], "groups.json")


class ByGroup(LoadScopeScheduling):  # type: ignore[misc]
    """Runs the tests of an `xdist_group` in one process.

    xdist 3.8 passes the groups as a suffix of the tests' names, which pytest 9.2 ignores
    (pytest-dev/pytest-xdist#1386).
    """

    @cached_property
    def by_test(self) -> dict[str, str]:
        """The group of each test that has one."""
        return dict(json.loads(groups_file().read_text(encoding="utf-8")))

    def _split_scope(self, nodeid: str) -> str:
        return self.by_test.get(nodeid, nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByGroup | None:
    """Read the groups that the workers have written."""
    return ByGroup(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before the time limit of a test begins
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    """Take a shared lock on the machine, or an exclusive one for tests that run alone."""
    if not is_worker():
        return (yield)
    machine = ReadWriteLock(Path(os.environ[ENVIRONMENTS], "machine.db"))
    if not is_alone(item):
        with machine.read_lock():
            return (yield)
    stash = item.config.stash
    if KEPT not in stash:
        machine.acquire_write()
        stash[KEPT] = machine
    try:
        return (yield)
    finally:
        if nextitem is None or not is_alone(nextitem):
            stash[KEPT].release()
            del stash[KEPT]
