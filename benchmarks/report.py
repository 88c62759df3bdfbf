"""The figures of a run, as tables, JSON, a picture and docs/performance.md."""

import json
import statistics
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Final
from xml.sax.saxutils import escape

from testing.baking import ROOT

DOCS: Final = ROOT / "docs"
DOCUMENT: Final = DOCS / "performance.md"
PICTURE: Final = DOCS / "performance.svg"
MARKERS: Final = ("<!-- figures -->", "<!-- /figures -->")

SERIES: Final = {"flat": "a flat resource", "example": "the example: tasks with tags"}
"""The services whose shares the picture shows."""

SHOWN: Final = {"get": "GET one", "page": "GET page of 20", "post": "POST", "patch": "PATCH"}
"""The endpoints in the picture, which have goals."""

SHARES: Final = {
    "get": (0.17, 0.22),
    "page": (0.21, 0.28),
    "post": (0.17, 0.28),
    "patch": (0.15, 0.24),
}
"""The minimum and the goal of each share."""

BUSY: Final = "single requests on 32 connections"
EVERYTHING: Final = "everything, batches too"
"""The loads after which memory is measured."""


@dataclass(frozen=True)
class Side:
    """The figures of one side: medians of the rounds, times in milliseconds."""

    rate: float
    """Responses per second."""
    p50: float
    p99: float
    worst: float
    """The requests of all rounds."""
    errors: int
    """Responses other than 2xx, and requests without one, in all rounds."""
    cpu: float
    """Microseconds of processor time for a request."""


@dataclass(frozen=True)
class Compared:
    """The figures of the service and of the limit for the same requests."""

    database: str
    service: str
    endpoint: str
    connections: int
    rounds: int
    share: float
    """The throughput relative to the limit: the median over pairs of adjacent rounds."""
    ours: Side
    limit: Side


@dataclass(frozen=True)
class Fairness:
    """How evenly the service served its clients."""

    database: str
    service: str
    endpoint: str
    connections: int
    least: int
    mean: float
    most: int
    worst: float
    """The longest wait of any client, in milliseconds."""
    p99: float
    errors: int

    @property
    def spread(self) -> float:
        """Return the largest deviation of a client from the mean, as a share of it."""
        return max(self.mean - self.least, self.most - self.mean) / self.mean if self.mean else 1.0


@dataclass(frozen=True)
class Memory:
    """The memory of a worker after a load, in MiB."""

    database: str
    service: str
    after: str
    ours: float
    limit: float


@dataclass
class Report:
    """The figures of a run."""

    commit: str
    date: str
    cpus: int
    pinned: bool
    generator: str
    rows: int
    duration: float
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    postgresql: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Times of start-up and the like: by name, one for each repetition."""
    compared: list[Compared] = field(default_factory=list)
    fairness: list[Fairness] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    took: float = 0.0

    def json(self) -> str:
        """Return the figures as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def text(self) -> str:
        """Return the figures as readable tables."""
        return "\n".join([*self._head(), *(line for table in self._tables() for line in table)])

    def _head(self) -> list[str]:
        found = {name: value for each in self.versions.values() for name, value in each.items()}
        if server := self.postgresql.get("server_version"):
            found["PostgreSQL"] = server
        names = ", ".join(f"{name} {value}" for name, value in sorted(found.items()))
        where = "the server on one of its own" if self.pinned else "nobody on a core of its own"
        when = f"Measured on {self.date[:10]} at commit {self.commit or 'unknown'}"
        how = f"{self.rows:,} rows, rounds of {self.duration:g} s by {self.generator}"
        return [
            f"{when}, in {self.took / 60:.0f} minutes; {self.cpus} cores, {where}; {how}.",
            f"{names}.",
        ]

    def _tables(self) -> Iterable[list[str]]:
        yield _table("Promises", ["figure", "measured", "must", "goal"], self._promises())
        for database in dict.fromkeys(each.database for each in self.compared):
            for service in dict.fromkeys(each.service for each in self.compared):
                rows = [
                    _row(each)
                    for each in self.compared
                    if (each.database, each.service) == (database, service)
                ]
                yield _table(f"{_label(database)}, {service}: ours / the limit", _COLUMNS, rows)
        yield _table(
            "Answers for each client",
            ["", "clients", "least", "mean", "most", "worst wait", "errors"],
            [
                [
                    f"{_label(each.database)}, {each.service}, {each.endpoint}",
                    str(each.connections),
                    str(each.least),
                    f"{each.mean:.1f}",
                    str(each.most),
                    f"{each.worst:.0f} ms",
                    str(each.errors),
                ]
                for each in self.fairness
            ],
        )
        yield _table(
            "Memory of the worker after load",
            ["", "after", "ours", "the limit"],
            [
                [
                    f"{_label(each.database)}, {each.service}",
                    each.after,
                    f"{each.ours:.0f} MiB",
                    f"{each.limit:.0f} MiB",
                ]
                for each in self.memory
            ],
        )

    def _promises(self) -> list[list[str]]:
        return [
            *self._shares(),
            *self._fair(),
            *self._depth(),
            *self._memory(),
            *(
                [name, f"{statistics.median(values):.2f} s", *(bounds or ("", ""))]
                for name, values in self.seconds.items()
                for bounds in [_SECONDS.get(name.partition(" (")[0])]
            ),
        ]

    def _shares(self) -> Iterable[list[str]]:
        for each in self.compared:
            on_postgresql = each.database == "postgresql"
            if on_postgresql and each.connections == 32 and each.endpoint in SHARES:
                must, goal = SHARES[each.endpoint]
                name = f"share of the limit, {each.service}, {SHOWN[each.endpoint]}"
                bounds = [_share(must), _share(goal)] if each.service == "flat" else ["", ""]
                yield [name, _share(each.share), *bounds]

    def _fair(self) -> Iterable[list[str]]:
        for each in self.fairness:
            who = f"{_label(each.database)}, {each.service}, {each.endpoint}"
            if each.connections == 16:
                measured = f"{each.errors} errors, p99 {each.p99:.0f} ms"
                yield [f"16 writers, {who}", measured, "no error", "p99 50 ms"]
            elif each.connections == 32:
                measured = f"{each.worst:.0f} ms"
                yield [f"worst wait, 32 clients, {who}", measured, "200 ms", "100 ms"]
            else:
                measured = f"{each.spread:.0%}, {each.errors} errors"
                bounds = ["20 %, none", ""] if each.connections == 128 else ["", "20 %, none"]
                name = f"{each.connections} connections: furthest client from the mean, {who}"
                yield [name, measured, *bounds]

    def _depth(self) -> Iterable[list[str]]:
        found = {
            (each.database, each.service, each.connections, each.endpoint): each.ours.rate
            for each in self.compared
        }
        for (database, service, connections, endpoint), rate in found.items():
            first = found.get((database, service, connections, "page"))
            if endpoint == "depth" and connections == 32 and first and rate:
                name = f"depth {self.rows:,} against page 1, {_label(database)}, {service}"
                yield [name, f"{first / rate:.2f} times", "1.2", "1.1"]

    def _memory(self) -> Iterable[list[str]]:
        for each in self.memory:
            if each.after == BUSY:
                name = f"memory of one worker, loaded, {_label(each.database)}, {each.service}"
                yield [name, f"{each.ours:.0f} MiB", "85 MiB", "75 MiB"]

    def picture(self) -> str:
        """Draw the shares of the limit on PostgreSQL as bars."""
        found = {
            (each.service, each.endpoint): each.share
            for each in self.compared
            if (each.database, each.connections) == ("postgresql", 32)
        }
        shares = {
            name: tuple(found.get((service, endpoint), 0.0) for endpoint in SHOWN)
            for service, name in SERIES.items()
        }
        return _picture(shares, self.date[:10])

    def publish(self) -> None:
        """Write the figures into the documentation, in place of those there."""
        PICTURE.write_text(self.picture(), encoding="utf-8")
        before, found, rest = DOCUMENT.read_text(encoding="utf-8").partition(MARKERS[0])
        _, ended, after = rest.partition(MARKERS[1])
        if not found or not ended:
            sys.exit(f"{DOCUMENT.name} has no {MARKERS[0]} and {MARKERS[1]}")
        picture = f"![Shares of the limit on PostgreSQL]({PICTURE.name})"
        text = f"{MARKERS[0]}\n\n{picture}\n\n{self.text()}\n\n{MARKERS[1]}"
        DOCUMENT.write_text(before + text + after, encoding="utf-8")


_SECONDS: Final = {"import of app.main": ("0.5 s", "0.4 s"), "render": ("0.45 s", "0.36 s")}

_COLUMNS: Final = [
    *("endpoint", "connections", "share", "requests/s", "p50 ms", "p99 ms", "worst ms"),
    *("CPU µs", "errors"),
]


def _row(each: Compared) -> list[str]:
    ours, limit = each.ours, each.limit
    return [
        each.endpoint,
        str(each.connections),
        _share(each.share),
        f"{ours.rate:,.0f} / {limit.rate:,.0f}",
        f"{ours.p50:.1f} / {limit.p50:.1f}",
        f"{ours.p99:.1f} / {limit.p99:.1f}",
        f"{ours.worst:.0f} / {limit.worst:.0f}",
        f"{ours.cpu:.0f} / {limit.cpu:.0f}",
        f"{ours.errors} / {limit.errors}",
    ]


def _share(value: float) -> str:
    return f"{value:.2f}"


def _label(database: str) -> str:
    return {"postgresql": "PostgreSQL", "sqlite": "SQLite"}[database]


def _table(title: str, head: list[str], rows: list[list[str]]) -> list[str]:
    """Return an aligned Markdown table, or nothing if there are no rows."""
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Iterable[str]) -> str:
        padded = [
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * width if not number else "-" * (width - 1) + ":"
        for number, width in enumerate(widths)
    ]
    return ["", f"**{title}**", "", line(head), line(rule), *map(line, rows)]


_STYLE: Final = """
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .title { font-size: 15px; font-weight: 600 }
  .small { font-size: 11px; fill: #57606a }
  .value { font-size: 10px; text-anchor: middle }
  .group { text-anchor: middle; font-weight: 600 }
  .grid { stroke: #d0d7de }
  .s0 { fill: #0969da } .s1 { fill: #768089 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .small { fill: #9198a1 }
    .grid { stroke: #3d444d }
    .s0 { fill: #4493f8 } .s1 { fill: #929ba5 }
  }
"""


def _picture(shares: dict[str, tuple[float, ...]], date: str) -> str:
    width, height, left, right, top, bottom = 760, 343, 44, 744, 84, 286
    most = max(0.3, *(share for each in shares.values() for share in each))
    scale = (bottom - top) / (most * 1.08)
    bar, gap = 40, 5
    parts = []

    def text(x: float, y: float, words: str, style: str = "") -> None:
        parts.append(f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>')

    def box(series: int, x: float, y: float, wide: float, high: float) -> None:
        size = f'width="{wide:.1f}" height="{high:.1f}"'
        parts.append(f'<rect class="s{series}" x="{x:.1f}" y="{y:.1f}" {size} rx="2"/>')

    text(left, 24, "Share of the limit: raw ASGI over raw asyncpg = 1.00", "title")
    x = float(left)
    for series, name in enumerate(shares):
        box(series, x, 42, 11, 11)
        text(x + 16, 52, name)
        x += 40 + 6.4 * len(name)
    for tenth in range(int(most * 10) + 1):
        y = bottom - tenth / 10 * scale
        ends = f'x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"'
        parts.append(f'<line class="grid" {ends}/>')
        text(left - 30, y + 4, f"{tenth / 10:.1f}", "small")
    step = (right - left) / len(SHOWN)
    for group, label in enumerate(SHOWN.values()):
        middle = left + step * (group + 0.5)
        start = middle - (len(shares) * (bar + gap) - gap) / 2
        for series, each in enumerate(shares.values()):
            high = each[group] * scale
            at = start + series * (bar + gap)
            box(series, at, bottom - high, bar, high)
            text(at + bar / 2, bottom - high - 4, f"{each[group]:.2f}", "value")
        text(middle, bottom + 20, label, "group")
    setup = "PostgreSQL, one worker on one core, 32 connections, pools of 5 and 5"
    text(left, height - 13, f"{setup}; {date}.", "small")
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
    title = "<title>Requests per second, as a share of raw ASGI over raw asyncpg</title>"
    return "\n".join([head, title, f"<style>{_STYLE}</style>", *parts, "</svg>"]) + "\n"
