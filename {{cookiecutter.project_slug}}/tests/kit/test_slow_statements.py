"""Slow statements are logged, without values."""

import json
import logging
from typing import Any

import pytest
from sqlalchemy import bindparam, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError

from app.kit.db.engine import Database
from app.kit.db.session import ReadSessionDep, SessionDep
from app.kit.db.slow import MAX_TYPES, parameter_types
from app.kit.logs import LineFormatter
from app.main import create_app
from tests.conftest import running, settings_for

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


async def test_slow_statements_of_a_request(live_url: str, lines: pytest.LogCaptureFixture) -> None:
    app = create_app(settings_for(live_url, log_slow_statements=ALL))

    @app.get("/slow/{name}")
    async def read(session: ReadSessionDep, name: str) -> object:
        return await session.scalar(select_one, {"one": len(name)})

    @app.post("/slow/{name}")
    async def write(session: SessionDep, name: str) -> object:
        return await session.scalar(select_one, {"one": len(name)})

    async with running(app) as client:
        headers = {"X-Request-ID": "mine"}
        assert (await client.get("/slow/canary", headers=headers)).json() == 6
        assert (await client.post("/slow/canary", headers=headers)).json() == 6
    found = [line for line in slow(lines.text) if "CAST" in line["statement"]]
    assert [(line["pool"], line["route"]) for line in found] == [
        ("read", "GET /slow/{name}"),
        ("write", "POST /slow/{name}"),
    ]
    for line in found:
        assert line["duration_ms"] > 0
        assert (line["level"], line["request_id"]) == ("warning", "mine")
        assert line["parameters"] == ["int"]
        assert "6" not in line["statement"]


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


async def test_refused_statements_are_logged(
    live_url: str, lines: pytest.LogCaptureFixture
) -> None:
    # The driver raises an error of its own for this one, as for a statement that takes too long.
    app = create_app(settings_for(live_url, log_slow_statements=ALL))
    async with running(app):
        database: Database = app.state.database
        with pytest.raises(InvalidRequestError):
            async with database.reading() as session:
                await session.execute(text("DELETE FROM alembic_version"))
    (found,) = [line for line in slow(lines.text) if "DELETE" in line["statement"]]
    assert found["error"]


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
