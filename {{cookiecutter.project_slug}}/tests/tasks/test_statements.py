"""How many SQL statements each endpoint sends: the same for one row as for many."""

from typing import Any

import pytest
from httpx2 import AsyncClient

from app.kit.db.engine import Database
from app.tasks.models import Comment, Tag, Task
from tests import caller
from tests.conftest import Statements
from tests.tasks.helpers import BATCH, NOBODY, TAGS, TASKS, minutes, store

OLD_TAG = {"title": "Task", "tags": ["home"]}
NEW_TAG = {"title": "Task", "tags": ["home", "new"]}


async def stored(db: Database, count: int) -> str:
    """Store tasks with tags and comments, the same number of each; return the path of a task."""
    tags = [Tag(name="home"), *(Tag(name=f"{number:02}") for number in range(count))]
    tasks = [
        Task(title="x", due_at=minutes(number) if number % 2 else None, tags=tags[:3])
        for number in range(count)
    ]
    comments = [Comment(task=tasks[0], author="Ada", body="Hello") for _ in range(count)]
    await store(db, *tasks, *tags, *comments)
    return f"{TASKS}/{tasks[0].id}"


@pytest.mark.parametrize("count", [1, 30])
@pytest.mark.parametrize(
    ("method", "url", "body", "expected"),
    [
        ("GET", "{task}", None, 1),
        ("GET", TASKS, None, 2),
        ("GET", f"{TASKS}?limit=100&sort=-due_at&status=todo&tag=home", None, 2),
        ("GET", "{task}/comments", None, 1),
        ("GET", TAGS, None, 1),
        ("POST", TASKS, {"title": "Task"}, 1),
        ("POST", TASKS, OLD_TAG, 3),
        ("POST", TASKS, NEW_TAG, 5),
        ("POST", BATCH, {"items": [{"title": "Task"}]}, 1),
        ("POST", BATCH, {"items": [OLD_TAG]}, 3),
        ("POST", BATCH, {"items": [NEW_TAG]}, 5),
        ("POST", "{task}/comments", {**caller.COMMENT, "body": "Hello"}, 1),
        ("PATCH", "{task}", {"title": "x", "due_at": None}, 2),
        ("PATCH", "{task}", {}, 2),
        ("PATCH", "{task}", {"tags": ["home"]}, 4),
        ("PATCH", "{task}", {"tags": ["home", "new"]}, 6),
        ("PATCH", "{task}", {"tags": []}, 2),
        ("DELETE", "{task}", None, 1),
    ],
)
async def test_statements(
    client: AsyncClient,
    db: Database,
    statements: Statements,
    *,
    count: int,
    method: str,
    url: str,
    body: Any,
    expected: int,
) -> None:
    task = await stored(db, count)
    statements.clear()
    response = await client.request(method, url.format(task=task), json=body)
    assert response.is_success, response.text
    assert len(statements) == expected + caller.STATEMENTS, statements.sent


@pytest.mark.parametrize("count", [2, 100, 1000])
async def test_statements_of_a_batch(
    client: AsyncClient, statements: Statements, count: int
) -> None:
    # With and without what may be null, for rows of one statement must have the same columns.
    items = [
        {
            "title": f"{number}",
            "tags": ["home", f"{number % 50}"],
            **({"description": "x"} if number % 2 else {}),
            **({"due_at": "2026-01-01T00:00:00Z"} if number % 3 else {}),
        }
        for number in range(count)
    ]
    assert (await client.post(BATCH, json={"items": items})).status_code == 201
    assert len(statements) == 5 + caller.STATEMENTS, statements.sent


@pytest.mark.parametrize(
    ("method", "below", "body", "expected"),
    [
        ("GET", "", None, 1),
        ("GET", "/comments", None, 2),
        ("POST", "/comments", {**caller.COMMENT, "body": "Hello"}, 1),
        ("PATCH", "", {"title": "x"}, 1),
        ("DELETE", "", None, 1),
    ],
)
async def test_statements_for_an_unknown_task(
    client: AsyncClient,
    statements: Statements,
    *,
    method: str,
    below: str,
    body: Any,
    expected: int,
) -> None:
    response = await client.request(method, NOBODY + below, json=body)
    assert response.status_code == 404
    assert len(statements) == expected + caller.STATEMENTS, statements.sent


async def test_a_refused_request_runs_no_statement(
    client: AsyncClient, statements: Statements
) -> None:
    assert (await client.post(TASKS, json={"title": ""})).status_code == 422
    assert (await client.get(TASKS, params={"cursor": "x"})).status_code == 422
    assert (await client.get(f"{TASKS}/1")).status_code == 404
    assert len(statements) == 2 * caller.STATEMENTS, statements.sent
