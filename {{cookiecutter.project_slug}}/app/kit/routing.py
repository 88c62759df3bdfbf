"""Routers whose routes are strict about what they read."""

import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.datastructures import FormData

Hook = Callable[[Response], Awaitable[None]]

MAX_KEYS = 1000
"""Keys that a JSON object may have: each one that nobody knows costs an error of its own."""

_HOOKS = "app.before_commit"


class StrictRequest(Request):
    """A request whose JSON means the same to everybody: no object names a key twice."""

    async def _get_form(self, **limits: Any) -> FormData:
        await self.body()  # kept, for who reads it after the form
        return await super()._get_form(**limits)

    async def json(self) -> Any:
        """Read the body.

        Raises:
            json.JSONDecodeError: it is no JSON, or an object in it names a key twice.
        """
        if not hasattr(self, "_json"):
            self._json = _DECODER.decode((await self.body()).decode())
        return self._json


class Route(APIRoute):
    """A route that reads strictly, and lets a dependency see the answer before it leaves."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler of FastAPI (its documented way)."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            if request.scope["query_string"]:
                _check_query(request)
            response = await handler(StrictRequest(request.scope, request.receive))
            for hook in request.scope.get(_HOOKS, ()):
                await hook(response)
            return response

        return handle


class Router(APIRouter):
    """A router of such routes: what every feature takes."""

    def __init__(self, **options: Any) -> None:
        """Take what ``APIRouter`` takes."""
        super().__init__(route_class=Route, **options)


def before_commit(request: Request, hook: Hook) -> None:
    """Have ``hook`` called with the answer once it is made, before the transaction is over."""
    request.scope.setdefault(_HOOKS, []).append(hook)


def _check_query(request: Request) -> None:
    query: bytes = request.scope["query_string"]
    try:
        # What is no UTF-8 would silently be read as U+FFFD.
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        error = {"loc": ("query",), "msg": "Not UTF-8", "type": "unicode"}
        raise RequestValidationError([error]) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        raise json.JSONDecodeError("An object has too many keys", "", 0)
    found = dict(pairs)
    if len(found) < len(pairs):
        raise json.JSONDecodeError("An object names a key twice", "", 0)
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)
