"""POST /v1/tasks."""

import json
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient

from app.kit.caller import CallerDep
from app.kit.db.session import SessionDep, provider
from app.kit.errors import Conflict
from app.tasks.repository import TaskRepository
from tests.conftest import problem
from tests.tasks.helpers import JSON, TAGS, TASKS, Json, blamed, create, path, read


async def post_raw(client: AsyncClient, body: str) -> Any:
    return await client.post(TASKS, content=body, headers=JSON)


async def nothing_is_stored(client: AsyncClient) -> bool:
    return [(await read(client, url))["items"] for url in (TASKS, TAGS)] == [[], []]


async def test_a_title_is_enough(client: AsyncClient) -> None:
    task = await create(client, "Buy milk")
    assert UUID(task.pop("id")).version == 7
    assert task.pop("created_at").endswith("Z")
    assert task.pop("updated_at").endswith("Z")
    assert task == {
        "title": "Buy milk",
        "description": None,
        "status": "todo",
        "due_at": None,
        "tags": [],
        "version": 1,
    }


async def test_every_field_is_stored(client: AsyncClient) -> None:
    fields: Json = {
        "title": "Buy milk",
        "description": "Two bottles",
        "status": "doing",
        "due_at": "2026-01-31T10:00:00.000001Z",
        "tags": ["home", "shop"],
    }
    task = await create(client, **fields)
    assert {name: task[name] for name in fields} == fields


async def test_location_is_the_url_of_the_task(client: AsyncClient) -> None:
    response = await client.post(TASKS, json={"title": "Buy milk", "tags": ["home"]})
    assert response.headers["Location"].endswith(path(response.json()))
    found = await read(client, response.headers["Location"])
    assert found == response.json()


async def test_the_etag_is_that_of_the_task(client: AsyncClient) -> None:
    response = await client.post(TASKS, json={"title": "Buy milk"})
    assert response.headers["ETag"] == '"1"'
    assert (await client.get(path(response.json()))).headers["ETag"] == '"1"'


async def test_times_are_returned_in_utc(client: AsyncClient) -> None:
    task = await create(client, due_at="2026-01-31T10:00:00+02:00")
    assert task["due_at"] == "2026-01-31T08:00:00Z"
    assert (await read(client, path(task)))["due_at"] == "2026-01-31T08:00:00Z"


async def test_tags_are_unique_and_sorted(client: AsyncClient) -> None:
    given = ["shop", "home", "shop", "garden", "attic", "yard"]
    task = await create(client, tags=given)
    assert task["tags"] == sorted(set(given))
    assert (await read(client, path(task)))["tags"] == sorted(set(given))


async def test_an_existing_tag_is_reused(client: AsyncClient) -> None:
    await create(client, tags=["home", "shop"])
    await create(client, tags=["home", "garden"])
    assert (await read(client, TAGS))["items"] == [
        {"name": "garden", "task_count": 1},
        {"name": "home", "task_count": 2},
        {"name": "shop", "task_count": 1},
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"title": "x"},
        {"title": "x" * 200},
        {"title": "\N{GRINNING FACE}" * 200},
        {"description": ""},
        {"description": "x" * 10_000},
        {"due_at": "0001-01-01T00:00:00Z"},
        {"due_at": "9999-12-31T23:59:59.999999Z"},
        {"tags": ["x" * 50]},
        {"tags": ["\N{GRINNING FACE}" * 50]},
        {"tags": [f"tag {number:02}" for number in range(20)]},
    ],
    ids=lambda fields: ascii(fields)[:40],
)
async def test_the_longest_and_shortest_values_are_accepted(
    client: AsyncClient, fields: Json
) -> None:
    task = await create(client, **fields)
    found = await read(client, path(task))
    assert {name: found[name] for name in fields} == fields


@pytest.mark.parametrize(
    "text",
    [
        'it\'s "quoted" `so` \\ %s :name ? $1 {x} <b>',
        "'; DROP TABLE tasks; --",
        "\N{FAMILY}\N{ZERO WIDTH JOINER}\N{GRINNING FACE} e\N{COMBINING ACUTE ACCENT}",
        "\N{HEBREW LETTER SHIN}\N{HEBREW LETTER LAMED}\N{RIGHT-TO-LEFT MARK} (1)",
        " spaces\tand\r\nlines ",
        "\x01\x1f\x7f\N{BYTE ORDER MARK}\uffff\U0010ffff",
    ],
    ids=["quotes", "injection", "emoji", "right to left", "spaces", "controls"],
)
async def test_text_is_returned_as_sent(client: AsyncClient, text: str) -> None:
    task = await create(client, text, description=text, tags=[text])
    found = await read(client, path(task))
    assert (found["title"], found["description"], found["tags"]) == (text, text, [text])
    listed = await read(client, TASKS, tag=text)
    assert [item["id"] for item in listed["items"]] == [task["id"]]


REFUSED = {
    "no title": ("{}", "body.title"),
    "empty title": ('{"title": ""}', "body.title"),
    "long title": (f'{{"title": "{"x" * 201}"}}', "body.title"),
    "title null": ('{"title": null}', "body.title"),
    "title number": ('{"title": 1}', "body.title"),
    "title NaN": ('{"title": NaN}', "body.title"),
    "title 1e400": ('{"title": 1e400}', "body.title"),
    "title NUL": (r'{"title": "a\u0000b"}', "body.title"),
    "title surrogate": (r'{"title": "\ud800"}', "body.title"),
    "long description": (f'{{"title": "x", "description": "{"x" * 10_001}"}}', "body.description"),
    "description NUL": (r'{"title": "x", "description": "\u0000"}', "body.description"),
    "description surrogate": (r'{"title": "x", "description": "\udfff"}', "body.description"),
    "description list": ('{"title": "x", "description": []}', "body.description"),
    "unknown field": ('{"title": "x", "owner": "me"}', "body.owner"),
    "internal field": ('{"title": "x", "deleted_at": null}', "body.deleted_at"),
    "own version": ('{"title": "x", "version": 5}', "body.version"),
    "wrong status": ('{"title": "x", "status": "DONE"}', "body.status"),
    "status null": ('{"title": "x", "status": null}', "body.status"),
    "due_at naive": ('{"title": "x", "due_at": "2026-01-01T00:00:00"}', "body.due_at"),
    "due_at date": ('{"title": "x", "due_at": "2026-01-01"}', "body.due_at"),
    "due_at number": ('{"title": "x", "due_at": 1767225600}', "body.due_at"),
    "due_at number as text": ('{"title": "x", "due_at": "1767225600"}', "body.due_at"),
    "due_at NaN": ('{"title": "x", "due_at": NaN}', "body.due_at"),
    "due_at 1e400": ('{"title": "x", "due_at": 1e400}', "body.due_at"),
    "due_at year 0": ('{"title": "x", "due_at": "0001-01-01T00:00:00+14:00"}', "body.due_at"),
    "due_at year 10000": ('{"title": "x", "due_at": "9999-12-31T23:59:59-01:00"}', "body.due_at"),
    "due_at no such day": ('{"title": "x", "due_at": "2026-02-30T00:00:00Z"}', "body.due_at"),
    "tags null": ('{"title": "x", "tags": null}', "body.tags"),
    "tags text": ('{"title": "x", "tags": "home"}', "body.tags"),
    "tags object": ('{"title": "x", "tags": {"home": 1}}', "body.tags"),
    "too many tags": (json.dumps({"title": "x", "tags": ["tag"] * 21}), "body.tags"),
    "empty tag": ('{"title": "x", "tags": [""]}', "body.tags.0"),
    "long tag": (f'{{"title": "x", "tags": ["a", "{"x" * 51}"]}}', "body.tags.1"),
    "tag number": ('{"title": "x", "tags": [1e400]}', "body.tags.0"),
    "tag NUL": (r'{"title": "x", "tags": ["\u0000"]}', "body.tags.0"),
    "tag surrogate": (r'{"title": "x", "tags": ["\ud800"]}', "body.tags.0"),
}


@pytest.mark.parametrize(("body", "field"), REFUSED.values(), ids=REFUSED)
async def test_an_invalid_field_is_named(client: AsyncClient, body: str, field: str) -> None:
    assert blamed(await post_raw(client, body)) == [field]
    assert await nothing_is_stored(client)


@pytest.mark.parametrize("field", ["title", "due_at", "status"])
async def test_a_number_of_5000_digits_is_refused(client: AsyncClient, field: str) -> None:
    body = f'{{"title": "x", "{field}": {"9" * 5000}}}'
    problem(await post_raw(client, body), 422)
    assert await nothing_is_stored(client)


async def test_every_invalid_field_is_named(client: AsyncClient) -> None:
    response = await client.post(TASKS, json={"title": "", "status": "", "tags": 1})
    assert blamed(response) == ["body.title", "body.status", "body.tags"]


class FailsAtLast(TaskRepository):
    async def add(self, *args: Any) -> Any:
        await super().add(*args)
        raise Conflict("Too late.")


async def fails_at_last(session: SessionDep, caller: CallerDep) -> TaskRepository:
    return FailsAtLast(session, caller)


async def test_an_error_after_the_insert_rolls_it_back(app: FastAPI, client: AsyncClient) -> None:
    app.dependency_overrides[provider(TaskRepository)] = fails_at_last
    response = await client.post(TASKS, json={"title": "x", "tags": ["home"]})
    assert problem(response, 409)["detail"] == "Too late."
    assert await nothing_is_stored(client)
