"""Health checks."""

import asyncio
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from fastapi import FastAPI
from httpx2 import AsyncClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.kit import health
from app.kit.db import driver
from app.kit.db.engine import Database
from app.kit.errors import NOT_MIGRATED
from app.main import create_app
from tests.conftest import alembic_config, calling, pool_size, problem, settings_for
from tests.database import Databases


async def test_live_and_ready(live: AsyncClient) -> None:
    for path in ("/health/live", "/health/ready"):
        response = await live.get(path)
        assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_live_does_not_query_the_database(live_app: FastAPI, live: AsyncClient) -> None:
    del live_app.state.database
    assert (await live.get("/health/live")).status_code == 200


async def test_not_ready_before_the_first_migration(databases: Databases) -> None:
    if not health.schema_history().heads:
        pytest.skip("there is no revision yet: an empty database is at head")
    url = await databases.create()
    settings = settings_for(url)
    config = alembic_config(settings)
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        async with calling(app) as client:
            response = await client.get("/health/ready")
            assert response.status_code == 503
            assert "alembic upgrade head" in response.json()["detail"]
        # The service creates no tables: it becomes ready after the migrations.
        await asyncio.to_thread(command.upgrade, config, "head")
        async with calling(app) as client:
            assert (await client.get("/health/ready")).status_code == 200
    await databases.drop(url)


async def be_at(app: FastAPI, *revisions: str) -> None:
    """Set the revisions that are stored in the database."""
    database: Database = app.state.database
    async with database.transaction() as session:
        await session.execute(text("DELETE FROM alembic_version"))
        for revision in revisions:
            await session.execute(text(f"INSERT INTO alembic_version VALUES ('{revision}')"))  # noqa: S608 - ours


async def test_not_ready_if_the_schema_is_behind(live_app: FastAPI, live: AsyncClient) -> None:
    history: health.History = live_app.state.schema_history
    if not history.heads:
        pytest.skip("there is no revision yet: nothing can be missing")
    for behind in [(), *((revision,) for revision in history.passed)]:
        await be_at(live_app, *behind)
        detail = problem(await live.get("/health/ready"), 503)["detail"]
        assert detail == "The database schema is behind: run `alembic upgrade head`."


async def test_a_schema_that_is_behind_is_one_warning_at_start(
    databases: Databases, template: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = await databases.copy(template)
    app = create_app(settings_for(url))
    history: health.History = app.state.schema_history
    if not history.passed:
        pytest.skip("there are no two revisions yet: nothing can be missing")
    async with app.router.lifespan_context(app):
        await be_at(app, min(history.passed))
    assert "Not ready" not in caplog.text
    async with app.router.lifespan_context(app):
        assert caplog.messages.count(f"Not ready: {NOT_MIGRATED}") == 1
    await databases.drop(url)


async def test_not_ready_during_the_shutdown_delay(live_app: FastAPI, live: AsyncClient) -> None:
    live_app.state.ending = True
    assert "shutting down" in problem(await live.get("/health/ready"), 503)["detail"]
    assert (await live.get("/health/live")).status_code == 200


async def test_ready_if_the_schema_is_ahead(live_app: FastAPI, live: AsyncClient) -> None:
    # A newer version has migrated the database, while this one still serves.
    await be_at(live_app, "newer")
    assert (await live.get("/health/ready")).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE idempotency_keys RENAME TO others",
        "ALTER TABLE idempotency_keys RENAME COLUMN key TO other",
    ],
    ids=["a table", "a column"],
)
async def test_not_ready_on_the_database_of_another_service(
    live_app: FastAPI, live: AsyncClient, change: str
) -> None:
    # An unknown revision belongs to a newer version only if all tables and columns of this one
    # exist.
    await be_at(live_app, "stranger")
    database: Database = live_app.state.database
    async with database.transaction() as session:
        await session.execute(text(change))
    assert problem(await live.get("/health/ready"), 503)["detail"] == health.STRANGE


async def test_not_ready_if_the_revision_can_not_be_read(
    live_app: FastAPI, live: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    database: Database = live_app.state.database
    async with database.transaction() as session:
        await session.execute(
            text("ALTER TABLE alembic_version RENAME COLUMN version_num TO other")
        )
    detail = problem(await live.get("/health/ready"), 503)["detail"]
    assert detail == "The revision of the schema can't be read."
    assert "version_num" in caplog.text


@pytest.mark.parametrize(
    ("found", "behind"),
    [
        ("e f", False),
        ("e", True),  # one of two heads is missing
        ("d", True),
        ("e d", True),
        ("", True),
        ("newer", False),  # may be a descendant of both heads
        ("e newer", False),  # upon f
        ("d newer", True),
    ],
)
def test_behind_with_several_branches(found: str, *, behind: bool) -> None:
    history = health.History(heads={"e", "f"}, passed={"a", "b", "c", "d"})
    assert history.is_behind(set(found.split())) == behind


def test_without_revisions_nothing_is_behind() -> None:
    assert not health.History(set(), set()).is_behind(set())


async def test_not_ready_while_the_database_does_not_respond(
    live: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: object) -> bool:
        await asyncio.Event().wait()
        return True

    monkeypatch.setattr(health, "READY_TIMEOUT", 0.05)
    monkeypatch.setattr(driver, "is_writable", never)
    response = await live.get("/health/ready")
    assert problem(response, 503)["detail"] == "The database does not respond."
    assert response.headers["retry-after"] == "1"


async def test_not_ready_while_the_database_is_read_only(
    databases: Databases, live_url: str, live: AsyncClient
) -> None:
    async with databases.read_only(live_url):
        response = await live.get("/health/ready")
        assert problem(response, 503)["detail"] == "The database is read-only."
    assert (await live.get("/health/ready")).status_code == 200


async def test_concurrent_checks_share_one_result(
    live: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    is_writable = driver.is_writable

    async def counted(connection: AsyncConnection) -> bool:
        nonlocal asked
        asked += 1
        return await is_writable(connection)

    monkeypatch.setattr(driver, "is_writable", counted)
    responses = await asyncio.gather(*(live.get("/health/ready") for _ in range(50)))
    assert {response.status_code for response in responses} == {200}
    assert asked == 1  # anyone may call it, and each check opens a connection
    assert (await live.get("/health/ready")).status_code == 200
    assert asked == 2


async def test_ready_while_every_connection_is_in_use(live_app: FastAPI, live: AsyncClient) -> None:
    # If a busy service were removed, its load would move to other busy ones.
    database: Database = live_app.state.database
    held = [
        await engine.connect()
        for engine in database.engines.values()
        for _ in range(pool_size(engine))
    ]
    async with held[0].begin():  # SQLite: another connection writes
        assert (await live.get("/health/ready")).status_code == 200
    for connection in held:
        await connection.close()


def test_the_heads_are_the_same_as_in_alembic(live_url: str) -> None:
    script = ScriptDirectory.from_config(alembic_config(settings_for(live_url)))
    assert health.schema_history().heads == set(script.get_heads())


def test_the_heads_of_a_history_with_branches(tmp_path: Path) -> None:
    revisions = {"a": None, "b": "a", "c": "a", "d": ("b", "c"), "e": "d", "f": "d"}
    for revision, down in revisions.items():
        (tmp_path / f"{revision}.py").write_text(
            f"revision: str = {revision!r}\ndown_revision = {down!r}\nother = 1\n"
        )
    assert health.schema_history(tmp_path) == ({"e", "f"}, {"a", "b", "c", "d"})


def test_a_revision_that_another_depends_on_is_no_head(tmp_path: Path) -> None:
    # Alembic does not store it in the database either.
    (tmp_path / "a.py").write_text("revision = 'a'\ndown_revision = None\n")
    (tmp_path / "b.py").write_text("revision = 'b'\ndown_revision = None\ndepends_on = 'a'\n")
    assert health.schema_history(tmp_path) == ({"b"}, {"a"})
