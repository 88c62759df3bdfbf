"""The checks of an app's routes: shadowed routes, and routes that can't be idempotent."""

from collections.abc import AsyncIterator, Callable

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from httpx2 import ASGITransport, AsyncClient

from app.kit import openapi, routing
from app.kit.db.session import SessionDep
from app.kit.idempotency.session import idempotent
from app.kit.routing import Guard, Router, check_routes
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


async def _refuse(_request: Request) -> None:
    raise HTTPException(401, "No caller")


async def _accept(_request: Request) -> None:
    pass


def _guarded(router: APIRouter) -> FastAPI:
    app = FastAPI()
    openapi.install(app)
    routing.mount(
        app,
        closed=[("/v1", router)],
        public=[],
        guard=Guard(_refuse, (HTTPBearer(auto_error=False),)),
    )
    return app


def _router_with_options() -> Router:
    router = Router(prefix="/things", tags=["things"], responses={418: {}}, deprecated=True)
    router.add_api_route("/{key}", endpoint, methods=["PUT"], responses={402: {}})
    return router


def _router_that_includes() -> Router:
    router = Router(prefix="/outer")
    router.include_router(_router_with_options())
    return router


def _router_with_another_class() -> Router:
    router = Router(prefix="/other")
    router.add_api_route("/{key}", endpoint, methods=["PUT"], route_class_override=APIRoute)
    return router


def _plain_router() -> APIRouter:
    router = APIRouter(prefix="/plain")
    router.add_api_route("/{key}", endpoint, methods=["PUT"])
    return router


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (_router_with_options, "/v1/things/{key}"),
        (_router_that_includes, "/v1/outer/things/{key}"),
        (_router_with_another_class, "/v1/other/{key}"),
        (_plain_router, "/v1/plain/{key}"),
    ],
)
async def test_a_router_keeps_its_options_and_is_guarded(
    make: Callable[[], APIRouter], path: str
) -> None:
    app = _guarded(make())
    operation = app.openapi()["paths"][path]["put"]
    if "things" in path:
        assert (operation["tags"], operation["deprecated"]) == (["things"], True)
        assert {"402", "418"} <= operation["responses"].keys()
    assert "401" in operation["responses"]
    assert operation["security"] == [{"HTTPBearer": []}]
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        assert (await client.put(path)).status_code == 401
        assert (await client.get("/v1")).status_code == 404
        app.dependency_overrides[_refuse] = _accept
        assert (await client.put(path)).status_code == 200
        assert (await client.post(path)).status_code == 405


async def test_dependencies_that_are_added_to_a_router_later_are_kept() -> None:
    router, app = _router_with_options(), FastAPI()
    router.dependencies.append(Depends(_refuse))
    routing.mount(app, closed=[], public=[("/v1", router)])
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        assert (await client.put("/v1/things/x")).status_code == 401


@pytest.mark.parametrize("is_mount", [True, False])
def test_a_route_that_can_not_be_closed_stops_the_app(*, is_mount: bool) -> None:
    async def respond(_: Request) -> Response:
        return Response()

    router = Router()
    if is_mount:
        router.mount("/files", FastAPI())
    else:
        router.add_route("/files", respond)
    with pytest.raises(TypeError, match="/files can't be closed"):
        _guarded(router)
    routing.mount(FastAPI(), closed=[], public=[("/v1", router)])


async def test_routes_are_found_below_a_root_path() -> None:
    app = FastAPI()
    routing.mount(app, closed=[], public=[("/v1", _router_with_options())])
    transport = ASGITransport(app, root_path="/api")
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        for prefix in ("", "/api"):
            assert (await client.put(f"{prefix}/v1/things/x")).status_code == 200


async def test_a_request_without_a_caller_is_refused_before_its_body_is_read() -> None:
    router = Router()

    @router.post("/things")
    async def create(body: dict[str, str]) -> dict[str, str]:
        return body

    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    app = _guarded(router)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        response = await client.post(
            "/v1/things", content=body(), headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 401


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
