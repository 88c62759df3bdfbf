"""Valid requests and values of columns that the generic tests can't generate."""

from typing import Any
from uuid import uuid4

from httpx2 import AsyncClient

from tests import caller
from tests.kit.openapi import Example, Examples


async def page(client: AsyncClient) -> Example:
    """Return a page of a notebook that exists."""
    answer = await client.post("/v1/notebooks", json={"name": str(uuid4())})
    return Example(body={"notebook_id": answer.json()["id"]})


async def pages_of_notebook(client: AsyncClient) -> Example:
    """Return the path of a notebook with two pages."""
    answer = await client.post("/v1/notebooks", json={"name": str(uuid4())})
    notebook_id = answer.json()["id"]
    for text in ("First", "Second"):
        await client.post("/v1/note-pages", json={"text": text, "notebook_id": notebook_id})
    return Example(path={"notebook_id": notebook_id})


EXAMPLES: Examples = {
    **caller.EXAMPLES,
    "POST /v1/note-pages": page,
    "GET /v1/notebooks/{notebook_id}/pages": pages_of_notebook,
}
VALUES: dict[str, Any] = {}
RULES: frozenset[str] = caller.RULES
SHARED: frozenset[str] = frozenset()
