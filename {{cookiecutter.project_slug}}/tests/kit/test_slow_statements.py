"""Slow statements are logged, without values."""

import json
import logging
from typing import Any

import pytest
from httpx2 import AsyncClient
from sqlalchemy import bindparam, text
from sqlalchemy.exc import DBAPIError

from app.kit.db.engine import Database
from app.kit.db.slow import MAX_TYPES, parameter_types
from app.kit.logs import LineFormatter
from app.main import create_app
from tests import caller
from tests.conftest import running, settings_for
from tests.kit.serving import serving

ALL = 1e-9
"""A number of seconds that every statement takes."""


@pytest.fixture
def lines(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """Format what is captured as the service does."""
    monkeypatch.setattr(caplog.handler, "formatter", LineFormatter(console=False))
    return caplog


def slow(text: str) -> list[dict[str, Any]]:
    """Return the lines of slow statements."""
    found = [json.loads(line) for line in text.splitlines()]
    return [line for line in found if line["event"] == "Slow statement"]


async def test_slow_statements_of_a_request(live_url: str) -> None:
    async with serving(live_url, log_slow_statements=str(ALL)) as service:
        database = Database(settings_for(live_url))
        headers = await caller.credentials(database)
        await database.close()
        async with AsyncClient(base_url=service.url, headers=headers) as client:
            sent = {"title": "canary", "tags": ["canary-tag"]}
            created = await client.post("/v1/tasks", json=sent)
            assert created.status_code == 201
            path = created.headers["location"]
            await client.get(path, headers={"X-Request-ID": "mine"})
        await service.logged('"mine"', times=2)
    found = slow("".join(service.lines))
    writes = [line for line in found if line["route"] == "POST /v1/tasks"]
    (inserted,) = (line for line in writes if line["statement"].startswith("INSERT INTO tasks "))
    assert (inserted["pool"], inserted["level"]) == ("write", "warning")
    assert len(inserted["parameters"]) > 3
    reads = [line for line in found if line.get("request_id") == "mine"]
    assert {(line["pool"], line["route"]) for line in reads} == {
        ("read", "GET /v1/tasks/{task_id}")
    }
    assert any("FROM tasks" in line["statement"] for line in reads)
    assert all(line["duration_ms"] > 0 for line in found)
    assert "canary" not in "".join(service.lines)
    assert path.rpartition("/")[2] not in json.dumps(found)


async def test_failed_statements_are_logged(live_url: str, lines: pytest.LogCaptureFixture) -> None:
    app = create_app(settings_for(live_url, log_slow_statements=ALL))
    async with running(app):
        database: Database = app.state.database
        with pytest.raises(DBAPIError):
            async with database.transaction() as session:
                await session.execute(text("SELECT :canary FROM nowhere"), {"canary": "value"})
    found = [line for line in slow(lines.text) if "nowhere" in line["statement"]]
    assert [line["parameters"] for line in found] == [["str"]]
    assert found[0]["error"]
    assert found[0]["route"] is None
    assert "value" not in json.dumps(found)


@pytest.mark.parametrize("seconds", [0, 3600])
async def test_fast_statements_are_not_logged(
    live_url: str, lines: pytest.LogCaptureFixture, seconds: float
) -> None:
    lines.set_level(logging.INFO)
    app = create_app(settings_for(live_url, log_slow_statements=seconds))
    async with running(app):
        database: Database = app.state.database
        async with database.reading() as session:
            assert await session.scalar(select_one, {"one": 1}) == 1
        listeners = database.read_engine.sync_engine.dispatch.before_cursor_execute
        assert bool(listeners) is bool(seconds)
    assert slow(lines.text) == []


select_one = text("SELECT CAST(:one AS INTEGER)").bindparams(bindparam("one"))


def test_types_of_parameters() -> None:
    assert parameter_types(("a", 1, None)) == ["str", "int", "NoneType"]
    assert parameter_types({"a": "b", "c": 1.5}) == ["str", "float"]
    assert parameter_types([(1, "a"), (2, "b")]) == ["int", "str"]
    assert parameter_types([]) == parameter_types(()) == parameter_types(None) == []
    assert len(parameter_types((1,) * 1000)) == MAX_TYPES
