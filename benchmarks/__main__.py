"""``python -m benchmarks``: compare the rendered service with a raw ASGI app on a raw driver."""

import argparse
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil

from benchmarks import harness
from benchmarks.data import DEPTH, ENDPOINTS, RESOURCES, Rows
from benchmarks.harness import Side, Stage
from benchmarks.load import WRK, Run, load
from benchmarks.report import Fairness, Figure, Memory, Report
from testing.baking import Project, install
from testing.postgres import Postgres

CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "database": ("postgresql", "sqlite"),
    "resource": tuple(RESOURCES),
    "endpoint": ENDPOINTS,
    "clients": ("32", "128", "512"),
}
"""The choices of ``--only``, and the numbers of clients for the fairness measurement."""

CONNECTIONS: Final = 32
ROUNDS: Final = 5
DURATION: Final = 1.5
"""Seconds of one round."""
WARM_UP: Final = 0.3
"""Seconds of load before the first round."""
BETWEEN: Final = 0.7
"""Approximate seconds between two rounds, in which the server becomes idle."""
LATEST: Final = 17 * 60.0
"""Seconds after which the rest of a full run has shorter measurements, on a slow machine."""

FAIR: Final = {32: 2.0, 128: 3.0, 512: 5.0}
"""Rounds in which fairness is measured: each client must get enough responses to count."""
FAIR_ENDPOINTS: Final = ("get", "post")
FAIR_SERVICES: Final = {"flat": ("rows", "none"), "example": ("example", "token")}
"""The fastest service, and the default one."""
WRITERS: Final = 16

STARTS: Final = 5
"""Repetitions of the measurements of start times."""


@dataclass(frozen=True)
class Options:
    """The options of the command line."""

    quick: bool
    only: Mapping[str, tuple[str, ...]]
    rounds: int
    duration: float
    rows: Rows
    settings: Mapping[str, str]

    @property
    def partial(self) -> bool:
        """Whether some combinations are left out."""
        return self.quick or any(self.only[name] != every for name, every in CHOICES.items())


def say(text: str) -> None:
    """Print the progress."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Round:
    """The responses of a round, and the CPU time of each request in microseconds."""

    run: Run
    cpu: float
    database_cpu: float


def measure_round(options: Options, side: Side, store: Postgres | None) -> Round:
    """Put load on one side."""
    before = side.server.cpu(), harness.database_cpu(store)
    run = load(side.server.port, side.requests, CONNECTIONS, options.duration)
    after = side.server.cpu(), harness.database_cpu(store)
    if not options.quick:  # a quick run checks only that everything works
        side.server.settle(side.requests[0])
    requests = max(1, run.answers + run.errors)
    used = [1e6 * (end - start) / requests for start, end in zip(before, after, strict=True)]
    return Round(run, *used)


def compare(
    options: Options, database: str, sides: Sequence[Side], rounds: int, store: Postgres | None
) -> list[Figure]:
    """Put load on all sides in turn (A B C, C B A, A B C), so that drift affects all of them."""
    seen: dict[Side, list[Round]] = {side: [] for side in sides}
    for side in sides if not options.quick else ():  # opens connections and prepares statements
        load(side.server.port, side.requests, CONNECTIONS, WARM_UP)
        side.server.settle(side.requests[0])
    for number in range(rounds):
        for side in sides[:: -1 if number % 2 else 1]:
            seen[side].append(measure_round(options, side, store))

    limit = next(side for side in sides if side.service.startswith(harness.LIMIT))
    figures = []
    for side in sides:
        plain = next(
            each for each in sides if (each.service, each.caller) == (side.service, "none")
        )
        found = summarize(database, side, seen[side], seen[limit], seen[plain])
        say(
            f"{database} {found.endpoint}, {found.service}, caller {found.caller}:"
            f" {found.rate:,.0f}/s, share {found.share or 0:.2f}, {found.cpu:.0f} µs,"
            f" errors {found.errors}"
        )
        figures.append(found)
    return figures


def summarize(
    database: str, side: Side, seen: list[Round], limit: list[Round], plain: list[Round]
) -> Figure:
    """Return the medians of a side, of its share of the limit and of the cost of its credential."""

    def median(value: Callable[[Round], float]) -> float:
        return statistics.median(map(value, seen))

    first = side.endpoint != DEPTH
    shares = [
        ours.run.rate / theirs.run.rate
        for ours, theirs in zip(seen, limit, strict=True)
        if theirs.run.rate
    ]
    added = [ours.cpu - other.cpu for ours, other in zip(seen, plain, strict=True)]
    return Figure(
        database=database,
        service=side.service,
        caller=side.caller,
        endpoint=side.endpoint,
        rounds=len(seen),
        share=statistics.median(shares or [0.0]) if first else None,
        rate=median(lambda each: each.run.rate),
        p50=median(lambda each: each.run.p50),
        p99=median(lambda each: each.run.p99),
        worst=max(each.run.worst for each in seen),
        cpu=median(lambda each: each.cpu),
        added=statistics.median(added) if first and side.caller != "none" else None,
        database_cpu=median(lambda each: each.database_cpu),
        errors=sum(each.run.errors for each in seen),
    )


def measure_fairness(
    options: Options, database: str, sides: Mapping[str, list[Side]]
) -> list[Fairness]:
    """Measure how evenly a service on a database serves its clients."""
    wanted: list[tuple[str, int, float]] = [
        (endpoint, int(clients), FAIR[int(clients)])
        for clients in options.only["clients"]
        for endpoint in FAIR_ENDPOINTS
    ]
    if database == "sqlite":
        wanted.append(("patch", WRITERS, FAIR[32]))
    seen = []
    for endpoint, clients, rounds in wanted:
        for side in sides.get(endpoint, ()):
            if (side.service, side.caller) not in FAIR_SERVICES.values():
                continue
            seconds = rounds * options.duration
            run = load(side.server.port, side.requests, clients, seconds, count=True)
            side.server.settle(side.requests[0])
            found = Fairness(
                database=database,
                service=side.service,
                caller=side.caller,
                endpoint=endpoint,
                connections=clients,
                least=min(run.per_client),
                mean=statistics.mean(run.per_client),
                most=max(run.per_client),
                p99=run.p99,
                worst=run.worst,
                errors=run.errors,
            )
            say(
                f"{database} {endpoint}, {side.service}, {clients} clients: {found.least} to"
                f" {found.most} responses each, worst wait {run.worst:.0f} ms"
            )
            seen.append(found)
    return seen


def measure(
    options: Options, report: Report, until: float, stage: Stage, store: Postgres | None
) -> None:
    """Measure the services on one database."""
    database = "postgresql" if store else "sqlite"
    resources = {
        resource: stage.sides(resource, options.only["endpoint"])
        for resource in options.only["resource"]
    }
    groups = [sides for by_endpoint in resources.values() for sides in by_endpoint.values()]
    for number, sides in enumerate(groups):
        left = sum(map(len, groups[number:])) * (options.duration + BETWEEN)
        affordable = int((until - time.monotonic()) / left) if until else options.rounds
        rounds = max(1, min(options.rounds, affordable))
        report.figures += compare(options, database, sides, rounds, store)
    for auth, server in {"none": stage.none, "users": stage.users, "limit": stage.limit}.items():
        report.memory.append(Memory(database, auth, server.memory()))
    for by_endpoint in resources.values():
        report.fairness += measure_fairness(options, database, by_endpoint)


def measure_starts(
    options: Options, report: Report, folder: Path, template: Path
) -> dict[str, dict[str, Project]]:
    """Measure how long rendering, installing and importing take."""
    projects: dict[str, dict[str, Project]] = {}
    for database in options.only["database"]:
        for auth in ("none", "users"):
            say(f"{database}, auth={auth}: rendering, installing")
            times = []
            for _ in range(1 if options.partial else STARTS):
                project, seconds = harness.render(folder, template, database, auth)
                times.append(seconds)
            report.seconds.setdefault("render", []).extend(times)
            if auth == "users" and not options.partial:
                target = folder / f"{database}-suite" / project.path.name
                pristine = Project(shutil.copytree(project.path, target), project.answers)
                install(pristine, "--quiet")
                say(f"{database}: the service's own tests")
                name = f"the service's own tests ({database})"
                report.seconds[name] = [harness.suite_seconds(pristine)]
            install(project, "--quiet", "--no-dev")
            if auth == "users":
                report.versions[database] = harness.versions(project)
                times = [
                    harness.import_seconds(project)
                    for _ in range(1 if options.quick else 1 + STARTS)
                ]
                # The first import compiles .pyc files.
                report.seconds[f"import of app.main ({database})"] = times[-STARTS:]
            harness.with_items(project)
            projects.setdefault(database, {})[auth] = project
    return projects


def run(options: Options, *, limited: bool) -> Report:
    """Run the chosen measurements, and clean up."""
    began = time.monotonic()
    report = Report(
        commit=harness.commit(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        cpus=os.cpu_count() or 1,
        pinned=harness.PINNED,
        rows=options.rows.count,
        duration=options.duration,
    )
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        databases = measure_starts(options, report, folder, harness.template_copy(folder))
        harness.pin(psutil.Process(), harness.CORES[:-1])
        for number, (database, projects) in enumerate(databases.items(), 1):
            store = None
            if database == "postgresql":
                store = Postgres.new(folder / "server")
                stack.callback(store.kill)
                report.postgresql = harness.postgresql_settings(store)
            say(f"{database}: filling with {options.rows.count:,} rows")
            urls = {
                auth: harness.made(project, folder, store) for auth, project in projects.items()
            }
            now = time.monotonic()
            # Divide the remaining time between this database and the next ones.
            until = now + (began + LATEST - now) / (len(databases) + 1 - number) if limited else 0
            with harness.staged(projects, urls, options.rows, options.settings) as stage:
                measure(options, report, until, stage, store)
    report.took = time.monotonic() - began
    return report


def parsed(arguments: list[str] | None = None) -> tuple[Options, Path | None, bool]:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, as a check")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME=VALUE[,VALUE]",
        help="; ".join(f"{name}: {', '.join(values)}" for name, values in CHOICES.items()),
    )
    parser.add_argument("--duration", type=float, help=f"seconds of a round ({DURATION:g})")
    parser.add_argument("--rounds", type=int, help=f"rounds of each side ({ROUNDS})")
    parser.add_argument("--rows", type=int, help="rows of each table (100,000)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the service"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    parser.add_argument("--publish", action="store_true", help="write the figures into docs/")
    given = parser.parse_args(arguments)

    only = dict(CHOICES)
    if given.quick:
        only["clients"] = ("32",)
    for text in given.only:
        name, _, chosen = text.partition("=")
        values = tuple(chosen.split(","))
        if name not in CHOICES or not set(values) <= set(CHOICES[name]):
            parser.error(f"--only {text}: see --help for the choices")
        only[name] = values
    options = Options(
        quick=given.quick,
        only=only,
        rounds=given.rounds or (1 if given.quick else ROUNDS),
        duration=given.duration or (0.1 if given.quick else DURATION),
        rows=Rows(given.rows or (2_000 if given.quick else 100_000)),
        settings=dict(text.split("=", 1) for text in given.set),
    )
    if given.publish and options.partial:
        parser.error("--publish requires a full run")
    if options.rows.count < 300:
        parser.error("--rows: use at least 300, so that the list has enough pages")
    if shutil.which("uv") is None:
        parser.error("uv is not on PATH: pip install uv")
    if WRK is None:
        parser.error("wrk is not on PATH: apt-get install wrk")
    return options, given.json, given.publish


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Measure, and print the report."""
    options, file, publish = parsed()
    # Handled as Ctrl-C, so that all started processes are stopped.
    signal.signal(signal.SIGTERM, _interrupt)
    usual = (options.rounds, options.duration) == (ROUNDS, DURATION)
    try:
        report = run(options, limited=usual and not options.partial)
    except KeyboardInterrupt:
        sys.exit(130)
    print(report.text())
    if file:
        file.write_text(report.json(), encoding="utf-8")
    if publish:
        report.publish()


if __name__ == "__main__":
    main()
