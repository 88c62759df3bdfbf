"""The security log: logins, refused requests and changes of access."""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from fastapi import Request

from app.kit.caller import ANONYMOUS, Caller
from app.kit.db.session import after_commit
from app.kit.errors import REQUEST_ID

logger: Final = logging.getLogger("app.security")

current_request: ContextVar[Request | None] = ContextVar("current_request", default=None)


def security_event(
    event: str, *, user: object = None, level: int = logging.INFO, **fields: object
) -> None:
    """Write one line to the logger ``app.security``, as JSON, so that no value can forge another.

    In a request with an open transaction, the line is written after the commit, and not at all if
    that fails. Lines at level warning, which are about refusals, are written at once.

    Args:
        event: what happened, such as ``signed_in``.
        user: the id of the affected user; the caller by default.
        level: the level of the line.
        **fields: more fields: ids and names, never a secret.
    """
    line: dict[str, object] = {"event": event, "user": user}
    request = current_request.get()
    if request is not None:
        caller: Caller = getattr(request.state, "caller", ANONYMOUS)
        line["user"] = user or caller.id
        line["address"] = request.client.host if request.client else None
        line["request_id"] = request.scope.get(REQUEST_ID)
        if user and caller.id and caller.id != user:
            line["caller"] = caller.id
    told = {name: value for name, value in (line | fields).items() if value is not None}
    write = partial(logger.log, level, "%s", json.dumps(told, default=str), extra={"told": told})
    if request is None or level > logging.INFO:
        write()
    else:
        after_commit(request, write)


class JSONFormatter(logging.Formatter):
    """Formats an event as one line of JSON, with its time in UTC and its level."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told = getattr(record, "told", {"event": record.getMessage()})
        return json.dumps({"time": time, "level": record.levelname.lower(), **told}, default=str)


def log_config(level: str) -> dict[str, Any]:
    """Return the configuration of the security log, for ``logging.config.dictConfig``."""
    handler = {"class": "logging.StreamHandler", "formatter": "security"}
    own = {"handlers": ["security"], "level": level, "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"security": {"()": JSONFormatter}},
        "handlers": {"security": handler},
        "loggers": {logger.name: own},
    }
