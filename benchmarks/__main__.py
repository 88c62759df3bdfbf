"""``python -m benchmarks``: measure the rendered service beside what its database allows."""

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

from benchmarks import harness, load
from benchmarks.data import ENDPOINTS, SERVICES, Rows
from benchmarks.harness import Cores, Server
from benchmarks.load import Run
from benchmarks.report import BUSY, EVERYTHING, Compared, Fairness, Memory, Report, Side
from testing.baking import Project, install
from testing.postgres import Postgres

CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "database": ("postgresql", "sqlite"),
    "service": tuple(SERVICES),
    "endpoint": ENDPOINTS,
    "connections": ("32", "128", "512"),
}
"""What ``--only`` chooses from."""

ROUNDS: Final = {32: 3, 128: 2, 512: 1}
"""Rounds of each measurement; more of those that are compared with other figures."""

DURATION: Final = 2.0
"""Seconds of one round."""
WARM_UP: Final = 0.3
"""Seconds of load before the first round."""

FAIR: Final = {32: 1.5, 128: 2.5, 512: 4.0}
"""Rounds in which fairness is measured: each client must get enough responses to count."""
FAIR_ENDPOINTS: Final = ("get", "post")

LATEST: Final = 19 * 60.0
"""Seconds that a full run may take; on a slow machine it has fewer rounds."""
BETWEEN: Final = 0.4
"""Seconds between two rounds, roughly, in which one load generator ends and the next starts."""

STARTS: Final = 5
"""Repetitions of the measurements of start times."""


@dataclass(frozen=True)
class Options:
    """The options of the command line."""

    quick: bool
    only: Mapping[str, tuple[str, ...]]
    rounds: int | None
    duration: float
    rows: Rows
    settings: Mapping[str, str]
    wrk: str | None

    @property
    def partial(self) -> bool:
        """Whether some combinations are left out."""
        return self.quick or any(self.only[name] != every for name, every in CHOICES.items())

    @property
    def connections(self) -> list[int]:
        """Return the numbers of connections."""
        return [int(number) for number in self.only["connections"]]

    def rounds_of(self, connections: int) -> int:
        """Return the number of rounds."""
        return self.rounds or ROUNDS[connections]


class Pace:
    """Shortens the remaining rounds when the time limit would be exceeded."""

    def __init__(self, options: Options, began: float) -> None:
        """Plan the run; one with times from the command line has no limit."""
        self._left = [
            2 * (options.rounds_of(clients) * (options.duration + BETWEEN) + WARM_UP + BETWEEN)
            # The clients are counted once for all endpoints.
            + len(FAIR_ENDPOINTS) * (FAIR[clients] * options.duration + BETWEEN) / len(ENDPOINTS)
            for _ in options.only["database"]
            for _ in options.only["service"]
            for clients in options.connections
            for _ in options.only["endpoint"]
        ]
        usual = not options.partial and options.rounds is None and options.duration == DURATION
        self._until = began + LATEST if usual else float("inf")

    def behind(self) -> bool:
        """Count a step; return whether it has to be a short one."""
        late = time.monotonic() + sum(self._left) > self._until
        self._left.pop(0)
        return late


def say(text: str) -> None:
    """Print the progress."""
    print(text, file=sys.stderr, flush=True)


def generate(options: Options, server: Server, requests: Sequence[bytes], clients: int) -> Run:
    """Load a server."""
    if options.wrk:
        return load.wrk(options.wrk, server.port, requests, clients, options.duration)
    return load.counted(server.port, requests, clients, options.duration)


def warm_up(server: Server, requests: Sequence[bytes]) -> None:
    """Let a few clients warm up the connections and prepared statements of a server."""
    load.counted(server.port, requests, 32, WARM_UP)
    server.settle(requests[0])


def compare(
    options: Options,
    both: Mapping[str, Server],
    requests: Mapping[str, Sequence[bytes]],
    clients: int,
    rounds: int,
) -> tuple[float, dict[str, Side]]:
    """Load both sides in turn (A B, B A, A B), so that a drift of the machine affects both."""
    runs: dict[str, list[Run]] = {name: [] for name in both}
    costs: dict[str, list[float]] = {name: [] for name in both}
    for name, server in both.items():
        if not options.quick:  # that tells whether all works, not how fast it is
            warm_up(server, requests[name])
    for number in range(rounds):
        for name in list(both)[:: -1 if number % 2 else 1]:
            server = both[name]
            used = server.cpu()
            run = generate(options, server, requests[name], clients)
            used = server.cpu() - used
            server.settle(requests[name][0])
            runs[name].append(run)
            costs[name].append(1e6 * used / max(1, run.answers + run.errors))
    pairs = zip(runs["ours"], runs["limit"], strict=True)
    shares = [ours.rate / limit.rate for ours, limit in pairs if limit.rate]
    share = statistics.median(shares or [0.0])
    return share, {name: side(runs[name], costs[name]) for name in both}


def side(runs: list[Run], costs: list[float]) -> Side:
    """Return the medians of the rounds of one side."""

    def median(value: Callable[[Run], float]) -> float:
        return statistics.median(map(value, runs))

    return Side(
        rate=median(lambda run: run.rate),
        p50=median(lambda run: run.p50),
        p99=median(lambda run: run.p99),
        worst=max(run.worst for run in runs),
        errors=sum(run.errors for run in runs),
        cpu=statistics.median(costs),
    )


def watch(
    options: Options,
    stage: tuple[str, str],
    ours: Server,
    asks: Mapping[str, Mapping[str, Sequence[bytes]]],
) -> list[Fairness]:
    """Measure how evenly a service on a database serves its clients."""
    database, service = stage
    seen = []
    wanted: list[tuple[str, int, float]] = [
        (endpoint, clients, FAIR[clients])
        for clients in options.connections
        for endpoint in FAIR_ENDPOINTS
        if endpoint in options.only["endpoint"]
    ]
    if database == "sqlite" and "patch" in options.only["endpoint"]:
        wanted.append(("patch", 16, FAIR[32]))
    for endpoint, clients, rounds in wanted:
        requests = asks[endpoint]["ours"]
        warm_up(ours, requests)
        run = load.counted(ours.port, requests, clients, rounds * options.duration)
        ours.settle(requests[0])
        found = Fairness(
            database=database,
            service=service,
            endpoint=endpoint,
            connections=clients,
            least=min(run.per_client),
            mean=statistics.mean(run.per_client),
            most=max(run.per_client),
            worst=run.worst,
            p99=run.p99,
            errors=run.errors,
        )
        say(
            f"{database} {service} {endpoint}, {clients} clients: {found.least} to"
            f" {found.most} answers each, worst wait {run.worst:.0f} ms"
        )
        seen.append(found)
    return seen


def measure(
    options: Options,
    report: Report,
    pace: Pace,
    stage: tuple[Project, str, Cores],
    service: str,
) -> None:
    """Measure one service on one database."""
    project, url, cores = stage
    database = project.answers["database"]
    with harness.sides(project, cores, url, options.settings) as both:

        def remember(after: str) -> None:
            held = [server.memory() for server in both.values()]
            report.memory.append(Memory(database, service, after, *held))

        asks = harness.prepared(both, service, options.rows)
        for clients in options.connections:
            for endpoint in options.only["endpoint"]:
                if endpoint == "batch" and clients == 32:
                    remember(BUSY)
                rounds = 1 if pace.behind() else options.rounds_of(clients)
                share, sides = compare(options, both, asks[endpoint], clients, rounds)
                ours, limit = sides["ours"], sides["limit"]
                report.compared.append(
                    Compared(database, service, endpoint, clients, rounds, share, ours, limit)
                )
                say(
                    f"{database} {service} {endpoint}, {clients} connections: {ours.rate:,.0f}/s,"
                    f" limit {limit.rate:,.0f}/s, share {share:.2f}, errors {ours.errors}"
                )
        remember(EVERYTHING)
        report.fairness += watch(options, (database, service), both["ours"], asks)


def starts(options: Options, report: Report, folder: Path, template: Path) -> dict[str, Project]:
    """Measure how long rendering, installing and importing take."""
    projects = {}
    for database in options.only["database"]:
        say(f"{database}: rendering, installing")
        times = []
        for _ in range(1 if options.partial else STARTS):
            project, seconds = harness.render(folder, template, database)
            times.append(seconds)
        report.seconds.setdefault("render", []).extend(times)
        if not options.partial:
            pristine = Project(
                shutil.copytree(project.path, folder / f"{database}-suite" / project.path.name),
                project.answers,
            )
            install(pristine, "--quiet")
            say(f"{database}: the service's own tests")
            name = f"the service's own tests ({database})"
            report.seconds[name] = [harness.suite_seconds(pristine)]
        install(project, "--quiet", "--no-dev")
        report.versions[database] = harness.versions(project)
        harness.import_seconds(project)  # compiles
        report.seconds[f"import of app.main ({database})"] = [
            harness.import_seconds(project) for _ in range(1 if options.quick else STARTS)
        ]
        harness.with_items(project)
        projects[database] = project
    return projects


def run(options: Options) -> Report:
    """Run the chosen measurements, and clean up."""
    began = time.monotonic()
    cores = Cores()
    report = Report(
        commit=harness.commit(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        cpus=os.cpu_count() or 1,
        pinned=bool(cores.server),
        generator="wrk" if options.wrk else "our own generator (there is no wrk on PATH)",
        rows=options.rows.count,
        duration=options.duration,
    )
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        projects = starts(options, report, folder, harness.template_copy(folder))
        stack.enter_context(cores.pinned(cores.others))
        pace = Pace(options, began)
        for database, project in projects.items():
            say(f"{database}: filling with {options.rows.count:,} rows")
            if database == "postgresql":
                server = Postgres.new(folder / "server")
                stack.callback(server.kill)
                url = harness.postgresql_made(project, server, options.rows)
                report.postgresql = harness.postgresql_settings(server)
            else:
                url = harness.sqlite_made(project, folder / "bench.db", options.rows)
            for service in options.only["service"]:
                measure(options, report, pace, (project, url, cores), service)
    report.took = time.monotonic() - began
    return report


def parsed(arguments: list[str] | None = None) -> tuple[Options, Path | None, bool]:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few, short rounds: does it work?")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME=VALUE[,VALUE]",
        help="; ".join(f"{name}: {', '.join(values)}" for name, values in CHOICES.items()),
    )
    parser.add_argument("--duration", type=float, help=f"seconds of a round ({DURATION:g})")
    parser.add_argument("--rounds", type=int, help="rounds of each side")
    parser.add_argument("--rows", type=int, help="rows of each table (100,000)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the service"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here")
    parser.add_argument("--publish", action="store_true", help="write the figures into docs/")
    given = parser.parse_args(arguments)

    only = dict(CHOICES)
    if given.quick:
        only["connections"] = ("32",)
    for text in given.only:
        name, _, chosen = text.partition("=")
        values = tuple(chosen.split(","))
        if name not in CHOICES or not set(values) <= set(CHOICES[name]):
            parser.error(f"--only {text}: see --help for what there is")
        only[name] = values
    options = Options(
        quick=given.quick,
        only=only,
        rounds=given.rounds or (1 if given.quick else None),
        duration=given.duration or (0.2 if given.quick else DURATION),
        rows=Rows(given.rows or (2_000 if given.quick else 100_000)),
        settings=dict(text.split("=", 1) for text in given.set),
        wrk=shutil.which("wrk"),
    )
    if given.publish and options.partial:
        parser.error("--publish takes a full run")
    if options.rows.count < 300:
        parser.error("--rows: 300 at least, for a list has to have an end and a beginning")
    if shutil.which("uv") is None:
        parser.error("uv installs what is measured, and is not on PATH: pip install uv")
    return options, given.json, given.publish


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Measure, and print the report."""
    options, file, publish = parsed()
    # Handled as Ctrl-C, so that every process that was started is stopped.
    signal.signal(signal.SIGTERM, _interrupt)
    if not options.wrk:
        say("There is no wrk on PATH: our own generator takes its place, and more of the time.")
    try:
        report = run(options)
    except KeyboardInterrupt:
        sys.exit(130)
    print(report.text())
    if file:
        file.write_text(report.json(), encoding="utf-8")
    if publish:
        report.publish()


if __name__ == "__main__":
    main()
