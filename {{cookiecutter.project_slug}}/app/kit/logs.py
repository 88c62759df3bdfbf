"""Logs: one line for each record, as JSON or for a terminal, with the id of its request."""

import json
import logging
import os
import sys
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.config import dictConfig
from typing import Any, Final, Literal

import structlog
from opentelemetry.trace import get_current_span
from starlette.types import Scope
from structlog.typing import EventDict, Processor

LogFormat = Literal["auto", "console", "json"]
"""How lines are written; ``auto`` is ``console`` in a terminal, and ``json`` elsewhere."""

access: Final = logging.getLogger("app.access")

REQUEST_ID: Final = "app.request_id"
"""The name in the ASGI scope of the request's id: that of the client, or a new one."""
TRACE_ID: Final = "app.trace_id"
"""The name in the ASGI scope of the trace id in the header ``traceparent``."""

MAX_PATH: Final = 100
"""Characters of a path that is logged because no route matches."""

_HEAD: Final = {"time", "level", "logger", "event"}
_quoted: Final = json.encoder.encode_basestring_ascii

current_scope: ContextVar[Scope | None] = ContextVar("current_scope", default=None)
"""The ASGI scope of the request, also in the tasks that it starts."""

# `structlog.get_logger()` writes to the same lines as `logging`.
structlog.configure(
    processors=[
        structlog.stdlib.filter_by_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)


def request_id() -> str | None:
    """Return the id of the current request."""
    scope = current_scope.get()
    return None if scope is None else scope.get(REQUEST_ID)


def is_probe(path: str) -> bool:
    """Return whether a path is for probes: health checks and Prometheus."""
    return path.startswith("/health/") or path == "/metrics"


def route_of(scope: Scope) -> str | None:
    """Return the path of the request's route, such as ``/v1/users/{user_id}``, or None."""
    # FastAPI has no public name for a route with the prefix of its router.
    route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    return getattr(route, "path_format", None)


def trace_id(scope: Scope | None) -> str | None:
    """Return the trace id of the request's ``traceparent``, or else of the current span."""
    if scope is not None and TRACE_ID in scope:
        found: str = scope[TRACE_ID]
        return found
    span = get_current_span().get_span_context().trace_id
    return f"{span:032x}" if span else None


def log_request(scope: Scope, status: int | None, size: int, seconds: float) -> None:
    """Write the line of a request to the logger ``app.access``, of a usual probe at debug.

    Args:
        scope: the ASGI scope.
        status: the status of the response; None if there was none.
        size: the bytes of the response's body.
        seconds: the time until the response was complete.
    """
    path: str = scope["path"]
    succeeded = status is not None and (status < 400 or status == 503)  # noqa: PLR2004
    level = logging.DEBUG if is_probe(path) and succeeded else logging.INFO
    if not access.isEnabledFor(level):
        return
    method, route, client = scope["method"], route_of(scope), scope.get("client")
    caller = scope.get("state", {}).get("caller")
    # Each text is escaped here: a JSON encoder takes twice as long for the whole.
    line = (
        f'{{"time": "{datetime.now(UTC).isoformat(timespec="microseconds")[:-6]}Z", '
        f'"level": "{"info" if level == logging.INFO else "debug"}", '
        f'"logger": "app.access", "event": "request", "method": {_quoted(method)}, '
        f'"route": {"null" if route is None else _quoted(route)}, '
        f'"status": {"null" if status is None else status}, '
        f'"duration_ms": {seconds * 1000:.2f}, "bytes": {0 if method == "HEAD" else size}, '
        f'"address": {_quoted(client[0]) if client else "null"}, '
        f'"request_id": {_quoted(scope[REQUEST_ID])}'
    )
    if route is None:
        line += f', "path": {_quoted(path[:MAX_PATH])}'
    if (trace := trace_id(scope)) is not None:
        line += f', "trace_id": {_quoted(trace)}'
    if caller is not None and caller.id is not None:
        line += f', "user": "{caller.id}"'
    line += "}"
    if not (access.handlers or access.filters) and _write_directly(line):
        return
    record = logging.LogRecord(access.name, level, "", 0, "request", None, None)
    record.told = {name: value for name, value in json.loads(line).items() if name not in _HEAD}
    access.handle(record)


def _write_directly(line: str) -> bool:
    """Write a line if all records are written as JSON: a record would cost three times as much."""
    match logging.root.handlers:
        case [
            logging.StreamHandler(
                formatter=LineFormatter(console=False), stream=stream, filters=[], level=0
            )
        ]:
            with suppress(OSError):
                os.write(stream.fileno(), f"{line}\n".encode())
            return True
        case _:
            return False


class LineFormatter(structlog.stdlib.ProcessorFormatter):
    """Formats the records of every library as one line each."""

    def __init__(self, *, console: bool, colors: bool = False) -> None:
        """Format for a terminal if ``console``, else as JSON."""
        self.console = console
        render: list[Processor] = [structlog.processors.JSONRenderer(default=str)]
        if console:
            # Already formatted above, without the values of variables, which may be secret.
            trace = structlog.dev.plain_traceback
            renderer = structlog.dev.ConsoleRenderer(
                colors=colors, exception_formatter=trace, timestamp_key="time"
            )
            render = [_for_terminal, renderer]
        super().__init__(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.add_logger_name,
                _flatten,
                structlog.contextvars.merge_contextvars,
                _add_request,
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                *render,
            ],
        )


def _flatten(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Replace ``told`` by the fields in it; remove what other formatters add or need."""
    for name in ("asctime", "color_message", "message"):
        event.pop(name, None)
    if event["logger"] == "uvicorn.error":  # the name of all its messages
        event["logger"] = "uvicorn"
    event.update(event.pop("told", {}))
    return event


def _add_request(_logger: object, _method: str, event: EventDict) -> EventDict:
    scope = current_scope.get()
    if scope is not None:
        event.setdefault("request_id", scope.get(REQUEST_ID))
    if (trace := trace_id(scope)) is not None:
        event.setdefault("trace_id", trace)
    return event


def _for_terminal(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Escape what a client's text could do to a terminal, or to look like another line."""
    if event["logger"] == access.name:
        names = ("method", "path" if event["route"] is None else "route", "status")
        event["event"] = " ".join(str(event.pop(name)) for name in names)
        event.pop("route", None)
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = "\n    ".join(_escaped(line) for line in value.split("\n"))
    return event


def _escaped(text: str) -> str:
    return text if text.isprintable() else ascii(text)[1:-1]


def configure(level: str, form: LogFormat) -> None:
    """Configure all loggers of a command, unless its process has configured logging."""
    if not logging.root.handlers:
        dictConfig(log_config(level, form))


def log_config(level: str, form: LogFormat) -> dict[str, Any]:
    """Return the configuration of all loggers, for ``logging.config.dictConfig``.

    Loggers of other libraries log warnings only.
    """
    is_terminal = sys.stderr.isatty()
    formatter: dict[str, Any] = {
        "()": LineFormatter,
        "console": form == "console" or (form == "auto" and is_terminal),
        "colors": is_terminal and "NO_COLOR" not in os.environ,
    }
    own = level.upper()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": formatter},
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "line"},
            "null": {"class": "logging.NullHandler"},
        },
        "root": {"handlers": ["stderr"], "level": "ERROR" if own == "ERROR" else "WARNING"},
        "loggers": {
            "alembic": {"level": "INFO"},
            "alembic.runtime.plugins": {"level": "WARNING"},
            "app": {"level": own},
            "python_multipart": {"level": "ERROR"},  # less about bad requests
            # Without a handler, SQLAlchemy would add one of its own for DATABASE_ECHO.
            "sqlalchemy.engine.Engine": {"handlers": ["null"]},
            "uvicorn": {"level": own},
        },
    }
