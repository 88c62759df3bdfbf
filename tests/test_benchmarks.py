"""The benchmarks run. These tests assert no speed."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree as ET

import psutil
import pytest

from benchmarks import harness, load, report
from benchmarks.__main__ import CHOICES, Round, parsed, summarize
from benchmarks.data import RESOURCES, http_request
from benchmarks.harness import Server, Side
from benchmarks.load import Run
from benchmarks.report import Fairness, Figure, Memory, Report
from testing.baking import ENVIRONMENTS, ROOT, Project, clean_environment, installed, succeeded
from testing.requirements import require
from testing.usage import just
from tests.conftest import Bake


@pytest.mark.slow
def test_a_quick_run_measures_every_endpoint(tmp_path: Path) -> None:
    require("wrk")
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
    measured = {
        (each["database"], each["service"], each["caller"], each["endpoint"])
        for each in figures["figures"]
    }
    services = [service for each in RESOURCES.values() for service in each]
    services += [f"limit of {resource}" for resource in RESOURCES]
    for database in CHOICES["database"]:
        for endpoint in CHOICES["endpoint"]:
            assert measured >= {(database, each, "none", endpoint) for each in services}
            assert (database, "example", "token", endpoint) in measured
        for endpoint in ("get", "post"):
            for caller in ("token", "key"):
                assert measured >= {
                    (database, each, caller, endpoint) for each in ("rows", "example")
                }
        assert (database, "example", "token", "depth") in measured
    assert {each["errors"] for each in figures["figures"]} == {0}
    assert {each["connections"] for each in figures["fairness"]} == {32, 16}
    assert figures["postgresql"]["fsync"] == figures["postgresql"]["synchronous_commit"] == "on"
    assert "**PostgreSQL, 32 connections**" in printed


@pytest.mark.slow
@pytest.mark.parametrize("database", CHOICES["database"])
def test_the_flat_resource_follows_the_template_rules(bake: Bake, database: str) -> None:
    with installed(bake(database=database, auth="none")) as project:
        harness.with_items(project)

        just(project, "lint")
        just(
            project,
            "test",
            "tests/test_smoke.py",
            "tests/kit/test_migrations.py",
            "-k",
            "head or match",
        )


def test_the_flat_resource_is_mounted(bake: Bake, tmp_path: Path) -> None:
    rendered = bake(database="sqlite", auth="users")
    for folder in ("app", "migrations"):
        shutil.copytree(rendered.path / folder, tmp_path / folder)
    project = Project(tmp_path, rendered.answers)

    harness.with_items(project)

    assert '    ("/v1", items),\n    ("/v1", tasks),\n' in project.text("app/api.py")
    assert (tmp_path / "app" / "items" / "router.py").exists()
    (revision,) = (tmp_path / "migrations" / "versions").glob("*_items.py")
    assert 'down_revision: str | Sequence[str] | None = "e3d8a5b17c20"' in revision.read_text(
        "utf-8"
    )
    assert not (tmp_path / "ruff.toml").exists()


@pytest.mark.parametrize(
    "arguments",
    ["--only database=oracle", "--only speed", "--publish --quick", "--rows 10"],
)
def test_invalid_options_are_refused(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(arguments.split())

    assert "error: --" in capsys.readouterr().err


def test_wrk_is_required(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.__main__.WRK", None)

    with pytest.raises(SystemExit):
        parsed([])

    assert "apt-get install wrk" in capsys.readouterr().err


class Counting(BaseHTTPRequestHandler):
    """Responds after the number of milliseconds in the path; refuses a POST."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        threading.Event().wait(int(self.path[1:]) / 1000)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.send_error(503)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class QuietServer(ThreadingHTTPServer):
    """A server that prints no errors: wrk closes connections in the middle of a response."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    """Serve ``Counting``."""
    with QuietServer(("127.0.0.1", 0), Counting) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server.server_port
        server.shutdown()


def test_each_client_is_counted(port: int) -> None:
    require("wrk")
    # The clients start at different requests, so some of them wait for the slow one.
    requests = [http_request("GET", f"/{delay}") for delay in (0, 0, 0, 0, 0, 0, 0, 100)]

    run = load.load(port, requests, 4, 1.5, count=True)

    assert len(run.per_client) == 4
    assert min(run.per_client) > 0
    assert abs(sum(run.per_client) - run.answers) <= 4
    assert run.errors == 0
    assert run.worst >= 100


def test_a_client_without_a_response_counts_as_waiting_all_the_time(port: int) -> None:
    require("wrk")

    run = load.load(port, [http_request("GET", "/60000")], 2, 0.3, count=True)

    assert run.per_client == (0, 0)
    assert run.answers == 0
    assert run.worst == 1000 * run.seconds > 0


def test_refused_requests_are_errors(port: int) -> None:
    require("wrk")

    run = load.load(port, [http_request("POST", "/0", {})], 2, 0.5)

    assert run.answers == 0
    assert run.errors > 0


def test_shares_and_differences_are_medians_of_adjacent_rounds() -> None:
    def rounds(*rates_and_cpu: tuple[int, float]) -> list[Round]:
        return [
            Round(Run(1.0, rate, 1, p50=1, p99=2, worst=3, per_client=(rate,)), cpu, 50)
            for rate, cpu in rates_and_cpu
        ]

    limit = rounds((1000, 100), (500, 200), (100, 1000))  # the machine becomes slower
    plain = rounds((250, 400), (125, 800), (25, 4000))
    signed_in = rounds((200, 500), (100, 1000), (10, 4150))
    side = Side("example", "token", "get", Server(psutil.Process(), 0), [])

    found = summarize("postgresql", side, signed_in, limit, plain)

    assert found.share == 0.2
    assert found.added == 150
    assert (found.rate, found.cpu, found.errors) == (100, 1000, 3)
    page = summarize("postgresql", replace(side, endpoint="depth"), signed_in, limit, plain)
    assert (page.share, page.added) == (None, None)


def figure(service: str, caller: str, endpoint: str) -> Figure:
    """Return made-up figures."""
    return Figure(
        database="postgresql",
        service=service,
        caller=caller,
        endpoint=endpoint,
        rounds=3,
        share=0.25,
        rate=100,
        p50=1,
        p99=2,
        worst=3,
        cpu=500,
        added=None if caller == "none" else 200,
        database_cpu=100,
        errors=0,
    )


@pytest.fixture
def made() -> Report:
    """Return a report with made-up figures."""
    fairness = Fairness("postgresql", "rows", "none", "get", 128, 9, 10, 12, 70, 80, 0)
    return Report(
        commit="0123456789ab",
        date="2026-11-20T00:00:00+00:00",
        cpus=2,
        pinned=True,
        rows=100_000,
        duration=2,
        seconds={"render": [0.3, 0.5, 0.4]},
        figures=[
            *(
                figure(service, caller, endpoint)
                for service, caller in (*report.SERIES, ("entities", "none"))
                for endpoint in CHOICES["endpoint"]
            ),
            replace(figure("example", "token", "depth"), share=None, added=None, rate=80),
            replace(figure("rows", "key", "get"), added=150),
            replace(figure("rows", "key", "post"), added=300),
        ],
        fairness=[fairness, replace(fairness, connections=32, endpoint="post", worst=44)],
        memory=[Memory("postgresql", "users", 70)],
    )


def test_a_report_names_its_targets(made: Report) -> None:
    text = made.text()

    assert "| share of the limit, rows, PATCH | 0.25 | 0.21 | 0.25 |" in text
    assert "| share of the limit, entities, GET one | 0.25 | 0.16 | 0.20 |" in text
    assert "| share of the limit, example, POST | 0.25 | 0.12 | 0.15 |" in text
    assert "| share of the limit, example with a token, POST | 0.25 |  |  |" in text
    assert "| CPU that an access token adds to a request, PostgreSQL | 200 to 200 µs |" in text
    assert "an API key adds to a request, PostgreSQL | 150 to 300 µs | 250 µs | 150 µs |" in text
    assert "| worst wait of 32 clients, PostgreSQL | 44 ms | 100 ms | 60 ms |" in text
    assert "128 clients: furthest from the mean, PostgreSQL | 0 errors, 20% | none, 20% |" in text
    depth = "| depth 100,000 against page 1, PostgreSQL, example with a token | 1.25 times | 1.1 |"
    assert depth in text
    assert "| memory of one worker, loaded, PostgreSQL, users | 70 MiB | 85 MiB | 75 MiB |" in text
    assert "| render | 0.40 s | 0.45 s | 0.36 s |" in text


def test_publishing_replaces_the_figures_only(
    made: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: tmp_path / name for name in ("DOCUMENT", "SIZING", "PICTURE")}
    for name, file in files.items():
        monkeypatch.setattr(report, name, file)
    start, end = report.MARKERS
    for name in ("DOCUMENT", "SIZING"):
        files[name].write_text(f"Before.\n{start}\nold\n{end}\nAfter.\n", encoding="utf-8")

    made.publish()
    once = {name: file.read_text(encoding="utf-8") for name, file in files.items()}
    made.publish()

    assert {name: file.read_text(encoding="utf-8") for name, file in files.items()} == once
    for name in ("DOCUMENT", "SIZING"):
        assert once[name].startswith("Before.\n")
        assert once[name].endswith("\nAfter.\n")
        assert "old" not in once[name]
    served = "| PostgreSQL: served by one worker | 100/s | 100/s | 100/s | 100/s | 11 | 70 MiB |"
    assert served in once["SIZING"]
    assert "| PostgreSQL: CPU of the database | 100 µs |" in once["SIZING"]
    assert "SQLite" not in once["SIZING"]  # not measured


def test_the_chart_has_a_bar_for_each_share(made: Report) -> None:
    drawn = ET.fromstring(made.picture())  # noqa: S314 - ours

    bars = drawn.findall(".//{*}g[@class='bar']/{*}rect")
    assert len(bars) == 3 * 4
    values = [text.text for text in drawn.findall(".//{*}text[@class='value']")]
    assert values.count("0.25") == 3 * 4
    words = {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert words >= set(report.ENDPOINTS.values())
    assert words >= set(report.SERIES.values())


@pytest.mark.parametrize("document", [report.DOCUMENT, report.SIZING])
def test_a_page_has_a_place_for_figures(document: Path) -> None:
    text = document.read_text(encoding="utf-8")

    assert text.index(report.MARKERS[0]) < text.index(report.MARKERS[1])
