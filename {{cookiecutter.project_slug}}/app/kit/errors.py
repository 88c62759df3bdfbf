"""The error family, mapped to RFC 9457 problem documents in one place.

Code raises an ``AppError`` near the rule that was broken; nothing else in the service builds
an error response.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, ClassVar, Final
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
# What a client sent may come back in an error document only in part: this many errors, and
# this many characters of a name or a path.
MAX_ERRORS = 20
MAX_ECHO = 100

MAX_HEADERS = 32 * 1024
"""Bytes that the headers of a request may have."""
MAX_DIGITS = 20
"""Digits of a length that are worth reading."""


COMMON: Final = (413, 422, 431, 500, 503)
"""The statuses that any request may be answered with."""


class FieldError(BaseModel):
    """One thing that is wrong with one field."""

    field: str
    """Where: ``body.title``, ``query.limit``, or the bare column of a constraint."""
    message: str
    """What is wrong with it, for people."""


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    type: str = "about:blank"
    """A URI that names the kind of problem; ``about:blank`` says that the status tells it all."""
    title: str
    """The status in words."""
    status: int
    """The HTTP status code."""
    detail: str
    """What went wrong this time."""
    instance: str
    """The path that was asked for."""
    errors: list[FieldError] | None = None
    """The fields at fault, where fields are."""


class AppError(Exception):
    """Base of every error that a client is told about."""

    status: ClassVar[HTTPStatus]
    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, detail: str, *, errors: Sequence[FieldError] = ()) -> None:
        """Keep ``detail`` for the client: it must hold no SQL, no secret and no trace."""
        super().__init__(detail)
        self.detail = detail
        self.errors = list(errors)


class NotFound(AppError):
    """What was asked for is not there, or not for this caller."""

    status = HTTPStatus.NOT_FOUND


class Conflict(AppError):
    """The request would break a constraint of the data, as a value taken already does."""

    status = HTTPStatus.CONFLICT


class PreconditionFailed(AppError):
    """``If-Match`` named a version that is no longer the current one."""

    status = HTTPStatus.PRECONDITION_FAILED


class Unprocessable(AppError):
    """The input can be read but not be taken."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class Unavailable(AppError):
    """The database can't answer now; the same request may well succeed soon."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers = MappingProxyType({"Retry-After": "1"})


class TransactionConflict(Unavailable):
    """The database ended a transaction for the sake of another; done again, it may succeed."""


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declare error documents in OpenAPI: ``responses=problems(404, 412)``."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in statuses
    }


def install(app: FastAPI, *, max_body_size: int) -> None:
    """Map every exception to a problem document and describe the document in OpenAPI.

    Args:
        app: what to install it on.
        max_body_size: bytes that the body of a request may have.
    """
    app.exception_handler(AppError)(_app_error)
    app.exception_handler(HTTPException)(_http_exception)
    app.exception_handler(RequestValidationError)(_validation_error)
    app.add_middleware(OversizeMiddleware, max_body_size=max_body_size)
    app.add_middleware(UnhandledErrorMiddleware)
    openapi = app.openapi

    def with_problem() -> dict[str, Any]:
        document = openapi()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        if "Problem" not in schemas:
            schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs"), Problem=schema)
        return document

    app.openapi = with_problem  # type: ignore[method-assign]  # FastAPI's documented way


def _response(
    path: str,
    status: HTTPStatus,
    detail: str,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    problem = Problem(
        title=status.phrase,
        status=status,
        detail=detail,
        instance=_shown(path),
        errors=list(errors) or None,
    )
    return Response(
        problem.model_dump_json(exclude_none=True),
        status_code=status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )


async def _app_error(request: Request, error: AppError) -> Response:
    return _response(request.url.path, error.status, error.detail, error.errors, error.headers)


async def _http_exception(request: Request, error: HTTPException) -> Response:
    status = HTTPStatus(error.status_code)
    headers = error.headers
    if error.detail == "There was an error parsing the body":
        # FastAPI's 400 for what is no UTF-8, too deep or too long a number; for other broken JSON
        # it says 422. One mistake, one status.
        status = HTTPStatus.UNPROCESSABLE_ENTITY
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": ", ".join(sorted(_methods(request)))}
    return _response(request.url.path, status, _short(str(error.detail)), headers=headers)


def _methods(request: Request) -> set[str]:
    # Starlette names those of the first route of this path, and each method has a route.
    return {
        method
        for method in ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
        for route in request.app.routes
        if route.matches({**request.scope, "method": method})[0] == Match.FULL
    }


async def _validation_error(request: Request, error: RequestValidationError) -> Response:
    found = error.errors()
    errors = [
        FieldError(
            field=_short(".".join(str(part) for part in item["loc"])),
            message=_short(_message(item)),
        )
        for item in found[:MAX_ERRORS]
    ]
    detail = "The request can't be read." if len(found) == 1 else f"{len(found)} errors."
    return _response(request.url.path, HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors)


def _shown(path: str) -> str:
    return quote(_short(path))


def _message(item: Mapping[str, Any]) -> str:
    if item["type"] == "json_invalid":
        return f"Not JSON: {item['ctx']['error']}"
    message: str = item["msg"]
    return message.removeprefix("Value error, ")


def _short(text: str) -> str:
    """Cut what came from a client, and replace what UTF-8 can't carry (lone surrogates)."""
    text = text[:MAX_ECHO] + "..." if len(text) > MAX_ECHO else text
    return text.encode("utf-8", "replace").decode("utf-8")


class OversizeMiddleware:
    """Refuses requests that say themselves that they are too large, before anything is read.

    A body that does not say its size is cut off by Starlette's ``RequestBodyLimitMiddleware``.
    """

    def __init__(self, app: ASGIApp, max_body_size: int) -> None:
        """Wrap ``app``; ``max_body_size`` is in bytes."""
        self.app = app
        self.cut_off = RequestBodyLimitMiddleware(app, max_body_size)
        self.max_body_size = max_body_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if it is small enough."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        size, length, in_parts = 0, None, scope["method"] not in {"GET", "HEAD"}
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name == b"content-length":
                length = value
            elif name == b"transfer-encoding":
                in_parts = True
        status = None
        if length is not None and self._too_long(length):
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        elif size > MAX_HEADERS:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if status is not None:
            response = _response(scope["path"], status, "The request is too large.")
            await response(scope, receive, send)
        elif length is None and in_parts:
            await self.cut_off(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _too_long(self, length: bytes) -> bool:
        # What is no number at all is for the server to refuse.
        return length.isdigit() and (len(length) > MAX_DIGITS or int(length) > self.max_body_size)


class UnhandledErrorMiddleware:
    """Answers 500 for what nobody foresaw, and logs it with its trace; 503 when time is up.

    Starlette's own handler raises the error again after its answer, and the server then closes
    the connection under the client's next request.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap ``app``."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer in its place if it fails before it has answered."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except asyncio.CancelledError:
            if started:
                raise
            # The server ends, and this was still running when its time was up. With the answer
            # given, it is over: the server would take the error for one of ours.
            logger.warning("Ended while it ran: %s %s", scope["method"], _shown(scope["path"]))
            response = _response(
                scope["path"],
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The service was stopped meanwhile.",
                headers=Unavailable.headers,
            )
            await response(scope, receive, send)
        except Exception:
            if started:  # half an answer is out: only a cut connection tells the client so
                raise
            logger.exception("Unhandled error in %s %s", scope["method"], _shown(scope["path"]))
            response = _response(
                scope["path"],
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "An error that we did not foresee. It has been logged.",
            )
            await response(scope, receive, send)
