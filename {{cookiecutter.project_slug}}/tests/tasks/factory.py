"""Valid tasks: for tests of what refers to them, and for ``just seed``."""

from itertools import count
from typing import Any

from httpx2 import AsyncClient

from tests.tasks.helpers import Json, create, minutes

_numbers = count(1)


async def create_task(client: AsyncClient, **fields: Any) -> Json:
    """Create a task; no two are alike."""
    number = next(_numbers)
    task = {
        "title": f"Task {number:04}",
        "status": ["todo", "doing", "done"][number % 3],
        "due_at": minutes(number * 60).isoformat(),
        "tags": [["office"], ["office", "purchases"], []][number % 3],
    }
    return await create(client, **(task | fields))
