"""Fixtures for the tests of users."""

from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient

from app.users import security
from tests.conftest import calling
from tests.users.helpers import CHEAP, RecordingHasher


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash passwords with cheap parameters."""
    monkeypatch.setattr(security, "hasher", CHEAP)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> RecordingHasher:
    """Record the passwords that are hashed and verified."""
    hasher = RecordingHasher()
    monkeypatch.setattr(security, "hasher", hasher)
    return hasher


@pytest.fixture
async def anonymous(app: FastAPI) -> AsyncIterator[AsyncClient]:
    """Return a client without credentials."""
    async with calling(app) as client:
        yield client
