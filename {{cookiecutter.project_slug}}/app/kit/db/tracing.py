"""OpenTelemetry spans of SQL statements: operation and table, never values."""

import re
from typing import Any, Final

from opentelemetry import trace
from sqlalchemy import ExceptionContext, event
from sqlalchemy.ext.asyncio import AsyncEngine

_SPAN: Final = "app_span"
_OPERATION: Final = re.compile(r"\w+")
_TABLE: Final = re.compile(r"\b(?:FROM|INTO|UPDATE)\s+\"?(\w+)")


def trace_statements(engine: AsyncEngine, pool: str) -> None:
    """Trace the statements of an engine, if the process has set up a tracer provider."""
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return  # none: listeners would cost 10 us for each statement
    tracer = trace.get_tracer("app.db")

    def begin(_connection: Any, _cursor: Any, sql: str, _values: Any, context: Any, _: Any) -> None:
        name, attributes = describe(sql)
        attributes |= {
            "db.system.name": engine.dialect.name,
            "db.client.connection.pool.name": pool,
        }
        span = tracer.start_span(name, kind=trace.SpanKind.CLIENT, attributes=attributes)
        setattr(context, _SPAN, span)

    def end(*arguments: Any) -> None:
        span: trace.Span = vars(arguments[4]).pop(_SPAN)
        span.end()

    def fail(context: ExceptionContext) -> None:
        known = vars(context.execution_context) if context.execution_context else {}
        span: trace.Span | None = known.pop(_SPAN, None)
        if span is not None:
            span.set_attribute("error.type", type(context.original_exception).__name__)
            span.set_status(trace.StatusCode.ERROR)
            span.end()

    event.listen(engine.sync_engine, "before_cursor_execute", begin)
    event.listen(engine.sync_engine, "after_cursor_execute", end)
    event.listen(engine.sync_engine, "handle_error", fail)


def describe(sql: str) -> tuple[str, dict[str, str]]:
    """Return the name of a span and its attributes: the operation and the first table."""
    words = _OPERATION.search(sql)
    operation = words[0].upper() if words else "SQL"
    if (found := _TABLE.search(sql)) is None:
        return operation, {"db.operation.name": operation}
    names = {"db.operation.name": operation, "db.collection.name": found[1]}
    return f"{operation} {found[1]}", names
