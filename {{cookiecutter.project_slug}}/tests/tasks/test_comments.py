"""POST and GET /v1/tasks/{id}/comments."""

import json

import pytest
from httpx2 import AsyncClient

from app.kit.db.engine import Database
from app.tasks.models import Comment, Task
from tests.caller import AUTHOR, COMMENT
from tests.conftest import problem
from tests.tasks.helpers import (
    JSON,
    NOBODY,
    TASKS,
    Json,
    blamed,
    create,
    minutes,
    path,
    read,
    store,
    walk,
)

HELLO = {**COMMENT, "body": "Hello"}


@pytest.fixture
async def comments(client: AsyncClient) -> str:
    """Return the path of a task's comments."""
    return f"{path(await create(client))}/comments"


async def test_a_comment_is_returned_and_listed(client: AsyncClient, comments: str) -> None:
    response = await client.post(comments, json=HELLO)
    assert response.status_code == 201
    comment: Json = response.json()
    assert set(comment) == {"id", "author", "body", "created_at"}
    assert (comment["author"], comment["body"]) == (AUTHOR, "Hello")
    assert comment["created_at"].endswith("Z")
    assert await read(client, comments) == {"items": [comment], "next_cursor": None}


async def test_equal_comments_are_separate(client: AsyncClient, comments: str) -> None:
    made = [(await client.post(comments, json=HELLO)).json()["id"] for _ in range(3)]
    assert len(set(made)) == 3
    assert [comment["id"] for comment in (await read(client, comments))["items"]] == made


async def test_a_comment_does_not_change_its_task(client: AsyncClient) -> None:
    task = await create(client)
    await client.post(f"{path(task)}/comments", json=HELLO)
    found = await read(client, path(task))
    assert (found["version"], found["updated_at"]) == (1, task["updated_at"])


async def test_a_task_has_no_comments_at_first(client: AsyncClient, comments: str) -> None:
    assert await read(client, comments) == {"items": [], "next_cursor": None}


@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_pages_return_each_comment_once_oldest_first(
    client: AsyncClient, db: Database, limit: int
) -> None:
    task, other = Task(title="Task"), Task(title="Other")
    rows = [
        # Ties, and in no order of time.
        Comment(task=task, author="Ada", body="x", created_at=minutes(number * 5 % 7))
        for number in range(14)
    ]
    await store(db, task, other, *rows, Comment(task=other, author="Bob", body="x"))
    rows.sort(key=lambda row: (row.created_at, row.id))
    found = await walk(client, f"{TASKS}/{task.id}/comments", limit)
    assert [comment["id"] for comment in found] == [str(row.id) for row in rows]


async def test_the_longest_comment_is_accepted(client: AsyncClient, comments: str) -> None:
    face = "\N{GRINNING FACE}"
    longest = {**dict.fromkeys(COMMENT, face * 100), "body": face * 5000}
    assert (await client.post(comments, json=longest)).status_code == 201
    (found,) = (await read(client, comments))["items"]
    assert {name: found[name] for name in longest} == longest


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("", "body.body"),
        ('"body": ""', "body.body"),
        (f'"body": "{"x" * 5001}"', "body.body"),
        ('"body": null', "body.body"),
        (r'"body": "\u0000"', "body.body"),
        (r'"body": "\ud800"', "body.body"),
        ('"body": NaN', "body.body"),
        ('"body": "x", "task_id": 1', "body.task_id"),
    ],
    ids=["none", "empty", "long", "null", "NUL", "surrogate", "NaN", "unknown field"],
)
async def test_invalid_fields_are_named(
    client: AsyncClient, comments: str, body: str, field: str
) -> None:
    author = json.dumps(COMMENT)[1:-1]
    content = f"{{{', '.join(filter(None, [author, body]))}}}"
    assert blamed(await client.post(comments, content=content, headers=JSON)) == [field]
    assert (await read(client, comments))["items"] == []


@pytest.mark.parametrize("author", ["", "x" * 101, None, "\x00"], ids=ascii)
@pytest.mark.skipif(not COMMENT, reason="the author is the caller")
async def test_an_invalid_author(client: AsyncClient, comments: str, author: str | None) -> None:
    response = await client.post(comments, json={"author": author, "body": "x"})
    assert blamed(response) == ["body.author"]


@pytest.mark.skipif(bool(COMMENT), reason="the author is a field of the body")
async def test_the_author_is_the_caller(client: AsyncClient, comments: str) -> None:
    response = await client.post(comments, json={"author": "Somebody else", "body": "x"})
    assert blamed(response) == ["body.author"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": 0}, "query.limit"),
        ({"limit": 101}, "query.limit"),
        ({"cursor": "x"}, "query.cursor"),
        ({"sort": "created_at"}, "query.sort"),
    ],
)
async def test_invalid_parameters_are_named(
    client: AsyncClient, comments: str, query: Json, field: str
) -> None:
    assert blamed(await client.get(comments, params=query)) == [field]


async def test_an_unknown_task_is_404(client: AsyncClient) -> None:
    problem(await client.get(f"{NOBODY}/comments"), 404)
    document = problem(await client.post(f"{NOBODY}/comments", json=HELLO), 404)
    assert document["detail"] == "There is no such task."
    problem(await client.get(f"{TASKS}/1/comments"), 404)
    problem(await client.post(f"{TASKS}/1/comments", json=HELLO), 404)
