"""Rows are visible to the user who created them and to superusers only."""

from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient

from app.kit.caller import Caller
from app.kit.db.engine import Database
from app.kit.db.repository import Repository
from app.kit.errors import Conflict
from app.tasks.models import Tag
from tests import caller
from tests.conftest import problem
from tests.tasks.helpers import TAGS, TASKS, create, path, read
from tests.users.helpers import ADA, Headers, add_key, add_user


@pytest.fixture
async def other(app: FastAPI, db: Database, client: AsyncClient) -> Headers:
    """Return the headers of a second user."""
    return await caller.credentials(db)


@pytest.fixture
async def root(app: FastAPI, db: Database, client: AsyncClient) -> Headers:
    """Return the headers of a superuser."""
    return await caller.superuser(db)


CALLS: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", "", None),
    ("PATCH", "", {"title": "Mine"}),
    ("PATCH", "", {"tags": ["mine"]}),
    ("DELETE", "", None),
    ("GET", "/comments", None),
    ("POST", "/comments", {"body": "Hello"}),
]


@pytest.mark.parametrize(("method", "below", "body"), CALLS)
async def test_a_task_of_another_user_is_404(
    client: AsyncClient, other: Headers, method: str, below: str, body: dict[str, Any] | None
) -> None:
    task = await create(client, "Buy milk", tags=["home"])
    for headers in (other, other | {"If-Match": '"1"'}):
        response = await client.request(method, path(task) + below, json=body, headers=headers)
        assert problem(response, 404)["detail"] == "There is no such task."
    assert await read(client, path(task)) == task


async def test_lists_contain_only_the_callers_rows(client: AsyncClient, other: Headers) -> None:
    await create(client, "Buy milk", tags=["home", "shop"])
    assert (await client.get(TASKS, headers=other)).json()["items"] == []
    assert (await client.get(TAGS, headers=other)).json()["items"] == []
    made = await client.post(TASKS, json={"title": "x", "tags": ["home"]}, headers=other)
    assert made.status_code == 201
    assert (await client.get(TASKS, headers=other)).json()["items"] == [made.json()]
    counts = [{"name": "home", "task_count": 1}]
    assert (await client.get(TAGS, headers=other)).json()["items"] == counts
    assert [tag["name"] for tag in (await read(client, TAGS))["items"]] == ["home", "shop"]
    found = await read(client, f"{TASKS}?tag=home")
    assert [task["title"] for task in found["items"]] == ["Buy milk"]


async def test_a_superuser_sees_and_changes_all(client: AsyncClient, root: Headers) -> None:
    task = await create(client, "Buy milk", tags=["home"])
    assert (await client.get(path(task), headers=root)).json() == task
    assert (await client.get(TASKS, headers=root)).json()["items"] == [task]
    changed = await client.patch(path(task), json={"tags": ["new"]}, headers=root)
    assert changed.json()["tags"] == ["new"]
    # The tags of a task belong to the owner of the task.
    assert [tag["name"] for tag in (await read(client, TAGS))["items"]] == ["home", "new"]
    comment = await client.post(f"{path(task)}/comments", json={"body": "Done?"}, headers=root)
    assert comment.status_code == 201
    assert (await read(client, f"{path(task)}/comments"))["items"] == [comment.json()]


class Tags(Repository[Tag]):
    model = Tag


async def test_a_duplicate_value_names_the_fields_of_the_api(
    db: Database, client: AsyncClient
) -> None:
    owner = Caller((await add_user(db, "a@example.com")).id)
    async with db.transaction() as session:
        tags = Tags(session, owner)
        await tags.create({"name": "home"})
        with pytest.raises(Conflict) as caught:
            await tags.create({"name": "home"})
        await session.rollback()
    assert [error.field for error in caught.value.errors] == ["name"]


@pytest.mark.parametrize(("scopes", "status"), [(["read"], 404), (["read", "admin"], 200)])
async def test_a_key_of_a_superuser_sees_all_with_the_scope_admin(
    client: AsyncClient, db: Database, *, scopes: list[str], status: int
) -> None:
    task = await create(client, "Buy milk", tags=["home"])
    key = await add_key(db, await add_user(db, ADA, is_superuser=True), *scopes)
    del client.headers["Authorization"]
    assert (await client.get(path(task), headers=key)).status_code == status


async def test_deleting_a_user_deletes_the_users_rows(client: AsyncClient, root: Headers) -> None:
    await create(client, "Buy milk", tags=["home"])
    assert (await client.delete("/v1/users/me")).status_code == 204
    assert (await client.get(TASKS, headers=root)).json()["items"] == []
    assert (await client.get(TAGS, headers=root)).json()["items"] == []
