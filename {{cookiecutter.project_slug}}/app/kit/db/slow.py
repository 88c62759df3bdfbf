"""Slow statements in the log, with their route and the types of their parameters, never values."""

import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import ExceptionContext, event
from sqlalchemy.ext.asyncio import AsyncEngine

from app.kit.logs import current_scope, route_of

logger = logging.getLogger(__name__)

MAX_STATEMENT: Final = 5000
"""Characters of a statement that are logged."""
MAX_TYPES: Final = 50
"""Parameters whose types are logged."""

_STARTED: Final = "app_started"


def log_slow_statements(engine: AsyncEngine, pool: str, seconds: float) -> None:
    """Log the statements of an engine that take longer, also those that fail or time out."""

    def begin(
        _connection: Any, _cursor: Any, _sql: str, _values: Any, context: Any, _: Any
    ) -> None:
        setattr(context, _STARTED, time.perf_counter())

    def end(_connection: Any, _cursor: Any, sql: str, values: Any, context: Any, _: Any) -> None:
        report(sql, values, context)

    def fail(context: ExceptionContext) -> None:
        if context.statement is not None and context.execution_context is not None:
            error = type(context.original_exception).__name__
            report(context.statement, context.parameters, context.execution_context, error=error)

    def report(sql: str, values: Any, context: Any, **more: str) -> None:
        started = vars(context).pop(_STARTED, None)
        took = 0.0 if started is None else time.perf_counter() - started
        if took < seconds or started is None:
            return
        scope = current_scope.get()
        told = {
            "duration_ms": round(took * 1000, 2),
            "route": None if scope is None else f"{scope['method']} {route_of(scope)}",
            "pool": pool,
            "statement": sql[:MAX_STATEMENT],
            "parameters": parameter_types(values),
            **more,
        }
        logger.warning("Slow statement", extra={"told": told})

    event.listen(engine.sync_engine, "before_cursor_execute", begin)
    event.listen(engine.sync_engine, "after_cursor_execute", end)
    event.listen(engine.sync_engine, "handle_error", fail)


def parameter_types(values: Any) -> list[str]:
    """Return the types of the parameters of a statement, of the first row if there are several."""
    if isinstance(values, list):
        values = values[0] if values else ()
    if isinstance(values, Mapping):
        values = tuple(values.values())
    return [type(value).__name__ for value in (values or ())[:MAX_TYPES]]
