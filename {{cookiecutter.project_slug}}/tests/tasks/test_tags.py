"""GET /v1/tags."""

import pytest
from httpx2 import AsyncClient

from app.kit.db.engine import Database
from app.tasks.models import Tag
from tests.tasks.helpers import TAGS, Json, blamed, create, path, read, store, walk


async def test_no_tags_at_first(client: AsyncClient) -> None:
    assert await read(client, TAGS) == {"items": [], "next_cursor": None}


async def test_tags_are_sorted_by_name_and_have_task_counts(client: AsyncClient) -> None:
    await create(client, tags=["shop", "home"])
    await create(client, tags=["home", "garden"])
    await create(client)
    assert await read(client, TAGS) == {
        "items": [
            {"name": "garden", "task_count": 1},
            {"name": "home", "task_count": 2},
            {"name": "shop", "task_count": 1},
        ],
        "next_cursor": None,
    }


async def test_a_tag_without_tasks_has_count_zero(client: AsyncClient) -> None:
    task = await create(client, tags=["home"])
    await client.patch(path(task), json={"tags": []})
    assert (await read(client, TAGS))["items"] == [{"name": "home", "task_count": 0}]


@pytest.mark.parametrize("limit", [1, 2, 7, 14, 100])
async def test_pages_return_each_tag_once_sorted_by_name(
    client: AsyncClient, db: Database, limit: int
) -> None:
    given = [f"tag {number * 5 % 14:02}" for number in range(14)]
    await store(db, *(Tag(name=name) for name in given))
    await create(client, tags=given[:5])
    assert await walk(client, TAGS, limit) == [
        {"name": name, "task_count": int(name in given[:5])} for name in sorted(given)
    ]


async def test_the_longest_names_can_be_paged(client: AsyncClient, db: Database) -> None:
    given = ["\x01" * 50, "\N{GRINNING FACE}" * 50, "x" * 50]
    await store(db, *(Tag(name=name) for name in given))
    found = await walk(client, TAGS, 1)
    assert sorted(tag["name"] for tag in found) == sorted(given)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": 0}, "query.limit"),
        ({"limit": 101}, "query.limit"),
        ({"cursor": "x"}, "query.cursor"),
        ({"name": "home"}, "query.name"),
    ],
)
async def test_invalid_parameters_are_named(client: AsyncClient, query: Json, field: str) -> None:
    assert blamed(await client.get(TAGS, params=query)) == [field]
