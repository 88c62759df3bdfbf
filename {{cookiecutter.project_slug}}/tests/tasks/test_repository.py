"""The repository by itself: what stands in its place, and what it can't be given."""

import asyncio
from uuid import UUID

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import event, insert
from sqlalchemy.exc import DBAPIError, InvalidRequestError

from app.db.engine import Database
from app.errors import NotFound
from app.main import create_app
from app.tasks.models import Comment, Tag, Task, TaskStatus
from app.tasks.repository import TaskReader, TaskRepository
from app.tasks.router import task_reader
from tests.caller import admit_anybody
from tests.conftest import problem, settings_for
from tests.tasks.helpers import NOON, TASKS, create, path, read

KEY = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


class OneTask(TaskReader):
    """Knows one task, and no database."""

    def __init__(self) -> None:
        pass

    async def get(self, task_id: UUID) -> Task:
        if task_id != KEY:
            raise NotFound("There is no such task.")
        return Task(
            id=KEY,
            title="Fake",
            status=TaskStatus.DONE,
            tags=[Tag(name="home")],
            comments=[Comment(id=KEY, author="Ada", body="Hello", created_at=NOON)],
            version=7,
            created_at=NOON,
            updated_at=NOON,
        )


async def test_a_fake_can_take_the_place_of_the_repository(template: str) -> None:
    # Its lifespan never runs: whatever asked for the database would find none.
    app = create_app(settings_for(template))
    app.dependency_overrides[task_reader] = OneTask
    admit_anybody(app)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        answer = await client.get(f"{TASKS}/{KEY}")
        problem(await client.get(f"{TASKS}/{UUID(int=0)}"), 404)
    assert not hasattr(app.state, "database")
    assert answer.headers["ETag"] == '"7"'
    assert answer.json() == {
        "id": str(KEY),
        "title": "Fake",
        "description": None,
        "status": "done",
        "due_at": None,
        "tags": ["home"],
        "version": 7,
        "created_at": "2020-01-01T12:00:00Z",
        "updated_at": "2020-01-01T12:00:00Z",
        "comments": [
            {
                "id": str(KEY),
                "author": "Ada",
                "body": "Hello",
                "created_at": "2020-01-01T12:00:00Z",
            }
        ],
    }


async def test_the_type_checker_lets_no_repository_write_through_a_read_session(
    db: Database,
) -> None:
    async with db.reading() as session:
        # Were it taken, the type checker would call this comment unused.
        TaskRepository(session)  # type: ignore[arg-type]
        TaskReader(session)


async def test_a_reader_reads_in_a_transaction_too(client: AsyncClient, db: Database) -> None:
    task = await create(client, "Buy milk")
    async with db.transaction() as session:
        found = await TaskReader(session).get(UUID(task["id"]))
    assert found.title == "Buy milk"


async def test_a_read_session_refuses_to_flush(db: Database) -> None:
    async with db.reading() as session:
        session.add(Task(title="Buy milk"))
        with pytest.raises(InvalidRequestError, match="read session"):
            await session.flush()
        with pytest.raises(InvalidRequestError, match="read session"):
            await session.commit()
        session.expunge_all()


async def test_what_was_changed_in_a_read_session_is_not_lost_without_a_word(
    client: AsyncClient, db: Database
) -> None:
    task = await create(client)

    async def change() -> None:
        async with db.reading() as session:
            (await session.get_one(Task, UUID(task["id"]))).title = "Changed"

    with pytest.raises(InvalidRequestError, match="read session"):
        await change()


async def test_reads_take_no_connection_for_writing(live_app: FastAPI, live: AsyncClient) -> None:
    task = path(await create(live, tags=["home"]))
    engine = live_app.state.database.write_engine.sync_engine
    taken: list[object] = []
    event.listen(engine, "checkout", lambda *_: taken.append(1))
    for url in (task, f"{task}/comments", TASKS, "/v1/tags", "/health/ready"):
        assert (await live.get(url)).status_code == 200
    assert taken == []


async def test_a_task_is_never_seen_with_the_tags_of_another_version(live: AsyncClient) -> None:
    task = path(await create(live, title="0", tags=["0"]))
    done = False

    async def write() -> None:
        nonlocal done
        for number in range(1, 30):
            change = {"title": f"{number}", "tags": [f"{number}"]}
            assert (await live.patch(task, json=change)).status_code == 200
        done = True

    async def look() -> None:
        while not done:
            seen = await read(live, task)
            assert seen["tags"] == [seen["title"]]

    async with asyncio.TaskGroup() as group:  # which ends the others where one fails
        group.create_task(write())
        for _ in range(3):
            group.create_task(look())


async def test_the_database_refuses_to_write_for_a_read_session(
    live_app: FastAPI, live: AsyncClient
) -> None:
    database: Database = live_app.state.database
    async with database.reading() as session:
        with pytest.raises(DBAPIError, match=r"read-?only"):
            await session.execute(insert(Task), {"title": "Buy milk"})
    assert (await read(live, TASKS))["items"] == []


async def test_a_repository_is_atomic_with_others_in_its_transaction(
    client: AsyncClient, db: Database
) -> None:
    task = await create(client, "Buy milk")
    key = UUID(task["id"])

    async def update_then_fail() -> None:
        async with db.transaction() as session:
            await TaskRepository(session).update(key, {"title": "Buy bread"})
            await TaskRepository(session).delete(UUID(int=0))

    with pytest.raises(NotFound):
        await update_then_fail()
    assert (await read(client, path(task)))["title"] == "Buy milk"
