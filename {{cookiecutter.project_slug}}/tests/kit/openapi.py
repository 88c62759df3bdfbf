"""The app's own OpenAPI document, read so that tests can call every operation there is."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import Any
from uuid import UUID

import jsonschema_rs
from fastapi import FastAPI
from httpx2 import AsyncClient, Request

Json = dict[str, Any]
Where = tuple[str | int, ...]
"""The way to a field of a body: ``("items", 0, "title")``."""

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

# What pydantic takes for a boolean where all is text: in queries and in forms.
BOOLEANS = {"0", "off", "f", "false", "n", "no", "1", "on", "t", "true", "y", "yes"}

_numbers = count(1)


@dataclass(frozen=True)
class Schema:
    """A JSON Schema that a document holds."""

    definition: Json
    components: Json = field(repr=False)

    @cached_property
    def _validator(self) -> jsonschema_rs.Validator:
        root = self.definition | {"components": self.components}
        return jsonschema_rs.validator_for(root, validate_formats=True)

    @cached_property
    def resolved(self) -> Json:
        """The schema itself, behind references; of several, the first."""
        found = self.definition
        while "$ref" in found or "anyOf" in found:
            if "anyOf" in found:
                found = found["anyOf"][0]
            else:
                found = self.components["schemas"][found["$ref"].rpartition("/")[2]]
        return found

    def within(self, definition: Json) -> "Schema":
        return Schema(definition, self.components)

    def allows(self, value: object) -> bool:
        """Tell whether the contract allows a value."""
        return self._validator.is_valid(value)

    def allows_text(self, text: str) -> bool:
        """Tell whether the contract allows a value of a query, a form, a path or a header."""
        if self.resolved.get("type") == "boolean":
            return text.lower() in BOOLEANS
        if self.resolved.get("type") == "array":
            return self.within(self.resolved["items"]).allows_text(text)
        try:
            value = json.loads(text)
        except ValueError:
            return self.allows(text)
        return self.allows(text) or (value is not None and self.allows(value))

    def example(self) -> Any:
        """Give a small value that the contract allows; an array of objects has one of them."""
        schema = self.resolved
        known = [*schema.get("examples", ()), *schema.get("enum", ())]
        if "const" in schema or known:
            return schema.get("const", *known[:1])
        match schema.get("type"):
            case "object":
                fields = {name: schema["properties"][name] for name in schema.get("required", ())}
                return {name: self.within(field).example() for name, field in fields.items()}
            case "array":
                item = self.within(schema["items"])
                is_object = item.resolved.get("type") == "object"
                return [item.example()] * max(schema.get("minItems", 0), int(is_object))
            case "string":
                formats = {
                    "uuid": str(UUID(int=0)),
                    "date-time": "2030-01-01T00:00:00Z",
                    "email": f"example-{next(_numbers)}@example.com",
                }
                text = "x" * max(1, schema.get("minLength", 1))
                return formats.get(schema.get("format", ""), text)
            case kind:
                least = schema.get("minimum", 0)
                return {"integer": least, "number": least, "boolean": False}.get(str(kind))

    def fields(self) -> Iterator[tuple[Where, "Schema"]]:
        """Give the fields of an object, and one level down those of its arrays' items."""
        for name, definition in self.resolved.get("properties", {}).items():
            schema = self.within(definition)
            yield (name,), schema
            if schema.resolved.get("type") == "array":
                item = self.within(schema.resolved["items"])
                yield (name, 0), item
                yield from (((name, 0, *where), below) for where, below in item.fields())


@dataclass(frozen=True)
class Parameter:
    """What an operation reads outside its body."""

    name: str
    place: str
    required: bool
    schema: Schema


@dataclass(frozen=True)
class Operation:
    """One operation of the document, and a request for it that the contract allows."""

    method: str
    path: str
    definition: Json = field(repr=False)
    document: Json = field(repr=False)
    ids: dict[str, str] = field(default_factory=dict)
    """Values of parameters of the path that name something that is there."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def schema(self, definition: Json) -> Schema:
        return Schema(definition, self.document["components"])

    @cached_property
    def parameters(self) -> list[Parameter]:
        return [
            Parameter(
                found["name"],
                found["in"],
                found.get("required", False),
                self.schema(found["schema"]),
            )
            for found in self.definition.get("parameters", ())
        ]

    @cached_property
    def media_type(self) -> str | None:
        """What the body is written in, if there is one."""
        return next(iter(self.definition.get("requestBody", {}).get("content", ())), None)

    @cached_property
    def body(self) -> Schema:
        return self.schema(self.definition["requestBody"]["content"][self.media_type]["schema"])

    @property
    def statuses(self) -> set[int]:
        """The statuses that the document declares."""
        return {int(status) for status in self.definition["responses"]}

    def has(self, name: str) -> bool:
        return any(found.name == name for found in self.parameters)

    def request(
        self,
        client: AsyncClient,
        texts: dict[str, bytes] | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
        headers: dict[bytes, bytes] | None = None,
        more_query: Sequence[bytes] = (),
    ) -> Request:
        """Make a request that is allowed, but for what is given; texts as they stand on the wire.

        A header without a value is not sent.
        """
        path, query, sent = self.path, list[bytes](), dict[bytes, bytes]()
        texts = texts or {}
        for found in self.parameters:
            name, text = found.name.encode(), texts.get(found.name)
            if text is None and found.required:
                text = str(self.ids.get(found.name, found.schema.example())).encode()
            if text is None:
                continue
            match found.place:
                case "path":
                    path = path.replace(f"{{{found.name}}}", text.decode())
                case "query":
                    query.append(name + b"=" + text)
                case "header":
                    sent[name] = text
        if self.media_type:
            sent[b"content-type"] = self.media_type.encode()
            content = self.encode() if content is None else content
        sent |= headers or {}
        return client.build_request(
            self.method,
            client.base_url.join(path).copy_with(query=b"&".join([*query, *more_query]) or None),
            content=content,
            headers=[(name, value) for name, value in sent.items() if value],
        )

    def encode(self, where: Where = (), raw: bytes = b"") -> bytes:
        """Write the body, with ``raw`` as it stands for one of its fields."""
        document = self.body.example()
        if where:
            document = _put(document, self.body, where, "@@")
        if self.media_type == FORM:
            pairs = ((name, str(value).encode()) for name, value in document.items())
            return b"&".join(
                name.encode() + b"=" + (raw if (name,) == where else value) for name, value in pairs
            )
        return json.dumps(document).encode().replace(b'"@@"', raw)


def _put(document: Any, schema: Schema, where: Where, value: Any) -> Any:
    first, *rest = where
    if rest:
        inner = schema.within(schema.resolved["properties"][first])
        if isinstance(rest[0], int):  # a list, with one item
            item = inner.within(inner.resolved["items"])
            last = rest[1:]
            value = _put(item.example(), item, tuple(last), value) if last else value
            value = [value]
        else:
            value = _put(inner.example(), inner, tuple(rest), value)
    return document | {first: value}


def operations(app: FastAPI) -> list[Operation]:
    """Give every operation of an app."""
    document = app.openapi()
    return [
        Operation(method.upper(), path, definition, document)
        for path, methods in document["paths"].items()
        for method, definition in methods.items()
    ]


async def with_ids(
    client: AsyncClient, operation: Operation, every: list[Operation]
) -> dict[str, str]:
    """Make what the path of an operation names, where a POST to the path before it does so."""
    ids: dict[str, str] = {}
    for found in operation.parameters:
        if found.place == "path":
            before = operation.path.partition(f"/{{{found.name}}}")[0]
            for other in every:
                if (other.method, other.path) == ("POST", before):
                    answer = await client.send(replace(other, ids=ids).request(client))
                    assert answer.status_code == 201, f"{other}: {answer.text}"
                    ids[found.name] = answer.json()["id"]
    return ids
