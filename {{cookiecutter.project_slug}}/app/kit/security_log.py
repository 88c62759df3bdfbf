"""The security log: who signed in, who was refused, and what changed about access."""

import json
import logging
import re
from contextvars import ContextVar
from typing import Final

from fastapi import Request

from app.kit.caller import ANONYMOUS, Caller

logger: Final = logging.getLogger("app.security")

current_request: ContextVar[Request | None] = ContextVar("current_request", default=None)

_REQUEST_ID: Final = re.compile(r"[\w.:-]{1,100}", re.ASCII)


async def bind_request(request: Request) -> None:
    """Dependency of a router: what its routes call knows the request."""
    current_request.set(request)


def security_event(
    event: str, *, user: object = None, level: int = logging.INFO, **fields: object
) -> None:
    """Write one line to the logger ``app.security``, as JSON, so that no value can forge another.

    Args:
        event: what happened, such as ``signed_in``.
        user: the id of the user that it is about; the caller by default.
        level: the level of the line.
        **fields: what else to tell: ids and names of fields, never a secret.
    """
    line: dict[str, object] = {"event": event, "user": user}
    request = current_request.get()
    if request is not None:
        caller: Caller = getattr(request.state, "caller", ANONYMOUS)
        line["user"] = user or caller.id
        line["address"] = request.client.host if request.client else None
        given = request.headers.get("x-request-id", "")
        line["request_id"] = given if _REQUEST_ID.fullmatch(given) else None
        if user and caller.id and caller.id != user:
            line["caller"] = caller.id
    told = {name: value for name, value in (line | fields).items() if value is not None}
    logger.log(level, "%s", json.dumps(told, default=str))
