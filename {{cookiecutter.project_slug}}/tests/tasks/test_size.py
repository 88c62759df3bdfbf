"""No response exceeds a megabyte, even with large rows: pages end early."""

import pytest
from httpx2 import AsyncClient

from app.kit.db.engine import Database
from app.tasks.models import Comment, Tag, Task
from tests.tasks.helpers import TAGS, TASKS, minutes, path, store

MEGABYTE = 1_000_000
ROWS = 100

# Of the most bytes in UTF-8, and of the most in JSON: \u0001.
WIDE = pytest.mark.parametrize("wide", ["\U0001f600", "\x01"], ids=["4 bytes", "control"])


def numbered(wide: str, length: int, number: int) -> str:
    return f"{number:03}".rjust(length, wide)


async def see_pages(client: AsyncClient, url: str, key: str, expected: int, **query: str) -> int:
    """Check that the pages of a list are small and contain each row once; return their number."""
    found: list[str] = []
    number = 0
    while True:
        response = await client.get(url, params={"limit": "100", **query})
        assert response.status_code == 200, response.text[:1000]
        assert len(response.content) <= MEGABYTE
        number += 1
        page = response.json()
        assert page["items"]
        found += [item[key] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert len(found) == len(set(found)) == expected
    return number


@WIDE
async def test_lists_of_large_rows(client: AsyncClient, db: Database, wide: str) -> None:
    tags = [Tag(name=numbered(wide, 50, number)) for number in range(20)]
    tasks = [
        Task(
            title=numbered(wide, 200, number),
            description=wide * 10_000,
            due_at=minutes(number) if number % 2 else None,
            tags=tags,
        )
        for number in range(ROWS)
    ]
    await store(db, *tasks)
    for sort in ("title", "-due_at"):
        assert await see_pages(client, TASKS, "id", ROWS, sort=sort) > ROWS * 40_000 // MEGABYTE
    assert await see_pages(client, TAGS, "name", len(tags)) == 1


@WIDE
async def test_large_comments(client: AsyncClient, db: Database, wide: str) -> None:
    task = Task(title="Task")
    comments = [
        Comment(task=task, author=numbered(wide, 100, number), body=wide * 5000)
        for number in range(ROWS)
    ]
    await store(db, *comments)
    url = path({"id": task.id})
    assert await see_pages(client, f"{url}/comments", "id", ROWS) > ROWS * 20_000 // MEGABYTE
