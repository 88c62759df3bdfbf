"""Bad input is refused by a declared 4xx and a problem document without internal details.

Every operation of the app's OpenAPI document is called, so new routes are tested, too. If the tests
can't generate a valid request, ``tests/examples.py`` has to return one.
"""

import asyncio
import base64
import json
import re
import sys
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import nan
from typing import Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from httpx2 import Response

from app.kit.db.engine import Database
from app.kit.errors import MEDIA_TYPE, Problem
from app.kit.pagination import KeysetList
from tests import caller
from tests.conftest import calling, rolled_back
from tests.examples import EXAMPLES
from tests.kit.openapi import (
    JSON,
    Api,
    Example,
    Examples,
    NoExample,
    Operation,
    Place,
    Request,
    Schema,
    encode,
    is_form,
    is_json,
    operations,
    splice,
)
from tests.kit.serving import serving

Credentials = Callable[[Database], Awaitable[dict[str, str]]]

LEAKS = re.compile(
    r"Traceback|\.py\b|sqlalchemy|sqlite|asyncpg|SELECT |INSERT |UPDATE |DELETE FROM"
)
ECHO = re.compile(r"x{200}|9{200}|\[{200}")
MEGABYTE = 2**20

HINT = "return a valid request for it in EXAMPLES of tests/examples.py"

# Refused in every field, whatever its schema is.
NEVER = {
    "a NUL": b'"a\\u0000b"',
    "a lone surrogate": b'"\\ud800"',
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "-Infinity": b"-Infinity",
    "1e400": b"1e400",
}
# Refused before fields are validated: one field of each body is enough.
UNREADABLE = {
    "5,000 digits": b"9" * 5000,
    "invalid UTF-8": b'"\xff"',
    "10,000 levels": b"[" * 10_000 + b"]" * 10_000,
    "a megabyte": b'"%s"' % (b"x" * MEGABYTE),
}
NEVER_TEXT = {
    "a NUL": b"%00",
    "a lone surrogate": b"%ED%A0%80",
    "invalid UTF-8": b"%FF",
    "60,000 characters": b"x" * 60_000,
    "5,000 digits": b"9" * 5000,
}
# Refused unless the schema of the field allows them.
SOMETIMES: list[Any] = [None, True, 1, 1.5, 2**63, 10**25, "", "x", "NaN", [], [[]], {}, {"x": 1}]
SOMETIMES_TEXT = [
    *("", "x", "0", "-1", "101", "1e9", "1.5", "NaN", "Infinity", "1e400", "null", "[]", "{}"),
    *(str(2**63), str(10**25), "00000000-0000-0000-0000-00000000000", "2030-13-01T00:00:00Z"),
]

# Statuses by which an operation refuses a valid request because of its state.
REACHED = {401, 404, 409, 410, 412, 428}


@asynccontextmanager
async def trying(
    app: FastAPI, who: Credentials, examples: Examples = EXAMPLES
) -> AsyncIterator[Api]:
    """Open a client of the app; its writes are rolled back."""
    async with rolled_back(app), calling(app) as client:
        client.headers.update(await who(app.state.database))
        caller.admit_anybody(app)  # without statements for authentication
        yield Api(app, client, operations(app), examples)


def complaint(operation: Operation, response: Response) -> str:
    """Return what is wrong with the response to a bad request, if anything."""
    status = response.status_code
    if not 400 <= status < 500:
        return f"returned {status} {response.text[:200]}"
    if not operation.declares(status):
        return f"returned {status}, which OpenAPI does not declare"
    if status == 401 and "www-authenticate" not in response.headers:
        return "returned 401 without WWW-Authenticate"
    return "" if operation.method == "HEAD" else bad_document(response)


def bad_document(response: Response) -> str:
    """Return what is wrong with a problem document."""
    if response.headers.get("content-type") != MEDIA_TYPE:
        return f"returned {response.status_code} without a problem document: {response.text[:200]}"
    if Problem.model_validate_json(response.content).status != response.status_code:
        return f"returned {response.status_code} with another status in it: {response.text[:200]}"
    if len(response.content) > 4000 or LEAKS.search(response.text) or ECHO.search(response.text):
        return f"reveals too much: {response.text[:4000]}"
    return ""


def not_reached(operation: Operation, response: Response) -> str:
    """Return why the response to a valid request shows that the operation did not run, if so."""
    reached = response.status_code < 400 or response.status_code in REACHED
    if response.status_code == 404 and operation.keys:
        reached = False
    if response.status_code == 401 and operation.required_security:
        reached = False
    if reached:
        return ""
    return f"a request that should be valid returned {response.status_code} {response.text[:300]}"


async def findings(
    app: FastAPI,
    *,
    below: str = "/",
    callers: Sequence[Credentials] = caller.CALLERS,
    examples: Examples = EXAMPLES,
) -> tuple[list[str], dict[str, list[str]]]:
    """Send bad requests to every operation.

    Returns:
        What is wrong, one sentence each; and the bad requests that each operation got.
    """
    found, sent = [], {}
    for operation in operations(app):
        if operation.path.startswith(below):
            wrong = list[str]()
            # The next caller may have more permissions: a 403 proves nothing about input.
            for who in callers:
                async with trying(app, who, examples) as api:
                    wrong, forbidden, sent[str(operation)] = await try_operation(api, operation)
                if not forbidden:
                    break
            found += wrong
    return found, sent


async def try_operation(api: Api, operation: Operation) -> tuple[list[str], bool, list[str]]:
    """Send bad requests to one operation, then a valid one.

    Returns:
        What is wrong; whether the caller may not call it; and the bad requests.
    """
    found, sent = [], []
    example = await api.example(operation)
    try:
        requests = list(bad_requests(api, operation, example))
        valid = operation.request(example, sent=api.names)
    except NoExample as error:
        return [f"{operation} can't be tried, {error}: {HINT}."], False, []
    for name, request in requests:
        sent.append(name)
        if wrong := complaint(operation, await request.send(api.app, api.headers)):
            found.append(f"{operation}, {name}: {wrong}")
    # Otherwise they may all have been refused for another reason.
    good = await valid.send(api.app, api.headers)
    if wrong := not_reached(operation, good):
        if api.refused:
            wrong = f"what it needs can't be created, {api.refused[0]}"
        found.append(f"{operation} can't be tried, {wrong}: {HINT}.")
    return found, good.status_code == 403, sent


def bad_requests(api: Api, operation: Operation, example: Example) -> Iterator[tuple[str, Request]]:
    """Return requests that must be refused, each with a description of its fault."""

    def make(**changes: Any) -> Request:
        return operation.request(example, sent=api.names, **changes)

    for media_type in operation.media_types:
        for name, content in bad_bodies(operation, media_type, example):
            yield f"{media_type}, {name}", make(media_type=media_type, content=content)
    if operation.needs_body:
        for other in (b"", b"text/plain", b"application/xml", b"application/octet-stream", b"x"):
            if other.decode() not in operation.media_types:
                yield f"content type {other!r}", make(headers={b"content-type": other})
    yield from bad_parameters(operation, example, make)


def bad_bodies(
    operation: Operation, media_type: str, example: Example
) -> Iterator[tuple[str, bytes]]:
    """Return bodies that must be refused."""
    body = operation.body(media_type)
    document = operation.example_body(media_type, example)
    places = [place for place in body.places(document) if can_hold(media_type, place)]
    if is_json(media_type):
        good = encode(media_type, document, body)
        yield from bad_documents(body, good, required=operation.needs_body)
        for number, place in enumerate(places):
            for name, content in bad_fields(body, place, UNREADABLE if number == 0 else {}):
                yield f"{place.where} = {name}", content
    elif is_form(media_type):
        if operation.needs_body and not body.allows({}):
            yield "an empty body", b""
        if not body.allows({"{": ""}):
            yield "broken", b"{"
        for place in places:
            write = splice(media_type, place, body)
            for name, raw in bad_text(place.schema):
                yield f"{place.where} = {name}", write(raw)


def bad_fields(body: Schema, place: Place, more: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Return JSON bodies in which one field is bad."""
    write = splice(JSON, place, body)
    for name, raw in (dict(bad_json(body, place)) | more).items():
        yield name, write(raw)
    if isinstance(key := place.where[-1], str):
        value = json.dumps(place.schema.example()).encode()
        # Appended to a value: another pair of the same object.
        yield "the same key twice", write(value + b", %s: " % json.dumps(key).encode() + value)
        unknown = write(value + b', "no such field": 1')
        if not body.allows(json.loads(unknown)):
            yield "an unknown field beside it", unknown


def can_hold(media_type: str, place: Place) -> bool:
    """Return whether a body can contain a field: forms have no nested ones."""
    if is_json(media_type):
        return True
    is_item = len(place.where) == 2 and place.where[1] == 0
    whole = any(plain.get("type") in {"array", "object"} for plain in place.schema.alternatives)
    return not place.schema.is_file and not whole and (len(place.where) == 1 or is_item)


def bad_documents(body: Schema, good: bytes, *, required: bool) -> Iterator[tuple[str, bytes]]:
    """Return JSON bodies that are invalid as a whole."""
    yield from (NEVER | UNREADABLE).items()
    yield "broken", b"{"
    yield "two documents", good + good
    yield "a key in invalid UTF-8", b'{"\xff": 1}'
    yield "a key with a lone surrogate", b'{"\\ud800": 1}'
    yield "UTF-16", good.decode().encode("utf-16")
    if required:
        yield "an empty body", b""
    values: list[Any] = [None, True, 1, "x", [], [[]], {}]
    for value in values:
        if not body.allows(value) and (required or value is not None):
            yield json.dumps(value), json.dumps(value).encode()


def bad_json(body: Schema, place: Place) -> Iterator[tuple[str, bytes]]:
    """Return invalid values of a field of a JSON body."""
    schema = place.schema
    for name, raw in NEVER.items():
        # Passwords and tokens may contain a NUL: they are hashed, not stored.
        if name != "a NUL" or schema.plain.get("format") != "password":
            yield name, raw
    longest = schema.longest or 0
    if longest < 100_000:  # even without a maximum in the schema
        yield "100,000 characters", b'"%s"' % (b"x" * 100_000)
    for value in [*SOMETIMES, "x" * (longest + 1)]:
        # JSON Schema has no largest integer, but a column has.
        too_big = schema.is_kind("integer") and value in (2**63, 10**25)
        if too_big or not body.allows(place.put(value)):
            yield repr(value)[:40], json.dumps(value).encode()
    if schema.is_map:
        values: dict[str, Any] = schema.example(full=True)
        raw = json.dumps(next(iter(values.values()), 1)).encode()
        yield "a key with a NUL", b'{"a\\u0000b": %s}' % raw


def bad_text(schema: Schema) -> Iterator[tuple[str, bytes]]:
    """Return invalid values of a parameter or a form field."""
    for name, raw in NEVER_TEXT.items():
        if name != "a NUL" or schema.plain.get("format") != "password":
            yield name, raw
    for text in [*SOMETIMES_TEXT, "x" * ((schema.longest or 0) + 1)]:
        if not schema.allows_text(text):
            yield repr(text)[:40], quote(text).encode()


def bad_header(schema: Schema) -> Iterator[tuple[str, bytes]]:
    """Return invalid values of a header."""
    yield from {
        "a NUL": b"a\x00b",
        "invalid UTF-8": b"\xff",
        "60,000 characters": b"x" * 60_000,
    }.items()
    for text in [*SOMETIMES_TEXT, "x" * ((schema.longest or 0) + 1)]:
        if text and not schema.allows_text(text):
            yield repr(text)[:40], text.encode()


def bad_parameters(
    operation: Operation, example: Example, make: Callable[..., Request]
) -> Iterator[tuple[str, Request]]:
    """Return requests with a parameter that must be refused."""
    for parameter in operation.parameters:
        bad = bad_header if parameter.place == "header" else bad_text
        for wire, schema in parameter.fields():
            for name, raw in bad(schema):
                # An empty value or a slash would make it the path of another operation.
                if parameter.place != "path" or (raw and b"/" not in raw):
                    request = make(given={(parameter.place, wire): raw})
                    yield f"{parameter.place} {wire} = {name}", request
    if is_page(operation):
        for query in (b"unknown=1", b"%FF=1", b"Limit=1"):
            yield str(query), make(more_query=query)
        for limit in (b"", b"0", b"-1", b"abc", b"1e2", b"1000000000"):
            yield f"limit={limit!r}", make(given={("query", "limit"): limit})


def is_page(operation: Operation) -> bool:
    """Return whether an operation returns a page of ``app.kit.pagination``."""
    names = {"cursor", "limit"}
    return operation.method == "GET" and all(operation.has(name) for name in names)


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    caller.hash_cheaply(monkeypatch)


@pytest.mark.fuzz
async def test_every_operation_refuses_bad_input(shared_app: FastAPI) -> None:
    found, sent = await findings(shared_app)
    assert not found, "\n".join(found)
    assert set(sent) == {str(operation) for operation in operations(shared_app)}


def value_of(document: Any, name: str) -> Any:
    """Return the value of a field at any depth."""
    if isinstance(document, dict):
        if name in document:
            return document[name]
        for inner in document.values():
            if isinstance(inner, dict) and (found := value_of(inner, name)) is not None:
                return found
    return None


@dataclass(frozen=True)
class Listing:
    """A list with one of its sorts and more than one page."""

    operation: Operation
    example: Example
    query: Mapping[tuple[str, str], bytes]
    cursor: str

    def __str__(self) -> str:
        return f"{self.operation} {self.query}"

    def request(self, api: Api, cursor: str) -> Request:
        given = {**self.query, ("query", "cursor"): cursor.encode()}
        return self.operation.request(self.example, sent=api.names, given=given)


async def listings(api: Api, operation: Operation) -> list[Listing]:
    """Return a list with each of its sorts that has more than one page."""
    example = await api.example(operation)
    queries = [
        {("query", "sort"): str(value).encode()}
        for parameter in operation.parameters
        if parameter.name == "sort"
        for plain in parameter.schema.alternatives
        for value in plain.get("enum", ())
    ]
    makers = [each for each in api.operations if each.method == "POST"]
    # For most lists it is enough to create items at the same path.
    for some in ([each for each in makers if each.path == operation.path], makers):
        await api.fill(some, example.path)
        found = []
        for query in queries or [{}]:
            given = query | {("query", "limit"): b"1"}
            response = await api.send(operation, example, given=given)
            if response.is_success and (cursor := value_of(response.json(), "next_cursor")):
                found.append(Listing(operation, example, query, cursor))
        if len(found) == len(queries or [{}]):
            return found
    return []


def list_of(cursor: str) -> KeysetList[Any] | None:
    """Return the list of the service to which a cursor belongs, or None."""
    position = decoded(cursor)[:-4]  # the last part is a checksum
    modules = [module for name, module in sys.modules.items() if name.startswith("app.")]
    values = (value for module in modules for value in vars(module).values())
    lists = (value for value in values if isinstance(value, KeysetList))
    return next((each for each in lists if each.seal(position) == cursor), None)


def encoded(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


def decoded(cursor: str) -> bytes:
    return base64.urlsafe_b64decode(cursor + "==")


VALUES: list[Any] = [True, 1, 1.5, nan, 10**30, [], {}, "a\0b", "\ud800"]
UNREADABLE_CURSORS = (b"", b"\xff", b"[" * 1400, b'["' + b"9" * 1400 + b'"]', b"9" * 1400)


def changed(cursor: str) -> Iterator[list[Any]]:
    """Return the parts of a cursor with one value changed."""
    parts = json.loads(decoded(cursor)[:-4])
    for place in range(len(parts)):
        for value in VALUES:
            yield [*parts[:place], value, *parts[place + 1 :]]


def forged(cursor: str) -> Iterator[str]:
    """Return invalid cursors."""
    parts = json.loads(decoded(cursor)[:-4])
    for other in ([], {}, None, "x", 1, parts[:2], [*parts, 1], dict(enumerate(parts)), [parts]):
        yield encoded(other)
    for other in changed(cursor):
        yield encoded(other)
    for raw in UNREADABLE_CURSORS:
        yield base64.urlsafe_b64encode(raw).decode()
    yield from ("=", "====", cursor + "A", "x" * 2000, "x" * 2001, "%00", "%FF", "+")


def sealed(cursor: str) -> Iterator[str]:
    """Return cursors with a valid checksum and changed contents, which some lists may allow."""
    if items := list_of(cursor):
        for other in changed(cursor):
            yield items.seal(json.dumps(other).encode())
        for raw in UNREADABLE_CURSORS:
            yield items.seal(raw)


def damaged(cursor: str) -> Iterator[str]:
    """Return a cursor with one character changed, for each of its characters."""
    for place in range(len(cursor)):
        other = "A" if cursor[place] != "A" else "B"
        changed = cursor[:place] + other + cursor[place + 1 :]
        if decoded(changed) != decoded(cursor):  # the last character may have unused bits
            yield changed


def is_stranger(other: Listing, page: Listing) -> bool:
    """Return whether the cursor of another list must be refused."""
    if other.operation is page.operation:
        return other is not page
    one, another = list_of(other.cursor), list_of(page.cursor)
    if one is None and another is None:  # other kinds of pages may belong to one resource
        names = {each.operation.path.rpartition("/")[2] for each in (other, page)}
        return len(names) > 1
    return one is not another


@pytest.mark.fuzz
async def test_cursors(shared_app: FastAPI) -> None:
    found, pages = [], list[Listing]()
    async with trying(shared_app, caller.CALLERS[-1]) as api:
        for operation in filter(is_page, api.operations):
            listed = await listings(api, operation)
            pages += listed
            if not listed:
                found.append(f"{operation} can't be tried, it returned no second page: {HINT}.")
        for page in pages:
            strangers = {other.cursor for other in pages if is_stranger(other, page)}
            for cursor in [*strangers, *forged(page.cursor), *damaged(page.cursor)]:
                response = await page.request(api, cursor).send(api.app, api.headers)
                if wrong := complaint(page.operation, response):
                    found.append(f"{page} {cursor}: {wrong}")
            for cursor in sealed(page.cursor):
                response = await page.request(api, cursor).send(api.app, api.headers)
                if not response.is_success and (wrong := complaint(page.operation, response)):
                    found.append(f"{page} {cursor}: {wrong}")
    assert not found, "\n".join(found)


def bad_credentials(scheme: Mapping[str, str]) -> Iterator[tuple[str, str, bytes]]:
    """Return the place, the name and the value of credentials that a scheme must refuse."""
    if scheme["type"] == "apiKey":
        place, name, prefix = scheme["in"], scheme["name"], b"Bearer"
    else:
        place, name, prefix = "header", "authorization", scheme.get("scheme", "bearer").encode()
    values = [b"", b"x", prefix, prefix + b" ", prefix + b" x.y.z", b"x" * 20_000]
    if place == "header":
        values += [prefix + b" \xff", b"\x00"]
    for value in values:
        yield place, name, quote(value).encode() if place == "query" else value


async def credential_findings(api: Api) -> tuple[list[str], int]:
    """Send bad credentials to every operation that requires some.

    Returns:
        What is wrong, one sentence each; and the number of requests.
    """
    found, number = [], 0
    for operation in api.operations:
        for scheme in operation.required_security:
            for place, name, value in bad_credentials(scheme):
                headers, query = {name.lower().encode(): value}, b""
                if place == "cookie":
                    headers = {b"cookie": name.encode() + b"=" + value}
                if place == "query":
                    headers, query = {}, name.encode() + b"=" + value
                response = await api.send(operation, Example(), headers=headers, more_query=query)
                number += 1
                wrong = complaint(operation, response)
                if response.status_code != 401 or wrong:
                    wrong = wrong or f"returned {response.status_code}"
                    found.append(f"{operation}, {place} {name} = {value[:40]!r}: {wrong}")
    return found, number


@pytest.mark.fuzz
async def test_bad_credentials(app: FastAPI) -> None:
    async with calling(app) as client:
        found, _ = await credential_findings(Api(app, client, operations(app), EXAMPLES))
    assert not found, "\n".join(found)


async def oversized() -> AsyncIterator[bytes]:
    """Return the parts of a body that is too large and has no Content-Length."""
    for _ in range(20):
        yield b" " * (MEGABYTE // 16)


async def test_bodies_that_are_too_large(app: FastAPI) -> None:
    limit = app.state.settings.max_body_size
    async with calling(app) as client:
        client.headers.update(await caller.credentials(app.state.database))
        caller.admit_anybody(app)
        api = Api(app, client, operations(app), EXAMPLES)
        for operation in api.operations:
            example = await api.example(operation) if operation.media_types else Example()
            for media_type in operation.media_types:
                document = operation.example_body(media_type, example)
                good = encode(media_type, document, operation.body(media_type))
                # Valid, except for the spaces that follow.
                for content in (good.ljust(limit + 1), oversized()):
                    response = await api.send(
                        operation, example, media_type=media_type, content=content
                    )
                    assert complaint(operation, response) == "", str(operation)
                    assert response.status_code == 413, str(operation)


async def exchange(url: str, parts: Iterable[bytes]) -> Response:
    """Send bytes and read the response, which may arrive before all bytes are sent."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))

    async def send() -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    sending = asyncio.create_task(send())
    try:
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        headers = dict(line.lower().split(": ", 1) for line in lines)
        content = await reader.readexactly(int(headers["content-length"]))
    finally:
        sending.cancel()
        writer.close()
        await asyncio.wait([sending])
    return Response(int(status.split()[1]), headers=headers, content=content)


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([line, "host: test", *headers, "", ""]).encode()


@pytest.mark.fuzz
async def test_bad_input_on_a_socket(live_url: str, shared_app: FastAPI) -> None:
    long = "x" * 100_000
    readers = [
        found.path
        for found in operations(shared_app)
        if found.method == "POST" and found.needs_body and not found.keys
        if found.media_types == [JSON]
    ]
    read = f"POST {next(iter(readers), '/nothing')} HTTP/1.1", "content-type: application/json"
    post = "POST /health/live HTTP/1.1", "content-type: application/json"
    cases: list[tuple[str, set[int], list[bytes]]] = [
        ("one large header", {431}, [head("GET /health/live HTTP/1.1", f"x: {long}")]),
        (
            "many headers",
            {431},
            [head("GET /health/live HTTP/1.1", *(f"x-{n}: {'x' * 90}" for n in range(1000)))],
        ),
        ("a long URL", {400, 414, 431}, [head(f"GET /{long} HTTP/1.1")]),
        ("an endless header", {431}, [b"GET / HTTP/1.1\r\n", b"x: ", *([b"x" * 1000] * 200)]),
        ("invalid UTF-8 in a path", {404}, [head("GET /%FF%ED%A0%80 HTTP/1.1")]),
        ("a NUL in a path", {404}, [head("GET /%00 HTTP/1.1")]),
        ("invalid UTF-8 in a query", {422}, [head("GET /health/live?x=%FF HTTP/1.1")]),
        ("not HTTP", {400}, [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"]),
        ("a large body announced", {413}, [head(*post, f"content-length: {2**40}")]),
        (
            "a large body in chunks",
            {405, 413},
            [
                head(*post, "transfer-encoding: chunked"),
                *([b"10000\r\n" + b" " * 65536 + b"\r\n"] * 32),
            ],
        ),
        (
            "a large body, but not too large",
            {401, 404, 422},
            [head(*read, "content-length: 70000") + b" " * 70_000],
        ),
        ("a broken length", {400}, [head(*post, "content-length: x")]),
        ("a broken chunk", {400, 405}, [head(*post, "transfer-encoding: chunked"), b"zz\r\n"]),
    ]
    found = []
    async with serving(live_url) as service:
        for name, statuses, parts in cases:
            async with asyncio.timeout(10):
                try:
                    response = await exchange(service.url, parts)
                except (OSError, EOFError) as error:
                    found.append(f"{name}: {error!r} instead of a response")
                    continue
            media_type = response.headers.get("content-type")
            if response.status_code not in statuses or media_type != MEDIA_TYPE:
                found.append(f"{name}: {response.status_code} {media_type} {response.text[:200]}")
            elif (
                len(response.content) > 4000
                or LEAKS.search(response.text)
                or ECHO.search(response.text)
            ):
                found.append(f"{name} reveals too much: {response.text[:4000]}")
    assert not found, "\n".join(found)
