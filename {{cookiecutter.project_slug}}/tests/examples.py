"""Valid requests that the generic tests can't make up from the OpenAPI document.

``tests/kit/test_bad_input.py`` calls every operation of the app. Where it says that it can't, put a
function here that returns what is missing: it may call the app to create what the request needs.

    async def order(client: AsyncClient) -> Example:
        answer = await client.post("/v1/customers", json={"name": "Ada"})
        return Example(body={"customer_id": answer.json()["id"]})

    EXAMPLES = {**caller.EXAMPLES, "POST /v1/orders": order}

A function for an operation that returns a list may create what is in the list.
"""

from tests import caller
from tests.kit.openapi import Examples

EXAMPLES: Examples = {**caller.EXAMPLES}

SHARED: frozenset[str] = frozenset()
"""Operations, such as ``GET /v1/news/{id}``, on rows that every user may see.

Where users exist, a test calls every other one with the rows of another user, and expects 404.
"""
