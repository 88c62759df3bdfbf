"""Engines and pools."""

import asyncio
from collections.abc import Iterable

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient
from opentelemetry.metrics import CallbackOptions, Observation
from sqlalchemy import Connection, text

from app.kit.db import driver, metrics
from app.kit.db.engine import Database
from app.kit.errors import Unavailable
from app.kit.health import REVISIONS
from app.main import create_app
from tests.conftest import PATIENCE, calling, checked_out, pool_size, running, settings_for
from tests.database import Databases


async def test_two_apps_in_one_process(databases: Databases, template: str, live_url: str) -> None:
    other_url = await databases.copy(template)
    one, other = create_app(settings_for(live_url)), create_app(settings_for(other_url))
    async with (
        one.router.lifespan_context(one),
        other.router.lifespan_context(other),
        calling(one) as here,
        calling(other) as there,
    ):
        async with one.state.database.transaction() as session:
            await session.execute(text("INSERT INTO alembic_version VALUES ('other')"))
        for client in (here, there):
            assert (await client.get("/health/ready")).status_code == 200
        for app, changed in ((one, True), (other, False)):
            found = await app.state.database.read_session().scalars(REVISIONS)
            assert ("other" in found.all()) == changed
    await databases.drop(other_url)


async def test_an_app_can_be_restarted(live_app: FastAPI) -> None:
    for _ in range(2):
        async with running(live_app) as client:
            assert (await client.get("/health/ready")).status_code == 200


async def test_a_full_pool_is_503_until_a_connection_is_returned(live_url: str) -> None:
    app = create_app(settings_for(live_url, database_pool_timeout=0.05))
    async with running(app) as client:
        database: Database = app.state.database
        held = [
            await database.read_engine.connect() for _ in range(pool_size(database.read_engine))
        ]
        with pytest.raises(Unavailable, match="in use"):
            async with asyncio.timeout(PATIENCE), database.reading() as session:
                await session.execute(text("SELECT 1"))
        assert (await client.get("/health/live")).status_code == 200
        for connection in held:
            await connection.close()
        async with database.reading() as session:
            assert await session.scalar(text("SELECT 1")) == 1
        assert checked_out(database) == 0


async def test_requests_waiting_for_a_connection_are_served_in_order(live_url: str) -> None:
    # SQLite always has one write connection.
    app = create_app(settings_for(live_url, database_pool_size=1))
    served: list[int] = []
    async with running(app):
        database: Database = app.state.database

        async def ask(number: int) -> None:
            async with database.transaction() as session:
                await session.execute(text("SELECT 1"))
                served.append(number)

        await asyncio.gather(*(ask(number) for number in range(50)))
    assert served == list(range(50))


async def test_the_pools_have_metrics(live_app: FastAPI, live: AsyncClient) -> None:
    database: Database = live_app.state.database

    def used(_: Connection) -> dict[str, float]:
        return _used(metrics.connections(CallbackOptions()))

    assert await database.run_read(used) == {"read": 1, "write": 0}


def _used(observations: Iterable[Observation]) -> dict[str, float]:
    """Sum the used connections by pool; other apps of this process have none."""
    used: dict[str, float] = {}
    for observation in observations:
        labels = observation.attributes or {}
        if labels["db.client.connection.state"] == "used":
            pool = str(labels["db.client.connection.pool.name"])
            used[pool] = used.get(pool, 0) + observation.value
    return used


async def test_warnings_of_the_database_are_logged(
    live_app: FastAPI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def warnings(*_: object) -> list[str]:
        return ["100 % full"]

    monkeypatch.setattr(driver, "warnings", warnings)
    async with running(live_app):
        assert "100 % full" in caplog.text
