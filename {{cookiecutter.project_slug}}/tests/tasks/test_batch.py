"""POST /v1/tasks/batch."""

from typing import Any

import pytest
from httpx2 import AsyncClient

from tests.tasks.helpers import BATCH, TAGS, TASKS, blamed, names, path, read, walk


async def test_a_thousand_tasks_are_returned_in_order(client: AsyncClient) -> None:
    # In no order of their own, and with and without what may be null.
    items = [
        {
            "title": f"{number * 7 % 1000:03}",
            "tags": [f"tag {number % 3}", "all"],
            **({"description": f"{number}"} if number % 2 else {}),
            **({"due_at": "2026-01-01T00:00:00Z"} if number % 5 else {}),
        }
        for number in range(1000)
    ]
    response = await client.post(BATCH, json={"items": items})
    assert response.status_code == 201
    tasks = response.json()["items"]
    assert names(tasks) == [item["title"] for item in items]
    for task, item in zip(tasks, items, strict=True):
        assert task["description"] == item.get("description")
        assert task["due_at"] == item.get("due_at")
        assert task["tags"] == sorted(item["tags"])
    assert len({task["id"] for task in tasks}) == 1000
    assert (await read(client, TAGS))["items"] == [
        {"name": "all", "task_count": 1000},
        {"name": "tag 0", "task_count": 334},
        {"name": "tag 1", "task_count": 333},
        {"name": "tag 2", "task_count": 333},
    ]
    assert names(await walk(client, TASKS, 100, sort="title")) == sorted(names(tasks))


async def test_a_batch_of_one_equals_a_single_task(client: AsyncClient) -> None:
    response = await client.post(BATCH, json={"items": [{"title": "x", "tags": ["b", "a", "b"]}]})
    (task,) = response.json()["items"]
    assert await read(client, path(task)) == task
    assert task["tags"] == ["a", "b"]


@pytest.mark.parametrize("place", [0, 1, 999])
async def test_one_invalid_item_refuses_the_batch(client: AsyncClient, place: int) -> None:
    items: list[Any] = [{"title": "x", "tags": ["home"]} for _ in range(1000)]
    items[place] = {"title": ""}
    assert blamed(await client.post(BATCH, json={"items": items})) == [f"body.items.{place}.title"]
    assert (await read(client, TASKS))["items"] == []
    assert (await read(client, TAGS))["items"] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"items": []}, "body.items"),
        ({"items": [{"title": "x"}] * 1001}, "body.items"),
        ({"items": None}, "body.items"),
        ({"items": {"title": "x"}}, "body.items"),
        ({"items": [None]}, "body.items.0"),
        ({}, "body.items"),
        ({"items": [{"title": "x"}], "more": 1}, "body.more"),
        ({"items": [{"title": "x", "more": 1}]}, "body.items.0.more"),
    ],
    ids=["none", "1001", "null", "object", "item null", "missing", "field", "field of an item"],
)
async def test_an_invalid_batch_is_refused(client: AsyncClient, body: object, field: str) -> None:
    assert blamed(await client.post(BATCH, json=body)) == [field]
    assert (await read(client, TASKS))["items"] == []
