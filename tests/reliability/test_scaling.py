"""Throughput and CPU time of two service processes on one database, compared with one.

The tests assert no speed. docs/scaling.md explains the figures.
"""

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from testing.baking import free_port
from testing.load import loaded, read_or_write
from testing.requirements import require
from testing.serving import PostgreSQL, Service, Stage, until
from tests.figures import Measured

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.skipif(sys.platform != "linux", reason="control groups require Linux"),
]

CLIENTS = 8
"""Clients for each process: enough to keep it busy."""
SECONDS = {True: 5.0, False: 1.5}
"""The duration of a measurement, with and without ``--full``."""
PART = 0.2
"""The share of a core for each process. It leaves CPU for the database and the clients."""

CGROUPS = Path("/sys/fs/cgroup")


@dataclass
class Run:
    """The number of responses, and the CPU time in seconds of each party."""

    processes: int
    answers: int
    seconds: float
    service: float
    database: float
    load: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.answers / self.seconds

    def cpu_against(self, other: "Run") -> str:
        """Return the CPU time of a request relative to another run."""
        parties = {
            "service": self.service / other.service,
            "database": self.database / other.database,
            "clients": self.load / other.load,
        }
        each = other.answers / self.answers
        return ", ".join(f"{name} {each * ratio:.2f}" for name, ratio in parties.items())


def cpu(*processes: psutil.Process) -> float:
    """Return the CPU time of processes in seconds, including ended children."""
    seconds = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # ended: its parent counts it
            seconds += sum(process.cpu_times()[:4])
    return seconds


def group() -> Path | None:
    """Return the path for a new control group, or ``None`` if it can't be created."""
    name = f"reliability-{uuid4().hex[:8]}"
    if os.access(first := CGROUPS / "cpu", os.W_OK) and (first / "cpu.cfs_quota_us").exists():
        return first / name
    second = CGROUPS / "cgroup.subtree_control"
    if os.access(second, os.W_OK) and "cpu" in second.read_text().split():
        return CGROUPS / name
    return None


@contextmanager
def part_of_a_core(service: Service) -> Iterator[None]:
    """Limit a service to a share of a core."""
    path = group()
    assert path
    path.mkdir()
    period = 20_000  # microseconds: short, so that the process is never stopped for long
    if (path / "cpu.max").exists():
        (path / "cpu.max").write_text(f"{period * PART:.0f} {period}")
    else:
        (path / "cpu.cfs_period_us").write_text(f"{period}")
        (path / "cpu.cfs_quota_us").write_text(f"{period * PART:.0f}")
    (path / "cgroup.procs").write_text(f"{service.process.pid}")
    try:
        yield
    finally:
        path.rmdir()  # the service has ended by then


async def measure(stage: Stage, processes: int, *, part: bool, seconds: float) -> Run:
    """Measure a number of service processes under load."""
    assert isinstance(stage.database, PostgreSQL)
    server = stage.database.server
    async with AsyncExitStack() as stack:
        parts = stack.enter_context(ExitStack())
        services = [
            await stack.enter_async_context(stage.serving(port=free_port()))
            for _ in range(processes)
        ]
        for service in services if part else ():
            parts.enter_context(part_of_a_core(service))
        loads = [
            await stack.enter_async_context(loaded(service, CLIENTS, read_or_write))
            for service in services
        ]
        await until(lambda: all(len(load.answers) > 300 for load in loads), "busy services")

        def taken() -> tuple[float, float, float]:
            serving = [process for service in services for process in service.processes()]
            return cpu(*serving), cpu(*server.processes()), cpu(psutil.Process())

        started, before = time.monotonic(), taken()
        answered = sum(len(load.answers) for load in loads)
        await asyncio.sleep(seconds)  # the measured time
        answers = sum(len(load.answers) for load in loads) - answered
        took = time.monotonic() - started
        parties = [after - first for after, first in zip(taken(), before, strict=True)]
        assert set().union(*(load.statuses() for load in loads)) == {200, 201}
    return Run(processes, answers, took, *parties)


@pytest.mark.parametrize("part", [False, True], ids=["whole", "part"])
async def test_two_processes_serve_more_than_one(
    on_postgresql: Stage, measured: Measured, *, part: bool, full: bool
) -> None:
    if part:
        require("a control group for processors", found=group() is not None)
    one = await measure(on_postgresql, 1, part=part, seconds=SECONDS[full])
    two = await measure(on_postgresql, 2, part=part, seconds=SECONDS[full])

    cores = f"each limited to {PART:.0%} of a core" if part else "sharing this machine's cores"
    busy = (two.service + two.database + two.load) / two.seconds
    measured(
        f"One process and two, {cores}",
        on_postgresql.label,
        ratio=f"{two.rate / one.rate:.2f}",
        cpu_of_a_request_against_one=two.cpu_against(one),
        cores=os.cpu_count(),
        of_which_busy_with_two=f"{busy:.2f}",
    )
