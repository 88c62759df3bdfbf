"""DELETE /v1/tasks/{id}."""

import pytest
from httpx2 import AsyncClient

from tests.caller import COMMENT
from tests.conftest import problem
from tests.tasks.helpers import NOBODY, TAGS, TASKS, create, names, path, read


async def test_deleting_a_task_returns_no_content(client: AsyncClient) -> None:
    response = await client.delete(path(await create(client)))
    assert (response.status_code, response.content) == (204, b"")


@pytest.mark.parametrize(
    ("method", "below", "body"),
    [
        ("GET", "", None),
        ("PATCH", "", {"title": "x"}),
        ("PATCH", "", {"tags": ["x"]}),
        ("DELETE", "", None),
        ("GET", "/comments", None),
        ("POST", "/comments", {**COMMENT, "body": "x"}),
    ],
)
async def test_a_deleted_task_is_404(
    client: AsyncClient, method: str, below: str, body: object
) -> None:
    task = await create(client, tags=["home"])
    await client.post(f"{path(task)}/comments", json={**COMMENT, "body": "Done?"})
    await client.delete(path(task))
    problem(await client.request(method, path(task) + below, json=body), 404)


async def test_a_deleted_task_is_in_no_list(client: AsyncClient) -> None:
    gone = await create(client, "Gone", tags=["home"])
    await create(client, "Here", tags=["home"])
    await client.delete(path(gone))
    for query in ({}, {"tag": "home"}, {"status": "todo"}, {"sort": "due_at"}):
        assert names((await read(client, TASKS, **query))["items"]) == ["Here"]


async def test_a_deleted_task_does_not_count_for_its_tags(client: AsyncClient) -> None:
    task = await create(client, tags=["home"])
    await client.delete(path(task))
    assert (await read(client, TAGS))["items"] == [{"name": "home", "task_count": 0}]


async def test_a_matching_version_is_deleted(client: AsyncClient) -> None:
    task = await create(client)
    response = await client.delete(path(task), headers={"If-Match": '"1"'})
    assert response.status_code == 204
    problem(await client.get(path(task)), 404)


@pytest.mark.parametrize("tag", ['"2"', 'W/"1"', "1", '"9999999999"'])
async def test_a_stale_version_is_not_deleted(client: AsyncClient, tag: str) -> None:
    task = await create(client)
    problem(await client.delete(path(task), headers={"If-Match": tag}), 412)
    assert (await read(client, path(task)))["version"] == 1


async def test_an_unknown_task_is_404(client: AsyncClient) -> None:
    problem(await client.delete(NOBODY), 404)
    problem(await client.delete(NOBODY, headers={"If-Match": '"1"'}), 404)
    problem(await client.delete(f"{TASKS}/1"), 404)
