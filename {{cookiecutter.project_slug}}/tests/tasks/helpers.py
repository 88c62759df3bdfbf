"""What the tests of tasks share."""

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from httpx2 import AsyncClient, Response

from app.kit.db.engine import Database
from app.tasks.models import Comment, Tag, Task
from tests import caller
from tests.conftest import problem

Json = dict[str, Any]

TASKS = "/v1/tasks"
TAGS = "/v1/tags"
BATCH = f"{TASKS}/batch"
NOBODY = f"{TASKS}/{UUID(int=0)}"
"""The path of a task that is not there."""

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)
JSON = {"Content-Type": "application/json"}


def path(task: Json) -> str:
    return f"{TASKS}/{task['id']}"


def minutes(number: int) -> datetime:
    return NOON + timedelta(minutes=number)


def names(tasks: Sequence[Json]) -> list[str]:
    return [task["title"] for task in tasks]


async def create(client: AsyncClient, title: str = "Task", **fields: Any) -> Json:
    response = await client.post(TASKS, json={"title": title, **fields})
    assert response.status_code == 201, response.text
    task: Json = response.json()
    return task


async def read(client: AsyncClient, url: str, **query: Any) -> Json:
    response = await client.get(url, params=query)
    assert response.status_code == 200, response.text
    document: Json = response.json()
    return document


async def pages(
    client: AsyncClient, url: str, limit: int, **query: Any
) -> AsyncIterator[list[Json]]:
    """Read a list page by page; all are full but the last, which is empty only if it is alone."""
    for number in range(100):
        page = await read(client, url, limit=limit, **query)
        items: list[Json] = page["items"]
        query["cursor"] = page["next_cursor"]
        if query["cursor"] is None:
            assert number == 0 or 0 < len(items) <= limit
            yield items
            return
        assert len(items) == limit
        yield items
    pytest.fail("The list does not end.")


async def walk(client: AsyncClient, url: str, limit: int, **query: Any) -> list[Json]:
    """Return the items of all pages."""
    return [item async for page in pages(client, url, limit, **query) for item in page]


def blamed(response: Response) -> list[str]:
    """Return the fields that a 422 names."""
    return [error["field"] for error in problem(response, 422)["errors"]]


async def store(db: Database, *rows: Task | Tag | Comment) -> None:
    """Write rows that no client could: with times, or in numbers, of the test's choice."""
    for row in rows:
        tasks = [row.task] if isinstance(row, Comment) else [row] if isinstance(row, Task) else []
        tags = [tag for task in tasks for tag in task.tags]
        caller.own(*tasks, *tags, *([row] if isinstance(row, Tag) else []))
    async with db.transaction() as session:
        session.add_all(rows)


def without(items: Sequence[Json], ids: Collection[str]) -> list[Json]:
    return [item for item in items if item["id"] not in ids]
