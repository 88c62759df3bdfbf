"""What every test of users can ask for."""

from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient

from app.users import security
from tests.conftest import calling
from tests.users.helpers import CHEAP, RecordingHasher


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash passwords fast: few tests are about how dear that is."""
    monkeypatch.setattr(security, "hasher", CHEAP)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> RecordingHasher:
    """Write down what passwords are hashed and verified."""
    hasher = RecordingHasher()
    monkeypatch.setattr(security, "hasher", hasher)
    return hasher


@pytest.fixture
async def anonymous(app: FastAPI) -> AsyncIterator[AsyncClient]:
    """Return a client of the app who says nothing of who is calling."""
    async with calling(app) as client:
        yield client
