"""The repository without HTTP: a fake in its place, and its errors."""

import asyncio
from uuid import UUID

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import event, text
from sqlalchemy.exc import InvalidRequestError

from app.kit.caller import SYSTEM
from app.kit.db.engine import Database
from app.kit.db.session import provider
from app.kit.errors import NotFound
from app.main import create_app
from app.tasks.models import Tag, Task, TaskStatus
from app.tasks.repository import TaskRepository
from app.tasks.schemas import TaskCreate
from tests.caller import admit_anybody
from tests.conftest import problem, settings_for
from tests.tasks.helpers import NOON, TASKS, create, path, read

KEY = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


class OneTask(TaskRepository):
    """Has one task, and no database."""

    def __init__(self) -> None:
        pass

    async def get(self, key: UUID) -> Task:
        if key != KEY:
            raise NotFound("There is no such task.")
        return Task(
            id=KEY,
            title="Fake",
            status=TaskStatus.DONE,
            tags=[Tag(name="home")],
            version=7,
            created_at=NOON,
            updated_at=NOON,
        )


async def test_the_repository_can_be_replaced_by_a_fake(template: str) -> None:
    # Its lifespan never runs: whatever asked for the database would find none.
    app = create_app(settings_for(template))
    app.dependency_overrides[provider(TaskRepository)] = OneTask
    admit_anybody(app)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        response = await client.get(f"{TASKS}/{KEY}")
        problem(await client.get(f"{TASKS}/{UUID(int=0)}"), 404)
    assert not hasattr(app.state, "database")
    assert response.headers["ETag"] == '"7"'
    assert response.json() == {
        "id": str(KEY),
        "title": "Fake",
        "description": None,
        "status": "done",
        "due_at": None,
        "tags": ["home"],
        "version": 7,
        "created_at": "2020-01-01T12:00:00Z",
        "updated_at": "2020-01-01T12:00:00Z",
    }


async def test_a_repository_in_a_read_session_can_not_write(
    client: AsyncClient, db: Database
) -> None:
    task = await create(client, "Buy milk")
    key = UUID(task["id"])
    async with db.reading() as session:
        tasks = TaskRepository(session, SYSTEM)
        assert (await tasks.get(key)).title == "Buy milk"
        for write in (
            tasks.add([TaskCreate(title="x")]),
            tasks.update(key, {"title": "x"}),
            tasks.delete(key),
        ):
            with pytest.raises(InvalidRequestError, match="read session"):
                await write
    assert (await read(client, path(task)))["title"] == "Buy milk"


async def test_a_repository_reads_in_a_transaction_too(client: AsyncClient, db: Database) -> None:
    task = await create(client, "Buy milk")
    async with db.transaction() as session:
        found = await TaskRepository(session, SYSTEM).get(UUID(task["id"]))
    assert found.title == "Buy milk"


async def test_a_change_that_would_not_be_written_is_an_error(
    client: AsyncClient, db: Database
) -> None:
    key = UUID((await create(client))["id"])

    async def change() -> None:
        async with db.transaction() as session:
            (await TaskRepository(session, SYSTEM).update(key, {"title": "One"})).title = "Two"

    with pytest.raises(InvalidRequestError, match="was changed"):
        await change()


async def test_a_change_in_a_read_session_is_an_error(client: AsyncClient, db: Database) -> None:
    task = await create(client)

    async def change() -> None:
        async with db.reading() as session:
            (await session.get_one(Task, UUID(task["id"]))).title = "Changed"

    with pytest.raises(InvalidRequestError, match="was changed"):
        await change()


async def test_reads_use_no_write_connection(live_app: FastAPI, live: AsyncClient) -> None:
    task = path(await create(live, tags=["home"]))
    engine = live_app.state.database.write_engine.sync_engine
    taken: list[object] = []
    event.listen(engine, "checkout", lambda *_: taken.append(1))
    for url in (task, f"{task}/comments", TASKS, "/v1/tags", "/health/ready"):
        assert (await live.get(url)).status_code == 200
    assert taken == []


async def test_a_task_is_read_with_the_tags_of_its_version(live: AsyncClient) -> None:
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


async def test_the_database_refuses_writes_in_a_read_session(
    live_app: FastAPI, live: AsyncClient
) -> None:
    database: Database = live_app.state.database
    async with database.reading() as session:
        with pytest.raises(InvalidRequestError, match="read session"):
            await session.execute(text("DELETE FROM tasks"))
    assert (await read(live, TASKS))["items"] == []


async def test_repositories_in_one_transaction_are_atomic(
    client: AsyncClient, db: Database
) -> None:
    task = await create(client, "Buy milk")
    key = UUID(task["id"])

    async def update_then_fail() -> None:
        async with db.transaction() as session:
            await TaskRepository(session, SYSTEM).update(key, {"title": "Buy bread"})
            await TaskRepository(session, SYSTEM).delete(UUID(int=0))

    with pytest.raises(NotFound):
        await update_then_fail()
    assert (await read(client, path(task)))["title"] == "Buy milk"
