"""Copying a database: every row arrives, or none does."""

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from rich.console import Console
from rich.progress import Progress, TaskID
from sqlalchemy import (
    JSON,
    Column,
    Computed,
    ForeignKey,
    Integer,
    MetaData,
    Sequence,
    String,
    Table,
    create_engine,
    insert,
    null,
    select,
    text,
)
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import await_only, greenlet_spawn

from app.kit import project
from app.kit.db import driver
from app.kit.db.engine import Database
from app.kit.db.models import Base, UTCDateTime, now
from app.kit.health import schema_history
from app.kit.idempotency.models import IdempotencyKey
from scripts.copy_database import BATCH, Refused, copy_database
from tests.conftest import environment_for, settings_for
from tests.database import SETTINGS, Databases

family = MetaData()
people = Table(
    "people",
    family,
    Column("id", Integer, primary_key=True),
    Column("name", String(20)),
    Column("number", Integer, Sequence("people_number")),  # counted by PostgreSQL alone
    Column("twice", Integer, Computed("id + id")),
    Column("more", JSON),
    Column("mother_id", ForeignKey("people.id")),
    Column("house_id", ForeignKey("houses.id", name="fk_people_house")),
    Column("changed_at", UTCDateTime, onupdate=now),
)
houses = Table(
    "houses",
    family,
    Column("id", Integer, primary_key=True),
    Column("owner_id", ForeignKey("people.id", name="fk_houses_owner"), nullable=False),
)
LONG_AGO = datetime(2001, 2, 3, tzinfo=UTC)
COUNT = BATCH + 10

quiet = Progress(console=Console(quiet=True))


async def made(url: str, metadata: MetaData, heads: set[str] | None = None) -> None:
    """Make the tables of a database, and say that it is at head."""
    parsed = driver.parse_url(url)
    engine = create_async_engine(parsed)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        for head in schema_history().heads if heads is None else heads:
            await connection.execute(
                text("INSERT INTO alembic_version VALUES (:head)"), {"head": head}
            )
    await engine.dispose()


def file_made(path: Path, metadata: MetaData) -> str:
    """Create a migrated SQLite file, on either database; return its URL."""
    url = f"sqlite:///{path}"
    engine = create_engine(url)
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        for head in schema_history().heads:
            connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": head})
    engine.dispose()
    return url


def filled(url: str, *rows: tuple[Table, list[dict[str, Any]]]) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for table, values in rows:
            connection.execute(insert(table), values)
    engine.dispose()


async def found(url: str, table: Table) -> list[Any]:
    engine = create_async_engine(driver.parse_url(url))
    async with engine.begin() as connection:
        rows = (await connection.execute(select(table).order_by(table.c.id))).all()
    await engine.dispose()
    return list(rows)


async def copied(source: str, target: str, metadata: MetaData = family) -> int:
    return await greenlet_spawn(copy_database, source, target, quiet, metadata)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be told what the service is told, as whether a pooler stands before the database."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name.upper(), value)


@pytest.fixture
def source(tmp_path: Path) -> str:
    """Return a SQLite file, with rows that refer to later ones and round in circles."""
    url = file_made(tmp_path / "source.db", family)
    filled(
        url,
        (
            people,
            [
                {
                    "id": number,
                    "name": f"Näme {number}",
                    "number": 2 * number,
                    "more": {"n": [number]} if number % 2 else [JSON.NULL, null()][number % 4 // 2],
                    "mother_id": number + 1 if number < COUNT else None,
                    "house_id": 1 if number % 3 else None,
                    "changed_at": LONG_AGO + timedelta(seconds=number),
                }
                for number in range(1, COUNT + 1)
            ],
        ),
        (houses, [{"id": 1, "owner_id": 7}]),
    )
    return url


@pytest.fixture
async def target(databases: Databases) -> AsyncIterator[str]:
    """Return an empty database of this service's kind."""
    url = await databases.create()
    await made(url, family)
    yield url
    await databases.drop(url)


async def test_every_row_is_copied_unchanged(source: str, target: str) -> None:
    assert await copied(source, target) == COUNT + 1
    rows = await found(target, people)
    assert len(rows) == COUNT
    for number, row in enumerate(rows, start=1):
        assert row.name == f"Näme {number}"
        assert row.twice == 2 * number
        assert row.more == ({"n": [number]} if number % 2 else None)
        assert row.mother_id == (number + 1 if number < COUNT else None)
        assert row.house_id == (1 if number % 3 else None)
        assert row.changed_at == LONG_AGO + timedelta(seconds=number)
    assert [tuple(row) for row in await found(target, houses)] == [(1, 7)]


async def test_sequences_continue_and_both_kinds_of_null_are_kept(source: str, target: str) -> None:
    await copied(source, target)
    engine = create_async_engine(driver.parse_url(target))
    async with engine.begin() as connection:
        await connection.execute(insert(people), {"name": "new"})
        numbers = select(people.c.id, people.c.number).where(people.c.name == "new")
        latest = (await connection.execute(numbers)).one()
        nothing = text("SELECT count(*) FROM people WHERE more IS NULL")
        assert await connection.scalar(nothing) == len(range(2, COUNT + 1, 4)) + 1
        null_of_json = text("SELECT count(*) FROM people WHERE CAST(more AS TEXT) = 'null'")
        assert await connection.scalar(null_of_json) == len(range(4, COUNT + 1, 4))
    await engine.dispose()
    counts = engine.dialect.supports_sequences
    assert tuple(latest) == (COUNT + 1, 2 * COUNT + 1 if counts else None)


async def test_copying_within_one_kind_of_database(
    source: str, target: str, databases: Databases
) -> None:
    await copied(source, target)
    other = await databases.create()
    await made(other, family)
    assert await copied(target, other) == COUNT + 1
    assert await found(other, people) == await found(target, people)
    await databases.drop(other)


class Busy(Progress):
    """Writes to the source as soon as the copying begins."""

    def __init__(self, database: Database) -> None:
        super().__init__(console=Console(quiet=True))
        self._database = database
        self._update_if_match = False

    def add_task(self, *arguments: Any, **options: Any) -> TaskID:
        if not self._update_if_match:
            self._update_if_match = True
            await_only(self._write())
        return super().add_task(*arguments, **options)

    async def _write(self) -> None:
        async with self._database.transaction() as session:
            await session.execute(insert(people), {"id": COUNT + 1, "name": "late"})


async def test_rows_are_copied_from_one_snapshot(
    source: str, target: str, databases: Databases
) -> None:
    await copied(source, target)
    other = await databases.create()
    await made(other, family)
    database = Database(settings_for(target))
    await database.open()
    await greenlet_spawn(copy_database, target, other, Busy(database), family)
    await database.close()
    assert len(await found(target, people)) == COUNT + 1
    assert len(await found(other, people)) == COUNT
    await databases.drop(other)


async def test_a_target_with_rows_is_refused(source: str, target: str) -> None:
    await copied(source, target)
    with pytest.raises(Refused, match="The target is not empty"):
        await copied(source, target)
    assert len(await found(target, people)) == COUNT


async def test_another_revision_is_refused(source: str, databases: Databases) -> None:
    for heads in (set[str](), {"0123456789ab"}):
        url = await databases.create()
        await made(url, family, heads)
        with pytest.raises(Refused, match="not at head"):
            await copied(source, url)
        with pytest.raises(Refused, match="not at head"):
            await copied(url, source)
        await databases.drop(url)


async def test_an_invalid_row_rolls_everything_back(source: str, target: str) -> None:
    filled(source, (houses, [{"id": 2, "owner_id": 99_999}]))  # refers to nobody
    with pytest.raises(Refused):
        await copied(source, target)
    assert await found(target, people) == []
    assert await found(target, houses) == []


async def test_a_required_circular_reference_is_refused(source: str, target: str) -> None:
    closed = MetaData()
    Table(
        "eggs",
        closed,
        Column("id", Integer, primary_key=True),
        Column("hen", ForeignKey("hens.id", name="a"), nullable=False),
    )
    Table(
        "hens",
        closed,
        Column("id", Integer, primary_key=True),
        Column("egg", ForeignKey("eggs.id", name="b"), nullable=False),
    )
    with pytest.raises(Refused, match="in a circle"):
        await copied(source, target, closed)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:////nowhere/at/all.db", "There is no such file"),
        ("nonsense", "Not a database URL"),
        ("postgresql://user:p@ss:secret@host/name", "Not a database URL"),
        ("mysql://host/name?password=secret", "This service runs on"),
        ("mysql://user:secret@host/name", "This service runs on"),
    ],
)
async def test_an_invalid_database_is_named(
    source: str, target: str, url: str, message: str
) -> None:
    for one, other in ((url, target), (source, url)):
        with pytest.raises(Refused, match=message) as caught:
            await copied(one, other)
        assert "secret" not in str(caught.value)


def run(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.copy_database", *arguments],
        cwd=project.ROOT,
        env={**environment_for(url), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def test_the_command_prints_its_result(tmp_path: Path, live_url: str) -> None:
    source = file_made(tmp_path / "app.db", Base.metadata)
    key = {"caller": "", "key": str(uuid4()), "fingerprint": b"x", "status": 201}
    filled(source, (IdempotencyKey.__table__, [{**key, "headers": {}, "body": b"{}"}]))
    done = run(live_url, source)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^1 rows were copied\.$", done.stdout, re.MULTILINE)
    again = run(live_url, source, live_url)
    assert again.returncode == 1
    assert again.stderr == (
        "Nothing was copied. The target is not empty: there are rows in 'idempotency_keys'.\n"
    )
    assert json.dumps(key["key"]) not in again.stdout
