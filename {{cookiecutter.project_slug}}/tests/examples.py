"""What the generic tests can't make up: valid requests, and values of columns.

``tests/kit/test_bad_input.py`` calls every operation of the app. Where it says that it can't, put a
function here that returns what is missing: it may call the app to create what the request needs.

    async def order(client: AsyncClient) -> Example:
        response = await client.post("/v1/customers", json={"name": "Ada"})
        return Example(body={"customer_id": response.json()["id"]})

    EXAMPLES = caller.EXAMPLES | {"POST /v1/orders": order}

Other required fields of the body are made up from the document. A function for an operation that
returns a list may create what is in the list.

A feature may have its own ``EXAMPLES``, ``RULES`` and ``SHARED`` in ``factory.py`` of its tests.

``tests/kit/test_migrations.py`` migrates a row of each table. Where it says that it can't make up
a value, put one here: ``VALUES = {"places.position": "POINT(0 0)"}``.

``just fuzz`` expects that every request that the document allows is accepted. Where a field has a
rule that a JSON schema can't express, name it: ``RULES = caller.RULES | {"body.ends_at"}``.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from tests import caller
from tests.kit.openapi import Examples

_FACTORIES = [
    vars(import_module(f"tests.{path.parent.name}.factory"))
    for path in sorted(Path(__file__).parent.glob("*/factory.py"))
]

EXAMPLES: Examples = {
    **caller.EXAMPLES,
    **{name: make for each in _FACTORIES for name, make in each.get("EXAMPLES", {}).items()},
}

VALUES: dict[str, Any] = {}

RULES: frozenset[str] = caller.RULES.union(*(each.get("RULES", ()) for each in _FACTORIES))

SHARED: frozenset[str] = frozenset[str]().union(*(each.get("SHARED", ()) for each in _FACTORIES))
"""Operations, such as ``GET /v1/news/{id}``, on rows that every user may see.

Where users exist, a test calls every other one with the rows of another user, and expects 404.
"""
