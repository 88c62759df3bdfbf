"""The figures of a run, as tables, JSON, a chart and parts of the documentation."""

import json
import statistics
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import pygal
from pygal.style import Style

from testing.baking import ROOT

# pygal installs an import hook without find_spec, which Python 3.11 warns about at each import.
sys.meta_path[:] = [each for each in sys.meta_path if hasattr(each, "find_spec")]

DOCS: Final = ROOT / "docs"
DOCUMENT: Final = DOCS / "performance.md"
SIZING: Final = DOCS / "scaling.md"
PICTURE: Final = DOCS / "performance.svg"
MARKERS: Final = ("<!-- figures -->", "<!-- /figures -->")

ENDPOINTS: Final = {"get": "GET one", "page": "GET page of 20", "post": "POST", "patch": "PATCH"}
DATABASES: Final = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}
CALLERS: Final = {"token": "an access token", "key": "an API key"}

SERIES: Final = {
    ("rows", "none"): "a flat table, as rows of columns, no authentication",
    ("example", "none"): "the example, no authentication",
    ("example", "token"): "the example with an access token: the default render",
}
"""The services and callers in the chart."""

SHARES: Final = {
    "rows": ((0.22, 0.25), (0.23, 0.32), (0.19, 0.24), (0.21, 0.25)),
    "entities": ((0.16, 0.20), (0.17, 0.21), (0.17, 0.20), (0.16, 0.19)),
    "example": ((0.15, 0.18), (0.17, 0.20), (0.12, 0.15), (0.12, 0.15)),
}
"""The minimum and the goal of each share by endpoint, on PostgreSQL without authentication."""

SECONDS: Final = {
    "import of app.main (postgresql)": ("0.5 s", "0.4 s"),
    "import of app.main (sqlite)": ("0.5 s", "0.4 s"),
    "render": ("0.45 s", "0.36 s"),
    "the service's own tests (postgresql)": ("60 s", "35 s"),
    "the service's own tests (sqlite)": ("45 s", "25 s"),
}
"""The maximum and the goal of each time."""

POOLED: Final = {"postgresql": "11", "sqlite": "one file"}
"""Connections of one worker with default settings: two pools of five, and the readiness check."""


@dataclass(frozen=True)
class Figure:
    """The medians of the rounds of one kind of request; latencies are in milliseconds."""

    database: str
    service: str
    """``rows`` or ``entities`` of the flat table, ``example``, or a limit."""
    caller: str
    """The credential: ``none`` (a service without users), ``token`` or ``key``."""
    endpoint: str
    rounds: int
    share: float | None
    """The throughput relative to the limit, by adjacent rounds."""
    rate: float
    """Responses per second."""
    p50: float
    p99: float
    worst: float
    """The longest wait of all rounds."""
    cpu: float
    """CPU time of the worker for a request, in microseconds."""
    added: float | None
    """CPU time that the credential adds, by adjacent rounds."""
    database_cpu: float
    """CPU time of PostgreSQL for a request, in microseconds; 0 on SQLite."""
    errors: int
    """Responses other than 2xx, and requests without one, in all rounds."""


@dataclass(frozen=True)
class Fairness:
    """How evenly a service served its clients."""

    database: str
    service: str
    caller: str
    endpoint: str
    connections: int
    least: int
    mean: float
    most: int
    p99: float
    worst: float
    """The longest wait of any client, in milliseconds."""
    errors: int

    @property
    def spread(self) -> float:
        """Return the largest deviation of a client from the mean, as a share of it."""
        return max(self.mean - self.least, self.most - self.mean) / self.mean if self.mean else 1.0


@dataclass(frozen=True)
class Memory:
    """The memory of a worker after requests on 32 connections, in MiB."""

    database: str
    auth: str
    """``none`` or ``users`` for a service, or ``limit``."""
    size: float


@dataclass
class Report:
    """The figures of a run."""

    commit: str
    date: str
    cpus: int
    pinned: bool
    rows: int
    duration: float
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    postgresql: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Times of start-up and the like: by name, one for each repetition."""
    figures: list[Figure] = field(default_factory=list)
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
        cores = "the server on one of its own" if self.pinned else "no process on one of its own"
        when = f"Measured on {self.date[:10]} at commit {self.commit or 'unknown'}"
        rounds = f"{max((each.rounds for each in self.figures), default=0)} rounds"
        how = f"{self.cpus} cores, {cores}; {self.rows:,} rows; {rounds} of {self.duration:g} s"
        return [f"{when}, in {self.took / 60:.0f} minutes; {how}.", f"{names}."]

    def _tables(self) -> Iterable[list[str]]:
        yield table("Goals", ["figure", "measured", "must", "goal"], self._goals())
        for database in dict.fromkeys(each.database for each in self.figures):
            rows = [_row(each) for each in self.figures if each.database == database]
            yield table(f"{DATABASES[database]}, 32 connections", _COLUMNS, rows)
            rows = [
                [
                    *(f"{each.endpoint}, {each.service}", each.caller, str(each.connections)),
                    *(str(each.least), f"{each.mean:.1f}", str(each.most)),
                    *(f"{each.p99:.0f}", f"{each.worst:.0f}", str(each.errors)),
                ]
                for each in self.fairness
                if each.database == database
            ]
            yield table(f"{DATABASES[database]}, responses for each client", _FAIRNESS, rows)

    def _goals(self) -> Iterable[list[str]]:
        yield from self._shares()
        yield from self._added()
        for database in dict.fromkeys(each.database for each in self.fairness):
            yield from self._fair(database)
        yield from self._depth()
        for each in self.memory:
            if each.auth != "limit":
                name = f"memory of one worker, loaded, {DATABASES[each.database]}, {each.auth}"
                yield [name, f"{each.size:.0f} MiB", "85 MiB", "75 MiB"]
        for name, values in self.seconds.items():
            yield [name, f"{statistics.median(values):.2f} s", *SECONDS[name]]

    def _shares(self) -> Iterable[list[str]]:
        shares = {
            (each.service, each.caller, each.endpoint): each.share
            for each in self.figures
            if each.database == "postgresql"
        }
        for service, caller in (*((service, "none") for service in SHARES), ("example", "token")):
            for (endpoint, label), bounds in zip(ENDPOINTS.items(), SHARES[service], strict=True):
                share = shares.get((service, caller, endpoint))
                if share is not None:
                    name = f"share of the limit, {_way(service, caller)}, {label}"
                    limits = [f"{bound:.2f}" for bound in bounds] if caller == "none" else ["", ""]
                    yield [name, f"{share:.2f}", *limits]

    def _added(self) -> Iterable[list[str]]:
        for database, label in DATABASES.items():
            for caller, credential in CALLERS.items():
                found = [
                    each.added
                    for each in self.figures
                    if (each.database, each.caller) == (database, caller) and each.added is not None
                ]
                if found:
                    span = f"{min(found):.0f} to {max(found):.0f} µs"
                    name = f"CPU that {credential} adds to a request, {label}"
                    yield [name, span, "250 µs", "150 µs"]

    def _fair(self, database: str) -> Iterable[list[str]]:
        label = DATABASES[database]
        every = [each for each in self.fairness if each.database == database]
        for clients in dict.fromkeys(each.connections for each in every):
            seen = [each for each in every if each.connections == clients]
            errors = sum(each.errors for each in seen)
            if clients == 16:
                slowest = f"{errors} errors, p99 {max(each.p99 for each in seen):.0f} ms"
                yield [f"16 writers, {label}", slowest, "none, 60 ms", "40 ms"]
                continue
            spread = f"{errors} errors, {max(each.spread for each in seen):.0%}"
            if clients == 32:
                worst = f"{max(each.worst for each in seen):.0f} ms"
                yield [f"worst wait of 32 clients, {label}", worst, "100 ms", "60 ms"]
            name = f"{clients} clients: furthest from the mean, {label}"
            yield [name, spread, "none, 20%", "10%"]

    def _depth(self) -> Iterable[list[str]]:
        rates = {
            (each.database, each.service, each.caller, each.endpoint): each.rate
            for each in self.figures
        }
        for each in self.figures:
            first = rates.get((each.database, each.service, each.caller, "page"))
            if each.endpoint == "depth" and first and each.rate:
                name = f"depth {self.rows:,} against page 1, {DATABASES[each.database]}"
                yield [
                    f"{name}, {_way(each.service, each.caller)}",
                    f"{first / each.rate:.2f} times",
                    "1.1",
                    "1.05",
                ]

    def sizing(self) -> str:
        """Return the table of throughput and resources of one worker of the default render."""
        sizes = {each.database: each.size for each in self.memory if each.auth == "users"}
        head = ["", *ENDPOINTS.values(), "database connections", "memory"]
        rows = []
        for database, label in DATABASES.items():
            found = {
                each.endpoint: each
                for each in self.figures
                if (each.database, each.service, each.caller) == (database, "example", "token")
            }
            if not found.keys() >= ENDPOINTS.keys():
                continue
            served = [f"{found[endpoint].rate:,.0f}/s" for endpoint in ENDPOINTS]
            memory = f"{sizes.get(database, 0):.0f} MiB"
            rows.append([f"{label}: served by one worker", *served, POOLED[database], memory])
            times = [f"{found[endpoint].cpu:.0f} µs" for endpoint in ENDPOINTS]
            rows.append([f"{label}: CPU of the worker", *times, "", ""])
            if database == "postgresql":
                times = [f"{found[endpoint].database_cpu:.0f} µs" for endpoint in ENDPOINTS]
                rows.append([f"{label}: CPU of the database", *times, "", ""])
        date = f"Measured on {self.date[:10]} at commit {self.commit or 'unknown'}."
        return "\n".join([date, *table("", head, rows)])

    def picture(self) -> bytes:
        """Draw the shares of the limit on PostgreSQL as bars."""
        shares = {
            (each.service, each.caller, each.endpoint): each.share
            for each in self.figures
            if each.database == "postgresql"
        }
        chart = pygal.Bar(
            width=760,
            height=400,
            js=[],
            no_prefix=True,  # of its CSS, otherwise random
            css=["file://style.css", "file://graph.css", f"inline:{_DARK}"],
            style=_STYLE,
            title="Share of the limit: raw ASGI over raw asyncpg = 1.00",
            x_title=f"PostgreSQL, one worker on one core, 32 connections; {self.date[:10]}",
            x_labels=ENDPOINTS.values(),
            legend_at_bottom=True,
            legend_at_bottom_columns=1,
            show_y_guides=False,
            max_scale=4,
            print_values=True,
            print_values_position="top",
            formatter=lambda value: f"{value:.2f}",
        )
        for (service, caller), name in SERIES.items():
            chart.add(name, [shares.get((service, caller, endpoint)) for endpoint in ENDPOINTS])
        drawn: bytes = chart.render()
        return drawn

    def publish(self) -> None:
        """Write the figures into the documentation, replacing the previous ones."""
        picture = f"![Shares of the limit on PostgreSQL]({PICTURE.name})"
        for document, text in {
            DOCUMENT: f"{picture}\n\n{self.text()}",
            SIZING: self.sizing(),
        }.items():
            _replace(document, text)
        PICTURE.write_bytes(self.picture())


def _replace(document: Path, text: str) -> None:
    before, found, rest = document.read_text(encoding="utf-8").partition(MARKERS[0])
    _, ended, after = rest.partition(MARKERS[1])
    if not found or not ended:
        sys.exit(f"{document.name} has no {MARKERS[0]} and {MARKERS[1]}")
    whole = f"{before}{MARKERS[0]}\n\n{text}\n\n{MARKERS[1]}{after}"
    document.write_text(whole, encoding="utf-8")


_COLUMNS: Final = [
    *("endpoint, service", "caller", "requests/s", "share", "p50 ms", "p99 ms"),
    *("CPU µs", "added µs", "database µs", "errors"),
]
_FAIRNESS: Final = [
    *("endpoint, service", "caller", "clients", "least", "mean", "most", "p99 ms", "worst ms"),
    "errors",
]


def _way(service: str, caller: str) -> str:
    return service + (f" with a {caller}" if caller != "none" else "")


def _row(each: Figure) -> list[str]:
    def optional(value: float | None, places: int) -> str:
        return "" if value is None else f"{value:.{places}f}"

    return [
        f"{each.endpoint}, {each.service}",
        each.caller,
        f"{each.rate:,.0f}",
        optional(each.share, 2),
        f"{each.p50:.1f}",
        f"{each.p99:.1f}",
        f"{each.cpu:.0f}",
        optional(each.added, 0),
        f"{each.database_cpu:.0f}",
        str(each.errors),
    ]


def table(title: str, head: list[str], rows: Iterable[list[str]]) -> list[str]:
    """Return a Markdown table, or nothing if there are no rows."""
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    if not lines:
        return []
    rule = f"|{'|'.join(['---', *['---:'] * (len(head) - 1)])}|"
    return ["", *([f"**{title}**", ""] if title else []), f"| {' | '.join(head)} |", rule, *lines]


_FONT: Final = "system-ui, sans-serif"
_INK: Final = "#24292f"
_STYLE: Final = Style(
    background="transparent",
    plot_background="transparent",
    colors=("#0969da", "#8c959f", "#bf8700"),
    opacity=1,
    font_family=_FONT,
    title_font_family=_FONT,
    title_font_size=15,
    label_font_size=12,
    major_label_font_size=12,
    legend_font_size=12,
    value_font_size=10,
    value_label_font_size=10,
    foreground=_INK,
    foreground_strong=_INK,
    foreground_subtle="#57606a",
    value_colors=(_INK,) * 3,
)
_DARK: Final = """
@media (prefers-color-scheme: dark) {
  text, .title, .legends .legend text, .axis text { fill: #e6edf3 !important }
  .axis .guide.line, .axis .line { stroke: #9198a1 !important }
}
"""
