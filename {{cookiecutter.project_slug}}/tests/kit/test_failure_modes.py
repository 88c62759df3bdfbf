"""Common mistakes with async SQLAlchemy, and how each of them is detected."""

import asyncio
import gc
import time
import warnings

import pytest
from blockbuster import BlockingError, blockbuster_ctx
from fastapi import FastAPI
from httpx2 import AsyncClient
from sqlalchemy import ForeignKey, select, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
)

from app.kit.db.engine import Database
from app.kit.db.models import Base
from tests.conftest import checked_out, settings_for


class Models(DeclarativeBase):
    """Models for tests only. Their tables are not migrated, and no feature has their names."""


class Author(Models):
    __tablename__ = "tests_authors"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Post(Models):
    __tablename__ = "tests_posts"

    id: Mapped[int] = mapped_column(primary_key=True)
    notes: Mapped[list["Note"]] = relationship(lazy="raise")


class Note(Models):
    __tablename__ = "tests_notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    post_id: Mapped[int] = mapped_column(ForeignKey(Post.id))
    author_id: Mapped[int] = mapped_column(ForeignKey(Author.id))
    author: Mapped[Author] = relationship(lazy="raise")


@pytest.fixture
async def blog(live_app: FastAPI, live: AsyncClient) -> Database:
    """Return a database with a post of two notes by one author."""
    database: Database = live_app.state.database
    async with database.write_engine.begin() as connection:
        await connection.run_sync(Models.metadata.create_all)
    async with database.transaction() as session:
        author = Author(name="Ada")
        session.add(Post(id=1, notes=[Note(id=1, author=author), Note(id=2, author=author)]))
    return database


def test_no_relationship_loads_lazily() -> None:
    lazy = {
        str(relation): relation.lazy
        for mapper in Base.registry.mappers
        for relation in mapper.relationships
        if relation.lazy != "raise"
    }
    assert lazy == {}


async def test_a_lazy_load_is_an_error(blog: Database) -> None:
    async with blog.reading() as session:
        post = (await session.scalars(select(Post))).one()
        with pytest.raises(InvalidRequestError, match="raise"):
            _ = post.notes
    with pytest.raises(InvalidRequestError, match="raise"):  # nor once the session is closed
        _ = post.notes


async def test_loader_options_load_several_levels(blog: Database) -> None:
    # A collection by a second SELECT, and its single reference by a JOIN.
    statement = select(Post).options(selectinload(Post.notes).joinedload(Note.author))
    async with blog.reading() as session:
        post = (await session.scalars(statement)).one()
    assert [note.author.name for note in post.notes] == ["Ada", "Ada"]


async def test_a_joined_collection_needs_unique(blog: Database) -> None:
    statement = select(Post).options(joinedload(Post.notes))
    async with blog.reading() as session:
        with pytest.raises(InvalidRequestError, match="unique"):
            (await session.scalars(statement)).one()
        assert len((await session.scalars(statement)).unique().one().notes) == 2


async def test_a_missing_await_is_an_error(blog: Database) -> None:
    async with blog.reading() as session:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            session.scalar(select(Post))  # type: ignore[unused-coroutine]
            gc.collect()
    # In all other tests this warning is an error: see filterwarnings in pyproject.toml. The ignore
    # above shows that the type checker finds the mistake, too.
    assert "never awaited" in str(caught[0].message)


async def test_a_blocking_call_on_the_loop_is_an_error() -> None:
    with blockbuster_ctx("tests"), pytest.raises(BlockingError):
        time.sleep(0)  # noqa: ASYNC251


async def test_without_a_flush_there_is_no_id(blog: Database) -> None:
    async with blog.transaction() as session:
        session.add(author := Author(name="Bob"))
        assert author.id is None
        assert await session.scalar(select(Author).where(Author.name == "Bob")) is None
        await session.flush()  # creates ids without a commit
        assert author.id == 2
        await session.rollback()
    async with blog.reading() as session:
        assert await session.scalar(select(Author).where(Author.name == "Bob")) is None


async def test_a_leaked_session_is_detected(blog: Database) -> None:
    session = blog.write_sessions()
    session.sync_session.begin()
    await session.scalar(select(Post))
    assert checked_out(blog) == 1
    await session.close()
    assert checked_out(blog) == 0


async def test_a_shared_session_is_refused(live_url: str) -> None:
    database = Database(settings_for(live_url))  # connects here
    async with database.write_sessions() as session:
        session.sync_session.begin()
        results = await asyncio.gather(
            *(session.scalar(text("SELECT 1")) for _ in range(5)), return_exceptions=True
        )
    await database.close()
    assert any(isinstance(result, InvalidRequestError) for result in results)


async def test_entities_stay_readable_after_the_commit(blog: Database) -> None:
    async with blog.transaction() as session:
        author = (await session.scalars(select(Author))).one()
    assert author.name == "Ada"
