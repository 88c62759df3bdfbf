"""Errors, and how they become RFC 9457 problem documents.

Raise an ``AppError`` where a rule is broken. Nothing else in the service builds error responses.
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
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20
"""Field errors that a problem document lists."""
MAX_ECHO = 100
"""Characters of a client's path or field name that a problem document repeats."""

MAX_HEADERS = 32 * 1024
"""Largest size of all request headers, in bytes."""
MAX_DIGITS = 20
"""Digits of a Content-Length that are parsed."""


COMMON_ERRORS: Final = (413, 422, 431, 500, 503)
"""The error statuses that every route may return."""


class FieldError(BaseModel):
    """An error in one field."""

    field: str
    """The field: ``body.title``, ``query.limit``, or the column of a constraint."""
    message: str
    """What is wrong, for people."""


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    type: str = "about:blank"
    """A URI that names the kind of problem; ``about:blank`` means that the status says it all."""
    title: str
    """The status in words."""
    status: int
    """The HTTP status code."""
    detail: str
    """What went wrong in this request."""
    instance: str
    """The path of the request."""
    errors: list[FieldError] | None = None
    """The fields with errors, if there are any."""


class AppError(Exception):
    """Base of the errors that are reported to clients."""

    status: ClassVar[HTTPStatus]
    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, detail: str, *, errors: Sequence[FieldError] = ()) -> None:
        """Describe the error to the client: without SQL, secrets or stack traces."""
        super().__init__(detail)
        self.detail = detail
        self.errors = list(errors)


class NotFound(AppError):
    """The resource does not exist, or is not visible to this caller."""

    status = HTTPStatus.NOT_FOUND


class Conflict(AppError):
    """The request would violate a constraint, such as a unique value."""

    status = HTTPStatus.CONFLICT


class PreconditionFailed(AppError):
    """``If-Match`` names a version that is not the current one."""

    status = HTTPStatus.PRECONDITION_FAILED


class Unprocessable(AppError):
    """The input is readable but not acceptable."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class Unavailable(AppError):
    """The database is unavailable; the same request may succeed soon."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers = MappingProxyType({"Retry-After": "1"})


class TransactionConflict(Unavailable):
    """The database aborted the transaction in favour of another; a retry may succeed."""


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declare problem documents in OpenAPI: ``responses=error_responses(404, 412)``."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in statuses
    }


def install(app: FastAPI, *, max_body_size: int) -> None:
    """Map every exception of ``app`` to a problem document, and declare it in OpenAPI.

    Args:
        app: the app.
        max_body_size: the largest request body in bytes.
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


def problem_response(
    path: str,
    status: HTTPStatus,
    detail: str,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a problem document for a path."""
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
    return problem_response(
        request.url.path, error.status, error.detail, error.errors, error.headers
    )


async def _http_exception(request: Request, error: HTTPException) -> Response:
    status = HTTPStatus(error.status_code)
    headers = error.headers
    if error.detail == "There was an error parsing the body":
        # FastAPI answers 400 to invalid UTF-8 and deep nesting, but 422 to other invalid JSON.
        status = HTTPStatus.UNPROCESSABLE_ENTITY
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": ", ".join(sorted(_methods(request)))}
    return problem_response(request.url.path, status, _short(str(error.detail)), headers=headers)


def _methods(request: Request) -> set[str]:
    # Starlette names only the methods of the first route with this path.
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
    return problem_response(request.url.path, HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors)


def _shown(path: str) -> str:
    return quote(_short(path))


def _message(item: Mapping[str, Any]) -> str:
    if item["type"] == "json_invalid":
        return f"Not JSON: {item['ctx']['error']}"
    message: str = item["msg"]
    return message.removeprefix("Value error, ")


def _short(text: str) -> str:
    """Return a client's text, shortened and without lone surrogates, which UTF-8 can't encode."""
    text = text[:MAX_ECHO] + "..." if len(text) > MAX_ECHO else text
    return text.encode("utf-8", "replace").decode("utf-8")


class OversizeMiddleware:
    """Rejects requests whose declared size is too large, before anything is read.

    Starlette's ``RequestBodyLimitMiddleware`` cuts off bodies of undeclared size.
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
            response = problem_response(scope["path"], status, "The request is too large.")
            await response(scope, receive, send)
        elif length is None and in_parts:
            await self.cut_off(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _too_long(self, length: bytes) -> bool:
        # The server itself rejects lengths that are not numbers.
        return length.isdigit() and (len(length) > MAX_DIGITS or int(length) > self.max_body_size)


class UnhandledErrorMiddleware:
    """Turns unexpected errors into 500 and logs their trace; answers 503 at a shutdown.

    Starlette's own handler raises the error again after its response, and the server then closes
    the connection under the client's next request.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap ``app``."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and respond in its place if it fails before it has responded."""
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
            # SHUTDOWN_TIMEOUT is over. Raised on, the server would log it as an error of the app.
            logger.warning(
                "Cancelled by the shutdown: %s %s", scope["method"], _shown(scope["path"])
            )
            response = problem_response(
                scope["path"],
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The service is shutting down.",
                headers=Unavailable.headers,
            )
            await response(scope, receive, send)
        except ClientDisconnect:
            pass  # nobody is there to get a response
        except Exception:
            if started:  # only a closed connection tells the client that the response is incomplete
                raise
            logger.exception("Unhandled error in %s %s", scope["method"], _shown(scope["path"]))
            response = problem_response(
                scope["path"],
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "An unexpected error. It has been logged.",
            )
            await response(scope, receive, send)
