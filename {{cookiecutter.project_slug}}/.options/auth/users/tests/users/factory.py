"""Users for tests of what refers to them."""

from typing import Any
from uuid import uuid4

from httpx2 import AsyncClient

from tests.users.helpers import Json, register


async def create_user(client: AsyncClient, **fields: Any) -> Json:
    """Register a user; no two are alike."""
    return await register(client, **{"email": f"{uuid4()}@example.com", **fields})
