"""A good request for every route, made from the OpenAPI document."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from testing.client import Answer, Client

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

STRINGS: dict[str, Callable[[], str]] = {
    "": lambda: "x",
    "email": lambda: f"{uuid4()}@example.com",
    "uuid": lambda: str(uuid4()),
    "date-time": lambda: "2030-01-01T00:00:00Z",
    "password": lambda: "correct horse",
}


@dataclass(frozen=True)
class Route:
    """A route of the service, and a body that it takes."""

    method: str
    path: str
    body: bytes | None
    content_type: str

    def __str__(self) -> str:
        """Return the request line."""
        return f"{self.method} {self.path}"

    async def ask(self, client: Client) -> Answer:
        """Send the request."""
        return await client.request(
            self.method, self.path, self.body, content_type=self.content_type
        )


def routes(document: dict[str, Any]) -> Iterator[Route]:
    """Return a request for every route; those that remove something come last."""
    found = [
        _route(method.upper(), path, operation, document)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]
    return iter(sorted(found, key=lambda route: route.method == "DELETE"))


def _route(method: str, path: str, operation: dict[str, Any], document: dict[str, Any]) -> Route:
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            value = str(_example(parameter["schema"], document))
            path = path.replace(f"{{{parameter['name']}}}", value)
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        return Route(method, path, None, JSON)
    ((content_type, media),) = content.items()
    example = _example(media["schema"], document)
    text = urlencode(example) if content_type == FORM else json.dumps(example)
    return Route(method, path, text.encode(), content_type)


def _example(schema: dict[str, Any], document: dict[str, Any]) -> Any:
    example: Any
    match schema:
        case {"$ref": str(reference)}:
            name = reference.rpartition("/")[2]
            example = _example(document["components"]["schemas"][name], document)
        case {"anyOf": [first, *_]}:
            example = _example(first, document)
        case {"enum": [first, *_]}:
            example = first
        case {"type": "object"}:
            required = schema.get("required", [])
            example = {name: _example(schema["properties"][name], document) for name in required}
        case {"type": "array"}:
            example = [_example(schema["items"], document)]
        case {"type": "boolean"}:
            example = True
        case _:
            example = STRINGS[schema.get("format", "")]()
    return example
