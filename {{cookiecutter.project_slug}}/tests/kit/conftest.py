"""Fixtures for the tests of the kit only."""

from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient

from app.main import create_app
from tests import database
from tests.conftest import calling, rolled_back, settings_for
from tests.kit.sample_feature import add_things


@pytest.fixture(scope="session")
async def things_app(databases: database.Databases, template: str) -> AsyncIterator[FastAPI]:
    """Run a second app, which also mounts the sample feature, for the tests that roll back."""
    app = create_app(settings_for(await databases.copy(template)))
    async with app.router.lifespan_context(app):
        await add_things(app)
        yield app


@pytest.fixture
async def things(things_app: FastAPI) -> AsyncIterator[AsyncClient]:
    """Return a client of the app with the sample feature; its writes are rolled back."""
    async with rolled_back(things_app), calling(things_app) as client:
        yield client
