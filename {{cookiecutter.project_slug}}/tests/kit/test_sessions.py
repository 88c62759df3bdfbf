"""Sessions and transactions."""

import asyncio
import contextvars
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from httpx2 import AsyncClient
from sqlalchemy import (
    Column,
    Executable,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    bindparam,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, InvalidRequestError

from app.kit.db.engine import Database, WriteSession
from app.kit.db.repository import Repository
from app.kit.db.session import SessionDep
from app.kit.errors import Conflict
from tests.conftest import checked_out, pool_size, problem, settings_for
from tests.kit.sample_feature import Entry, add_things, things


@pytest.fixture
async def database(live_app: FastAPI, live: AsyncClient) -> Database:
    """Return the database of a running app with the sample feature."""
    await add_things(live_app)
    database: Database = live_app.state.database
    return database


@pytest.fixture
async def stored(live: AsyncClient, database: Database) -> AsyncIterator[Any]:
    """Return a function that lists the stored ids; check that no connection is leaked."""

    async def ids() -> list[int]:
        listed: list[int] = (await live.get("/things")).json()
        return listed

    yield ids
    assert checked_out(database) == 0


async def test_success_is_committed(live: AsyncClient, stored: Any) -> None:
    assert (await live.post("/things", json={"id": 1})).status_code == 201
    assert await stored() == [1]


@pytest.mark.parametrize(("path", "status"), [("refused", 409), ("crash", 500)])
async def test_a_failed_request_is_rolled_back(
    live: AsyncClient, stored: Any, path: str, status: int
) -> None:
    assert (await live.post(f"/things/{path}", json={"id": 1})).status_code == status
    assert await stored() == []


async def test_a_failed_commit_is_no_success(live: AsyncClient, stored: Any) -> None:
    # The foreign key is checked at COMMIT, long after the handler has returned.
    response = await live.post("/things", json={"id": 1, "part_of": 99})
    (error,) = problem(response, 409)["errors"]
    assert error["field"] == "body.part_of"
    assert "99" not in error["message"]
    assert await stored() == []
    assert (await live.post("/things", json={"id": 1})).status_code == 201  # on that connection


async def test_one_of_many_concurrent_inserts_of_a_unique_value_succeeds(
    live: AsyncClient, stored: Any
) -> None:
    responses = await asyncio.gather(
        *(live.post("/things", json={"id": number, "name": "same"}) for number in range(50))
    )
    won = [response for response in responses if response.status_code == 201]
    for response in responses:
        if response not in won:
            (error,) = problem(response, 409)["errors"]
            assert error["field"] == "body.name"
    assert await stored() == [response.json()["id"] for response in won]
    assert len(won) == 1


references = MetaData()
parents = Table("tests_parents", references, Column("id", Integer, primary_key=True))
children = Table(
    "tests_children",
    references,
    Column("id", Integer, primary_key=True),
    Column("first", ForeignKey(parents.c.id)),
    Column("second", ForeignKey(parents.c.id)),
    Column("third", ForeignKey(parents.c.id)),
)


@pytest.mark.parametrize(
    ("statement", "field"),
    [
        (children.insert().values(id=2, first=1, second=9), "second"),
        (children.insert().values(id=2, first=9, third=1), "first"),
        (children.update().values(first=None, third=9), "third"),
        (parents.delete().where(parents.c.id == 1), "id"),
    ],
)
async def test_a_broken_reference_names_its_field(
    database: Database, statement: Executable, field: str
) -> None:
    async with database.write_engine.begin() as connection:
        await connection.run_sync(references.create_all)
        await connection.execute(insert(parents).values(id=1))
        await connection.execute(insert(children).values(id=1, first=1, second=1))
    with pytest.raises(Conflict) as caught:
        async with database.transaction() as session:
            await session.execute(statement)
    assert [error.field for error in caught.value.errors] == [field]
    assert checked_out(database) == 0


async def test_a_broken_reference_of_many_rows_names_its_field(database: Database) -> None:
    async with database.write_engine.begin() as connection:
        await connection.run_sync(references.create_all)
        await connection.execute(insert(parents).values(id=1))
    rows = [{"id": 1, "first": 1, "second": 1}, {"id": 2, "first": 1, "second": 9}]
    with pytest.raises(Conflict) as caught:
        async with database.transaction() as session:
            await session.execute(insert(children), rows)
    assert [error.field for error in caught.value.errors] == ["second"]


async def test_a_savepoint_rolls_back_its_own_part_only(live: AsyncClient, stored: Any) -> None:
    assert (await live.post("/things/savepoint", json={"id": 1})).status_code == 201
    assert await stored() == [1]


async def test_a_background_task_has_a_transaction_of_its_own(
    live: AsyncClient, stored: Any
) -> None:
    assert (await live.post("/things/background", json={"id": 1})).status_code == 202
    assert await stored() == [1]


async def test_a_streamed_response_has_a_session_of_its_own(live: AsyncClient, stored: Any) -> None:
    for number in range(3):
        await live.post("/things", json={"id": number})
    assert (await live.get("/things/stream")).text == "0\n1\n2\n"


async def test_errors_leak_no_connection(
    live: AsyncClient, database: Database, stored: Any
) -> None:
    responses = await asyncio.gather(
        *(
            live.post(f"/things{path}", json={"id": 10 * number + place, "part_of": part_of})
            for number in range(10)
            for place, path in enumerate(["", "/refused", "/crash", "/savepoint"])
            for part_of in (None, 99_999)
        )
    )
    assert {response.status_code for response in responses} == {201, 409, 500}
    assert checked_out(database) == 0


async def test_columns_are_read_without_a_session(live: AsyncClient, database: Database) -> None:
    await live.post("/things", json={"id": 1, "name": "a"})
    response = await live.get("/things/rows")
    assert response.json() == [{"id": 1, "name": "a", "part_of": None, "in_use": 0}]


async def test_a_failed_read_of_columns_releases_its_connection(database: Database) -> None:
    for _ in range(2 * pool_size(database.read_engine)):
        with pytest.raises(DBAPIError):
            await database.read_session().execute(text("SELECT nothing FROM nowhere"))
    assert checked_out(database) == 0
    assert (await database.read_session().execute(select(1))).all() == [(1,)]


async def test_a_session_can_not_be_used_after_its_transaction_was_ended(
    database: Database,
) -> None:
    for ending in ("rollback", "commit"):
        async with database.transaction() as session:
            await session.execute(insert(things).values(id=1))
            await getattr(session, ending)()
            with pytest.raises(InvalidRequestError):
                await session.execute(insert(things).values(id=2))
    async with database.reading() as reader:
        assert (await reader.scalars(select(things.c.id))).all() == [1]
    assert checked_out(database) == 0


async def test_each_request_has_one_session_of_its_own(
    live_app: FastAPI, live: AsyncClient
) -> None:
    seen: list[WriteSession] = []

    @live_app.get("/sessions")
    async def sessions(one: SessionDep, other: SessionDep, request: Request) -> bool:
        seen.append(one)
        return one is other

    responses = await asyncio.gather(*(live.get("/sessions") for _ in range(5)))
    assert [response.json() for response in responses] == [True] * 5
    assert len({id(session) for session in seen}) == 5


async def test_a_script_owns_its_transaction(database: Database) -> None:
    async def fail() -> None:
        async with database.transaction() as session:
            await session.execute(insert(things).values(id=1))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        await fail()
    async with database.transaction() as session:
        await session.execute(insert(things).values(id=2))
    async with database.reading() as reader:
        assert (await reader.scalars(select(things.c.id))).all() == [2]
    assert checked_out(database) == 0


async def test_database_errors_have_one_base_class(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(insert(things).values(id=1, name="a"))
    with pytest.raises(Conflict) as caught:
        async with database.transaction() as session:
            await session.execute(insert(things).values(id=2, name="a"))
    assert [error.field for error in caught.value.errors] == ["name"]


async def test_concurrent_updates_of_one_row_are_not_lost(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(insert(things).values(id=0, part_of=0))

    async def add_one() -> None:
        async with database.transaction() as session:
            # Reads, then writes: on SQLite a deferred BEGIN would fail here, or lose the update.
            count = select(things.c.name).where(things.c.id == 0).with_for_update()
            counted = int(await session.scalar(count) or 0) + 1
            await session.execute(things.update().values(name=str(counted)))

    await asyncio.gather(*(add_one() for _ in range(20)))
    async with database.reading() as reader:
        assert await reader.scalar(select(things.c.name)) == "20"


async def test_a_read_session_can_not_write(database: Database) -> None:
    async with database.reading() as session:
        with pytest.raises(InvalidRequestError, match="read session"):
            # If it were allowed, the type checker would report an unused comment.
            await session.execute(insert(things).values(id=1))  # type: ignore[call-overload]
        with pytest.raises(InvalidRequestError, match="read session"):  # as does the database
            await session.execute(text("INSERT INTO tests_things (id) VALUES (1)"))
        assert await session.scalar(select(func.count()).select_from(things)) == 0


async def test_a_read_session_begins_no_transaction(database: Database) -> None:
    count = select(func.count()).select_from(things)
    async with database.reading() as session:
        before = await session.scalar(count)
        async with database.transaction() as writer:
            await writer.execute(insert(things).values(id=1))
        assert (before, await session.scalar(count)) == (0, 1)


async def test_a_second_transaction_in_one_task_is_refused(database: Database) -> None:
    async with database.transaction() as session:
        with pytest.raises(RuntimeError, match="open already"):
            async with database.transaction():
                pass
        await session.execute(insert(things).values(id=1))  # the first one is still usable
    async with database.transaction() as session:  # one after the other is fine
        assert await session.scalar(select(things.c.id)) == 1
    assert checked_out(database) == 0


async def test_a_second_transaction_is_refused_with_two_databases_open(
    live_url: str,
) -> None:
    databases = [Database(settings_for(live_url)) for _ in range(2)]
    for _ in range(2):  # ended transactions don't count
        async with databases[0].transaction(), databases[1].transaction():
            for each in databases:
                with pytest.raises(RuntimeError, match="open already"):
                    async with each.transaction():
                        pass
    for each in databases:
        async with each.transaction() as session:
            assert await session.scalar(select(1)) == 1
        await each.close()


async def test_a_task_started_in_a_transaction_gets_a_clear_error(database: Database) -> None:
    async def nested() -> int | None:
        async with database.transaction() as session:
            return await session.scalar(select(1))

    async with database.transaction():
        with pytest.raises(RuntimeError, match="task was started in a transaction"):
            await asyncio.create_task(nested())
        independent = asyncio.create_task(nested(), context=contextvars.Context())
    assert await independent == 1


async def test_a_textual_statement_of_entities(things_app: FastAPI, things: AsyncClient) -> None:
    await things.post("/things/entries", json={"name": "a"})
    found: Any = select(Entry).from_statement(text("SELECT * FROM tests_entries"))
    added: Any = select(Entry).from_statement(insert(Entry).values(name="b").returning(Entry))
    database: Database = things_app.state.database
    async with database.reading() as session:
        (entry,) = await session.scalars(found)
        assert (type(entry), entry.name) == (Entry, "a")
        with pytest.raises(InvalidRequestError, match="read session"):
            await session.scalars(added)


async def test_a_task_that_outlives_a_transaction_may_open_its_own(database: Database) -> None:
    ended = asyncio.Event()

    async def later() -> int | None:
        await ended.wait()
        async with database.transaction() as session:
            return await session.scalar(select(1))

    async with database.transaction():
        task = asyncio.create_task(later())
    ended.set()
    assert await task == 1


@pytest.mark.parametrize("kind", ["transaction", "reading"])
async def test_a_closed_session_can_not_be_used_again(database: Database, kind: str) -> None:
    async with getattr(database, kind)() as session:
        await session.scalar(select(1))
    with pytest.raises(InvalidRequestError, match=r"closed|begin"):
        await session.scalar(select(1))
    assert checked_out(database) == 0


async def test_an_error_with_an_open_result_is_not_replaced(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(insert(things), [{"id": number} for number in range(100)])

    async def fail() -> None:
        async with database.transaction() as session:
            result = await session.stream(select(things.c.id))
            assert await anext(result.scalars()) == 0
            raise Conflict("Enough.")

    with pytest.raises(Conflict, match="Enough"):
        await fail()
    assert checked_out(database) == 0


class Things(Repository[Entry]):
    model = Entry


async def test_a_repository_counts_the_rows_of_a_statement(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(insert(things), [{"id": number} for number in range(5)])
        odd = select(things).where(things.c.id % 2 == bindparam("rest")).order_by(things.c.id)
        assert await Things(session).count(odd, {"rest": 1}) == 2
        assert await Things(session).count(odd.limit(2), {"rest": 0}) == 2


async def test_a_repository_returns_written_columns(database: Database) -> None:
    async with database.transaction() as session:
        (row,) = await Things(session).rows(insert(things).returning(things), {"id": 7})
    assert (row.id, row.name) == (7, None)
