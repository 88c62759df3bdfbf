"""The mixins of models."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient
from sqlalchemy import MetaData, text
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import Mapped, mapped_column

from app.kit.db.engine import Database
from app.kit.db.models import Base, TimestampMixin, UTCDateTime, UUIDPrimaryKey, VersionMixin
from app.kit.errors import Conflict

LONG_AGO = datetime(2001, 2, 3, tzinfo=UTC)


class Models(Base):
    __abstract__ = True
    metadata = MetaData()  # separate from the tables of the service


class Document(UUIDPrimaryKey, TimestampMixin, VersionMixin, Models):
    __tablename__ = "tests_documents"

    title: Mapped[str]
    at: Mapped[datetime | None] = mapped_column(UTCDateTime)


@pytest.fixture
async def database(live_app: FastAPI, live: AsyncClient) -> Database:
    database: Database = live_app.state.database
    async with database.write_engine.begin() as connection:
        await connection.run_sync(Models.metadata.create_all)
    return database


async def test_times_are_aware_and_in_utc(database: Database) -> None:
    at = datetime(2026, 1, 1, 1, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    async with database.transaction() as session:
        session.add(written := Document(title="a", at=at))
    async with database.reading() as session:
        read = await session.get_one(Document, written.id)
    assert read.at == at
    assert read.at is not None
    assert read.at.tzinfo == UTC
    assert read.created_at.utcoffset() == timedelta(0)
    assert written.created_at == read.created_at == read.updated_at


async def test_a_naive_time_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="without an offset"):
        async with database.transaction() as session:
            session.add(Document(title="a", at=datetime(2026, 1, 1)))  # noqa: DTZ001


async def test_keys_are_uuid7_in_order_of_creation(database: Database) -> None:
    async with database.transaction() as session:
        for number in range(20):
            session.add(Document(title=str(number)))
            await session.flush()
        rows = await session.execute(text("SELECT title FROM tests_documents ORDER BY id"))
    assert rows.scalars().all() == [str(number) for number in range(20)]


async def test_a_change_raises_the_version_and_the_time(database: Database) -> None:
    async with database.transaction() as session:
        session.add(document := Document(title="a", created_at=LONG_AGO, updated_at=LONG_AGO))
    async with database.transaction() as session:
        changed = await session.get_one(Document, document.id)
        changed.title = "b"
    assert (document.version, changed.version) == (1, 2)
    assert changed.updated_at > document.updated_at
    assert changed.created_at == LONG_AGO


async def test_a_concurrent_change_is_a_conflict(database: Database) -> None:
    async with database.transaction() as session:
        session.add(document := Document(title="a"))
    async with database.reading() as reader:
        stale = await reader.get_one(Document, document.id)
    async with database.transaction() as session:
        (await session.get_one(Document, document.id)).title = "b"
    stale.title = "c"
    with pytest.raises(Conflict):
        async with database.transaction() as session:
            session.add(stale)
    async with database.reading() as reader:
        assert (await reader.get_one(Document, document.id)).title == "b"


def test_constraint_names_do_not_depend_on_the_database() -> None:
    named = {
        str(constraint.name)
        for table in Base.metadata.tables.values()
        for constraint in table.constraints
    }
    assert all(name.startswith(("pk_", "fk_", "uq_", "ck_")) for name in named), named
