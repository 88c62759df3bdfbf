"""Valid tasks, for tests of what refers to them."""

from typing import Any

from httpx2 import AsyncClient

from tests.tasks.helpers import Json, create


async def create_task(client: AsyncClient, **fields: Any) -> Json:
    """Create a task."""
    return await create(client, **fields)
