"""Every route is called by a second user with the rows of the first, and returns 404."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID, uuid4

from fastapi import FastAPI

from app.kit.db.engine import Database
from app.kit.errors import NotFound
from app.kit.routing import Router
from tests import caller
from tests.conftest import calling
from tests.examples import EXAMPLES, SHARED
from tests.kit.openapi import Api, Example, NoExample, Operation, operations
from tests.kit.test_bad_input import HINT


@asynccontextmanager
async def two_users(app: FastAPI) -> AsyncIterator[tuple[Api, Api]]:
    """Open a client of each of two users."""
    db: Database = app.state.database
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(2):
            client = await stack.enter_async_context(calling(app))
            client.headers.update(await caller.credentials(db))
            found.append(Api(app, client, operations(app), EXAMPLES))
        yield found[0], found[1]


async def findings(app: FastAPI) -> tuple[list[str], set[str]]:
    """Call every operation on a row of one user as another.

    Returns:
        What is wrong, one sentence each; and the operations that were tried.
    """
    found, tried, rows = [], set[str](), set[str]()
    for operation in operations(app):
        if operation.keys and str(operation) not in SHARED:
            # Two new users each time: the operation may end the session of its caller.
            async with two_users(app) as (owner, other):
                example = await owner.example(operation)
                rows |= {str(value) for value in example.path.values()}
                if wrong := await _try(owner, other, operation, example):
                    found.append(f"{operation}{wrong}")
            tried.add(str(operation))
    for operation in operations(app):
        if operation.method == "GET" and not operation.keys and str(operation) not in SHARED:
            async with two_users(app) as (_, other):
                response = await other.send(operation, await other.example(operation))
            if shown := sorted(row for row in rows if row in response.text):
                found.append(f"{operation} shows {shown} to another user")
            tried.add(str(operation))
    return found, tried


async def _try(owner: Api, other: Api, operation: Operation, example: Example) -> str:
    """Return what is wrong with one operation, or nothing."""
    readers = [
        each for each in owner.operations if (each.method, each.path) == ("GET", operation.path)
    ]
    try:
        before = [(await owner.send(each, example)).text for each in readers]
        refused = await other.send(operation, example)
        after = [(await owner.send(each, example)).text for each in readers]
        reached = await owner.send(operation, example)
    except NoExample as error:
        return f" can't be tried, {error}: {HINT}."
    if reached.status_code == 403 == refused.status_code:
        return ""  # neither user may call it
    if not reached.is_success:
        return f" can't be tried, its owner got {reached.status_code} {reached.text}: {HINT}."
    if refused.status_code != 404:
        return f" returned {refused.status_code} to another user, instead of 404"
    return "" if before == after else " changed the row of another user"


async def test_rows_of_other_users_are_404(app: FastAPI) -> None:
    found, tried = await findings(app)
    assert found == []
    every = {str(each) for each in operations(app)}
    assert tried | SHARED >= {str(each) for each in operations(app) if each.keys}
    assert every >= SHARED, "tests/examples.py names operations that do not exist"


async def test_a_route_that_ignores_ownership_is_reported(live_app: FastAPI) -> None:
    router = Router()
    kept: dict[UUID, str] = {}

    @router.post("/leaks", status_code=201)
    async def create(title: str) -> dict[str, str]:
        kept[key := uuid4()] = title
        return {"id": str(key)}

    @router.get("/leaks")
    async def list_all() -> list[str]:
        return [str(key) for key in kept]

    @router.get("/leaks/{leak_id}")
    async def get(leak_id: UUID) -> str:
        if leak_id not in kept:
            raise NotFound("There is no such leak.")
        return kept[leak_id]

    @router.delete("/leaks/{leak_id}", status_code=204)
    async def delete(leak_id: UUID) -> None:
        if kept.pop(leak_id, None) is None:
            raise NotFound("There is no such leak.")

    live_app.include_router(router)
    operations(live_app)
    async with live_app.router.lifespan_context(live_app):
        found, _ = await findings(live_app)
    for start in (
        "GET /leaks shows ",
        "GET /leaks/{leak_id} returned 200 to another user",
        "DELETE /leaks/{leak_id} ",
    ):
        assert any(line.startswith(start) for line in found), found
    assert all("/leaks" in line for line in found), found
