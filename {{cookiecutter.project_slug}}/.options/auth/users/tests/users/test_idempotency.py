"""A stored response is returned only to the user who sent the request."""

from collections.abc import AsyncIterator
from itertools import count

import pytest
from fastapi import Depends, FastAPI, Request, Response
from httpx2 import AsyncClient

from app.kit.caller import CallerDep
from app.kit.db.engine import Database
from app.kit.db.session import SessionDep
from app.kit.idempotency.session import idempotent
from app.kit.routing import Router
from app.users.caller import OptionalCallerDep, authorize
from tests.caller import headers as bearer_of
from tests.conftest import calling, problem
from tests.users.helpers import ADA, BOB, KEYS, Headers, add_key, add_user

ECHO = "/echo"
KEY = {"Idempotency-Key": "a key"}


@pytest.fixture
async def echoes(app: FastAPI) -> AsyncIterator[AsyncClient]:
    """Return a client of an app with a closed route that returns its caller and a number."""
    router = Router()
    numbers = count(1)

    @router.post(ECHO, status_code=201)
    @idempotent
    async def echo(caller: CallerDep, session: SessionDep) -> str:
        return f"{caller.name} {next(numbers)}"

    routes = list(app.router.routes)
    app.include_router(router, dependencies=[Depends(authorize, scope="function")])
    async with calling(app) as client:
        yield client
    app.router.routes[:] = routes


async def test_users_do_not_share_idempotency_keys(echoes: AsyncClient, db: Database) -> None:
    ada = await add_key(db, await add_user(db, ADA, name=ADA), "write")
    bob = await add_key(db, await add_user(db, BOB, name=BOB), "write")

    async def ask(headers: Headers) -> str:
        result: str = (await echoes.post(ECHO, headers=headers | KEY)).json()
        return result

    assert [await ask(headers) for headers in (ada, bob, ada, bob)] == [
        f"{ADA} 1",
        f"{BOB} 2",
        f"{ADA} 1",
        f"{BOB} 2",
    ]


async def test_a_retry_may_use_another_credential(echoes: AsyncClient, db: Database) -> None:
    user = await add_user(db, ADA)
    credentials = [await add_key(db, user, "write") for _ in range(2)]
    responses = [await echoes.post(ECHO, headers=credential | KEY) for credential in credentials]
    assert responses[0].json() == responses[1].json()


async def test_an_idempotency_key_does_not_replace_credentials(
    echoes: AsyncClient, db: Database
) -> None:
    user = await add_user(db, ADA)
    await echoes.post(ECHO, headers=await add_key(db, user, "write") | KEY)
    problem(await echoes.post(ECHO, headers=KEY), 401)
    problem(await echoes.post(ECHO, headers=await add_key(db, user, "read") | KEY), 403)


async def test_a_response_with_a_secret_is_not_stored(client: AsyncClient) -> None:
    body = {"name": "key", "scopes": ["read"]}
    responses = [await client.post(KEYS, json=body, headers=KEY) for _ in range(2)]
    assert responses[0].json()["key"] != responses[1].json()["key"]


async def test_a_form_may_have_a_key_and_cookies_are_not_stored(
    app: FastAPI, anonymous: AsyncClient
) -> None:
    router = Router()

    @router.post("/form")
    @idempotent
    async def form(request: Request, session: SessionDep, response: Response) -> str:
        response.set_cookie("secret", "x")
        async with request.form() as sent:
            return str(sent["name"])

    routes = list(app.router.routes)
    app.include_router(router)
    for cookies in (1, 0):
        result = await anonymous.post("/form", data={"name": "x"}, headers=KEY)
        assert (result.status_code, result.json()) == (200, "x")
        assert len(result.headers.get_list("set-cookie")) == cookies
    app.router.routes[:] = routes


async def test_a_session_before_the_caller_is_a_server_error(app: FastAPI, db: Database) -> None:
    router = Router()

    @router.post(ECHO)
    @idempotent
    async def echo(session: SessionDep, caller: OptionalCallerDep) -> str:
        return caller.name

    routes = list(app.router.routes)
    app.include_router(router)  # without a guard, the session opens before the caller is known
    headers = bearer_of(await add_user(db, ADA))
    async with calling(app) as client:
        problem(await client.post(ECHO, headers=headers | KEY), 500)
    app.router.routes[:] = routes
