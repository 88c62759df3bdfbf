"""GET /v1/tasks: every order, every page, every filter."""

import itertools
import random
from collections.abc import Callable

import pytest
from httpx2 import AsyncClient

from app.kit.db.engine import Database
from app.tasks.models import Tag, Task, TaskStatus
from tests.tasks.helpers import (
    TASKS,
    Json,
    blamed,
    create,
    minutes,
    names,
    pages,
    path,
    read,
    store,
    walk,
)

SORTS = ["created_at", "-created_at", "due_at", "-due_at", "title", "-title"]


async def store_some(db: Database, count: int) -> list[Task]:
    """Store tasks with many ties and, of due dates, nulls; deleted ones lie among them."""
    chance = random.Random(count)  # noqa: S311
    tags = {name: Tag(name=name) for name in ("home", "shop")}
    tasks = [
        Task(
            title=chance.choice("abc"),
            status=chance.choice(list(TaskStatus)),
            due_at=chance.choice([None, minutes(1), minutes(2), minutes(3)]),
            created_at=minutes(chance.randrange(3)),
            tags=[tag for tag in tags.values() if chance.randrange(2)],
        )
        for _ in range(count)
    ]
    gone = [
        Task(title=title, created_at=minutes(1), deleted_at=minutes(9), tags=[tags["home"]])
        for title in "abc"
    ]
    await store(db, *tasks, *gone)
    return tasks


def in_order(tasks: list[Task], sort: str) -> list[str]:
    """Return the keys of tasks as a list in this order has them."""
    column = sort.removeprefix("-")
    filled = [task for task in tasks if getattr(task, column) is not None]
    empty = [task for task in tasks if getattr(task, column) is None]
    descending = sort != column
    filled.sort(key=lambda task: (getattr(task, column), task.id), reverse=descending)
    empty.sort(key=lambda task: task.id, reverse=descending)
    return [str(task.id) for task in filled + empty]


def keys(items: list[Json]) -> list[str]:
    return [item["id"] for item in items]


async def test_no_tasks_at_first(client: AsyncClient) -> None:
    assert await read(client, TASKS) == {"items": [], "next_cursor": None}


async def test_listed_tasks_equal_single_tasks(client: AsyncClient) -> None:
    first = await create(client, "First", tags=["shop", "home"], due_at="2026-01-01T00:00:00Z")
    second = await create(client, "Second")
    assert (await read(client, TASKS))["items"] == [second, first]


async def test_pages_have_twenty_tasks_newest_first(client: AsyncClient, db: Database) -> None:
    tasks = await store_some(db, 28)
    page = await read(client, TASKS)
    assert keys(page["items"]) == in_order(tasks, "-created_at")[:20]
    page = await read(client, TASKS, cursor=page["next_cursor"])
    assert keys(page["items"]) == in_order(tasks, "-created_at")[20:]
    assert page["next_cursor"] is None


# 14 tasks: with each of these limits the last page is full.
@pytest.mark.parametrize(("sort", "limit"), [("-due_at", 1), *itertools.product(SORTS, [2, 7])])
async def test_every_sort_returns_each_task_once(
    client: AsyncClient, db: Database, sort: str, limit: int
) -> None:
    tasks = await store_some(db, 14)
    assert keys(await walk(client, TASKS, limit, sort=sort)) == in_order(tasks, sort)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 9, 13])
async def test_next_cursor_is_null_on_the_last_page(
    client: AsyncClient, db: Database, count: int
) -> None:
    tasks = await store_some(db, count)
    for sort in ("due_at", "-due_at"):  # the order that puts two walks together
        assert keys(await walk(client, TASKS, 4, sort=sort)) == in_order(tasks, sort)


FILTERS: dict[str, tuple[Json, Callable[[Task], bool]]] = {
    "status": ({"status": "done"}, lambda task: task.status == "done"),
    "tag": ({"tag": "home"}, lambda task: "home" in {tag.name for tag in task.tags}),
    "both": (
        {"status": "todo", "tag": "shop"},
        lambda task: task.status == "todo" and "shop" in {tag.name for tag in task.tags},
    ),
}


@pytest.mark.parametrize(("query", "fits"), FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("sort", SORTS)
async def test_a_filter_applies_to_every_page(
    client: AsyncClient, db: Database, sort: str, query: Json, fits: Callable[[Task], bool]
) -> None:
    fitting = [task for task in await store_some(db, 24) if fits(task)]
    assert 3 < len(fitting) < 24
    found = await walk(client, TASKS, 3, sort=sort, **query)
    assert keys(found) == in_order(fitting, sort)


async def test_a_filtered_task_has_all_its_tags(client: AsyncClient) -> None:
    await create(client, tags=["shop", "home"])
    (found,) = (await read(client, TASKS, tag="shop"))["items"]
    assert found["tags"] == ["home", "shop"]


async def test_an_unused_tag_lists_no_tasks(client: AsyncClient) -> None:
    await create(client, tags=["home"])
    for tag in ("Home", "hom", "home ", "%", "' OR 1=1 --"):
        assert (await read(client, TASKS, tag=tag))["items"] == []


@pytest.mark.parametrize("sort", SORTS)
async def test_inserts_and_deletes_do_not_shift_pages(
    client: AsyncClient, db: Database, sort: str
) -> None:
    tasks = await store_some(db, 20)
    expected = in_order(tasks, sort)
    found: list[str] = []
    gone: set[str] = set()
    async for page in pages(client, TASKS, 4, sort=sort):
        found += keys(page)
        # The first of the page goes, and so does its last, at which the next one starts; so does
        # one that has not been seen yet.
        for key in {found[-4], found[-1], *expected[len(found) + 1 : len(found) + 2]}:
            await client.delete(f"{TASKS}/{key}")
            gone.add(key)
        expected = [key for key in expected if key in found or key not in gone]
        # A new task belongs before those already read.
        await store(db, first_of_all(sort))
    assert found == expected


def first_of_all(sort: str) -> Task:
    """Return a task that every list in this order starts with."""
    late = sort.startswith("-")
    time = minutes(1000 if late else -1000)
    return Task(title="z" if late else "0", created_at=time, due_at=time)


async def test_a_task_whose_sort_value_changes_does_not_shift_pages(
    client: AsyncClient,
) -> None:
    for title in "abcd":
        await create(client, title)
    found = []
    async for page in pages(client, TASKS, 2, sort="title"):
        found += names(page)
        if found == ["a", "b"]:
            (moved, _) = page
            await client.patch(path(moved), json={"title": "cc"})
    assert found == ["a", "b", "c", "cc", "d"]


@pytest.mark.parametrize("sort", ["title", "-title"])
async def test_the_longest_titles_can_be_paged(client: AsyncClient, sort: str) -> None:
    titles = ["\x01" * 200, '"' * 200, "\N{GRINNING FACE}" * 200, "x" * 200]
    for title in titles:
        await create(client, title)
    assert sorted(names(await walk(client, TASKS, 1, sort=sort))) == sorted(titles)


@pytest.mark.parametrize("sort", ["due_at", "-due_at"])
async def test_the_earliest_and_latest_times_can_be_paged(client: AsyncClient, sort: str) -> None:
    times = [
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00.000001Z",
        "0999-12-31T23:59:59.999999Z",
        "1000-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999Z",
    ]
    for time in times:
        await create(client, due_at=time)
    found = [task["due_at"] for task in await walk(client, TASKS, 1, sort=sort)]
    assert found == (times if sort == "due_at" else times[::-1])


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ({"limit": "0"}, ["query.limit"]),
        ({"limit": "-1"}, ["query.limit"]),
        ({"limit": "101"}, ["query.limit"]),
        ({"limit": "abc"}, ["query.limit"]),
        ({"cursor": "garbage"}, ["query.cursor"]),
        ({"status": "DONE"}, ["query.status"]),
        ({"status": ""}, ["query.status"]),
        ({"sort": "id"}, ["query.sort"]),
        ({"sort": "--title"}, ["query.sort"]),
        ({"sort": "deleted_at"}, ["query.sort"]),
        ({"tag": ""}, ["query.tag"]),
        ({"tag": "x" * 51}, ["query.tag"]),
        ({"tag": "\x00"}, ["query.tag"]),
        ({"page": "2"}, ["query.page"]),
        ({"limit": "0", "offset": "5"}, ["query.limit", "query.offset"]),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_invalid_parameters_are_named(
    client: AsyncClient, query: Json, fields: list[str]
) -> None:
    assert blamed(await client.get(TASKS, params=query)) == fields


@pytest.mark.parametrize("sort", SORTS)
async def test_a_cursor_is_valid_for_its_own_sort_only(client: AsyncClient, sort: str) -> None:
    for _ in range(2):
        await create(client, due_at="2026-01-01T00:00:00Z")
    cursor = (await read(client, TASKS, sort=sort, limit=1))["next_cursor"]
    for other in SORTS:
        response = await client.get(TASKS, params={"sort": other, "cursor": cursor})
        assert response.status_code == (200 if other == sort else 422)


async def test_a_cursor_of_another_list_is_refused(client: AsyncClient) -> None:
    await create(client, tags=["home", "shop"])
    cursor = (await read(client, "/v1/tags", limit=1))["next_cursor"]
    assert blamed(await client.get(TASKS, params={"cursor": cursor})) == ["query.cursor"]
