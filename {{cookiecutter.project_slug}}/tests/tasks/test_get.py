"""GET /v1/tasks/{id}."""

import pytest
from httpx2 import AsyncClient

from app.kit.db.engine import Database
from app.tasks.models import Comment, Task
from tests.conftest import problem
from tests.tasks.helpers import NOBODY, TASKS, blamed, create, minutes, path, read, store


async def test_a_task_comes_with_its_tags_and_comments(client: AsyncClient) -> None:
    task = await create(client, "Buy milk", tags=["shop", "home"])
    await create(client, "Another", tags=["other"])
    comment = await client.post(f"{path(task)}/comments", json={"author": "Ada", "body": "Two?"})
    assert await read(client, path(task)) == {**task, "comments": [comment.json()]}


async def test_comments_come_the_oldest_first(client: AsyncClient, db: Database) -> None:
    task = Task(title="Task")
    times = [3, 1, 2, 1]
    comments = [
        Comment(task=task, author="Ada", body=f"{time}", created_at=minutes(time)) for time in times
    ]
    await store(db, task, *comments)
    comments.sort(key=lambda comment: (comment.created_at, comment.id))
    found = (await read(client, f"{TASKS}/{task.id}"))["comments"]
    assert [comment["id"] for comment in found] == [str(comment.id) for comment in comments]


async def test_only_the_first_hundred_comments_come_with_a_task(
    client: AsyncClient, db: Database
) -> None:
    task = Task(title="Task")
    comments = [
        Comment(task=task, author="Ada", body=f"{number}", created_at=minutes(number))
        for number in range(101)
    ]
    await store(db, task, *comments)
    found = (await read(client, f"{TASKS}/{task.id}"))["comments"]
    assert [comment["body"] for comment in found] == [f"{number}" for number in range(100)]


async def test_a_task_that_is_not_there(client: AsyncClient) -> None:
    document = problem(await client.get(NOBODY), 404)
    assert document["detail"] == "There is no such task."
    assert document["instance"] == NOBODY


@pytest.mark.parametrize("key", ["1", "x" * 36, "%00", f"{'0' * 31}g", "0" * 5000])
async def test_a_key_that_is_none(client: AsyncClient, key: str) -> None:
    assert blamed(await client.get(f"{TASKS}/{key}")) == ["path.task_id"]
