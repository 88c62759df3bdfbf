"""Routers and routes: strict input, conditional requests, and how routers are mounted."""

import json
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any, Final, NamedTuple, cast
from urllib.parse import unquote_to_bytes
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response, Security, params
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute, APIWebSocketRoute, RouteContext, iter_route_contexts
from fastapi.security.base import SecurityBase
from starlette import routing
from starlette.datastructures import FormData, ImmutableMultiDict, QueryParams
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from app.kit.db.session import SAFE_METHODS, before_response, opens_transaction
from app.kit.errors import COMMON_ERRORS, error_responses
from app.kit.etag import if_none_match
from app.kit.idempotency.session import is_idempotent, use_idempotency_key
from app.kit.security_log import current_request

Mount = tuple[str, APIRouter]

_STARLETTE: Final = (routing.Host, routing.Mount, routing.Route, routing.WebSocketRoute)

_SAMPLES: Final = {"int": "0", "float": "0.5", "uuid": str(UUID(int=0))}

_ALL_METHODS: Final = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}

MAX_KEYS: Final = 1000
"""Maximum keys of a JSON object: each unknown one adds an error."""

MAX_PARAMETERS: Final = 100
"""Maximum parameters of a query or a form: the work for unknown ones is quadratic."""


class Guard(NamedTuple):
    """What finds the caller of a closed route, before its body is read."""

    check: Callable[[Request], Awaitable[None]]
    """Raises an error for a request without a valid credential."""
    schemes: tuple[SecurityBase, ...]
    """The credentials that it accepts, for OpenAPI."""


class _Unambiguous(ImmutableMultiDict[str, Any]):
    """Parameters of which none that is read as one value may be sent twice."""

    place: str

    def __getitem__(self, key: str) -> Any:
        if len(self.multi_items()) > len(self) and len(self.getlist(key)) > 1:
            error = {"loc": (self.place, key), "msg": "Sent more than once", "type": "repeated"}
            raise RequestValidationError([error])
        return super().__getitem__(key)


class _Query(_Unambiguous, QueryParams):
    place = "query"


class _Form(_Unambiguous, FormData):
    place = "body"


class StrictRequest(Request):
    """A request that is unambiguous: no key of an object, and no single parameter, is repeated."""

    @property
    def query_params(self) -> QueryParams:
        """Return the parameters of the query."""
        if not hasattr(self, "_query_params"):
            self._query_params = _Query(self.scope["query_string"])
        return self._query_params

    async def _get_form(self, **limits: Any) -> FormData:
        body = await self.body()  # kept for code that reads the body after the form
        if "multipart" not in self.headers.get("content-type", "").lower():
            _check_count(body, "form")
        form = await super()._get_form(**limits)
        if not isinstance(form, _Form):
            form = self._form = _Form(form.multi_items())
        return form

    async def json(self) -> Any:
        """Return the parsed body, or raise ``JSONDecodeError``."""
        if not hasattr(self, "_json"):
            self._json = _DECODER.decode((await self.body()).decode())
        return self._json


class Route(APIRoute):
    """A route with strict input, ``If-None-Match`` and, if it is ``idempotent``, retries."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Accept what ``APIRoute`` does."""
        if is_idempotent(endpoint):
            dependencies = options.get("dependencies") or ()
            options["dependencies"] = [*dependencies, Depends(use_idempotency_key)]
        super().__init__(path, endpoint, **options)
        if self.methods and "GET" in self.methods:
            self.methods.add("HEAD")
        self.guard: Guard | None = None
        self.beginning = ""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Compare the beginning of the path first: that is cheaper than the whole path."""
        if scope["path"].startswith(self.beginning) or scope.get("root_path"):
            return super().matches(scope)
        return Match.NONE, {}

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler, as its documentation describes."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            current_request.set(request)
            _check_count(request.scope["query_string"], "query")
            _check_encoding(request)
            if self.guard is not None:
                check = self.guard.check
                await request.app.dependency_overrides.get(check, check)(request)
            response = await handler(StrictRequest(request.scope, request.receive))
            await before_response(request, response)
            return if_none_match(request, response)

        return handle


class Router(APIRouter):
    """An ``APIRouter`` whose routes are of the class ``Route``: the router of every feature."""

    def __init__(self, *, description: str = "", **options: Any) -> None:
        """Accept what ``APIRouter`` does, and a ``description`` of its tag for OpenAPI."""
        super().__init__(route_class=Route, **options)
        self.description = description
        self._options = options
        self._added: list[tuple[str, Callable[..., Any], dict[str, Any]]] = []

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Add a route, as ``APIRouter`` does."""
        super().add_api_route(path, endpoint, **options)
        self._added.append((path, endpoint, options))

    def routes_of(
        self, app: FastAPI, prefix: str, responses: dict[int | str, Any], guard: Guard | None
    ) -> list[BaseRoute] | None:
        """Return the routes as the app's own ones, or None if there are other routes or a lifespan.

        FastAPI matches the routes of an included router twice, and one after the other.
        """
        added = [self.prefix + path for path, _, _ in self._added]
        if added != [getattr(route, "path", None) for route in self.routes]:
            return None
        if {"lifespan", "on_startup", "on_shutdown"} & self._options.keys():
            return None
        options: dict[str, Any] = {
            "generate_unique_id_function": app.router.generate_unique_id_function,
            **self._options,
            "prefix": prefix + self.prefix,
            "tags": self.tags,
            "dependencies": self.dependencies,
            "responses": responses | self.responses,
        }
        own = APIRouter(route_class=Route, dependency_overrides_provider=app, **options)
        for path, endpoint, given in self._added:
            own.add_api_route(path, endpoint, **given)
        for route in own.routes:
            if not isinstance(route, Route):
                return None
            route.guard = guard
            route.beginning = route.path.partition("{")[0]
        return own.routes


def mount(
    app: FastAPI, *, closed: Sequence[Mount], public: Sequence[Mount], guard: Guard | None = None
) -> None:
    """Mount routers; ``guard`` finds the caller of closed routes.

    The closed ones come first, so that no public route shadows a closed one.
    """
    statuses = COMMON_ERRORS if guard is None else (401, 403, *COMMON_ERRORS)
    for prefix, router in closed:
        _include(app, prefix, router, error_responses(*statuses), guard)
    for prefix, router in public:
        _include(app, prefix, router, error_responses(*COMMON_ERRORS), None)


def _include(
    app: FastAPI,
    prefix: str,
    router: APIRouter,
    responses: dict[int | str, Any],
    guard: Guard | None,
) -> None:
    routes = router.routes_of(app, prefix, responses, guard) if isinstance(router, Router) else None
    if routes is not None:
        app.router.routes.extend(routes)
    else:
        guards = [] if guard is None else _dependencies(guard, router)
        app.include_router(router, prefix=prefix, dependencies=guards, responses=responses)
    if description := getattr(router, "description", ""):
        tags = [{"name": tag, "description": description} for tag in router.tags]
        app.openapi_tags = [*(app.openapi_tags or ()), *tags]


def _dependencies(guard: Guard, router: APIRouter) -> list[params.Depends]:
    """Return what closes the routes of an included router, after their body is read."""
    for route in router.routes:
        if isinstance(route, _STARLETTE) and not isinstance(route, APIRoute | APIWebSocketRoute):
            path = getattr(route, "path", "a host")
            raise TypeError(
                f"{path} can't be closed, because Starlette's routes have no dependencies: add it "
                "to the app itself, where it is public"
            )
    return [
        Depends(guard.check, scope="function"),
        *(Security(cast("Callable[..., Any]", each)) for each in guard.schemes),
    ]


def check_routes(app: FastAPI) -> None:
    """Raise an error if a route is shadowed, can't be idempotent, or has the id of another."""
    earlier: list[tuple[RouteContext, str, set[str]]] = []
    ids: dict[str, str] = {}
    for route in iter_route_contexts(app.routes):
        is_app = isinstance(route.original_route, routing.Mount)
        path, methods = route.path, {"GET"} if is_app else set(route.methods or ())
        if path is None or not methods:
            continue
        if is_app:
            path += "/{path:path}"
        sample = re.sub(r"\{[^}:]*:?([^}]*)\}", lambda found: _SAMPLES.get(found[1], "~"), path)
        for other, other_path, other_methods in earlier:
            if other.path_regex.match(sample) and (both := methods & other_methods):
                raise RuntimeError(
                    f"{min(both)} {path} can never be reached: {other_path} comes first and "
                    "matches it. Mount it before, or change one of the paths."
                )
        if not is_app:
            _check_idempotency(route)
            _check_operation_id(route, ids)
        earlier.append((route, path, _ALL_METHODS if is_app else methods))


def _check_operation_id(route: RouteContext, ids: dict[str, str]) -> None:
    if not isinstance(route.original_route, APIRoute) or not route.include_in_schema:
        return
    methods = route.methods or set()
    operation_id = route.operation_id or route.unique_id
    for method in sorted(methods - {"HEAD"} if "GET" in methods else methods):
        name = f"{method} {route.path_format}"
        if (other := ids.setdefault(operation_id, name)) != name:
            raise RuntimeError(
                f"{other} and {name} have the same operation id, {operation_id!r}, by which "
                "clients call them: rename one of the functions."
            )


def _check_idempotency(route: RouteContext) -> None:
    if not is_idempotent(route.endpoint):
        return
    name = f"{min(route.methods or {'POST'})} {route.path}"
    if not isinstance(route.original_route, Route):
        raise TypeError(f"{name} can't be idempotent: use the kit's Router")
    response_class = getattr(route.response_class, "value", route.response_class)
    if issubclass(response_class, StreamingResponse):
        raise TypeError(f"{name} can't be idempotent: a streamed response can't be stored")
    if not (route.methods or set()) - SAFE_METHODS:
        raise RuntimeError(f"{name} can't be idempotent: it only reads")
    if not any(each.call is use_idempotency_key for each in route.dependant.dependencies):
        raise RuntimeError(f"{name} can't be idempotent: put @idempotent below the route decorator")
    if not _opens_transaction(route.dependant):
        raise RuntimeError(f"{name} can't be idempotent: it takes no SessionDep or repository")


def _opens_transaction(dependant: Dependant) -> bool:
    return opens_transaction(dependant.call) or any(
        _opens_transaction(each) for each in dependant.dependencies
    )


def _check_count(encoded: bytes, name: str) -> None:
    if encoded.count(b"&") >= MAX_PARAMETERS:
        detail = f"The {name} has more than {MAX_PARAMETERS} parameters."
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, detail)


def _check_encoding(request: Request) -> None:
    """Refuse a URL that is not UTF-8: invalid bytes would silently become U+FFFD."""
    for place, name in (("path", "raw_path"), ("query", "query_string")):
        encoded: bytes = request.scope.get(name) or b""
        if b"%" in encoded or not encoded.isascii():
            try:
                unquote_to_bytes(encoded).decode()
            except UnicodeDecodeError:
                error = {"loc": (place,), "msg": "Not UTF-8", "type": "unicode"}
                raise RequestValidationError([error]) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        raise json.JSONDecodeError("An object has too many keys", "", 0)
    found = dict(pairs)
    if len(found) < len(pairs):
        raise json.JSONDecodeError("An object repeats a key", "", 0)
    return found


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique)
