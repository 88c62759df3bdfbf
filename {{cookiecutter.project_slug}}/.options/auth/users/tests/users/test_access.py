"""Every operation in the OpenAPI document refuses unauthorized callers."""

import re
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import jwt
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from httpx2 import AsyncClient, Response
from starlette.routing import Route

from app import api
from app.kit import docs, health
from app.kit.db.engine import Database
from app.kit.db.session import ReadSessionDep
from app.users import security
from app.users.caller import OptionalCallerDep
from app.users.models import User
from app.users.repository import UserRepository
from app.users.settings import LOCAL_SECRET_KEY
from tests.caller import headers as bearer_of
from tests.conftest import Statements, problem
from tests.users.helpers import (
    ADA,
    BOB,
    KEYS,
    ME,
    TOKEN,
    Headers,
    add_key,
    add_user,
    change_user,
    past,
    stored_keys,
)

PUBLIC = {
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("POST", "/v1/auth/logout"),
    ("POST", "/v1/auth/refresh"),
    ("POST", "/v1/auth/token"),
    ("POST", "/v1/users"),
}
"""Public operations. All others require a caller."""

SECRET = LOCAL_SECRET_KEY.get_secret_value()

Operation = tuple[str, str]


@pytest.fixture
def operations(shared_app: FastAPI) -> list[Operation]:
    """Return every operation of the OpenAPI document."""
    return [
        (method.upper(), path)
        for path, found in sorted(shared_app.openapi()["paths"].items())
        for method in sorted(found)
    ]


@pytest.fixture
def closed(operations: list[Operation]) -> list[Operation]:
    """Return the operations that require a credential."""
    return [operation for operation in operations if operation not in PUBLIC]


async def call(
    client: AsyncClient, operation: Operation, headers: Headers | None = None
) -> Response:
    """Call an operation with valid parameters."""
    method, path = operation
    url = re.sub(r"\{\w+\}", str(UUID(int=0)), path)
    sent: Any = None if method in {"GET", "DELETE"} else {}
    return await client.request(method, url, json=sent, headers=headers)


def is_let_in(response: Response) -> bool:
    """Return whether a request was authenticated and authorized, if its operation requires that."""
    return response.status_code < 500 and response.status_code not in {401, 403}


def claims_of(user: User) -> dict[str, Any]:
    """Return the claims of a valid token of this user."""
    token = bearer_of(user)["Authorization"].removeprefix("Bearer ")
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def signed(claims: dict[str, Any], key: str = SECRET, algorithm: str = "HS256") -> Headers:
    return {"Authorization": f"Bearer {jwt.encode(claims, key, algorithm)}"}


def headers_with(name: str, value: str | bytes) -> Callable[[Database], Awaitable[Any]]:
    async def give(_db: Database) -> dict[str, str | bytes]:
        return {name: value}

    return give


def token_with(
    key: str = SECRET, algorithm: str = "HS256", **changes: Any
) -> Callable[[Database], Awaitable[Headers]]:
    """Return a token that is valid except for these claims."""

    async def give(db: Database) -> Headers:
        claims = claims_of(await add_user(db, BOB, is_superuser=True)) | changes
        return signed(claims, key, algorithm)

    return give


def token_without(claim: str) -> Callable[[Database], Awaitable[Headers]]:
    async def give(db: Database) -> Headers:
        claims = claims_of(await add_user(db, BOB, is_superuser=True))
        del claims[claim]
        return signed(claims)

    return give


def scheme(prefix: str) -> Callable[[Database], Awaitable[Headers]]:
    """Return a valid token with another scheme than ``Bearer``."""

    async def give(db: Database) -> Headers:
        good = bearer_of(await add_user(db, BOB))["Authorization"]
        return {"Authorization": f"{prefix}{good.removeprefix('Bearer ')}"}

    return give


async def nothing(_db: Database) -> Headers:
    return {}


async def token_as_key(db: Database) -> Headers:
    good = bearer_of(await add_user(db, BOB))["Authorization"]
    return {"X-API-Key": good.removeprefix("Bearer ")}


async def token_of_an_earlier_generation(db: Database) -> Headers:
    user = await add_user(db, BOB)
    await change_user(db, user, token_version=user.token_version + 1)
    return bearer_of(user)


async def token_of_the_session_of_another(db: Database) -> Headers:
    other = await add_user(db, ADA)
    return signed(claims_of(await add_user(db, BOB)) | {"sid": str(other.id)})


async def token_of_an_ended_session(db: Database) -> Headers:
    user = await add_user(db, BOB)
    async with db.transaction() as session:
        await UserRepository(session).end_session(user.id, user.id)
    return bearer_of(user)


async def key_of_an_earlier_version(db: Database) -> Headers:
    user = await add_user(db, BOB)
    headers = await add_key(db, user, "read", "write")
    await change_user(db, user, token_version=user.token_version + 1)
    return headers


async def token_of_an_inactive_user(db: Database) -> Headers:
    return bearer_of(await add_user(db, BOB, is_active=False))


async def token_of_a_deleted_user(db: Database) -> Headers:
    user = await add_user(db, BOB)
    async with db.transaction() as session:
        await UserRepository(session).delete(user.id)
    return bearer_of(user)


async def refresh_token(db: Database) -> Headers:
    user = await add_user(db, BOB)
    token = security.opaque_token("refresh")
    async with db.transaction() as session:
        await UserRepository(session).add_refresh_token(user.id, security.hash_token(token))
    return {"Authorization": f"Bearer {token}", "X-API-Key": token}


async def good_key(db: Database) -> Headers:
    user = await add_user(db, BOB, is_superuser=True)
    return await add_key(db, user, "read", "write")


async def key_as_token(db: Database) -> Headers:
    return {"Authorization": f"Bearer {(await good_key(db))['X-API-Key']}"}


async def key_behind_a_bad_token(db: Database) -> Headers:
    return await good_key(db) | {"Authorization": "Bearer bad"}


async def start_of_a_key(db: Database) -> Headers:
    return {"X-API-Key": (await good_key(db))["X-API-Key"][:12]}


async def hash_of_a_key(db: Database) -> Headers:
    await good_key(db)
    (key,) = await stored_keys(db)
    return {"X-API-Key": key.key_hash}


async def revoked_key(db: Database) -> Headers:
    headers = await good_key(db)
    (key,) = await stored_keys(db)
    async with db.transaction() as session:
        await UserRepository(session).delete_key(key.user_id, key.id)
    return headers


async def expired_key(db: Database) -> Headers:
    return await add_key(db, await add_user(db, BOB), "read", "write", expires_at=past(1))


async def key_of_an_inactive_user(db: Database) -> Headers:
    return await add_key(db, await add_user(db, BOB, is_active=False), "read", "write")


async def key_of_a_deleted_user(db: Database) -> Headers:
    user = await add_user(db, BOB)
    headers = await add_key(db, user, "read", "write")
    async with db.transaction() as session:
        await UserRepository(session).delete(user.id)
    return headers


BAD: dict[str, Callable[[Database], Awaitable[Any]]] = {
    "nothing": nothing,
    "empty header": headers_with("Authorization", ""),
    "no token": headers_with("Authorization", "Bearer"),
    "empty token": headers_with("Authorization", "Bearer "),
    "garbage": headers_with("Authorization", "Bearer garbage"),
    "garbage of three parts": headers_with("Authorization", "Bearer e30.e30.e30"),
    "garbage that is no ASCII": headers_with("Authorization", b"Bearer \xff.\xe9.\x80"),
    "long garbage": headers_with("Authorization", f"Bearer {'x' * 5000}"),
    "basic": headers_with("Authorization", "Basic YWRhOmFkYQ=="),
    "no scheme": scheme(""),
    "another scheme": scheme("Token "),
    "token as a key": token_as_key,
    "refresh token": refresh_token,
    "expired": token_with(exp=past(60)),
    "not yet": token_with(nbf=past(-3600)),
    "issued in the future": token_with(iat=past(-3600)),
    "another key": token_with("another key of as many characters"),
    "another algorithm": token_with(SECRET * 2, "HS512"),
    "another algorithm, right key": token_with(SECRET, "HS384"),
    "alg none": token_with("", "none"),
    "another audience": token_with(aud="another service"),
    "another issuer": token_with(iss="another service"),
    "another subject": token_with(sub=str(UUID(int=0))),
    "odd subject": token_with(sub="admin"),
    "another session": token_with(sid=str(UUID(int=0))),
    "odd session": token_with(sid="x"),
    "session that is no text": token_with(sid=1),
    "session of another user": token_of_the_session_of_another,
    "ended session": token_of_an_ended_session,
    "odd token_version": token_with(ver="x"),
    "no token_version": token_with(ver=None),
    "later token_version": token_with(ver=2),
    "earlier token_version": token_of_an_earlier_generation,
    **{f"without {claim}": token_without(claim) for claim in security.CLAIMS},
    "inactive user": token_of_an_inactive_user,
    "deleted user": token_of_a_deleted_user,
    "empty API key": headers_with("X-API-Key", ""),
    "garbage API key": headers_with("X-API-Key", "key_garbage"),
    "API key that is no ASCII": headers_with("X-API-Key", b"\xff\xe9"),
    "API key as a token": key_as_token,
    "API key behind a bad token": key_behind_a_bad_token,
    "start of an API key": start_of_a_key,
    "hash of an API key": hash_of_a_key,
    "revoked API key": revoked_key,
    "expired API key": expired_key,
    "API key of an earlier version": key_of_an_earlier_version,
    "API key of an inactive user": key_of_an_inactive_user,
    "API key of a deleted user": key_of_a_deleted_user,
}


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
@pytest.mark.parametrize("credentials", BAD.values(), ids=BAD)
async def test_invalid_credentials_are_refused(
    closed: list[Operation],
    db: Database,
    anonymous: AsyncClient,
    credentials: Callable[[Database], Awaitable[Headers]],
) -> None:
    headers = await credentials(db)
    for operation in closed:
        problem(await call(anonymous, operation, headers), 401)


async def test_credentials_in_the_query_are_ignored(db: Database, anonymous: AsyncClient) -> None:
    """Proxies log URLs."""
    user = await add_user(db, ADA)
    token = bearer_of(user)["Authorization"].removeprefix("Bearer ")
    key = (await add_key(db, user, "read"))["X-API-Key"]
    for name, value in (("access_token", token), ("token", token), ("X-API-Key", key)):
        problem(await anonymous.get(ME, params={name: value}), 401)


async def test_public_routes_are_listed_here(
    operations: list[Operation], anonymous: AsyncClient
) -> None:
    responses = {operation: await call(anonymous, operation) for operation in operations}
    assert {key for key, response in responses.items() if response.status_code != 401} == PUBLIC
    for operation in PUBLIC:
        assert is_let_in(responses[operation]), responses[operation].text


async def test_invalid_credentials_do_not_close_public_routes(anonymous: AsyncClient) -> None:
    for headers in ({"Authorization": "Bearer bad"}, {"X-API-Key": "bad"}):
        for operation in PUBLIC:
            assert is_let_in(await call(anonymous, operation, headers))


def test_every_route_is_in_the_openapi_document(app: FastAPI, operations: list[Operation]) -> None:
    routers = [health.router, *(router for _, router in (*api.PUBLIC, *api.CLOSED))]
    routes = [route for router in routers for route in router.routes]
    assert len(routes) == len(operations)
    assert all(isinstance(route, APIRoute) and route.include_in_schema for route in routes)
    own = [route for route in app.routes if isinstance(route, APIRoute)]
    beside = {route.path for route in app.routes if isinstance(route, Route)} - {
        route.path for route in own
    }
    assert beside == {"/docs", "/openapi.json", "/redoc", *docs.ASSETS}
    assert (len(own), len(app.routes)) == (len(routes), len(routes) + len(beside))


def test_the_openapi_document_declares_closed_routes(
    app: FastAPI, operations: list[Operation]
) -> None:
    document = app.openapi()
    for method, path in operations:
        described = document["paths"][path][method.lower()]
        if (method, path) in PUBLIC:
            assert described["security"] == []
        else:
            assert described["security"]
            assert {"401", "403"} <= set(described["responses"])
    flows = document["components"]["securitySchemes"]["OAuth2PasswordBearer"]["flows"]
    # Relative, so that it also works behind a proxy that adds a path prefix.
    assert f"/{flows['password']['tokenUrl']}" == TOKEN


async def test_a_valid_token_opens_every_route(
    closed: list[Operation], db: Database, anonymous: AsyncClient
) -> None:
    # Signed by the test itself: this shows that its other tokens are well-formed.
    headers = signed(claims_of(await add_user(db, BOB, is_superuser=True)))
    await add_user(db, "other@example.com", is_superuser=True)
    for operation in closed:
        if operation != ("DELETE", ME):
            assert is_let_in(await call(anonymous, operation, headers))
    assert (await call(anonymous, ("DELETE", ME), headers)).status_code == 204


@pytest.mark.parametrize("signed_in", [False, True])
async def test_a_session_before_the_caller_is_a_server_error(
    live_app: FastAPI, live: AsyncClient, *, signed_in: bool
) -> None:
    @live_app.get("/late")
    async def late(session: ReadSessionDep, caller: OptionalCallerDep) -> str:
        return caller.name

    response = await live.get("/late", headers={} if signed_in else {"Authorization": ""})
    assert response.status_code == 500


@pytest.mark.parametrize("path", [ME, KEYS])
async def test_authentication_comes_before_validation(anonymous: AsyncClient, path: str) -> None:
    bodies: list[Any] = [{"no such": "field"}, [], "x", 1]
    for sent in bodies:
        for method in ("POST", "PATCH"):
            response = await anonymous.request(method, path, json=sent)
            assert response.status_code in {401, 405}
    problem(await anonymous.get(KEYS, params={"limit": "x"}), 401)
    problem(await anonymous.delete(f"{KEYS}/x"), 401)


async def test_a_request_without_credentials_runs_no_statement(
    closed: list[Operation], anonymous: AsyncClient, statements: Statements
) -> None:
    for operation in closed:
        await call(anonymous, operation)
        await call(anonymous, operation, {"Authorization": "Bearer bad"})
    assert statements.sent == []


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
async def test_clocks_may_differ_by_ten_seconds(
    anonymous: AsyncClient, db: Database, claim: str
) -> None:
    claims = claims_of(await add_user(db, BOB))
    sign = 1 if claim == "exp" else -1
    for seconds, status in ((5, 200), (60, 401)):
        headers = signed(claims | {claim: past(sign * seconds)})
        assert (await anonymous.get(ME, headers=headers)).status_code == status


async def test_an_accepted_token_expires(
    anonymous: AsyncClient, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = signed(claims_of(await add_user(db, BOB)) | {"exp": past(5)})
    assert (await anonymous.get(ME, headers=headers)).status_code == 200
    monkeypatch.setattr(security, "CLOCK_LEEWAY", 0)
    problem(await anonymous.get(ME, headers=headers), 401)


async def test_rows_of_other_users_are_404(
    client: AsyncClient, anonymous: AsyncClient, db: Database
) -> None:
    other = await add_user(db, ADA)
    headers = await add_key(db, other, "read", "write")
    (key,) = await stored_keys(db)
    document = problem(await client.delete(f"{KEYS}/{key.id}"), 404)
    unknown = problem(await client.delete(f"{KEYS}/{UUID(int=0)}"), 404)
    assert document["detail"] == unknown["detail"]
    assert (await client.get(KEYS)).json()["items"] == []
    assert (await anonymous.get(ME, headers=headers)).json()["id"] == str(other.id)
