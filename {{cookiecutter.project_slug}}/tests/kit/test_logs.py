"""Logs: one line for each record and each request, which clients can't forge."""

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from httpx2 import AsyncClient

from app.kit import project
from app.kit.caller import Caller
from app.kit.logs import (
    REQUEST_ID,
    TRACE_ID,
    LineFormatter,
    access,
    current_scope,
    log_config,
    log_request,
)
from app.kit.routing import Router
from app.main import create_app
from app.settings import Settings
from tests.conftest import environment_for, problem, running, settings_for
from tests.kit.serving import Service, serving

EVIL = 'evil" \r\n{"level": "forged"}\x1b[2J\x00\u2028\u202e\ud800'
TRACE = "0af7651916cd43dd8448eb211c80319c"

log = structlog.get_logger("app.tests")


def requests(service: Service) -> list[dict[str, Any]]:
    """Return the lines of requests that a service has logged; every line is JSON."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in service.lines]
    assert all({"time", "level", "logger", "event"} <= line.keys() for line in lines)
    return [line for line in lines if line["logger"] == "app.access"]


@pytest.fixture
def lines(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """Format what is captured as the service does."""
    monkeypatch.setattr(caplog.handler, "formatter", LineFormatter(console=False))
    caplog.set_level(logging.INFO, logger="app")
    return caplog


def parsed(caplog: pytest.LogCaptureFixture, logger: str) -> list[dict[str, Any]]:
    """Return the captured lines of a logger."""
    found = [json.loads(line) for line in caplog.text.splitlines()]
    return [line for line in found if line["logger"] == logger]


async def test_each_request_has_one_line(live_url: str) -> None:
    async with serving(live_url, database_echo="true", log_level="debug") as service:
        async with AsyncClient(base_url=service.url) as client:
            sent = {"X-Request-ID": "mine", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
            ready = await client.get("/health/ready", headers=sent)
            head = await client.head("/health/live", headers={"Authorization": "canary"})
            nowhere = await client.get(
                f"/{'x' * 200}%0a?canary=canary", headers={"traceparent": "00-x-y"}
            )
        await service.logged('"request"', times=3)
    first, second, third = requests(service)
    assert (first["method"], first["route"], first["level"]) == ("GET", "/health/ready", "debug")
    assert first["status"] == ready.status_code == 200
    assert first["bytes"] == len(ready.content)
    assert first["address"] == "127.0.0.1"
    assert first["request_id"] == ready.headers["x-request-id"] == "mine"
    assert first["trace_id"] == TRACE
    assert first["duration_ms"] > 0
    assert "user" not in first
    assert (second["method"], second["status"], second["bytes"]) == ("HEAD", 200, 0)
    assert second["request_id"] == head.headers["x-request-id"]
    assert (third["route"], third["level"]) == (None, "info")
    assert third["path"] == f"/{'x' * 99}"
    assert third["request_id"] == problem(nowhere, 404)["request_id"]
    assert "trace_id" not in third
    everything = [json.loads(line) for line in service.lines]
    statements = [line for line in everything if line["logger"] == "sqlalchemy.engine.Engine"]
    assert any("alembic_version" in line["event"] for line in statements)
    assert {"uvicorn", "app.access"} < {line["logger"] for line in everything}
    assert "canary" not in "".join(service.lines)


async def test_the_route_of_a_line_is_a_template(
    live_app: FastAPI, lines: pytest.LogCaptureFixture
) -> None:
    inner = Router(prefix="/parts")

    @inner.get("/{part}")
    async def get_part(part: str) -> str:
        return part

    outer = Router(prefix="/things/{thing}")
    outer.include_router(inner)
    live_app.include_router(outer, prefix="/v9")
    async with running(live_app) as client:
        await client.get("/v9/things/canary/parts/canary")
    (line,) = parsed(lines, "app.access")
    assert line["route"] == "/v9/things/{thing}/parts/{part}"
    assert "path" not in line


async def test_the_level_and_the_form_are_settings(live_url: str) -> None:
    async with serving(live_url, log_level="debug", log_format="console") as service:
        async with AsyncClient(base_url=service.url) as client:
            await client.get("/health/live")
        await service.logged("GET /health/live 200")
    assert not any(line.startswith("{") for line in service.lines)


async def test_requests_have_no_line_at_warning(
    live_app: FastAPI, lines: pytest.LogCaptureFixture
) -> None:
    lines.set_level(logging.WARNING, logger="app")
    async with running(live_app) as client:
        await client.get("/nowhere")
    assert parsed(lines, "app.access") == []


@pytest.mark.parametrize("command", [("current",), ("upgrade", "head")])
async def test_alembic_writes_the_same_form(live_url: str, command: tuple[str, ...]) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "alembic", *command),
        cwd=project.ROOT,
        env=environment_for(live_url) | {"PYTHONPATH": "."},
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 0
    lines = [json.loads(line) for line in errors.decode().splitlines()]
    assert lines
    assert all(line["logger"].startswith("alembic.") for line in lines)


async def test_background_work_has_the_request_id(
    live_url: str, lines: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings_for(live_url))
    ended = asyncio.Event()

    async def later() -> None:
        log.info("in a task", values=(1, 2))
        ended.set()

    @app.get("/background")
    async def start(background: BackgroundTasks) -> None:
        background.add_task(log.info, "in the background")
        logging.getLogger("app.tests").warning("in %s", "the route", extra={"kind": "extra"})
        app.state.task = asyncio.create_task(later())

    async with running(app) as client:
        await client.get("/background", headers={"X-Request-ID": "mine"})
        await ended.wait()
    found = parsed(lines, "app.tests")
    assert {line["event"] for line in found} == {
        "in a task",
        "in the background",
        "in the route",
    }
    assert all(line["request_id"] == "mine" for line in found)
    assert [line.get("kind") for line in found if line["level"] == "warning"] == ["extra"]
    assert current_scope.get() is None


async def test_a_defect_is_logged_with_its_trace_and_its_request(
    live_url: str, lines: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings_for(live_url))

    @app.get("/defect")
    async def defect() -> None:
        raise ZeroDivisionError("1\n2")

    async with running(app) as client:
        document = problem(await client.get("/defect"), 500)
    (line,) = parsed(lines, "app.kit.errors")
    assert line["request_id"] == document["request_id"]
    assert "ZeroDivisionError" in line["exception"]
    (request,) = parsed(lines, "app.access")
    assert (request["status"], request["route"]) == (500, "/defect")


async def test_an_incomplete_response_has_a_line(
    live_app: FastAPI, lines: pytest.LogCaptureFixture
) -> None:
    async def stream() -> Any:
        yield b"12345"
        raise ZeroDivisionError

    @live_app.get("/stream")
    async def start() -> Any:
        return StreamingResponse(stream())

    async with running(live_app) as client:
        with pytest.raises(ZeroDivisionError):
            await client.get("/stream")
    (line,) = parsed(lines, "app.access")
    assert (line["status"], line["bytes"], line["route"]) == (200, 5, "/stream")


def record(message: str, *, name: str = "app.tests", **extra: Any) -> logging.LogRecord:
    """Return a record at level warning."""
    made = logging.LogRecord(name, logging.WARNING, "", 0, message, None, None)
    vars(made).update(extra)
    return made


@pytest.mark.parametrize("console", [False, True])
def test_no_value_can_forge_a_line(*, console: bool) -> None:
    formatter = LineFormatter(console=console)
    fields = {"method": "GET", "route": None, "status": 404, "path": EVIL, "request_id": "x"}
    error = ValueError(EVIL)
    failed = record("failed", exc_info=(type(error), error, None))
    for each in (
        record(EVIL),
        record("x", value=EVIL),
        record("request", name="app.access", told=fields),
        record("x", told={"event": "refused", "address": EVIL}),
        failed,
    ):
        text = formatter.format(each)
        first, *more = text.splitlines()
        assert "\x1b" not in text
        assert "\u202e" not in text
        if console:
            assert "warning" in first
            assert all(line.startswith("    ") or each is failed for line in more)
            assert not any(line.startswith("{") for line in more)
        else:
            assert more == []
            assert json.loads(text)["level"] == "warning"


def test_a_trace_shows_no_local_variables() -> None:
    secret = "canary"  # noqa: S105 - no trace may show it

    def fail() -> None:
        raise ValueError(len(secret))

    with pytest.raises(ValueError, match="6") as raised:
        fail()
    for console in (False, True):
        failed = record("failed", exc_info=(raised.type, raised.value, raised.tb))
        text = LineFormatter(console=console).format(failed)
        assert "in fail" in text
        assert "ValueError: 6" in text
        assert 'secret = "canary"' not in text
        assert "canary" not in text


class Production:
    """The logging of a process whose only handler writes JSON."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.monkeypatch = monkeypatch

    def request(self, *, direct: bool = True, **changes: Any) -> dict[str, Any]:
        """Write the line of a request, without a log record if ``direct``, and return it."""
        scope: dict[str, Any] = {
            "method": "GET",
            "path": "/things",
            "client": ("192.0.2.1", 1),
            "state": {"caller": Caller(UUID(int=1))},
            REQUEST_ID: "mine",
            TRACE_ID: TRACE,
        }
        with self.path.open("w") as stream, self.monkeypatch.context() as patch:
            handler = logging.StreamHandler(stream)
            handler.setFormatter(LineFormatter(console=False))
            patch.setattr(logging.root, "handlers", [handler])
            patch.setattr(access, "handlers", [] if direct else [logging.NullHandler()])
            patch.setattr(access, "isEnabledFor", lambda _: True)
            if direct:
                patch.setattr(logging, "LogRecord", None)
            log_request(scope | changes, 200, 5, 0.0123456)
        (text,) = self.path.read_text().splitlines()
        line: dict[str, Any] = json.loads(text)
        return line


@pytest.fixture
def production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Production:
    """Return logging as in production."""
    return Production(tmp_path / "log", monkeypatch)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"route": APIRoute("/things/{name}", lambda: None)},
        {"method": "HEAD", "state": {}, "client": None},
        {"path": EVIL, "method": EVIL, "client": (EVIL, 1)},
        {"path": "/health/live"},
    ],
)
def test_other_handlers_get_the_same_line(production: Production, changes: dict[str, Any]) -> None:
    written = production.request(**changes)
    handled = production.request(**changes, direct=False)
    assert written.pop("time") <= handled.pop("time")
    assert written == handled
    assert written["duration_ms"] == 12.35


class _Terminal:
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_readable_lines_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not log_config("info", "auto")["formatters"]["line"]["console"]
    monkeypatch.setattr(sys, "stderr", _Terminal())
    monkeypatch.delenv("NO_COLOR", raising=False)
    line = log_config("info", "auto")["formatters"]["line"]
    assert (line["console"], line["colors"]) == (True, True)
    assert not log_config("info", "json")["formatters"]["line"]["console"]
    assert "\x1b[" in LineFormatter(console=True, colors=True).format(record("Hello"))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not log_config("info", "auto")["formatters"]["line"]["colors"]


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_other_libraries_log_warnings_only(level: str) -> None:
    assert level in str(Settings.model_fields["log_level"].annotation)
    config = log_config(level, "json")
    assert config["loggers"]["app"]["level"] == level.upper()
    assert config["root"]["level"] == ("ERROR" if level == "error" else "WARNING")
