"""Permissions: every route is tried with each caller in the table of ``docs/security.md``.

Your own routes that require a permission (``require``) have to be in the table, too.
"""

import re
from collections.abc import Awaitable, Callable

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient
from sqlalchemy import update

from app.kit import project
from app.kit.db.engine import Database
from app.users.models import UserSession
from app.users.permissions import (
    ALL_SCOPES,
    MEMBER,
    SCOPES,
    SUPERUSER,
    Permission,
    permissions_of_key,
)
from scripts.routes import routes
from tests.caller import headers as bearer_of
from tests.users.helpers import ADA, BOB, Headers, Json, add_key, add_user, past

Operation = tuple[str, str]

OTHERS = "every other route"
"""The row of the table for all routes without a row."""

COLUMNS = ("anonymous", "member", "superuser", "key", "admin key")


def _table() -> dict[str, list[str]]:
    """Return the cells of the table by its first column."""
    text = (project.ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    head = f"| route | {' | '.join(COLUMNS)} |"
    _, _, rest = text.partition(head)
    assert rest, f"docs/security.md has no table with the head {head}"
    rows = re.findall(r"^\|(.*)\|$", rest.partition("\n\n")[0], flags=re.MULTILINE)[1:]
    cells = [[cell.strip() for cell in row.split("|")] for row in rows]
    return {first.strip("`"): others for first, *others in cells}


TABLE = _table()


async def anonymous_caller(_db: Database) -> Headers:
    return {}


async def member(db: Database) -> Headers:
    return bearer_of(await add_user(db, ADA))


async def superuser(db: Database) -> Headers:
    return bearer_of(await add_user(db, ADA, is_superuser=True))


async def key(db: Database) -> Headers:
    return await add_key(db, await add_user(db, ADA), "read", "write")


async def key_of_a_superuser(db: Database) -> Headers:
    return await add_key(db, await add_user(db, ADA, is_superuser=True), "read", "write")


async def admin_key(db: Database) -> Headers:
    return await add_key(db, await add_user(db, ADA, is_superuser=True), "read", "write", "admin")


async def admin_key_of_a_member(db: Database) -> Headers:
    return await add_key(db, await add_user(db, ADA), "read", "write", "admin")


CALLERS = [
    ("anonymous", anonymous_caller),
    ("member", member),
    ("superuser", superuser),
    ("key", key),
    ("key", key_of_a_superuser),
    ("admin key", admin_key),
    ("key", admin_key_of_a_member),
]


@pytest.fixture
def operations(shared_app: FastAPI) -> list[Operation]:
    """Return every operation of the OpenAPI document; those that end credentials come last."""
    found = [
        (method.upper(), path)
        for path, methods in sorted(shared_app.openapi()["paths"].items())
        for method in sorted(methods)
    ]
    return sorted(found, key=lambda operation: operation == ("DELETE", "/v1/users/me"))


def allowed(operation: Operation, column: str) -> str:
    """Return the cell of the table."""
    row = TABLE.get(" ".join(operation), TABLE[OTHERS])
    return row[COLUMNS.index(column)]


async def status(client: AsyncClient, operation: Operation, headers: Headers) -> int:
    """Call an operation with valid parameters; return the status of the response."""
    method, path = operation
    url = re.sub(r"\{\w+\}", "00000000-0000-0000-0000-000000000000", path)
    sent: Json | None = None if method in {"GET", "DELETE"} else {}
    return (await client.request(method, url, json=sent, headers=headers)).status_code


def test_the_table_lists_existing_routes(operations: list[Operation]) -> None:
    assert set(TABLE) - {OTHERS} <= {" ".join(operation) for operation in operations}
    assert {len(row) for row in TABLE.values()} == {len(COLUMNS)}
    assert {cell for row in TABLE.values() for cell in row} <= {"yes", "recent", "-"}


@pytest.mark.parametrize(
    ("column", "caller"), CALLERS, ids=[caller.__name__ for _, caller in CALLERS]
)
async def test_every_route_and_every_caller(
    operations: list[Operation],
    anonymous: AsyncClient,
    db: Database,
    *,
    column: str,
    caller: Callable[[Database], Awaitable[Headers]],
) -> None:
    headers = await caller(db)
    expected, found = {}, {}
    for operation in operations:
        answered = await status(anonymous, operation, headers)
        expected[operation] = allowed(operation, column) != "-"
        found[operation] = answered not in {401, 403}
        assert answered < 500
        if not found[operation]:
            assert answered == (401 if column == "anonymous" else 403)
    assert found == expected


async def test_some_routes_require_a_recent_login(
    operations: list[Operation], anonymous: AsyncClient, db: Database
) -> None:
    headers = await superuser(db)
    async with db.transaction() as session:
        await session.execute(update(UserSession).values(created_at=past(301)))
    refused = [
        operation
        for operation in operations
        if operation != ("POST", "/v1/users")  # public
        and await status(anonymous, operation, headers) == 403
    ]
    recent = [each for each in operations if allowed(each, "superuser") == "recent"]
    assert refused == recent


def test_just_routes_prints_who_may_call(shared_app: FastAPI, operations: list[Operation]) -> None:
    printed = {(method, path): callers for method, path, callers in routes(shared_app)}
    for operation in operations:
        callers = printed[operation].split(", ")
        assert (callers == ["anyone"]) == (allowed(operation, "anonymous") == "yes"), operation
        assert ("recent login" in callers) == (allowed(operation, "superuser") == "recent")
        managed = {Permission.READ_USERS, Permission.MANAGE_USERS} & set(callers)
        assert bool(managed) == (allowed(operation, "member") == "-"), operation
        assert (len(callers) > 1) == (allowed(operation, "key") == "-"), operation


@pytest.mark.parametrize("scope", ["read", "write"])
async def test_a_scope_allows_its_methods_only(
    operations: list[Operation], anonymous: AsyncClient, db: Database, scope: str
) -> None:
    headers = await add_key(db, await add_user(db, BOB), scope)
    for method, path in operations:
        if allowed((method, path), "key") == "-" or allowed((method, path), "anonymous") == "yes":
            continue
        may = (method == "GET") == (scope == "read")
        answered = await status(anonymous, (method, path), headers)
        assert (answered != 403) is may, (method, path)


async def test_a_key_without_a_scope_is_refused(
    operations: list[Operation], anonymous: AsyncClient, db: Database
) -> None:
    for scopes in ((), ("admin",)):
        user = await add_user(db, f"{len(scopes)}@example.com", is_superuser=True)
        headers = await add_key(db, user, *scopes)
        for operation in operations:
            if allowed(operation, "anonymous") == "-":
                assert await status(anonymous, operation, headers) == 403


def test_roles_and_scopes() -> None:
    assert MEMBER < SUPERUSER == set(Permission)
    assert set(SCOPES) == ALL_SCOPES
    for is_superuser, role in ((False, MEMBER), (True, SUPERUSER)):
        found = permissions_of_key(ALL_SCOPES, is_superuser=is_superuser)
        assert found <= role
        # Keys can't manage accounts, keys or users.
        assert not found & {Permission.MANAGE_ACCOUNT, Permission.MANAGE_USERS}
    assert permissions_of_key(["admin"], is_superuser=False) == set()
