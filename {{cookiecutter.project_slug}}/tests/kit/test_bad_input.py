"""Bad input: whatever is sent, it is refused in 4xx, by a problem document that gives little away.

Every operation of the app's own OpenAPI document is tried, so a route that is added is tested, too.
"""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from math import nan
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from httpx2 import AsyncClient, Request, Response

from app.db.engine import Database
from app.errors import MEDIA_TYPE
from tests import caller
from tests.conftest import calling, problem, rolled_back
from tests.kit.openapi import JSON, Operation, Schema, operations, with_ids
from tests.kit.serving import serving

Bad = Callable[[AsyncClient, Operation], Iterator[tuple[str, Request]]]
"""Gives requests that must be refused, each with what is bad about it."""

Credentials = Callable[[Database], Awaitable[dict[str, str]]]

LEAKS = re.compile(
    r"Traceback|\.py\b|sqlalchemy|sqlite|asyncpg|SELECT |INSERT |UPDATE |DELETE FROM"
)
ECHO = re.compile(r"x{200}|9{200}|\[{200}")
MEGABYTE = 2**20

# What no field takes, whatever its schema says: in JSON, and in what a URL or a form holds.
NEVER = {
    "a NUL": b'"a\\u0000b"',
    "a lone surrogate": b'"\\ud800"',
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "-Infinity": b"-Infinity",
    "1e400": b"1e400",
    "5,000 digits": b"9" * 5000,
    "what is no UTF-8": b'"\xff"',
    "10,000 deep": b"[" * 10_000 + b"]" * 10_000,
    "a megabyte": b'"%s"' % (b"x" * MEGABYTE),
}
NEVER_TEXT = {
    "a NUL": b"%00",
    "a lone surrogate": b"%ED%A0%80",
    "what is no UTF-8": b"%FF",
    "60,000 characters": b"x" * 60_000,
    "5,000 digits": b"9" * 5000,
}
# What a field takes only if its schema says so.
SOMETIMES: list[Any] = [None, True, 1, 1.5, 2**63, 10**25, "", "x", "NaN", [], [[]], {}, {"x": 1}]
SOMETIMES_TEXT = [
    *("", "x", "0", "-1", "101", "1e9", "1.5", "NaN", "Infinity", "1e400", "null", "[]", "{}"),
    *(str(2**63), str(10**25), "00000000-0000-0000-0000-00000000000", "2030-13-01T00:00:00Z"),
]


@asynccontextmanager
async def trying(app: FastAPI, who: Credentials) -> AsyncIterator[AsyncClient]:
    """Give a client of an app that forgets everything afterwards."""
    async with rolled_back(app), calling(app) as client:
        client.headers.update(await who(app.state.database))
        caller.admit_anybody(app)  # so that no time is lost by asking who is calling
        yield client


def complaint(operation: Operation, answer: Response) -> str:
    """Say what is wrong with the answer to bad input; nothing, if nothing is."""
    if not 400 <= answer.status_code < 500:
        return f"answered {answer.status_code} {answer.text[:200]}"
    if answer.status_code not in operation.statuses:
        return f"answered {answer.status_code}, which OpenAPI does not declare"
    try:
        problem(answer, answer.status_code)
    except (AssertionError, ValueError) as error:
        return f"answered {answer.status_code} by no problem document: {error}"
    if len(answer.content) > 4000 or LEAKS.search(answer.text) or ECHO.search(answer.text):
        return f"tells too much: {answer.text[:4000]}"
    return ""


async def see_refused(
    app: FastAPI, bad: Bad, *, who: Credentials = caller.credentials, below: str = "/"
) -> None:
    """Send bad requests for every operation, and see that they are refused."""
    found = []
    every = operations(app)
    for operation in every:
        if not operation.path.startswith(below):
            continue
        async with trying(app, who) as client:
            operation.ids.update(await with_ids(client, operation, every))
            tried = False
            for name, request in bad(client, operation):
                tried = True
                if wrong := complaint(operation, await client.send(request)):
                    found.append(f"{operation}, {name}: {wrong}")
            # Else some of it may have been refused for what was bad in all of it.
            if tried:
                good = await client.send(operation.request(client))
                if good.status_code == 422 or good.status_code >= 500:
                    found.append(f"{operation}, what is good: {good.text}")
    assert not found, "\n".join(found)


def bad_json(schema: Schema) -> Iterator[tuple[str, bytes]]:
    """Give what a field must not hold, by its schema."""
    for name, raw in NEVER.items():
        # A password or a token is hashed, never stored: no database minds its NUL.
        if name != "a NUL" or schema.resolved.get("format") != "password":
            yield name, raw
    longest = schema.resolved.get("maxLength", 0)
    if longest < 100_000:  # a text without a bound, as a column of text is, would be a trap
        yield "100,000 characters", b'"%s"' % (b"x" * 100_000)
    for value in [*SOMETIMES, "x" * (longest + 1)]:
        # JSON Schema knows no largest integer; a column has one.
        too_big = schema.resolved.get("type") == "integer" and value in (2**63, 10**25)
        if too_big or not schema.allows(value):
            yield repr(value)[:40], json.dumps(value).encode()


def bad_text(schema: Schema) -> Iterator[tuple[str, bytes]]:
    """Give what a parameter, or a field of a form, must not hold, by its schema."""
    for name, raw in NEVER_TEXT.items():
        if name != "a NUL" or schema.resolved.get("format") != "password":
            yield name, raw
    for text in [*SOMETIMES_TEXT, "x" * (schema.resolved.get("maxLength", 0) + 1)]:
        if not schema.allows_text(text):
            yield repr(text)[:40], quote(text).encode()


def bad_header(schema: Schema) -> Iterator[tuple[str, bytes]]:
    """Give what a header must not hold, by its schema."""
    yield from {
        "a NUL": b"a\x00b",
        "what is no UTF-8": b"\xff",
        "60,000 characters": b"x" * 60_000,
    }.items()
    for text in [*SOMETIMES_TEXT, "x" * (schema.resolved.get("maxLength", 0) + 1)]:
        if text and not schema.allows_text(text):
            yield repr(text)[:40], text.encode()


def bad_fields(client: AsyncClient, operation: Operation) -> Iterator[tuple[str, Request]]:
    if operation.media_type is None:
        return
    bad = bad_json if operation.media_type == JSON else bad_text
    for where, schema in operation.body.fields():
        for name, raw in bad(schema):
            request = operation.request(client, content=operation.encode(where, raw))
            yield f"{where} = {name}", request


def bad_bodies(client: AsyncClient, operation: Operation) -> Iterator[tuple[str, Request]]:
    if operation.media_type is None:
        return
    good = operation.encode()
    broken = {"nothing": b"", "broken": b"{", "two of them": good + good}
    if operation.media_type == JSON:
        broken |= NEVER | {
            "no object": b"[]",
            "null": b"null",
            "text": b'"x"',
            "a key that is no UTF-8": b'{"\xff": 1}',
            "a key that is a lone surrogate": b'{"\\ud800": 1}',
            "UTF-16": good.decode().encode("utf-16"),
        }
        for where, schema in operation.body.fields():
            if isinstance(name := where[-1], str):
                value = json.dumps(schema.example()).encode()
                # By what is behind a value: another pair of the same object.
                again = value + b', "%s": ' % name.encode()
                broken[f"{where} twice"] = operation.encode(where, again + value)
                more = operation.encode(where, value + b', "x": 1')
                if not operation.body.allows(json.loads(more)):
                    broken[f"an unknown field beside {where}"] = more
    for name, content in broken.items():
        yield name, operation.request(client, content=content)
    for media_type in (b"", b"text/plain", b"application/xml", b"application/octet-stream", b"x"):
        request = operation.request(client, headers={b"content-type": media_type})
        yield f"content type {media_type!r}", request


def bad_parameters(client: AsyncClient, operation: Operation) -> Iterator[tuple[str, Request]]:
    for parameter in operation.parameters:
        bad = bad_header if parameter.place == "header" else bad_text
        for name, raw in bad(parameter.schema):
            # Without a value, or with another one of two parts, it is another path.
            if parameter.place != "path" or (raw and b"/" not in raw):
                request = operation.request(client, {parameter.name: raw})
                yield f"{parameter.name} = {name}", request
    if operation.method == "GET" and operation.has("limit"):
        for query in (b"unknown=1", b"%FF=1", b"Limit=1"):
            yield str(query), operation.request(client, more_query=[query])
        for limit in (b"", b"0", b"-1", b"abc", b"1e2", b"1000000000"):
            yield f"limit={limit!r}", operation.request(client, {"limit": limit})


async def test_fields(shared_app: FastAPI) -> None:
    await see_refused(shared_app, bad_fields)


async def test_bodies(shared_app: FastAPI) -> None:
    await see_refused(shared_app, bad_bodies)


async def test_parameters(shared_app: FastAPI) -> None:
    await see_refused(shared_app, bad_parameters)


async def first_cursors(
    client: AsyncClient, app: FastAPI
) -> dict[str, tuple[Operation, dict[str, bytes], str]]:
    """Give the first cursor of every list that can be filled, in each of its orders."""
    every = operations(app)
    found = {}
    for operation in every:
        if operation.method != "GET" or not operation.has("cursor"):
            continue
        operation.ids.update(await with_ids(client, operation, every))
        filled = False
        for other in every:
            if (other.method, other.path) == ("POST", operation.path):
                other.ids.update(operation.ids)
                made = [await client.send(other.request(client)) for _ in range(2)]
                filled = all(answer.status_code == 201 for answer in made)
        sorts = [
            value
            for parameter in operation.parameters
            if parameter.name == "sort"
            for value in parameter.schema.resolved["enum"]
        ]
        for sort in sorts or [""]:
            query = {"sort": sort.encode()} if sort else {}
            page = await client.send(operation.request(client, query | {"limit": b"1"}))
            if filled and page.status_code != 403:
                cursor = page.json()["next_cursor"]
                assert cursor is not None
                found[f"{operation} {sort}"] = (operation, query, cursor)
    return found


def encoded(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


def decoded(cursor: str) -> bytes:
    return base64.urlsafe_b64decode(cursor + "==")


def forged(cursor: str) -> Iterator[str]:
    """Give what looks like a cursor and can't be one."""
    parts = json.loads(decoded(cursor)[:-4])  # a checksum comes last
    for other in ([], {}, None, "x", 1, parts[:2], [*parts, 1], dict(enumerate(parts)), [parts]):
        yield encoded(other)
    values: list[Any] = [True, 1, 1.5, nan, 10**25, [], {}, "a\0b", "\ud800"]
    for place in range(len(parts)):
        for value in values:
            yield encoded([*parts[:place], value, *parts[place + 1 :]])
    for raw in (b"", b"\xff", b"[" * 1400, b'["' + b"9" * 1400 + b'"]', b"9" * 1400):
        yield base64.urlsafe_b64encode(raw).decode()
    yield from ("=", "====", cursor + "A", "x" * 2000, "x" * 2001, "%00", "%FF", "+")


async def test_cursors(shared_app: FastAPI) -> None:
    found = []
    async with trying(shared_app, caller.credentials) as client:
        cursors = await first_cursors(client, shared_app)
        for name, (operation, query, own) in cursors.items():
            strangers = {cursor for other, (*_, cursor) in cursors.items() if other != name}
            for cursor in [*strangers, *forged(own)]:
                request = operation.request(client, query | {"cursor": cursor.encode()})
                if wrong := complaint(operation, await client.send(request)):
                    found.append(f"{name} {cursor}: {wrong}")
            for place in range(len(own)):
                other = "A" if own[place] != "A" else "B"
                cursor = own[:place] + other + own[place + 1 :]
                if decoded(cursor) == decoded(own):  # the last character may have bits to spare
                    continue
                request = operation.request(client, query | {"cursor": cursor.encode()})
                if wrong := complaint(operation, await client.send(request)):
                    found.append(f"{name} {cursor}: {wrong}")
    assert not found, "\n".join(found)


async def test_credentials(app: FastAPI) -> None:
    schemes = app.openapi()["components"].get("securitySchemes", {}).values()
    bad = [
        b"",
        b"x",
        b"Bearer",
        b"Bearer ",
        b"Bearer x.y.z",
        b"Bearer \xff",
        b"\x00",
        b"x" * 20_000,
    ]
    async with calling(app) as client:
        for operation in operations(app):
            if operation.definition.get("security"):
                for scheme in schemes:
                    name = scheme.get("name", "authorization").encode()
                    for value in bad:
                        answer = await client.send(operation.request(client, headers={name: value}))
                        assert complaint(operation, answer) == "", (str(operation), name, value)
                        problem(answer, 401)


async def oversized() -> AsyncIterator[bytes]:
    """Give a body too large without saying so before."""
    for _ in range(20):
        yield b" " * (MEGABYTE // 16)


async def test_bodies_that_are_too_large(app: FastAPI, client: AsyncClient) -> None:
    caller.admit_anybody(app)
    limit = app.state.settings.max_body_size
    for operation in operations(app):
        if operation.media_type:
            # All of it would be good, but for the blanks behind.
            for content in (operation.encode().ljust(limit + 1), oversized()):
                request = operation.request(client, content=content)
                answer = await client.send(request)
                assert complaint(operation, answer) == "", str(operation)
                problem(answer, 413)


async def exchange(url: str, parts: Iterable[bytes]) -> Response:
    """Send bytes as they are, and read the answer, which may come before all is sent."""
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


async def test_what_only_a_socket_can_carry(live_url: str, shared_app: FastAPI) -> None:
    long = "x" * 100_000
    readers = [
        found.path
        for found in operations(shared_app)
        if (found.method, found.media_type) == ("POST", JSON) and "{" not in found.path
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
        ("a header without end", {431}, [b"GET / HTTP/1.1\r\n", b"x: ", *([b"x" * 1000] * 200)]),
        ("no UTF-8 in a path", {404}, [head("GET /%FF%ED%A0%80 HTTP/1.1")]),
        ("a NUL in a path", {404}, [head("GET /%00 HTTP/1.1")]),
        ("no UTF-8 in a query", {422}, [head("GET /health/live?x=%FF HTTP/1.1")]),
        ("no HTTP", {400}, [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"]),
        ("a large body to come", {413}, [head(*post, f"content-length: {2**40}")]),
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
                    answer = await exchange(service.url, parts)
                except (OSError, EOFError) as error:
                    found.append(f"{name}: {error!r} instead of an answer")
                    continue
            media_type = answer.headers.get("content-type")
            if answer.status_code not in statuses or media_type != MEDIA_TYPE:
                found.append(f"{name}: {answer.status_code} {media_type} {answer.text[:200]}")
            elif (
                len(answer.content) > 4000 or LEAKS.search(answer.text) or ECHO.search(answer.text)
            ):
                found.append(f"{name} tells too much: {answer.text[:4000]}")
    assert not found, "\n".join(found)
