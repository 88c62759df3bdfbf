"""PATCH /v1/tasks/{id}."""

from typing import Any

import pytest
from httpx2 import AsyncClient
from sqlalchemy import update

from app.kit.db.engine import Database
from app.tasks.models import Task
from tests.conftest import problem
from tests.tasks.helpers import (
    JSON,
    NOBODY,
    NOON,
    TAGS,
    TASKS,
    Json,
    blamed,
    create,
    path,
    read,
)

FULL: Json = {
    "title": "Buy milk",
    "description": "Two bottles",
    "status": "doing",
    "due_at": "2026-01-31T10:00:00Z",
    "tags": ["home", "shop"],
}


async def change(client: AsyncClient, task: Json, **fields: Any) -> Json:
    response = await client.patch(path(task), json=fields)
    assert response.status_code == 200, response.text
    changed: Json = response.json()
    return changed


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", "Buy bread"),
        ("description", "One loaf"),
        ("description", ""),
        ("description", None),
        ("status", "done"),
        ("due_at", "2026-02-01T00:00:00Z"),
        ("due_at", None),
        ("tags", ["garden", "home"]),
        ("tags", ["garden"]),
        ("tags", []),
    ],
)
async def test_only_sent_fields_change(client: AsyncClient, field: str, value: object) -> None:
    task = await create(client, **FULL)
    changed = await change(client, task, **{field: value})
    assert changed == {
        **task,
        field: value,
        "version": 2,
        "updated_at": changed["updated_at"],
    }
    assert await read(client, path(task)) == changed


async def test_all_fields_can_change_at_once(client: AsyncClient) -> None:
    task = await create(client)
    changed = await change(client, task, **FULL)
    assert {name: changed[name] for name in FULL} == FULL
    assert changed["version"] == 2


async def test_no_other_task_changes(client: AsyncClient) -> None:
    task, other = await create(client, **FULL), await create(client, **FULL)
    await change(client, task, title="x", tags=[])
    assert await read(client, path(other)) == other


async def test_updated_at_changes_and_created_at_does_not(
    client: AsyncClient, db: Database
) -> None:
    task = await create(client)
    async with db.transaction() as session:
        await session.execute(update(Task).values(created_at=NOON, updated_at=NOON))
    changed = await change(client, task, title="x")
    assert changed["created_at"] == "2020-01-01T12:00:00Z"
    assert changed["updated_at"] > "2020-01-02"


async def test_the_etag_is_that_of_the_new_version(client: AsyncClient) -> None:
    task = await create(client)
    for version in (2, 3):
        response = await client.patch(path(task), json={"title": "x"})
        assert response.headers["ETag"] == f'"{version}"'
        assert response.json()["version"] == version
    assert (await client.get(path(task))).headers["ETag"] == '"3"'


async def test_an_empty_change_changes_nothing(client: AsyncClient) -> None:
    task = await create(client, **FULL)
    assert await change(client, task) == task
    response = await client.patch(path(task), json={}, headers={"If-Match": '"2"'})
    problem(response, 412)


async def test_tags_are_replaced(client: AsyncClient) -> None:
    task = await create(client, tags=["home", "shop"])
    await create(client, tags=["yard"])
    changed = await change(client, task, tags=["yard", "shop", "attic", "shop"])
    assert changed["tags"] == ["attic", "shop", "yard"]
    assert (await read(client, TAGS))["items"] == [
        {"name": "attic", "task_count": 1},
        {"name": "home", "task_count": 0},
        {"name": "shop", "task_count": 1},
        {"name": "yard", "task_count": 2},
    ]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"title": null}', "body.title"),
        ('{"title": ""}', "body.title"),
        (f'{{"title": "{"x" * 201}"}}', "body.title"),
        (r'{"title": "\u0000"}', "body.title"),
        (r'{"title": "\ud800"}', "body.title"),
        ('{"title": NaN}', "body.title"),
        ('{"status": null}', "body.status"),
        ('{"status": "gone"}', "body.status"),
        ('{"tags": null}', "body.tags"),
        ('{"tags": "home"}', "body.tags"),
        ('{"tags": ["a", ""]}', "body.tags.1"),
        ('{"due_at": 1e400}', "body.due_at"),
        ('{"due_at": "2026-01-01T00:00:00"}', "body.due_at"),
        ('{"due_at": "0001-01-01T00:00:00+14:00"}', "body.due_at"),
        (f'{{"description": "{"x" * 10_001}"}}', "body.description"),
        ('{"version": 5}', "body.version"),
        ('{"id": "01890a5d-ac96-774b-bcce-b302099a8057"}', "body.id"),
        ('{"deleted_at": null}', "body.deleted_at"),
        ("[]", "body"),
        ("null", "body"),
    ],
    ids=lambda value: value[:40],
)
async def test_invalid_fields_are_named(client: AsyncClient, body: str, field: str) -> None:
    task = await create(client, **FULL)
    # Something good beside it, that must not come through either.
    body = body.replace("}", ', "description": "new"}') if "description" not in body else body
    response = await client.patch(path(task), content=body, headers=JSON)
    assert blamed(response) == [field]
    assert await read(client, path(task)) == task


@pytest.mark.parametrize("tag", ['"2"', "*", '"1", "2"', '"7","2","9"', 'W/"2", "2"', ' "2" '])
async def test_a_change_of_the_current_version_is_accepted(client: AsyncClient, tag: str) -> None:
    task = await create(client)
    await change(client, task, title="x")
    response = await client.patch(path(task), json={"title": "y"}, headers={"If-Match": tag})
    assert response.status_code == 200, response.text
    assert (response.json()["title"], response.json()["version"]) == ("y", 3)


@pytest.mark.parametrize(
    "tag",
    [
        '"1"',
        '"3"',
        '"1", "3"',
        'W/"2"',
        "garbage",
        '"999999999"',
        f'"{"9" * 5000}"',
        ", ".join(f'"{number}"' for number in range(100, 1100)),
    ],
    ids=lambda tag: f"{tag[:20]} {len(tag)}",
)
async def test_a_change_of_another_version_is_refused(client: AsyncClient, tag: str) -> None:
    task = await change(client, await create(client, **FULL), title="x")
    response = await client.patch(
        path(task), json={"title": "y", "tags": []}, headers={"If-Match": tag}
    )
    problem(response, 412)
    assert "ETag" not in response.headers
    assert await read(client, path(task)) == task


@pytest.mark.parametrize(
    ("first", "second", "status"), [('"1"', '"9"', 200), ('"9"', '"1"', 200), ('"8"', '"9"', 412)]
)
async def test_if_match_may_be_sent_in_two_headers(
    client: AsyncClient, first: str, second: str, status: int
) -> None:
    task = await create(client)
    headers = [("If-Match", first), ("If-Match", second)]
    response = await client.patch(path(task), json={"title": "y"}, headers=headers)
    assert response.status_code == status


async def test_an_unknown_task_is_404(client: AsyncClient) -> None:
    problem(await client.patch(NOBODY, json={"title": "x"}), 404)
    problem(await client.patch(NOBODY, json={"tags": ["home"]}), 404)
    problem(await client.patch(NOBODY, json={}, headers={"If-Match": '"1"'}), 404)
    problem(await client.patch(f"{TASKS}/1", json={}), 404)
    assert (await read(client, TAGS))["items"] == []
