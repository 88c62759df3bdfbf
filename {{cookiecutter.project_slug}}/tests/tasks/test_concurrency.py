"""Requests at the same time, each on a connection and in a transaction of its own."""

import asyncio
from collections import Counter
from operator import itemgetter
from typing import Any

from httpx2 import AsyncClient
from sqlalchemy import event

from app.kit.db.engine import Database
from tests.caller import COMMENT
from tests.conftest import problem
from tests.tasks.helpers import TAGS, TASKS, Json, create, path, read, walk


async def test_concurrent_requests_create_each_tag_once(live: AsyncClient) -> None:
    bodies = [{"title": "x", "tags": ["b", "a", "c"]} for _ in range(20)]
    responses = await asyncio.gather(*(live.post(TASKS, json=body) for body in bodies))
    assert {response.status_code for response in responses} == {201}
    assert await walk(live, TAGS, 100) == [{"name": tag, "task_count": 20} for tag in "abc"]
    assert all(task["tags"] == ["a", "b", "c"] for task in await walk(live, TASKS, 100))


async def test_tags_are_locked_in_one_order(client: AsyncClient, db: Database) -> None:
    # Who locks them in another order than the others may wait for them, and they for it: seldom
    # enough to pass any test by trial.
    locked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, rows: Any, *_: Any) -> None:
        if statement.startswith("INSERT INTO tags"):
            # The other values are ids, which are longer than these names.
            locked.extend(min((str(value) for value in row), key=len) for row in rows)

    engine = db.write_engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    await create(client, tags=[f"{number}" for number in range(20)])
    event.remove(engine, "before_cursor_execute", note)
    assert len(locked) == 20
    assert locked == sorted(locked)


async def test_one_of_many_changes_of_one_version_succeeds(live: AsyncClient) -> None:
    task = await create(live)
    responses = await asyncio.gather(
        *(
            live.patch(path(task), json={"title": f"{number}"}, headers={"If-Match": '"1"'})
            for number in range(20)
        )
    )
    (winner,) = (response for response in responses if response.status_code == 200)
    for response in responses:
        if response is not winner:
            problem(response, 412)
    assert await read(live, path(task)) == winner.json()
    assert winner.json()["version"] == 2


async def test_concurrent_changes_are_not_lost(live: AsyncClient) -> None:
    task = await create(live)
    changes: list[Json] = [
        {field: value}
        for number in range(10)
        for field, value in (
            ("title", f"{number}"),
            ("description", f"{number}"),
            ("tags", [f"{number % 3}", "all"]),
        )
    ]
    responses = await asyncio.gather(*(live.patch(path(task), json=change) for change in changes))
    made = [(response.json(), change) for response, change in zip(responses, changes, strict=True)]
    assert sorted(response["version"] for response, _ in made) == list(range(2, 32))
    # Each was made on top of the one before: replayed in the order of their versions, they give
    # what is stored.
    expected = task
    for response, change in sorted(made, key=lambda pair: pair[0]["version"]):
        updated = {"version": response["version"], "updated_at": response["updated_at"]}
        expected = expected | change | updated
        assert response == expected
    assert await read(live, path(task)) == expected


async def test_one_of_many_deletions_succeeds(live: AsyncClient) -> None:
    task = await create(live)
    responses = await asyncio.gather(*(live.delete(path(task)) for _ in range(10)))
    assert Counter(response.status_code for response in responses) == {204: 1, 404: 9}


async def test_concurrent_requests_of_every_kind_succeed(live: AsyncClient) -> None:
    tasks = [await create(live, f"{number}", tags=["a", "b"]) for number in range(5)]
    comment = {**COMMENT, "body": "Hello"}
    responses = await asyncio.gather(
        *(live.patch(path(task), json={"tags": ["b", "c", "a"]}) for task in tasks),
        *(live.post(TASKS, json={"title": "x", "tags": ["c", "b", "a"]}) for _ in tasks),
        *(live.post(f"{path(task)}/comments", json=comment) for task in tasks),
        *(live.get(path(task)) for task in tasks),
        *(live.get(TASKS, params={"tag": "a"}) for _ in tasks),
        *(live.get(TAGS) for _ in tasks),
    )
    assert all(response.is_success for response in responses), [
        response.text for response in responses
    ]
    found = await walk(live, TASKS, 100)
    assert [task["tags"] for task in found] == [["a", "b", "c"]] * 10
    counts = map(itemgetter("task_count"), await walk(live, TAGS, 100))
    assert list(counts) == [10, 10, 10]
