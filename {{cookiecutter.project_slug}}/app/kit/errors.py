"""Errors, and how they become RFC 9457 problem documents.

Raise an ``AppError`` where a rule is broken. Nothing else in the service builds error responses.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, ClassVar, Final, get_args
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

from app.kit.logs import REQUEST_ID, request_id

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20
MAX_ECHO = 100
"""Maximum length of a client's path or field name in a problem document."""
MAX_MESSAGE = 300
"""Maximum length of an error message of the service."""
MAX_KINDS = 100
"""The maximum number of causes that the log distinguishes."""
MAX_HEADERS = 32 * 1024
"""Largest size of all request headers, in bytes."""
MAX_DIGITS = 20
"""Digits of a Content-Length that are parsed."""

NOT_MIGRATED: Final = "The database schema is behind: run `alembic upgrade head`."
READ_ONLY: Final = "A read session can't write: use a transaction"

COMMON_ERRORS: Final = (413, 422, 431, 500, 503)
"""The error statuses that every route may return."""


class FieldError(BaseModel):
    """An error in one field, such as ``body.title`` or the column of a constraint."""

    field: str
    message: str


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    request_id: str | None = None
    errors: list[FieldError] | None = None


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

    def __init__(self, detail: str, *, cause: str = "") -> None:
        """Describe the error to the client, and its cause for the log: without values."""
        super().__init__(detail)
        self.cause = cause


class TransactionConflict(Unavailable):
    """The database aborted the transaction in favour of another; a retry may succeed."""


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declare problem documents in OpenAPI, or support for ``If-None-Match`` by 304."""
    content = {"content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    return {
        status: {"description": HTTPStatus(status).phrase}
        | (content if status >= HTTPStatus.BAD_REQUEST else {})
        for status in statuses
    }


class CauseLog:
    """Logs each kind of cause at most once a second, with the number of omitted ones."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the time in seconds from ``clock``."""
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}

    def add(self, detail: str, cause: str) -> None:
        """Log why the response is 503."""
        kind = f"{detail} ({cause})" if cause else detail
        if len(self._kinds) > MAX_KINDS:
            self._kinds.clear()
        now = self._clock()
        logged_at, left_out = self._kinds.get(kind, (-math.inf, 0))
        if now - logged_at < 1:
            self._kinds[kind] = (logged_at, left_out + 1)
            return
        self._kinds[kind] = (now, 0)
        logger.warning("503: %s%s", kind, f" and {left_out} more" if left_out else "")


_CAUSES: Final = CauseLog()


def install(app: FastAPI, *, max_body_size: int) -> None:
    """Map every exception of ``app`` to a problem document, and declare it in OpenAPI."""
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
        request_id=request_id(),
        errors=list(errors) or None,
    )
    return Response(
        problem.model_dump_json(exclude_none=True),
        status_code=status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )


async def _app_error(request: Request, error: AppError) -> Response:
    if isinstance(error, Unavailable):
        _CAUSES.add(error.detail, error.cause)
    errors = _located(request, error.errors)
    return problem_response(request.url.path, error.status, error.detail, errors, error.headers)


def _located(request: Request, errors: list[FieldError]) -> list[FieldError]:
    """Return the errors with the request's fields in place of the columns of a constraint.

    Columns that the request has no field for, such as an owner, are left out.
    """
    body = getattr(request.scope.get("route"), "body_field", None)
    located: list[FieldError] = []
    for error in errors:
        if "." in error.field:
            located.append(error)
        elif error.field in request.path_params:
            located.append(error.model_copy(update={"field": f"path.{error.field}"}))
        elif body is not None and (path := _path_to(body.field_info.annotation, error.field)):
            located.append(error.model_copy(update={"field": f"body.{path}"}))
    return located or errors


def _path_to(kind: Any, name: str, outer: frozenset[Any] = frozenset()) -> str:
    """Return the dotted path to the nearest field of this name in a type of a body, or ""."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        found = (_path_to(each, name, outer) for each in get_args(kind))
        return min(filter(None, found), key=len, default="")
    if kind in outer:  # the type refers to itself
        return ""
    aliases = {
        key: field.validation_alias if isinstance(field.validation_alias, str) else key
        for key, field in kind.model_fields.items()
    }
    if name in aliases:
        return aliases[name]
    below = {
        alias: _path_to(kind.model_fields[key].annotation, name, outer | {kind})
        for key, alias in aliases.items()
    }
    return min((f"{alias}.{path}" for alias, path in below.items() if path), key=len, default="")


async def _http_exception(request: Request, error: HTTPException) -> Response:
    status = HTTPStatus(error.status_code)
    headers = error.headers
    if error.detail == "There was an error parsing the body":
        # FastAPI answers 400 to invalid UTF-8 and deep nesting, but 422 to other invalid JSON.
        status = HTTPStatus.UNPROCESSABLE_ENTITY
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": ", ".join(sorted(_methods(request)))}
    return problem_response(
        request.url.path, status, _short(str(error.detail), MAX_MESSAGE), headers=headers
    )


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
            message=_message(item),
        )
        for item in found[:MAX_ERRORS]
    ]
    detail = "The request can't be read." if len(found) == 1 else f"{len(found)} errors."
    return problem_response(request.url.path, HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors)


def _shown(path: str) -> str:
    return quote(_short(path))


def _message(item: Mapping[str, Any]) -> str:
    kind, given = item["type"], item.get("input")
    if kind == "json_invalid":
        return _short(f"Not JSON: {item['ctx']['error']}")
    if kind in _LENGTHS and isinstance(given, str):
        # Pydantic says items, not characters, if a function has validated the text before.
        name, words = _LENGTHS[kind]
        bound = item["ctx"][name]
        return f"String should have {words} {bound} character{'' if bound == 1 else 's'}"
    message: str = item["msg"].removeprefix("Value error, ")
    # These may contain the input.
    repeats = kind == "union_tag_invalid" or (isinstance(given, str) and len(given) > MAX_ECHO)
    return _short(message, MAX_ECHO if repeats else MAX_MESSAGE)


_LENGTHS: Final = {
    "too_short": ("min_length", "at least"),
    "too_long": ("max_length", "at most"),
}


def _short(text: str, most: int = MAX_ECHO) -> str:
    """Return a client's text, shortened and without lone surrogates, which UTF-8 can't encode."""
    text = text[:most] + "..." if len(text) > most else text
    return text.encode("utf-8", "replace").decode("utf-8")


class OversizeMiddleware:
    """Rejects a request that is too large: at once if its size is declared, else by Starlette."""

    def __init__(self, app: ASGIApp, max_body_size: int) -> None:
        """Wrap ``app``."""
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
    """Turns unexpected errors into 500 and logs their trace; 503 at a shutdown.

    Starlette's own handler raises the error again, and the server then closes the connection.
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
            # SHUTDOWN_TIMEOUT is over. The server would log the exception as an error of the app.
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
            pass  # the client has disconnected
        except Exception:
            if started:  # only a closed connection tells the client that the response is incomplete
                raise
            logger.exception(
                "Unhandled error in %s %s, request %s",
                *(scope["method"], _shown(scope["path"]), scope.get(REQUEST_ID)),
            )
            response = problem_response(
                scope["path"],
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "An unexpected error. It has been logged.",
            )
            await response(scope, receive, send)
