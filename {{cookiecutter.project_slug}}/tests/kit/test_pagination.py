"""Keyset pages contain every row once and in order, with equal values and nulls."""

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient, Response
from sqlalchemy import ForeignKey, create_engine, delete, select
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    attribute_keyed_dict,
    joinedload,
    mapped_column,
    relationship,
)

from app.kit import pagination
from app.kit.db.engine import Database
from app.kit.pagination import KeysetList
from tests.kit.sample_feature import ENTRIES as LIST
from tests.kit.sample_feature import VERSIONS, Entry

ENTRIES = "/things/entries"
SORTS = ["name", "-name", "at", "-at"]
LONG_AGO = datetime.min.replace(tzinfo=UTC)


def day(number: int) -> datetime:
    return datetime(2026, 1, number, tzinfo=UTC)


@pytest.fixture
def client(things: AsyncClient) -> AsyncClient:
    return things


async def store(app: FastAPI, *entries: Entry) -> list[Entry]:
    """Replace all entries by these."""
    database: Database = app.state.database
    async with database.transaction() as session:
        await session.execute(delete(Entry))
        session.add_all(entries)
    return list(entries)


@pytest.fixture
async def entries(things_app: FastAPI, things: AsyncClient) -> list[Entry]:
    """Store entries with many equal values, and with nulls."""
    times = [None, day(2), None, day(1), day(3), day(2), None]
    return await store(
        things_app,
        *(Entry(name="abc"[number % 3], at=times[number % len(times)]) for number in range(14)),
    )


def in_order(entries: list[Entry], sort: str) -> list[str]:
    """Return the keys of entries in the order of this sort: nulls are last in both directions."""
    column = sort.removeprefix("-")
    filled = [entry for entry in entries if getattr(entry, column) is not None]
    empty = [entry for entry in entries if getattr(entry, column) is None]
    descending = sort != column
    filled.sort(key=lambda entry: (getattr(entry, column), entry.id), reverse=descending)
    empty.sort(key=lambda entry: entry.id, reverse=descending)
    return [str(entry.id) for entry in filled + empty]


async def walk(client: AsyncClient, sort: str, limit: int) -> list[dict[str, Any]]:
    """Read every page. All but the last are full; only the first one may be empty."""
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"sort": sort, "limit": limit}
    while True:
        response = await client.get(ENTRIES, params=query)
        assert response.status_code == 200, response.text
        page = response.json()
        found += page["items"]
        query["cursor"] = page["next_cursor"]
        if query["cursor"] is None:
            assert page["items"] or not found
            return found
        assert len(page["items"]) == limit
        assert len(found) < 1000, "the list does not end"


def keys(items: list[dict[str, Any]]) -> list[str]:
    return [item["id"] for item in items]


def assert_blamed(response: Response, field: str) -> None:
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in response.json()["errors"]] == [field]


@pytest.mark.parametrize("sort", SORTS)
async def test_pages_of_every_size_return_each_row_once(
    client: AsyncClient, entries: list[Entry], sort: str
) -> None:
    for limit in range(1, len(entries) + 2):  # so that a page ends at every row
        assert keys(await walk(client, sort, limit)) == in_order(entries, sort), limit


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("at", [None, day(1)], ids=["no value", "one value"])
async def test_rows_with_equal_sort_values(
    client: AsyncClient, things_app: FastAPI, sort: str, at: datetime | None
) -> None:
    for count in range(5):
        entries = await store(things_app, *(Entry(name="a", at=at) for _ in range(count)))
        assert keys(await walk(client, sort, 2)) == in_order(entries, sort)


async def test_the_default_page_has_twenty_rows(client: AsyncClient, things_app: FastAPI) -> None:
    await store(things_app, *(Entry(name="a") for _ in range(21)))
    page = (await client.get(ENTRIES)).json()
    assert len(page["items"]) == 20
    assert page["next_cursor"]


@pytest.mark.parametrize("sort", SORTS)
async def test_inserts_and_deletes_do_not_shift_pages(
    client: AsyncClient, things_app: FastAPI, entries: list[Entry], sort: str
) -> None:
    query = {"sort": sort, "limit": "5"}
    page = (await client.get(ENTRIES, params=query)).json()
    database: Database = things_app.state.database
    async with database.transaction() as session:
        # Delete the row after which the next page starts, and insert one before all others.
        last = next(entry for entry in entries if str(entry.id) == page["items"][-1]["id"])
        await session.delete(last)
        descending = sort.startswith("-")
        session.add(Entry(name="z", at=day(31)) if descending else Entry(name="0", at=LONG_AGO))
    query["cursor"] = page["next_cursor"]
    page = (await client.get(ENTRIES, params=query)).json()
    assert keys(page["items"]) == in_order(entries, sort)[5:10]


@pytest.mark.parametrize("sort", ["name", "-name"])
async def test_any_text_can_be_a_sort_value(
    client: AsyncClient, things_app: FastAPI, sort: str
) -> None:
    names = ["", "\x01" * 200, '"' * 200, "' OR 1 = 1; --", "\N{GRINNING FACE}" * 200, "x" * 200]
    await store(things_app, *(Entry(name=name) for name in names))
    assert sorted(item["name"] for item in await walk(client, sort, 1)) == sorted(names)


@pytest.mark.parametrize("sort", ["at", "-at"])
async def test_any_time_can_be_a_sort_value(
    client: AsyncClient, things_app: FastAPI, sort: str
) -> None:
    last = datetime.max.replace(tzinfo=UTC)
    times = [LONG_AGO, LONG_AGO.replace(microsecond=1), day(1), last]
    entries = await store(things_app, *(Entry(name="a", at=at) for at in times))
    assert keys(await walk(client, sort, 1)) == in_order(entries, sort)


@pytest.mark.parametrize(
    "limit",
    ["0", "-1", "101", "abc", "", "1.5", "NaN", "1e400", "9" * 5000],
    ids=lambda limit: limit[:10],
)
async def test_an_invalid_limit_is_refused(client: AsyncClient, limit: str) -> None:
    assert_blamed(await client.get(ENTRIES, params={"limit": limit}), "query.limit")


async def test_an_unknown_parameter_is_refused(client: AsyncClient) -> None:
    assert_blamed(await client.get(ENTRIES, params={"offset": "5"}), "query.offset")


def cursor_of(*parts: Any) -> str:
    """Return a cursor with a valid checksum and these parts."""
    return LIST.seal(json.dumps(parts).encode())


KEY = "01890a5d-ac96-774b-bcce-b302099a8057"
TIME = "2026-01-01T00:00:00+00:00"
CURSORS = {
    "empty": "",
    "garbage": "garbage",
    "not base64": "****",
    "not ASCII": "\N{GRINNING FACE}",
    "NUL": "\x00",
    "no seal": base64.urlsafe_b64encode(b'["at", null, null]').decode(),
    "no JSON": LIST.seal(b"\xff\xfe\x00"),
    "too long": "A" * 50_000,
    "deeply nested": LIST.seal(b"[" * 1400),
    "nested as a value": cursor_of("at", [[[[TIME]]]], KEY),
    "a number": cursor_of(1)[:-1],
    "two parts": cursor_of("at", TIME),
    "four parts": cursor_of("at", TIME, KEY, KEY),
    "an object": LIST.seal(b'{"a": 1, "b": 2, "c": 3}'),
    "another order": cursor_of("-at", TIME, KEY),
    "no order": cursor_of(None, TIME, KEY),
    "an order of another type": cursor_of({}, TIME, KEY),
    "a number as value": cursor_of("at", 1, KEY),
    "NaN as value": cursor_of("at", float("nan"), KEY),
    "a naive time": cursor_of("at", "2026-01-01T00:00:00", KEY),
    "a time before all": cursor_of("at", "0001-01-01T00:00:00+14:00", KEY),
    "no key": cursor_of("at", TIME, None),
    "neither value nor key": cursor_of("at", None, None),
    "a key that is none": cursor_of("at", TIME, "1"),
    "a number as key": cursor_of("at", TIME, 1),
}


@pytest.mark.parametrize("cursor", CURSORS.values(), ids=CURSORS)
async def test_a_made_up_cursor_is_refused(client: AsyncClient, cursor: str) -> None:
    query = {"sort": "at", "cursor": cursor}
    assert_blamed(await client.get(ENTRIES, params=query), "query.cursor")


@pytest.mark.parametrize("text", ["\x00", "\ud800", 1, None, ["x"]], ids=ascii)
async def test_a_cursor_with_invalid_text_is_refused(client: AsyncClient, text: object) -> None:
    query = {"sort": "name", "cursor": cursor_of("name", text, KEY)}
    assert_blamed(await client.get(ENTRIES, params=query), "query.cursor")


async def test_a_truncated_or_changed_cursor_is_refused(
    client: AsyncClient, entries: list[Entry]
) -> None:
    cursor = (await client.get(ENTRIES, params={"limit": "1"})).json()["next_cursor"]
    for changed in (cursor[:-5], cursor[5:], "A" + cursor, cursor.swapcase(), "****" + cursor):
        assert_blamed(await client.get(ENTRIES, params={"cursor": changed}), "query.cursor")


@pytest.mark.parametrize("sort", SORTS)
async def test_a_cursor_is_valid_for_its_own_sort_only(
    client: AsyncClient, entries: list[Entry], sort: str
) -> None:
    query = {"sort": sort, "limit": "1"}
    cursor = (await client.get(ENTRIES, params=query)).json()["next_cursor"]
    for other in SORTS:
        response = await client.get(ENTRIES, params={"sort": other, "cursor": cursor})
        assert response.status_code == (200 if other == sort else 422)


async def test_a_cursor_is_valid_for_its_own_list_only(
    client: AsyncClient, entries: list[Entry]
) -> None:
    cursors = {
        url: (await client.get(url, params={"limit": 1})).json()["next_cursor"]
        for url in (ENTRIES, f"{ENTRIES}/names", f"{ENTRIES}/late")
    }
    for url in cursors:
        for other, cursor in cursors.items():
            response = await client.get(url, params={"cursor": cursor})
            # The list of names is the same list with fewer columns.
            same = (url.endswith("late")) == other.endswith("late")
            assert response.status_code == (200 if same else 422), (url, other)


def test_lists_with_other_conditions_have_other_cursors() -> None:
    by_name = {"name": Entry.name}
    lists = [
        KeysetList(select(Entry), sorts=[Entry.name]),
        KeysetList(select(Entry), sorts=[Entry.name], filters=by_name),
        KeysetList(select(Entry).where(Entry.at.is_(None)), sorts=[Entry.name]),
        *(KeysetList(select(Entry).where(Entry.name == x), sorts=[Entry.name]) for x in "ab"),
    ]
    assert len({each.seal(b"x") for each in lists}) == len(lists)
    # The same for every worker, and after a restart.
    assert lists[0].seal(b"x") == LIST.seal(b"x")


async def test_a_number_out_of_range_is_refused(client: AsyncClient, entries: list[Entry]) -> None:
    url = f"{ENTRIES}/versions"
    for value in (10**30, 2**63, -(2**63) - 1):
        cursor = VERSIONS.seal(json.dumps(["version", value, KEY]).encode())
        assert_blamed(await client.get(url, params={"cursor": cursor}), "query.cursor")
    cursor = VERSIONS.seal(json.dumps(["version", 0, KEY]).encode())
    assert (await client.get(url, params={"cursor": cursor})).status_code == 200


@pytest.mark.parametrize("character", ["x", "\N{GRINNING FACE}", "\x01", '"'])
async def test_a_page_of_large_rows_ends_early(
    things_app: FastAPI, client: AsyncClient, character: str
) -> None:
    stored = await store(
        things_app, *(Entry(name=f"{number:02}{character * 50_000}") for number in range(30))
    )
    query: dict[str, str] = {"limit": "100", "sort": "at"}
    names: list[str] = []
    while "cursor" not in query or query["cursor"]:
        response = await client.get(ENTRIES, params=query)
        assert len(response.content) <= 1_000_000
        page = response.json()
        names += [item["name"] for item in page["items"]]
        query["cursor"] = page["next_cursor"] or ""
    assert names == [entry.name for entry in stored]


async def test_a_page_has_at_least_one_row(things_app: FastAPI, client: AsyncClient) -> None:
    await store(things_app, *(Entry(name=f"{number}{'x' * 1_100_000}") for number in range(2)))
    page = (await client.get(ENTRIES, params={"sort": "at"})).json()
    assert (len(page["items"]), page["next_cursor"] is None) == (1, False)


class Models(DeclarativeBase):
    """Models for tests only: their tables are never created."""


class Author(Models):
    __tablename__ = "tests_page_authors"

    id: Mapped[int] = mapped_column(primary_key=True)
    about: Mapped[str]
    remarks: Mapped[list["Remark"]] = relationship(back_populates="author")
    labels: Mapped[dict[str, "Label"]] = relationship(collection_class=attribute_keyed_dict("name"))


class Label(Models):
    __tablename__ = "tests_page_labels"

    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey(Author.id))
    name: Mapped[str]
    text: Mapped[str]


class Remark(Models):
    __tablename__ = "tests_page_remarks"

    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey(Author.id))
    author: Mapped[Author] = relationship(back_populates="remarks")


@pytest.fixture(params=[select(Remark), select(Remark.id, Author).join(Remark.author)])
def remarks(request: pytest.FixtureRequest) -> Iterator[Callable[[Author], Sequence[object]]]:
    """Return a function that stores 100 remarks of an author and reads them with the author."""
    statement = request.param.options(
        joinedload(Remark.author).joinedload(Author.labels)
        if len(request.param.column_descriptions) == 1
        else joinedload(Author.labels)
    )
    engine = create_engine("sqlite://")
    Models.metadata.create_all(engine)

    def read(author: Author) -> Sequence[object]:
        with Session(engine) as session:
            author.remarks = [Remark(id=number) for number in range(100)]
            session.add(author)
            session.commit()
            result = session.execute(statement)
            found = result.scalars() if len(statement.column_descriptions) == 1 else result
            rows = found.unique().all()
            session.expunge_all()
            return rows

    yield read
    engine.dispose()


@pytest.mark.parametrize(
    ("about", "label", "fewest", "most"),
    [("x" * 50_000, "x", 10, 20), ("x", "x" * 50_000, 10, 20), ("x", "x", 100, 100)],
    ids=["an entity", "an entity of an entity", "small"],
)
def test_the_size_of_a_page_includes_loaded_relationships(
    remarks: Callable[[Author], Sequence[object]], about: str, label: str, fewest: int, most: int
) -> None:
    # Each row repeats the texts of its author.
    rows = remarks(Author(id=1, about=about, labels={"x": Label(id=1, name="x", text=label)}))
    assert len(rows) == 100
    assert fewest <= pagination.rows_within_limit(rows) <= most


def test_entities_that_refer_to_each_other_are_counted_once() -> None:
    author = Author(id=1, about="x" * 100_000, remarks=[Remark(id=1), Remark(id=2)])
    assert pagination.rows_within_limit([author] * 20) == 9


def test_bytes_are_weighed_as_text() -> None:
    assert pagination.rows_within_limit([SimpleNamespace(picture=b"x" * 50_000)] * 20) == 9
