"""The work of a request grows no faster than its body or its query, whatever they hold.

Every field of every operation is filled with bodies of growing size, up to the largest allowed, and
every query with a growing number of keys. The processor time is compared within one run. Quadratic
work on 1 MiB would hold a worker for minutes.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI, Form, Query
from pydantic import AfterValidator, Field
from starlette.datastructures import QueryParams
from starlette.formparsers import FormParser

from app.kit import routing
from app.kit.routing import Router
from app.kit.schemas import RequestModel
from tests import caller
from tests.conftest import problem, running
from tests.kit.openapi import (
    Api,
    Example,
    NoExample,
    Operation,
    Place,
    Request,
    Schema,
    is_form,
    is_json,
    operations,
    splice,
)
from tests.kit.test_bad_input import can_hold, trying

GROWTH = 8
"""Each body is so many times as large as the one before."""
SLACK = 3
"""So many times as much may the work grow: what is quadratic grows 8 times as much."""
REPEATS = 3
AS_FORM = {"content-type": "application/x-www-form-urlencoded"}
QUERY_SHARE = 16
"""A body may be so many times as large as a query: 1 MiB and 64 KiB."""

Fill = Callable[[Any, int], bytes]
"""Returns JSON of at most so many bytes, and ``ROOM``, from an example of the value."""
ROOM = 100


def _longer(example: Any, size: int) -> bytes:
    text = str(example)
    return json.dumps(text + "0" * max(size - len(text), 0)).encode()


def _marks(_example: Any, size: int) -> bytes:
    # Combining marks in the wrong order, which normalizing has to sort; two bytes each.
    return b'"%s"' % ("\u0300" * (size // 4) + "\u0323" * (size // 4)).encode()


def _dots(_example: Any, size: int) -> bytes:
    return b'"a@%s"' % (b"x." * (size // 2))


def _digits(_example: Any, size: int) -> bytes:
    return b"9" * size


def _repeated(example: Any, size: int) -> bytes:
    item = json.dumps(example[0] if isinstance(example, list) and example else example).encode()
    return b"[%s]" % b",".join([item] * (size // (len(item) + 1)))


def _distinct(_example: Any, size: int) -> bytes:
    return b"[%s]" % b",".join(b'"%07d"' % number for number in range(size // 10))


def _keys(_example: Any, size: int) -> bytes:
    pairs = b",".join(b'"%07d":1' % number for number in range(size // 12))
    return b"{" + pairs + b"}"


FILLS: dict[str, Fill] = {
    "a valid value, continued": _longer,
    "combining marks": _marks,
    "many labels": _dots,
    "many digits": _digits,
    "the same item again and again": _repeated,
    "many items": _distinct,
    "many keys": _keys,
}


def bodies(
    operation: Operation, media_type: str, example: Example
) -> Iterator[tuple[str, Callable[[int], bytes]]]:
    """Return functions that make a body of a size, each with what grows in it."""
    body = operation.body(media_type)
    for place in body.places(operation.example_body(media_type, example)):
        if can_hold(media_type, place):
            for name, fill in FILLS.items():
                if is_json(media_type) or name not in {"many keys", "many items"}:
                    yield f"{place.where} = {name}", _filled(media_type, place, body, fill)
    for name, fill in FILLS.items():
        if is_json(media_type):
            yield f"the body = {name}", lambda size, fill=fill: fill({}, size - ROOM)  # type: ignore[misc]
    if is_form(media_type):
        yield "many fields", lambda size: b"&".join([b"a=1"] * (size // 4))


def _filled(media_type: str, place: Place, body: Schema, fill: Fill) -> Callable[[int], bytes]:
    write = splice(media_type, place, body)
    try:
        value = place.schema.example(full=True)
    except NoExample:
        value = None

    def make(size: int) -> bytes:
        room = size - len(write(b"")) - ROOM
        if is_json(media_type):
            return write(fill(value, room))
        # Percent-encoded, text may take three times as many bytes.
        text = fill(value, room).decode().strip('"[]')
        return write(quote(text, safe="").encode()[:room])

    return make


async def growing(api: Api) -> AsyncIterator[tuple[str, Callable[[int], Request]]]:
    """Return functions that make a request of a size."""
    examples = [(each, await api.example(each)) for each in api.operations]
    for operation, example in examples:
        for media_type in operation.media_types:
            for name, make in bodies(operation, media_type, example):

                def request(
                    size: int,
                    *,
                    operation: Operation = operation,
                    example: Example = example,
                    media_type: str = media_type,
                    make: Callable[[int], bytes] = make,
                ) -> Request:
                    return operation.request(
                        example, sent=api.names, media_type=media_type, content=make(size)
                    )

                yield f"{operation}, {media_type}, {name}", request
    for operation, example in examples:  # last: they may delete what the others need
        yield f"{operation}, many keys of the query", _many_parameters(api, operation, example)


def _many_parameters(api: Api, operation: Operation, example: Example) -> Callable[[int], Request]:
    def make(size: int) -> Request:
        keys = b"&".join(b"%07d=" % number for number in range(size // QUERY_SHARE // 9))
        return operation.request(example, sent=api.names, more_query=keys)

    return make


@asynccontextmanager
async def calling_all(app: FastAPI, below: str) -> AsyncIterator[Api]:
    """Open a client that may do most, for the operations below a path."""
    async with trying(app, caller.CALLERS[-1]) as api:
        api.operations = [each for each in operations(app) if each.path.startswith(below)]
        yield api


Cost = Callable[[Api, Request], Awaitable[float]]


async def processor_time(api: Api, request: Request) -> float:
    """Return the processor time that this process took for a request."""
    start = time.process_time()
    answer = await request.send(api.app, api.headers)
    assert answer.status_code != 413, "it was not worked on"
    return time.process_time() - start


async def longest_stall(api: Api, request: Request) -> float:
    """Return the most processor time between two answers of ``/health/live`` during a request."""
    probe = Request("GET", b"/health/live", b"", [], b"")
    content = request.content
    assert isinstance(content, bytes)

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 2**16):  # as a server reads it
            await asyncio.sleep(0)
            yield content[start : start + 2**16]

    sent = Request(request.method, request.path, request.query, request.headers, parts())
    answering = asyncio.create_task(sent.send(api.app, api.headers))
    answered, longest, last = 0, 0.0, time.thread_time()
    while not answering.done():
        assert (await probe.send(api.app, [])).status_code == 200
        answered += not answering.done()
        longest, last = max(longest, time.thread_time() - last), time.thread_time()
        await asyncio.sleep(0)
    await answering
    assert answered, "nothing else was answered meanwhile"
    return max(longest, time.thread_time() - last)


async def faster_than_linear(
    app: FastAPI, largest: int, cost: Cost, *, below: str = "/", only: tuple[str, ...] = ("",)
) -> tuple[list[str], int]:
    """Return the requests whose cost grows faster than their body, and how many were tried."""
    found, tried = [], 0
    sizes = [largest // GROWTH**2, largest // GROWTH, largest]
    async with calling_all(app, below) as api:
        async for name, make in growing(api):
            if not name.endswith(only):
                continue
            tried += 1
            before = None
            for size in sizes:
                now = await cost(api, make(size))
                if before is not None and now > SLACK * GROWTH * before:
                    # Again, for the machine may have been busy: that adds, and never takes away.
                    smaller = [await cost(api, make(size // GROWTH)) for _ in range(REPEATS)]
                    before = min(before, *smaller)
                    now = min([await cost(api, make(size)) for _ in range(REPEATS)])
                    if now > SLACK * GROWTH * before:
                        found.append(f"{name}: {now / before:.0f} times the work at {size} bytes")
                        break
                before = now
    return found, tried


@pytest.mark.fuzz
async def test_work_grows_no_faster_than_the_body(shared_app: FastAPI) -> None:
    largest: int = shared_app.state.settings.max_body_size
    found, tried = await faster_than_linear(shared_app, largest, processor_time)
    assert found == []
    assert tried or not any(each.media_types for each in operations(shared_app))


@pytest.mark.fuzz
async def test_others_are_answered_while_the_largest_body_is_worked_on(
    shared_app: FastAPI,
) -> None:
    largest: int = shared_app.state.settings.max_body_size
    only = ("combining marks", "again and again")
    found, _ = await faster_than_linear(shared_app, largest, longest_stall, only=only)
    assert found == []


class Tags(RequestModel):
    tag: list[str] = Field(default_factory=list)


@pytest.mark.parametrize("count", [routing.MAX_PARAMETERS, routing.MAX_PARAMETERS + 1])
@pytest.mark.parametrize("place", ["query", "form"])
async def test_parameters_are_counted_before_they_are_parsed(
    live_app: FastAPI, monkeypatch: pytest.MonkeyPatch, place: str, count: int
) -> None:
    router = Router()
    if place == "query":

        @router.get("/parameters")
        async def query(found: Annotated[Tags, Query()]) -> int:
            return len(found.tag)

    else:
        pytest.importorskip("python_multipart")  # there are no forms without it

        @router.post("/parameters")
        async def form(found: Annotated[Tags, Form()]) -> int:
            return len(found.tag)

    live_app.include_router(router)
    sent = "&".join(["tag=x"] * count)
    async with running(live_app) as client:
        if count > routing.MAX_PARAMETERS:
            for parser in (QueryParams, FormParser):
                monkeypatch.setattr(parser, "__init__", None)  # parsing would be an error
        if place == "query":
            response = await client.get(f"/parameters?{sent}")
        else:
            response = await client.post("/parameters", content=sent, headers=AS_FORM)
    if count > routing.MAX_PARAMETERS:
        document = problem(response, 422)
        assert document["detail"] == f"The {place} has more than 100 parameters."
    else:
        assert response.json() == count


def _no_repeats(values: list[str]) -> list[str]:
    if any(values.count(value) > 1 for value in values):
        raise ValueError("Values must be unique")
    return values


class Quadratic(RequestModel):
    names: Annotated[list[str], AfterValidator(_no_repeats)] = Field(default_factory=list)
    title: str = ""


@pytest.mark.fuzz
@pytest.mark.parametrize("cost", [processor_time, longest_stall])
async def test_quadratic_work_is_found(live_app: FastAPI, cost: Cost) -> None:
    router = Router()

    @router.post("/quadratic")
    async def quadratic(body: Quadratic) -> int:
        return len(body.names)

    live_app.include_router(router)
    operations(live_app)  # made before anything is checked for blocking the loop
    async with live_app.router.lifespan_context(live_app):
        found, _ = await faster_than_linear(live_app, 2**16, cost, below="/quadratic")
    places = {line.partition(" = ")[0] for line in found}
    assert places == {"POST /quadratic, application/json, ('names',)"}, found
