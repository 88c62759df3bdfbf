"""The security log: logins, refused requests and changes of access."""

import json
import logging
from contextvars import ContextVar
from typing import Final

from fastapi import Request
from opentelemetry.metrics import get_meter

from app.kit.caller import ANONYMOUS, Caller
from app.kit.db.session import after_commit
from app.kit.logs import REQUEST_ID

logger: Final = logging.getLogger("app.security")

_events: Final = get_meter("app.security").create_counter(
    "app.security.events", unit="{event}", description="Lines of the security log, by event."
)

current_request: ContextVar[Request | None] = ContextVar("current_request", default=None)


def security_event(
    event: str, *, user: object = None, level: int = logging.INFO, **fields: object
) -> None:
    """Write one line to the logger ``app.security``, whose fields no value can forge.

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
    text = json.dumps(told, default=str)

    def write() -> None:
        logger.log(level, "%s", text, extra={"told": told})
        _events.add(1, {"event": event})

    if request is None or level > logging.INFO:
        write()
    else:
        after_commit(request, write)
