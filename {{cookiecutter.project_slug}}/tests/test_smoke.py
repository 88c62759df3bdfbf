"""A short test of everything that is not a feature: the rest is in ``tests/kit``."""

import asyncio

from alembic import command
from fastapi import FastAPI
from httpx2 import AsyncClient

from tests.conftest import alembic_config, settings_for


async def test_the_service_starts_and_is_ready(live: AsyncClient) -> None:
    # Ready means that the migrations have brought the database to head.
    assert (await live.get("/health/ready")).json() == {"status": "ok"}


async def test_the_openapi_document_has_every_route(app: FastAPI, client: AsyncClient) -> None:
    document = await asyncio.to_thread(app.openapi)  # it blocks, as the event loop must not
    assert (await client.get("/openapi.json")).json() == document
    assert {"/health/live", "/health/ready"} <= document["paths"].keys()


async def test_the_models_match_the_migrations(live_url: str) -> None:
    await asyncio.to_thread(command.check, alembic_config(settings_for(live_url)))
