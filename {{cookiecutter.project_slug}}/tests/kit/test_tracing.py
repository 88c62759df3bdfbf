"""Spans of statements."""

import json
import logging
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.kit.db.engine import Database
from app.kit.db.session import ReadSessionDep, SessionDep
from app.kit.db.tracing import describe
from app.kit.logs import LineFormatter
from app.main import create_app
from tests.conftest import running, settings_for

COUNT = text("SELECT count(*) FROM alembic_version WHERE version_num <> :canary")


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Return what a process with a tracer provider exports."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


def finished(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    """Return the finished spans with a name."""
    return [span for span in exporter.get_finished_spans() if span.name == name]


async def test_a_statement_is_a_span_of_its_request(
    live_url: str,
    exporter: InMemorySpanExporter,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caplog.handler, "formatter", LineFormatter(console=False))
    caplog.set_level(logging.INFO, logger="app.access")
    app = create_app(settings_for(live_url))

    @app.get("/counted")
    async def read(session: ReadSessionDep) -> object:
        return await session.scalar(COUNT, {"canary": "canary"})

    @app.post("/counted")
    async def write(session: SessionDep) -> object:
        return await session.scalar(COUNT, {"canary": "canary"})

    async with running(app) as client:
        exporter.clear()
        for method, pool in (("GET", "read"), ("POST", "write")):
            assert (await client.request(method, "/counted")).status_code == 200
            (request,) = finished(exporter, f"{method} /counted")
            (statement,) = finished(exporter, "SELECT alembic_version")
            assert request.context is not None
            assert statement.parent is not None
            assert statement.parent.span_id == request.context.span_id
            line = json.loads(caplog.text.splitlines()[-1])
            assert line["trace_id"] == f"{request.context.trace_id:032x}"
            assert statement.kind == SpanKind.CLIENT
            attributes = dict(statement.attributes or {})
            assert attributes.pop("db.system.name") in {"postgresql", "sqlite"}
            assert attributes == {
                "db.operation.name": "SELECT",
                "db.collection.name": "alembic_version",
                "db.client.connection.pool.name": pool,
            }
            assert "canary" not in "".join(s.to_json() for s in exporter.get_finished_spans())
            # Neither dependencies nor serialization are spans.
            names = {span.name.split()[0] for span in exporter.get_finished_spans()}
            assert names <= {"GET", "POST", "SELECT", "BEGIN"}
            exporter.clear()


async def test_a_statement_that_fails(live_url: str, exporter: InMemorySpanExporter) -> None:
    database = Database(settings_for(live_url))
    with pytest.raises(DBAPIError):
        async with database.transaction() as session:
            await session.execute(text("SELECT :canary FROM nowhere"), {"canary": "canary"})
    await database.close()
    (span,) = finished(exporter, "SELECT nowhere")
    assert span.status.status_code == StatusCode.ERROR
    assert (span.attributes or {})["error.type"]
    assert "canary" not in span.to_json()


async def test_without_a_provider_nothing_listens(live_url: str) -> None:
    database = Database(settings_for(live_url))
    for engine in database.engines.values():
        assert not engine.sync_engine.dispatch.before_cursor_execute
    await database.close()


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("INSERT INTO things (id) VALUES (1)", "INSERT things"),
        ('UPDATE "things" SET x = 1', "UPDATE things"),
        ("DELETE FROM things", "DELETE things"),
        ("select 1", "SELECT"),
        ("WITH a AS (SELECT 1 FROM b) SELECT * FROM a", "WITH b"),
        ("", "SQL"),
    ],
)
def test_names_of_spans(sql: str, name: str) -> None:
    found, attributes = describe(sql)
    assert found == name
    assert attributes["db.operation.name"] == name.partition(" ")[0]
