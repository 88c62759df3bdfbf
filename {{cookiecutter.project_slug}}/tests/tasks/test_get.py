"""GET /v1/tasks/{id}."""

import pytest
from httpx2 import AsyncClient

from tests.caller import COMMENT
from tests.conftest import problem
from tests.tasks.helpers import NOBODY, TASKS, create, path, read


async def test_a_task_has_its_tags(client: AsyncClient) -> None:
    task = await create(client, "Buy milk", tags=["shop", "home"])
    await create(client, "Another", tags=["other"])
    assert await read(client, path(task)) == task


async def test_an_unchanged_task_is_304(client: AsyncClient) -> None:
    task = path(await create(client, "Buy milk"))
    tag = (await client.get(task)).headers["ETag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        response = await client.get(task, headers={"If-None-Match": known})
        assert (response.status_code, response.content) == (304, b""), known
        assert response.headers["ETag"] == tag
    await client.patch(task, json={"title": "Buy bread"})
    response = await client.get(task, headers={"If-None-Match": tag})
    assert (response.status_code, response.json()["title"]) == (200, "Buy bread")


async def test_a_comment_does_not_change_the_etag(client: AsyncClient) -> None:
    task = path(await create(client))
    before = await client.get(task)
    await client.post(f"{task}/comments", json={**COMMENT, "body": "Hello"})
    after = await client.get(task)
    assert (after.content, after.headers["ETag"]) == (before.content, before.headers["ETag"])


async def test_an_unknown_task_is_404(client: AsyncClient) -> None:
    document = problem(await client.get(NOBODY), 404)
    assert document["detail"] == "There is no such task."
    assert document["instance"] == NOBODY


@pytest.mark.parametrize("key", ["1", "x" * 36, "%00", f"{'0' * 31}g", "0" * 5000])
async def test_an_invalid_key_is_404(client: AsyncClient, key: str) -> None:
    problem(await client.get(f"{TASKS}/{key}"), 404)
