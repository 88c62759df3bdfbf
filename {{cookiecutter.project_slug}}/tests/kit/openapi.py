"""Read an app's OpenAPI document, so that a test can call every operation in it.

It works for any API: bodies may be nested or wrapped, keys may be slugs or integers. Values that
the document does not describe come from ``tests/examples.py``.
"""

import base64
import itertools
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from random import Random
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode
from uuid import UUID

import jsonschema_rs
from fastapi import FastAPI
from httpx2 import AsyncClient, Response

Json = dict[str, Any]
Definition = Json | bool
"""A JSON Schema; ``True`` allows everything."""
Where = tuple[str | int, ...]
"""The path to a field of a body: ``("items", 0, "title")``."""

Headers = list[tuple[bytes, bytes]]

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
BOUNDARY = "boundary"

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")

# What pydantic reads as a boolean in queries and forms.
BOOLEANS = {"0", "off", "f", "false", "n", "no", "1", "on", "t", "true", "y", "yes"}

# Names of fields that may hold a resource's key if no field has the name of the path parameter.
KEYS = ("id", "slug", "key", "uuid", "code", "name")

MAX_DEPTH = 6
"""Maximum nesting: deeper arrays stay empty, and deeper optional fields are omitted."""

MISSING: Final = object()

_MARK = "\uffff-placeholder-\uffff"
_numbers = itertools.count(1)


class NoExample(Exception):
    """No valid value was found for a schema."""


class Document:
    """An OpenAPI document."""

    def __init__(self, spec: Json) -> None:
        self.spec = spec
        # By identity: the definitions live as long as the document.
        self.validators: dict[int, tuple[object, jsonschema_rs.Validator]] = {}
        self.alternatives: dict[int, tuple[object, list[Json]]] = {}

    def resolve(self, found: Json) -> Json:
        """Return the target of a ``$ref``, or the object itself if it is no reference."""
        while "$ref" in found:
            target: Any = self.spec
            for part in found["$ref"].removeprefix("#/").split("/"):
                target = target[unquote(part).replace("~1", "/").replace("~0", "~")]
            found = target
        return found

    def validator(self, definition: Definition) -> jsonschema_rs.Validator:
        if id(definition) not in self.validators:
            root: Any = definition
            if isinstance(definition, dict):
                root = {"components": self.spec.get("components", {})} | definition
            try:
                made = jsonschema_rs.validator_for(root, validate_formats=True)
            except jsonschema_rs.ValidationError as error:
                raise NoExample(f"a schema is not valid: {error.message}") from error
            self.validators[id(definition)] = definition, made
        return self.validators[id(definition)][1]

    def alternatives_of(self, definition: Definition) -> list[Json]:
        if id(definition) not in self.alternatives:
            found = sorted(self._expand(definition), key=lambda plain: plain.get("type") == "null")
            self.alternatives[id(definition)] = definition, found
        return self.alternatives[id(definition)][1]

    def _expand(self, definition: Definition) -> list[Json]:
        if isinstance(definition, bool):
            return [{}] if definition else []
        branching = ("$ref", "allOf", "anyOf", "oneOf")
        found = [{name: value for name, value in definition.items() if name not in branching}]
        parts = [self.alternatives_of(part) for part in definition.get("allOf", ())]
        if "$ref" in definition:
            parts.append(self.alternatives_of(self.resolve(definition)))
        branches = [definition[name] for name in ("anyOf", "oneOf") if name in definition]
        parts += [self._any_of(each) for each in branches]
        for part in parts:
            found = [_merge(one, other) for one in found for other in part]
        return [plain for each in found for plain in _one_type(each)]

    def _any_of(self, branches: list[Definition]) -> list[Json]:
        return [plain for branch in branches for plain in self.alternatives_of(branch)]


def _one_type(plain: Json) -> list[Json]:
    """Return one schema for each type in ``type``."""
    kinds = plain.get("type")
    return [plain | {"type": kind} for kind in kinds] if isinstance(kinds, list) else [plain]


def _merge(one: Json, other: Json) -> Json:
    """Return a schema that combines two."""
    if not one or not other:
        return one or other
    properties = dict(one.get("properties", {}))
    for name, schema in other.get("properties", {}).items():
        properties[name] = {"allOf": [properties[name], schema]} if name in properties else schema
    merged = one | other
    if properties:
        merged["properties"] = properties
    if required := [*one.get("required", ()), *other.get("required", ())]:
        merged["required"] = list(dict.fromkeys(required))
    return merged


@dataclass(frozen=True)
class Schema:
    """A JSON Schema in a document."""

    definition: Definition
    document: Document = field(repr=False)

    @property
    def alternatives(self) -> list[Json]:
        """Schemas without references, of which a value matches at least one; ``null`` is last."""
        return self.document.alternatives_of(self.definition)

    @property
    def plain(self) -> Json:
        """The first of the alternatives."""
        return next(iter(self.alternatives), {})

    @property
    def longest(self) -> int | None:
        """The largest ``maxLength`` of the alternatives."""
        found = [plain["maxLength"] for plain in self.alternatives if "maxLength" in plain]
        return max(found, default=None)

    @property
    def properties(self) -> list[tuple[str, "Schema"]]:
        """The properties of all alternatives."""
        return [
            (name, self.within(part))
            for plain in self.alternatives
            for name, part in plain.get("properties", {}).items()
        ]

    @property
    def is_file(self) -> bool:
        """Whether a form sends this as one or more files."""
        return any(
            "contentMediaType" in plain
            or plain.get("format") == "binary"
            or (plain.get("type") == "array" and self.within(plain.get("items", True)).is_file)
            for plain in self.alternatives
        )

    def is_kind(self, kind: str) -> bool:
        """Return whether one of the alternatives has this type."""
        return any(plain.get("type") == kind for plain in self.alternatives)

    def within(self, definition: Definition) -> "Schema":
        return Schema(definition, self.document)

    def allows(self, value: object) -> bool:
        return self.document.validator(self.definition).is_valid(value)

    def allows_text(self, text: str) -> bool:
        """Return whether the schema allows a value as text in a query, form, path or header."""
        for plain in self.alternatives:
            if plain.get("type") == "boolean" and text.lower() in BOOLEANS:
                return True
            if plain.get("type") == "array":
                return self.within(plain.get("items", True)).allows_text(text)
        try:
            value = json.loads(text)
        except ValueError:
            return self.allows(text)
        return self.allows(text) or (value is not None and self.allows(value))

    def example(self, *, full: bool = False, depth: int = 0) -> Any:
        """Return a small value that the schema allows; an array of objects has one item.

        Args:
            full: include optional fields, if a value is found for them.
            depth: the current level of nesting.

        Raises:
            NoExample: no such value was found.
        """
        for plain in self.alternatives:
            for value in self._candidates(plain, full=full, depth=depth):
                if self.allows(value):
                    return value
        raise NoExample(f"no value found for {json.dumps(self.definition)[:200]}")

    def _candidates(self, plain: Json, *, full: bool, depth: int) -> Iterator[Any]:
        """Return values that may be allowed, the best first."""
        yield from [plain["const"]] if "const" in plain else []
        if "format" in plain:  # before the examples, because these texts are unique
            yield from itertools.islice(_texts_for(plain), 1)
        yield from plain.get("examples", ())
        yield from plain.get("enum", ())
        kind = plain.get("type", _implied(plain))
        try:
            if kind == "object":
                if full and depth < MAX_DEPTH:
                    yield self._object(plain, full=True, depth=depth)
                yield self._object(plain, full=False, depth=depth)
            elif kind == "array":
                yield from self._arrays(plain, full=full, depth=depth)
            elif kind in {"integer", "number"}:
                yield from _numbers_for(plain)
            elif kind in {"boolean", "null"}:
                yield {"boolean": False}.get(kind)
            else:
                yield from _texts_for(plain)
                if "pattern" in plain:
                    text = _text_matching(plain["pattern"])
                    yield text
                    yield text.ljust(plain.get("minLength", 0), text[-1:] or "x")
                    yield text[: plain.get("maxLength")]
        except NoExample:
            return

    def _object(self, plain: Json, *, full: bool, depth: int) -> Json:
        if depth > 2 * MAX_DEPTH:
            raise NoExample("the schema is infinitely nested")
        properties = plain.get("properties", {})
        made = {}
        for name in dict.fromkeys([*plain.get("required", ()), *(properties if full else ())]):
            try:
                schema = self.within(properties.get(name, True))
                made[name] = schema.example(full=full, depth=depth + 1)
            except NoExample:
                if name in plain.get("required", ()):
                    raise
        if full or len(made) < plain.get("minProperties", 0):
            for name, schema in itertools.islice(self.free_keys(plain), 1):
                made[name] = schema.example(full=full, depth=depth + 1)
        return made

    def _arrays(self, plain: Json, *, full: bool, depth: int) -> Iterator[list[Any]]:
        start = [
            self.within(part).example(depth=depth + 1) for part in plain.get("prefixItems", ())
        ]
        item = self.within(plain.get("items", True))
        least = plain.get("minItems", 0) - len(start)
        if (full or item.is_kind("object")) and depth < MAX_DEPTH and not start:
            least = max(least, 1)
        yield start + [item.example(full=full, depth=depth + 1) for _ in range(least)]
        known = [value for each in item.alternatives for value in each.get("enum", ())]
        yield start + known[: max(least, 0)]
        yield start + list(range(max(least, 0)))

    def free_keys(self, plain: Json) -> Iterator[tuple[str, "Schema"]]:
        """Return additional keys that an object may have, with their schemas."""
        names = {"type": "string", **plain.get("propertyNames", {})}
        for pattern, definition in plain.get("patternProperties", {}).items():
            yield self.within(names | {"pattern": pattern}).example(), self.within(definition)
        if plain.get("additionalProperties", False) is not False:
            yield self.within(names).example(), self.within(plain["additionalProperties"])

    @property
    def is_map(self) -> bool:
        """Whether clients choose the keys of this object."""
        return any(
            "additionalProperties" in plain or "patternProperties" in plain
            for plain in self.alternatives
            if plain.get("additionalProperties") is not False
        )

    def places(self, base: Any = MISSING, above: tuple[int, ...] = ()) -> "Iterator[Place]":
        """Return every field at any depth, of every alternative; a recursive schema only once.

        Args:
            base: a valid document that contains the fields, if there is one.
            above: the definitions that contain this one.
        """
        if id(self.definition) in above:
            return
        above = (*above, id(self.definition))
        for plain in self.alternatives:
            try:
                yield from self._places_of(plain, base, above)
            except NoExample:
                continue

    def _places_of(self, plain: Json, base: Any, above: tuple[int, ...]) -> "Iterator[Place]":
        own = self.within(plain)
        kind = plain.get("type", _implied(plain))
        if kind == "object":
            known: Any = base if isinstance(base, dict) and own.allows(base) else own.example()
            properties = {
                name: own.within(part) for name, part in plain.get("properties", {}).items()
            }
            for name, schema in [*properties.items(), *own.free_keys(plain)]:
                put = _ObjectPut(known, name)
                yield from _nested(name, schema, put, known.get(name, MISSING), above)
        elif kind == "array":
            start = [own.within(part) for part in plain.get("prefixItems", ())]
            known = [schema.example() for schema in start]
            for number, schema in enumerate(start):
                yield from _nested(number, schema, _ArrayPut(known, number), MISSING, above)
            item = own.within(plain.get("items", True))
            if item.alternatives and len(start) < plain.get("maxItems", len(start) + 1):
                first = base[0] if isinstance(base, list) and base and not start else MISSING
                least = max(plain.get("minItems", 0) - len(start), 1)
                filled = known + [item.example() for _ in range(least)]
                put_item = _ArrayPut(filled, len(start))
                yield from _nested(len(start), item, put_item, first, above)


def _implied(plain: Json) -> str | None:
    """Return the implied type of a schema without ``type``."""
    if "properties" in plain or "additionalProperties" in plain:
        return "object"
    return "array" if "items" in plain or "prefixItems" in plain else None


Put = Callable[[Any], Any]


@dataclass(frozen=True)
class _ObjectPut:
    document: Json
    name: str

    def __call__(self, value: Any) -> Any:
        return self.document | {self.name: value}


@dataclass(frozen=True)
class _ArrayPut:
    document: list[Any]
    number: int

    def __call__(self, value: Any) -> Any:
        return [*self.document[: self.number], value, *self.document[self.number + 1 :]]


@dataclass(frozen=True)
class _NestedPut:
    outer: Put
    inner: Put

    def __call__(self, value: Any) -> Any:
        return self.outer(self.inner(value))


@dataclass(frozen=True)
class Place:
    """A field of a body, and the body around it."""

    where: Where
    schema: Schema
    put: Put = field(repr=False)
    """Return a valid body with another value in this field."""


def _nested(
    name: str | int, schema: Schema, put: Put, base: Any, above: tuple[int, ...]
) -> Iterator[Place]:
    yield Place((name,), schema, put)
    for inner in schema.places(base, above):
        yield Place((name, *inner.where), inner.schema, _NestedPut(put, inner.put))


@lru_cache
def _text_matching(pattern: str) -> str:
    # Imported here: it takes a third of a second, and few schemas need it.
    from hypothesis import HealthCheck, Phase, find, settings, strategies  # noqa: PLC0415
    from hypothesis.errors import HypothesisException  # noqa: PLC0415

    try:
        found: str = find(
            strategies.from_regex(pattern),
            lambda _: True,
            settings=settings(
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
            random=Random(0),  # noqa: S311 - the same text every time
        )
    except (HypothesisException, re.error) as error:
        raise NoExample(f"no text found for {pattern}") from error
    return found


def _numbers_for(plain: Json) -> Iterator[int | float]:
    step = plain.get("multipleOf", 1)
    least = plain.get("minimum", plain.get("exclusiveMinimum"))
    most = plain.get("maximum", plain.get("exclusiveMaximum"))
    yield 0
    if least is not None:
        yield from (least, least - least % step + step)
    if most is not None:
        yield from (most, most - most % step, most - most % step - step)
    if least is not None and most is not None:
        yield (least + most) / 2


def _texts_for(plain: Json) -> Iterator[str]:
    number = next(_numbers)
    formats = {
        "uuid": str(UUID(int=number)),
        "date-time": "2030-01-01T00:00:00Z",
        "date": "2030-01-01",
        "time": "00:00:00Z",
        "duration": "P1D",
        "email": f"example-{number}@example.com",
        "uri": f"https://example.com/{number}",
        "uri-reference": f"/{number}",
        "hostname": "example.com",
        "ipv4": "192.0.2.1",
        "ipv6": "2001:db8::1",
        "byte": base64.b64encode(b"x").decode(),
        "json-pointer": "/x",
        "regex": "x",
    }
    if plain.get("format") in formats:
        yield formats[plain["format"]]
    # A number makes the texts unique, for columns with a unique constraint.
    least, most = plain.get("minLength", 0), plain.get("maxLength")
    text = f"x{number}".ljust(least, "x")
    yield text[-most:] if most else text
    yield "x" * max(least, 1)
    yield from ("0", "1", "")


@dataclass(frozen=True)
class Parameter:
    """A parameter of the path, the query, the headers or the cookies."""

    name: str
    place: str
    required: bool
    schema: Schema
    style: str
    explode: bool
    examples: tuple[Any, ...] = ()

    def example(self) -> Any:
        """Return a value that the document allows; raises ``NoExample``."""
        return self.examples[0] if self.examples else self.schema.example()

    def pairs(self, value: Any) -> list[tuple[str, bytes]]:
        """Return names and encoded texts for a value."""
        if isinstance(value, dict):
            if self.style == "deepObject":
                return [(f"{self.name}[{key}]", _text(self, each)) for key, each in value.items()]
            if self.explode and self.place in {"query", "cookie"}:
                return [(key, _text(self, each)) for key, each in value.items()]
            value = [part for pair in value.items() for part in pair]
        if isinstance(value, list):
            if self.explode and self.place == "query":
                return [(self.name, _text(self, each)) for each in value]
            between = {"spaceDelimited": b"%20", "pipeDelimited": b"|"}.get(self.style, b",")
            return [(self.name, between.join(_text(self, each) for each in value))]
        return [(self.name, _text(self, value))]

    def fields(self) -> Iterator[tuple[str, Schema]]:
        """Return the names that the parameter has in the request, with their schemas."""
        plain = self.schema.plain
        if plain.get("type") == "object" and "properties" in plain:
            for name, definition in plain["properties"].items():
                wire = f"{self.name}[{name}]" if self.style == "deepObject" else name
                yield wire, self.schema.within(definition)
        else:
            yield self.name, self.schema


def _text(parameter: Parameter, value: Any) -> bytes:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode() if parameter.place == "header" else quote(text, safe="").encode()


@dataclass(frozen=True)
class Request:
    """An encoded request."""

    method: str
    path: bytes
    query: bytes
    headers: Headers
    content: bytes | AsyncIterator[bytes] = b""

    async def send(self, app: FastAPI, headers: Headers) -> Response:
        """Call the app directly with additional headers, in half the time of an HTTP client."""
        more = [(b"host", b"test"), *headers, *self.headers]
        if isinstance(self.content, bytes):
            parts = iter([self.content])
            if self.content or self.method in {"POST", "PUT", "PATCH"}:
                more.append((b"content-length", str(len(self.content)).encode()))
        else:
            parts = iter([])
            more.append((b"transfer-encoding", b"chunked"))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": unquote(self.path.decode("ascii")),
            "raw_path": self.path,
            "query_string": self.query,
            "root_path": "",
            "headers": more,
            "client": ("127.0.0.1", 123),
            "server": ("test", 80),
        }
        status, response_headers, body = 0, list[tuple[bytes, bytes]](), list[bytes]()

        async def receive() -> Json:
            if not isinstance(self.content, bytes):
                async for part in self.content:
                    return {"type": "http.request", "body": part, "more_body": True}
                return {"type": "http.request", "body": b"", "more_body": False}
            for part in parts:
                return {"type": "http.request", "body": part, "more_body": False}
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                response_headers.extend(message.get("headers", ()))
            elif message["type"] == "http.response.body":
                body.append(message.get("body", b""))

        await app(scope, receive, send)
        return Response(status, headers=response_headers, content=b"".join(body))


@dataclass(frozen=True)
class Example:
    """Values of a valid request; missing ones are generated from the document."""

    path: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)
    cookies: Mapping[str, Any] = field(default_factory=dict)
    body: Any = MISSING

    def values(self, place: str) -> Mapping[str, Any]:
        places = {"path": self.path, "query": self.query, "header": self.headers}
        return places.get(place, self.cookies)

    def with_path(self, path: Mapping[str, Any]) -> "Example":
        return replace(self, path={**self.path, **path})


@dataclass(frozen=True)
class Operation:
    """One operation of the document."""

    method: str
    path: str
    definition: Json = field(repr=False)
    document: Document = field(repr=False)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def schema(self, definition: Definition) -> Schema:
        return Schema(definition, self.document)

    @cached_property
    def parameters(self) -> list[Parameter]:
        return [
            self._parameter(self.document.resolve(each))
            for each in self.definition.get("parameters", ())
        ]

    def _parameter(self, found: Json) -> Parameter:
        content: Json = next(iter(found.get("content", {}).values()), {})
        style = found.get("style", "form" if found["in"] in {"query", "cookie"} else "simple")
        examples = [self.document.resolve(each) for each in found.get("examples", {}).values()]
        return Parameter(
            found["name"],
            found["in"],
            found.get("required", False),
            self.schema(found["schema"] if "schema" in found else content.get("schema", True)),
            style,
            found.get("explode", style == "form"),
            (
                *(found[key] for key in ("example",) if key in found),
                *(each["value"] for each in examples if "value" in each),
            ),
        )

    @cached_property
    def keys(self) -> list[Parameter]:
        """The path parameters, in order."""
        found = [each for each in self.parameters if each.place == "path"]
        return sorted(found, key=lambda each: self.path.find(f"{{{each.name}}}"))

    @cached_property
    def _body(self) -> Json:
        return self.document.resolve(self.definition.get("requestBody", {}))

    @property
    def needs_body(self) -> bool:
        return bool(self._body.get("required"))

    @property
    def media_types(self) -> list[str]:
        """The media types in which a body may be sent."""
        return list(self._body.get("content", {}))

    def body(self, media_type: str) -> Schema:
        return self.schema(self._body["content"][media_type].get("schema", True))

    def example_body(self, media_type: str, example: Example, *, full: bool = False) -> Any:
        """Return a body that the document allows; raises ``NoExample``.

        An example that lacks required fields gets them from the document.
        """
        if example.body is MISSING:
            return self._generated_body(media_type, full=full)
        if not isinstance(example.body, dict) or self.body(media_type).allows(example.body):
            return example.body
        try:
            made = self._generated_body(media_type, full=full)
        except NoExample:
            return example.body
        return made | example.body if isinstance(made, dict) else example.body

    def _generated_body(self, media_type: str, *, full: bool) -> Any:
        found = self._body["content"][media_type]
        if "example" in found:
            return found["example"]
        for each in found.get("examples", {}).values():
            if "value" in (resolved := self.document.resolve(each)):
                return resolved["value"]
        return self.body(media_type).example(full=full)

    @cached_property
    def required_security(self) -> list[Json]:
        """The security schemes of the operation; empty if credentials are optional."""
        found: list[Json] = (self.document.spec | self.definition).get("security", [])
        schemes = self.document.spec.get("components", {}).get("securitySchemes", {})
        if not all(found):  # {} among them: credentials are optional
            return []
        names = dict.fromkeys(name for way in found for name in way)
        return [self.document.resolve(schemes[name]) for name in names]

    def declares(self, status: int) -> bool:
        names = {str(status), f"{status // 100}XX", "default"}
        return any(name in names for name in self.definition.get("responses", {}))

    def field_names(self) -> set[str]:
        """Return the names of all fields of the body and of the successful responses."""
        found = [self._body]
        for status, response in self.definition.get("responses", {}).items():
            if str(status).startswith("2"):
                found.append(self.document.resolve(response))
        return {
            str(place.where[-1])
            for each in found
            for content in each.get("content", {}).values()
            for place in self.schema(content.get("schema", True)).places()
        }

    def has(self, name: str) -> bool:
        return any(each.name == name for each in self.parameters)

    def request(
        self,
        example: Example,
        *,
        given: Mapping[tuple[str, str], bytes] | None = None,
        media_type: str | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[bytes, bytes] | None = None,
        more_query: bytes = b"",
        sent: frozenset[str] = frozenset(),
        full: bool = False,
    ) -> Request:
        """Return a request that is valid, except for the arguments.

        Args:
            example: values that the document does not describe.
            given: encoded parameters, by place (such as ``query``) and name.
            media_type: of the body; the first in the document by default.
            content: the body.
            headers: headers to set; empty ones are removed.
            more_query: text to add to the query.
            sent: names of headers that the client adds itself, in lower case.
            full: include the optional fields of the body.

        Raises:
            NoExample: no value was found for a part of it.
        """
        path, query, own, cookies = self.path, list[bytes](), dict[bytes, bytes](), list[bytes]()
        for place, name, text in self._texts(example, given or {}, sent):
            match place:
                case "path":
                    path = path.replace(f"{{{name}}}", text.decode())
                case "query":
                    query.append(quote(name, safe="").encode() + b"=" + text)
                case "header":
                    own[name.lower().encode()] = text
                case _:
                    cookies.append(name.encode() + b"=" + text)
        if cookies:
            own[b"cookie"] = b"; ".join(cookies)
        if media_type := media_type or next(iter(self.media_types), None):
            own[b"content-type"] = _content_type(media_type)
            if content is None:
                document = self.example_body(media_type, example, full=full)
                content = encode(media_type, document, self.body(media_type))
        own |= headers or {}
        return Request(
            self.method,
            path.encode("ascii", "replace"),
            b"&".join([*query, *([more_query] if more_query else [])]),
            [(name, value) for name, value in own.items() if value],
            b"" if content is None else content,
        )

    def _texts(
        self, example: Example, given: Mapping[tuple[str, str], bytes], sent: frozenset[str]
    ) -> Iterator[tuple[str, str, bytes]]:
        """Return the place, the name and the text of each parameter that is sent."""
        for each in self.parameters:
            known = example.values(each.place)
            pairs = []
            if each.name in known:
                pairs = each.pairs(known[each.name])
            elif each.required and not (each.place == "header" and each.name.lower() in sent):
                pairs = each.pairs(each.example())
            names = [name for name, _ in each.fields() if (each.place, name) in given]
            for name, text in pairs:
                if name not in names:
                    yield each.place, name, text
            for name in names:
                yield each.place, name, given[each.place, name]


def is_json(media_type: str) -> bool:
    return media_type.partition(";")[0].strip().endswith(("/json", "+json"))


def is_form(media_type: str) -> bool:
    return media_type in {FORM, MULTIPART}


def _content_type(media_type: str) -> bytes:
    boundary = f"; boundary={BOUNDARY}" if media_type == MULTIPART else ""
    return f"{media_type}{boundary}".encode()


def encode(media_type: str, document: Any, schema: Schema) -> bytes:
    """Return a body encoded in a media type."""
    if is_json(media_type):
        return json.dumps(document).encode()
    if is_form(media_type) and isinstance(document, dict):
        pairs = [
            (name, each if isinstance(each, str) else json.dumps(each))
            for name, value in document.items()
            for each in (value if isinstance(value, list) else [value])
        ]
        if media_type == FORM:
            return urlencode(pairs).encode()
        return _multipart(pairs, {name for name, part in schema.properties if part.is_file})
    return document if isinstance(document, bytes) else str(document).encode()


def _multipart(pairs: list[tuple[str, str]], files: set[str]) -> bytes:
    lines = list[str]()
    for name, text in pairs:
        file = '; filename="x"' if name in files else ""
        disposition = f'content-disposition: form-data; name="{name}"{file}'
        lines += [f"--{BOUNDARY}", disposition, "", text]
    return "\r\n".join([*lines, f"--{BOUNDARY}--", ""]).encode()


def splice(media_type: str, place: Place, schema: Schema) -> Callable[[bytes], bytes]:
    """Return a function that encodes a body with raw bytes in one field."""
    body = encode(media_type, place.put(_MARK), schema)
    mark = urlencode({"": _MARK})[1:] if media_type == FORM else _MARK
    before, found, after = body.partition(
        json.dumps(_MARK).encode() if is_json(media_type) else mark.encode()
    )
    assert found, place
    return lambda raw: before + raw + after


@lru_cache(maxsize=4)
def operations(app: FastAPI) -> list[Operation]:
    """Return every operation of an app."""
    document = Document(app.openapi())
    found = []
    for path, item in document.spec["paths"].items():
        shared = document.resolve(item)
        for method, definition in shared.items():
            if method in METHODS:
                parameters = [*shared.get("parameters", ()), *definition.get("parameters", ())]
                merged = {**definition, "parameters": parameters}
                found.append(Operation(method.upper(), path, merged, document))
    return found


def missing_examples(operation: Operation) -> list[str]:
    """Return fields of the body without an example, or with an invalid one."""
    found = []
    for media_type in operation.media_types:
        for place in operation.body(media_type).places():
            definition = place.schema.definition
            assert isinstance(definition, dict)
            fixed = {"$ref", "const", "enum"} & definition.keys()
            if isinstance(place.where[-1], int) or fixed or "object" in _kinds(place.schema):
                continue  # an item, or a value that the schema defines
            examples = definition.get("examples", [])
            wrong = [each for each in examples if not place.schema.allows(each)]
            if not examples or wrong:
                found.append(f"{operation} {place.where}: {wrong or 'no example'}")
    return found


def _kinds(schema: Schema) -> set[str]:
    found = {plain.get("type", "") for plain in schema.alternatives}
    items = [schema.within(plain["items"]) for plain in schema.alternatives if "items" in plain]
    return found.union(*(_kinds(each) for each in items))


Examples = Mapping[str, Callable[[AsyncClient], Awaitable[Example]]]
"""For each operation: a function that returns values for a valid request."""


@dataclass
class Api:
    """An app and a client that calls it."""

    app: FastAPI
    client: AsyncClient
    operations: list[Operation]
    examples: Examples
    refused: list[str] = field(default_factory=list[str])
    """Failed requests that should have created a resource, with their responses."""

    @cached_property
    def headers(self) -> Headers:
        return [(name.lower(), value) for name, value in self.client.headers.raw]

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(self.client.headers)

    async def send(self, operation: Operation, example: Example, **changes: Any) -> Response:
        """Call an operation."""
        request = operation.request(example, sent=self.names, **changes)
        return await request.send(self.app, self.headers)

    async def example(self, operation: Operation, above: tuple[str, ...] = ()) -> Example:
        """Return values for a valid request, after creating the resources in its path."""
        found = Example()
        if str(operation) in self.examples:
            found = await self.examples[str(operation)](self.client)
        path = dict(found.path)
        for key in operation.keys:
            if key.name not in path:
                value = await self._make(operation, key, path, (*above, str(operation)))
                if value is not MISSING:
                    path[key.name] = value
        return found.with_path(path)

    async def _make(
        self, operation: Operation, key: Parameter, path: Json, above: tuple[str, ...]
    ) -> Any:
        """Create the resource for a path parameter; return its key, or ``MISSING``."""
        whole, _, _ = operation.path.partition(f"/{{{key.name}}}")
        resource = f"{whole}/{{{key.name}}}"
        for maker in self._makers(key, whole, resource):
            if str(maker) in above:
                continue
            example = await self.example(maker, above)
            own = {name: path[name] for name in path if maker.has(name)}
            if maker.path == resource:
                own[key.name] = key.example()
            try:
                request = maker.request(example.with_path(own), sent=self.names)
            except NoExample as error:
                self.refused.append(f"{maker} can't be tried, {error}")
                continue
            response = await request.send(self.app, self.headers)
            if not response.is_success:
                self.refused.append(
                    f"{maker} returned {response.status_code} {response.text[:300]}"
                )
            else:
                found = own.get(key.name, MISSING)
                if found is MISSING:
                    found = key_of(key.name, resource, request, response)
                if found is not MISSING:
                    return found
        return MISSING

    def _makers(self, key: Parameter, whole: str, resource: str) -> Iterator[Operation]:
        """Return the operations that may create a resource, the most likely first."""
        writing = [each for each in self.operations if each.method == "POST"]
        near = [each for each in writing if each.path.rstrip("/") == whole]
        yield from near
        for each in self.operations:
            if (each.method, each.path) == ("PUT", resource):
                yield each
        for each in writing:
            if each not in near and key.name not in KEYS and key.name in each.field_names():
                yield each
        for each in self.operations:  # existing resources
            if each.method == "GET" and each.path.rstrip("/") == whole:
                yield each

    async def fill(self, makers: Iterable[Operation], path: Mapping[str, Any]) -> None:
        """Call each of these operations twice, with all fields, so that lists have two pages.

        Args:
            makers: the operations.
            path: keys of the parent resources.
        """
        for maker in makers:
            for _ in range(2):
                example = await self.example(maker)
                own = {key.name: path[key.name] for key in maker.keys if key.name in path}
                try:
                    await self.send(maker, example.with_path(own), full=True)
                except NoExample:
                    break


def key_of(name: str, resource: str, request: Request, response: Response) -> Any:
    """Return the key of a resource that a request has created.

    It is taken from the ``Location`` header, or from the field of the response or the request
    whose name is most similar to that of the parameter.

    Args:
        name: the path parameter.
        resource: the path of the resource.
        request: the request that created it.
        response: its response.
    """
    pattern = "/".join(
        "([^/?#]+)" if part == f"{{{name}}}" else "[^/?#]+" if "{" in part else re.escape(part)
        for part in resource.split("/")
    )
    if found := re.search(f"{pattern}/?(?:[?#].*)?$", response.headers.get("location", "")):
        return unquote(found[1])
    for content in (response.content, request.content):
        try:
            document = json.loads(content) if isinstance(content, bytes) else None
        except ValueError:
            continue
        if _is_key(document):
            return document
        if (value := _find_key(name, document)) is not MISSING:
            return value
    return MISSING


def _find_key(name: str, document: Any) -> Any:
    """Search a document for a key, starting with the outer levels."""
    wanted = _folded(name)
    # "task_id" is the "id" of a task.
    fields = list(_fields(document))
    found = [(level, -len(each), value) for level, each, value in fields if wanted.endswith(each)]
    found = found or [
        (level, KEYS.index(each), value) for level, each, value in fields if each in KEYS
    ]
    return min(found, key=lambda each: each[:2])[2] if found else MISSING


def _fields(document: Any, level: int = 0) -> Iterator[tuple[int, str, Any]]:
    """Return the level, the name and the value of each field that may be a key."""
    if isinstance(document, list):
        for item in document[:1]:
            yield from _fields(item, level)
    elif isinstance(document, dict):
        for name, value in document.items():
            if not _is_key(value):
                yield from _fields(value, level + 1)
            elif folded := _folded(name):
                yield level, folded, value


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _is_key(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)
