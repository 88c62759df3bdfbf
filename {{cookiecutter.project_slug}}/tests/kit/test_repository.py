"""The repository base and lists, tested with the sample feature."""

import gc
from contextlib import nullcontext, suppress
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient
from sqlalchemy import ForeignKey, UniqueConstraint, insert, select
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.orm import InstanceState, Mapped, aliased, mapped_column

from app.kit import pagination
from app.kit.caller import ANONYMOUS, SYSTEM, Caller
from app.kit.db.engine import MAX_TRACKED, Database
from app.kit.db.loading import builder_of
from app.kit.db.models import UUIDPrimaryKey
from app.kit.db.repository import Repository
from app.kit.errors import Conflict, NotFound, PreconditionFailed
from app.kit.pagination import KeysetList, OffsetQuery, PageQuery
from app.kit.schemas import CamelRequestModel, CamelResponseModel
from tests.conftest import problem, rolled_back
from tests.kit.sample_feature import ENTRIES, FILTERED, Entries, Entry, Models, add_things
from tests.kit.sample_feature import things as things_table

URL = "/things/entries"


@pytest.fixture
async def names(things: AsyncClient) -> list[str]:
    """Store entries and return their names."""
    stored = [f"{number:02}" for number in range(7)]
    for name in stored:
        assert (await things.post(URL, json={"name": name})).status_code == 201
    return stored


async def test_create_read_update_and_delete(things: AsyncClient) -> None:
    created = (await things.post(URL, json={"name": "a"})).json()
    url = f"{URL}/{created['id']}"
    assert created == {**created, "name": "a", "at": None, "version": 1}
    response = await things.get(url)
    assert (response.json(), response.headers["ETag"]) == (created, '"1"')
    changed = await things.patch(url, json={"name": "b"}, headers={"If-Match": '"1"'})
    assert changed.json() == {**created, "name": "b", "version": 2}
    problem(await things.patch(url, json={"name": "c"}, headers={"If-Match": '"1"'}), 412)
    problem(await things.delete(url, headers={"If-Match": '"1"'}), 412)
    assert (await things.delete(url, headers={"If-Match": '"2"'})).status_code == 204
    for call in (things.get, things.delete):
        assert problem(await call(url), 404)["detail"] == "There is no such entry."
    problem(await things.patch(url, json={"name": "c"}, headers={"If-Match": '"2"'}), 404)


async def test_offset_pages_have_a_total(things: AsyncClient, names: list[str]) -> None:
    async def page(**query: Any) -> tuple[list[str], int]:
        document = (await things.get(f"{URL}/offset", params=query)).json()
        assert set(document) == {"items", "total"}
        return [item["name"] for item in document["items"]], document["total"]

    assert await page() == (names, len(names))
    assert await page(limit=3, offset=2) == (names[2:5], len(names))
    assert await page(offset=len(names)) == ([], len(names))
    for query in ({"offset": -1}, {"offset": 10_001}, {"limit": 101}, {"cursor": "x"}):
        problem(await things.get(f"{URL}/offset", params=query), 422)


async def test_an_offset_page_of_large_rows_is_refused(
    things_app: FastAPI, things: AsyncClient
) -> None:
    database: Database = things_app.state.database
    async with database.transaction() as session:
        await Entries(session).create_all([{"name": "x" * 50_000} for _ in range(60)])
    url = f"{URL}/offset?limit="
    document = problem(await things.get(f"{url}60"), 422)
    assert document["detail"] == "The items are too large for one page: ask for at most 19."
    assert [error["field"] for error in document["errors"]] == ["query.limit"]
    response = await things.get(f"{url}19")
    assert (response.status_code, len(response.json()["items"])) == (200, 19)
    assert len(response.content) <= pagination.MAX_BYTES


async def test_lists_of_columns(things: AsyncClient, names: list[str]) -> None:
    page = (await things.get(f"{URL}/names?limit=5")).json()
    assert page["items"] == [{"name": name} for name in names[:5]]
    rest = (await things.get(f"{URL}/names?limit=5&cursor={page['next_cursor']}")).json()
    assert rest == {"items": [{"name": name} for name in names[5:]], "next_cursor": None}


class Filters(PageQuery):
    name: str | None = None


class OffsetFilters(OffsetQuery):
    name: str | None = None


async def test_filters(things_app: FastAPI, things: AsyncClient, names: list[str]) -> None:
    database: Database = things_app.state.database
    async with database.reading() as session:
        entries = Entries(session)
        for query in (Filters(limit=2), OffsetFilters(limit=2)):
            page = await entries.page(FILTERED, query, before="05")
            assert [entry.name for entry in page.items] == names[:2]
        page = await entries.page(FILTERED, Filters(name="03"), before="05")
        assert [entry.name for entry in page.items] == ["03"]
        assert (await entries.page(FILTERED, Filters(name=""), before="05")).items == []
        assert (await entries.page(FILTERED, Filters(name="06"), before="05")).items == []


@pytest.mark.parametrize(
    ("query", "values", "message"),
    [
        (PageQuery(), {}, "Pass the filter 'name'"),
        (Filters(), {}, "Pass the filter 'before'"),
        (Filters(), {"before": None}, "'before' has no value"),
        (Filters(), {"before": "x", "befor": "y"}, "no filter 'befor'"),
    ],
)
async def test_a_filter_that_is_forgotten_lists_nothing(
    things_app: FastAPI, things: AsyncClient, query: PageQuery, values: Any, message: str
) -> None:
    database: Database = things_app.state.database
    async with database.reading() as session:
        with pytest.raises(TypeError, match=message):
            await Entries(session).page(FILTERED, query, **values)


async def test_unknown_columns(things_app: FastAPI, things: AsyncClient) -> None:
    database: Database = things_app.state.database
    async with database.transaction() as session:
        entries = Entries(session)
        entry = await entries.create({"name": "a"})
        for call in (entries.create({"nme": "b"}), entries.update(entry.id, {"nme": "b"})):
            with pytest.raises(TypeError, match="has no column 'nme'"):
                await call
        with pytest.raises(TypeError, match="same columns"):
            await entries.create_all([{"name": "b"}, {"name": "c", "at": None}])
        assert await entries.create_all([]) == []
        made = await entries.create_all([{"name": name} for name in "cab"])
        assert [each.name for each in made] == ["c", "a", "b"]


async def test_a_read_after_a_change_returns_the_new_values(
    things_app: FastAPI, things: AsyncClient
) -> None:
    database: Database = things_app.state.database
    async with database.transaction() as session:
        entries = Entries(session)
        key = (await entries.create({"name": "a"})).id
        statement = entries.select().where(Entry.id == key)
        assert (await entries.one(statement)).name == "a"
        await entries.update(key, {"name": "b"})
        assert (await entries.one(statement)).name == "b"


@pytest.fixture
def rolled_back_app(things_app: FastAPI, things: AsyncClient) -> FastAPI:
    """Return the app with the sample feature, in a transaction that is rolled back."""
    return things_app


@pytest.fixture
async def committing_app(live_app: FastAPI, live: AsyncClient) -> FastAPI:
    """Return an app with the sample feature that commits for real."""
    await add_things(live_app)
    return live_app


@pytest.fixture(params=["rolled_back_app", "committing_app"])
def database(request: pytest.FixtureRequest) -> Database:
    """Return the database of either app: errors have to occur in tests as in production."""
    app: FastAPI = request.getfixturevalue(request.param)
    database: Database = app.state.database
    return database


async def test_a_swallowed_error_is_not_committed(database: Database) -> None:
    async def write(*, savepoint: bool) -> None:
        async with database.transaction() as session:
            await session.execute(insert(things_table).values(id=1, name="a"))
            with suppress(IntegrityError):
                async with session.begin_nested() if savepoint else nullcontext():
                    await session.execute(insert(things_table).values(id=1))
            if savepoint:  # a released savepoint changes nothing
                async with session.begin_nested():
                    await session.execute(insert(things_table).values(id=2))

    with pytest.raises(InvalidRequestError, match="swallowed"):
        await write(savepoint=False)
    async with database.reading() as session:
        assert (await session.scalars(select(things_table.c.id))).all() == []
    await write(savepoint=True)
    async with database.reading() as session:
        assert set(await session.scalars(select(things_table.c.id))) == {1, 2}


async def test_rolled_back_restores_the_app_when_a_test_fails(things_app: FastAPI) -> None:
    database: Database = things_app.state.database
    before = database.connect, dict(database.write_sessions.kw)
    with pytest.raises(ZeroDivisionError):
        async with rolled_back(things_app):
            raise ZeroDivisionError
    assert (database.connect, dict(database.write_sessions.kw)) == before


async def test_entities_are_typed_and_detached(
    things_app: FastAPI, things: AsyncClient, names: list[str]
) -> None:
    database: Database = things_app.state.database
    async with database.transaction() as session:
        entries = Entries(session, Caller(id=UUID(int=1)))
        (entry, *_) = (await entries.page(ENTRIES, PageQuery(limit=1))).items
        assert isinstance(entry, Entry)
        assert entry not in session
        same = await entries.one(entries.select().where(Entry.name == entry.name))
        assert same.id == entry.id
        assert await entries.count(select(Entry).where(Entry.name < "03")) == 3

    async def change() -> None:
        async with database.transaction() as session:
            (await Entries(session).get(entry.id)).name = "changed"

    with pytest.raises(InvalidRequestError, match="was changed"):
        await change()


async def test_missing_rows(things_app: FastAPI, things: AsyncClient) -> None:
    database: Database = things_app.state.database
    async with database.transaction() as session:
        entries = Entries(session)
        for call in (
            entries.get(UUID(int=0)),
            entries.update(UUID(int=0), {"name": "x"}, [1]),
            entries.update(UUID(int=0), {}),
            entries.delete(UUID(int=0)),
        ):
            with pytest.raises(NotFound):
                await call
        entry = await entries.create({"name": "x"})
        with pytest.raises(PreconditionFailed):
            await entries.update(entry.id, {}, [7])
        assert (await entries.update(entry.id, {}, [1])).version == 1


async def test_rows_that_exist_are_skipped(things_app: FastAPI, things: AsyncClient) -> None:
    database: Database = things_app.state.database
    async with database.transaction() as session:
        entries = Entries(session)
        rows = [{"id": number, "name": f"{number}"} for number in range(2)]
        for number in (1, 2):
            await entries.insert_missing(things_table, rows[:number])
        assert (await session.scalars(select(things_table.c.id))).all() == [0, 1]


async def test_a_version_can_be_raised_without_another_change(
    things_app: FastAPI, things: AsyncClient
) -> None:
    database: Database = things_app.state.database
    async with database.transaction() as session:
        entries = Entries(session)
        entry = await entries.create({"name": "a"})
        assert (await entries.update(entry.id, {}, touch=True)).version == 2


class Hidden(UUIDPrimaryKey, Models):
    __tablename__ = "tests_hidden"
    __owned__ = True

    __table_args__ = (UniqueConstraint("owner_id", "entry_id"),)

    owner_id: Mapped[UUID]
    entry_id: Mapped[UUID] = mapped_column(ForeignKey(Entry.id))


class House(UUIDPrimaryKey, Models):
    __tablename__ = "tests_houses"

    owner_id: Mapped[UUID] = mapped_column(unique=True)  # not a column for owners in this model


class HiddenRows(Repository[Hidden]):
    model = Hidden


ON_ENTRY = Hidden.entry_id == Entry.id
BY_ENTRY = select(Entry.id, Entry.name, Hidden.id.label("hidden"))
ADA, BOB = Caller(id=UUID(int=1)), Caller(id=UUID(int=2))


@pytest.fixture
async def hidden(things_app: FastAPI, things: AsyncClient, names: list[str]) -> Database:
    """Store a hidden row of Ada for the first entry and one of Bob for the second."""
    database: Database = things_app.state.database
    async with database.transaction() as session:
        entries = (await Entries(session).page(ENTRIES, PageQuery())).items
        for who, entry in zip((ADA, BOB), entries, strict=False):
            await HiddenRows(session, who).create({"entry_id": entry.id})
    return database


@pytest.mark.parametrize(
    ("items", "found"),
    [
        (KeysetList(select(Hidden).join(Entry), sorts=[Hidden.id]), 1),
        (KeysetList(select(Entry).join(Hidden, ON_ENTRY), sorts=[Entry.name], scope=Hidden), 1),
        (KeysetList(BY_ENTRY.join(Hidden, ON_ENTRY), sorts=[Entry.name]), 1),
        # An outer join keeps the entries without a hidden row.
        (KeysetList(BY_ENTRY.outerjoin(Hidden, ON_ENTRY), sorts=[Entry.name]), 6),
    ],
    ids=["its own", "the scope", "a column", "a column of an outer join"],
)
async def test_a_list_contains_no_rows_of_other_owners(
    hidden: Database, items: KeysetList[Any], found: int
) -> None:
    async with hidden.reading() as session:
        for who in (ADA, BOB):
            assert len((await HiddenRows(session, who).page(items, PageQuery())).items) == found
        everything = await HiddenRows(session, SYSTEM).page(items, PageQuery())
        assert len(everything.items) == (7 if found == 6 else 2)


async def test_only_superusers_may_set_another_owner(hidden: Database) -> None:
    async with hidden.transaction() as session:
        rows, superusers = HiddenRows(session, BOB), HiddenRows(session, SYSTEM)
        (row,) = (await rows.page(KeysetList(select(Hidden), sorts=[Hidden.id]), PageQuery())).items
        values = {"entry_id": row.entry_id, "owner_id": ADA.id}
        for call in (
            rows.create(values),
            rows.create_all([values]),
            rows.update(row.id, {"owner_id": ADA.id}),
            HiddenRows(session, ANONYMOUS).create(values),
        ):
            with pytest.raises(TypeError, match="may set the owner of a Hidden"):
                await call
        assert (await rows.update(row.id, {"owner_id": BOB.id})).owner_id == BOB.id
        assert (await superusers.update(row.id, {"owner_id": ADA.id})).owner_id == ADA.id
        with pytest.raises(NotFound):
            await rows.get(row.id)


async def test_a_conflict_omits_the_owner_in_owned_repositories_only(hidden: Database) -> None:
    class Houses(Repository[House]):
        model = House

    async with hidden.transaction() as session:
        rows = HiddenRows(session, ADA)
        (row,) = (await rows.page(KeysetList(select(Hidden), sorts=[Hidden.id]), PageQuery())).items
        houses = Houses(session)
        await houses.create({"owner_id": UUID(int=1)})
        for create, field in (
            (lambda: rows.create({"entry_id": row.entry_id}), "entry_id"),
            (lambda: houses.create({"owner_id": UUID(int=1)}), "owner_id"),
        ):
            with pytest.raises(Conflict) as caught:
                async with session.begin_nested():
                    await create()
            assert [error.field for error in caught.value.errors] == [field]


def states() -> int:
    """Count the states of entities in memory."""
    return sum(isinstance(each, InstanceState) for each in gc.get_objects())


@pytest.mark.parametrize("kind", ["reading", "transaction"])
async def test_a_long_session_keeps_no_entities(
    things_app: FastAPI, things: AsyncClient, names: list[str], kind: str
) -> None:
    database: Database = things_app.state.database
    before = states()
    async with getattr(database, kind)() as session:
        entries = Entries(session)
        kept = await entries.all(select(Entry))
        for _ in range(200):
            await entries.all(select(Entry))  # loaded by a session
            await entries.page(ENTRIES, PageQuery())  # built from columns
        assert states() - before <= MAX_TRACKED + 3 * len(kept)


async def test_a_change_of_an_expunged_entity_is_an_error(
    things_app: FastAPI, things: AsyncClient, names: list[str]
) -> None:
    database: Database = things_app.state.database

    async def read(pages: int) -> None:
        async with database.reading() as session:
            entries = Entries(session)
            (await entries.page(ENTRIES, PageQuery())).items[0].name = "changed"
            for _ in range(pages):
                await entries.page(ENTRIES, PageQuery())

    for pages in (0, 200):
        with pytest.raises(InvalidRequestError, match="A Entry was changed"):
            await read(pages)


@pytest.mark.parametrize(
    ("statement", "sorts", "scope", "message"),
    [
        (select(Hidden).join(Entry), [Entry.name], None, "must select Entry first"),
        (select(Entry), [Hidden.id], None, "must select Hidden first"),
        (select(Entry.name, Hidden.id), [Hidden.id], None, "must select Hidden first"),
        (select(aliased(Entry)), [Entry.name], None, "must select Entry first"),
        (select(Entry), [Entry.name, Hidden.id], None, "columns of one model"),
        (select(Entry), [], None, "columns of one model"),
        (select(Entry.name), [Entry.name], None, "add Entry.id"),
        (select(Entry.id), [Entry.name], None, "add Entry.name"),
        (select(Entry), [Entry.name], Hidden, r"add .join\(Hidden\)"),
    ],
)
def test_a_list_that_would_lose_rows_or_owners_is_refused(
    statement: Any, sorts: Any, scope: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        KeysetList(statement, sorts=sorts, scope=scope)


async def test_rows_with_an_owner_require_a_caller(things_app: FastAPI) -> None:
    database: Database = things_app.state.database
    async with database.reading() as session:
        with pytest.raises(TypeError, match="A Hidden has an owner: pass a caller"):
            HiddenRows(session)
        assert HiddenRows(session, SYSTEM).visible() == []
        (condition,) = HiddenRows(session, ANONYMOUS).visible()
        assert "owner_id IS NULL" in str(condition)
        assert Entries(session).caller == ANONYMOUS


class Animal(UUIDPrimaryKey, Models):
    __tablename__ = "tests_animals"
    __mapper_args__: Any = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012

    kind: Mapped[str]


class Dog(Animal):
    __mapper_args__: Any = {"polymorphic_identity": "dog"}  # noqa: RUF012


@pytest.mark.parametrize("kind", [Animal, Dog])
def test_a_model_that_inherits_is_refused(kind: type[Animal]) -> None:
    with pytest.raises(TypeError, match=f"{kind.__name__} uses inheritance between tables"):
        type("Animals", (Repository,), {"model": kind})
    with pytest.raises(TypeError, match=f"{kind.__name__} uses inheritance between tables"):
        builder_of(kind)


def test_camel_case_contracts() -> None:
    class Sent(CamelRequestModel):
        due_at: str

    class Received(CamelResponseModel):
        due_at: str

    assert Sent.model_validate({"dueAt": "x"}).due_at == "x"
    assert Received(due_at="x").model_dump(by_alias=True) == {"dueAt": "x"}
