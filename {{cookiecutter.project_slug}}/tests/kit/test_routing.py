"""The checks of an app's routes: shadowed routes, and routes that can't be idempotent."""

from collections.abc import Callable

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.responses import StreamingResponse
from httpx2 import AsyncClient

from app.kit import routing
from app.kit.db.session import SessionDep
from app.kit.idempotency.session import idempotent
from app.kit.routing import Router, check_routes
from tests.conftest import problem


async def endpoint() -> None:
    """Do nothing."""


def app_of(*routes: tuple[str, str]) -> FastAPI:
    """Return an app with these methods and paths, in this order."""
    app, router = FastAPI(), Router()
    for number, (method, path) in enumerate(routes):
        router.add_api_route(path, endpoint, methods=[method], name=f"route {number}")
    app.include_router(router, prefix="/v1")
    return app


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/articles/{slug}", "/articles/feed"),
        ("/articles/{slug}", "/articles/{key}"),
        ("/articles/{slug}", "/articles/{key:int}"),
        ("/articles/{key:int}", "/articles/{number:int}"),
        ("/files/{path:path}", "/files/{folder}/{name}"),
        ("/articles", "/articles"),
    ],
)
def test_an_unreachable_route_stops_the_app(first: str, second: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        check_routes(app_of(("GET", first), ("GET", second)))
    for path in (first, second):
        assert f"/v1{path}" in str(caught.value)
    check_routes(app_of(("GET", first), ("POST", second)))  # another method
    if "{" not in second and first != second:
        check_routes(app_of(("GET", second), ("GET", first)))  # in the other order


@pytest.mark.parametrize("path", ["/files", ""])
def test_an_unreachable_mounted_app_stops_the_app(path: str) -> None:
    app = app_of(("GET", "/{path:path}"))
    app.mount(f"/v1{path}", FastAPI())
    with pytest.raises(RuntimeError, match=f"GET /v1{path}/.* never be reached: /v1/"):
        check_routes(app)
    app = app_of(("POST", "/{path:path}"))
    app.mount(f"/v1{path}", FastAPI())
    check_routes(app)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_route_behind_a_mounted_app_stops_the_app(method: str) -> None:
    def app_with(mounted: str) -> FastAPI:
        app, router = FastAPI(), Router()
        app.mount(mounted, FastAPI())
        router.add_api_route("/articles", endpoint, methods=[method])
        app.include_router(router, prefix="/v1")
        return app

    with pytest.raises(RuntimeError, match=f"{method} /v1/articles can never be reached: /v1/"):
        check_routes(app_with("/v1"))
    check_routes(app_with("/v2"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/articles/{key:int}", "/articles/{slug}"),
        ("/articles/feed", "/articles/{slug}"),
        ("/articles/{slug}", "/articles/{slug}/comments"),
        ("/articles/{slug}/comments", "/articles/feed/tags"),
    ],
)
def test_reachable_routes_are_accepted(first: str, second: str) -> None:
    check_routes(app_of(("GET", first), ("GET", second)))


def test_closed_routes_come_before_public_ones() -> None:
    public, closed = Router(), Router()
    public.add_api_route("/articles/{slug}", endpoint)
    closed.add_api_route("/articles/feed", endpoint)
    app = FastAPI()
    routing.mount(app, closed=[("/v1", closed)], public=[("/v1", public)])
    check_routes(app)


async def test_a_path_that_is_not_utf_8_is_422(things: AsyncClient) -> None:
    path = "/things/entries/named"
    response = await things.get(f"{path}/caf%C3%A9")
    assert (response.status_code, response.json()) == (200, "caf\u00e9")
    (error,) = problem(await things.get(f"{path}/caf%E9"), 422)["errors"]
    assert error == {"field": "path", "message": "Not UTF-8"}


def plain(app: FastAPI) -> None:
    router = APIRouter()

    @router.post("/x")
    @idempotent
    async def x(session: SessionDep) -> None: ...

    app.include_router(router)


def streamed(app: FastAPI) -> None:
    router = Router()

    @router.post("/x", response_class=StreamingResponse)
    @idempotent
    async def x(session: SessionDep) -> None: ...

    app.include_router(router)


def without_a_session(app: FastAPI) -> None:
    router = Router()

    @router.post("/x")
    @idempotent
    async def x() -> None: ...

    app.include_router(router)


def in_the_wrong_order(app: FastAPI) -> None:
    router = Router()

    @idempotent
    @router.post("/x")
    async def x(session: SessionDep) -> None: ...

    app.include_router(router)


@pytest.mark.parametrize(
    ("add", "reason"),
    [
        (plain, "use the kit's Router"),
        (streamed, "streamed"),
        (without_a_session, "takes no SessionDep"),
        (in_the_wrong_order, "below the route decorator"),
    ],
)
def test_a_route_that_can_not_be_idempotent_stops_the_app(
    add: Callable[[FastAPI], None], reason: str
) -> None:
    app = FastAPI()
    add(app)
    with pytest.raises((TypeError, RuntimeError), match=f"POST /x can't be idempotent: .*{reason}"):
        check_routes(app)
