"""Connection limits and shutdown of a real server on a real socket."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request

from app.kit import errors, server
from app.kit.server import MAX_HEAD, Protocol
from tests.conftest import PATIENCE

GET = b"GET /%s HTTP/1.1\r\nhost: test\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n"


@dataclass
class RawResponse:
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Connection:
    """A client's connection that is kept open."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    sent: int = 0

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        self.sent += len(data)
        await self.writer.drain()

    async def read_response(self) -> RawResponse:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        body = await self.reader.readexactly(int(headers["content-length"]))
        return RawResponse(int(first.split()[1]), headers, body)

    async def closed(self) -> bool:
        return await self.reader.read() == b""


class Counting(Protocol):
    """Counts the received bytes of all connections."""

    arrived = 0

    def data_received(self, data: bytes) -> None:
        Counting.arrived += len(data)
        super().data_received(data)


@dataclass
class Served:
    """A running server, and the events for which its requests wait."""

    server: uvicorn.Server
    task: asyncio.Task[None]
    lingering: list[tuple[asyncio.TimerHandle, Callable[[], object]]]
    """The function that the server calls after ``LINGER`` seconds."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    connections: list[Connection] = field(default_factory=list)

    @property
    def port(self) -> int:
        port: int = self.server.servers[0].sockets[0].getsockname()[1]
        return port

    async def connect(self) -> Connection:
        connection = Connection(*await asyncio.open_connection("127.0.0.1", self.port))
        self.connections.append(connection)
        return connection

    async def end(self) -> None:
        """Stop the server; return when it no longer listens."""
        self.server.should_exit = True
        while self.server.servers[0].is_serving():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)

    async def pass_linger(self) -> None:
        """End the time of ``LINGER`` after the server has received everything."""
        sent = sum(connection.sent for connection in self.connections)
        while Counting.arrived < sent:  # noqa: ASYNC110 - each turn of the loop reads more
            await asyncio.sleep(0)
        assert self.lingering
        for timer, close in self.lingering:
            timer.cancel()
            close()


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """Run a server with a route that responds and one that waits.

    The test ends the time of ``LINGER`` itself, so that a slow machine loses no connection.
    """
    monkeypatch.setattr(server, "LINGER", 3600.0)
    monkeypatch.setattr(Counting, "arrived", 0)
    lingering: list[tuple[asyncio.TimerHandle, Callable[[], object]]] = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def later(delay: float, callback: Callable[..., object], *arguments: Any) -> Any:
        timer = call_later(delay, callback, *arguments)
        if delay == server.LINGER:
            lingering.append((timer, partial(callback, *arguments)))
        return timer

    monkeypatch.setattr(loop, "call_later", later)
    app = FastAPI()
    errors.install(app, max_body_size=2**20)
    config = uvicorn.Config(
        app,
        port=0,
        http=Counting,
        timeout_keep_alive=int(PATIENCE),
        timeout_graceful_shutdown=int(PATIENCE),
        log_config=None,
        access_log=False,
    )
    running = uvicorn.Server(config)
    served = Served(running, asyncio.create_task(running.serve()), lingering)

    @app.get("/quick")
    async def quick() -> str:
        return "quick"

    @app.post("/echo")
    async def echo(request: Request) -> int:
        return len(await request.body())

    @app.post("/headers")
    async def headers(request: Request) -> list[tuple[str, str]]:
        await request.body()
        return request.headers.items()

    @app.get("/slow")
    async def slow() -> str:
        served.arrived.set()
        await served.go_on.wait()
        return "slow"

    async with asyncio.timeout(PATIENCE):
        while not running.started:  # noqa: ASYNC110 - nor for this
            await asyncio.sleep(0.01)
        yield served
        running.should_exit = True
        served.go_on.set()
        for connection in served.connections:
            connection.writer.close()
        await served.task
    for timer, _ in lingering:
        timer.cancel()


@pytest.mark.parametrize("head", [b"GET / HTTP/1.1\r\nx: ", b"GET /"], ids=["header", "URL"])
async def test_headers_without_end_are_refused(served: Served, head: bytes) -> None:
    connection = await served.connect()
    await connection.send(head + b"x" * 10 * MAX_HEAD)  # it is read and discarded
    response = await connection.read_response()
    assert response.status == 431
    document = response.json()
    assert set(document) == {"type", "title", "status", "detail", "instance", "request_id"}
    assert document["request_id"] == response.headers["x-request-id"]
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["connection"] == "close"
    await served.pass_linger()
    assert await connection.closed()


async def test_the_limit_of_headers_applies_to_each_request(served: Served) -> None:
    connection = await served.connect()
    for _ in range(5):
        await connection.send(GET.replace(b"host", b"x: %s\r\nhost" % (b"x" * 20_000)) % b"quick")
        assert (await connection.read_response()).status == 200


@pytest.mark.parametrize("size", [10, 300_000])
async def test_a_body_does_not_count_as_headers(served: Served, size: int) -> None:
    connection = await served.connect()
    for _ in range(5):
        await connection.send(
            b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n" % size
        )
        await connection.send(b"x" * size)
        response = await connection.read_response()
        assert (response.status, response.json()) == (200, size)


async def test_data_after_a_body_is_limited(served: Served) -> None:
    connection = await served.connect()
    head = b"POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n"
    await connection.send(head + b"3\r\nabc\r\n0\r\nx: " + b"x" * 10 * MAX_HEAD)
    assert (await connection.read_response()).status == 431
    await served.pass_linger()
    assert await connection.closed()


async def test_trailers_are_no_headers(served: Served) -> None:
    connection = await served.connect()
    head = b"POST /headers HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n"
    head += b"x-forwarded-for: 192.0.2.1\r\n\r\n"
    for _ in range(2):
        await connection.send(head + b"0\r\nx-forwarded-for: 192.0.2.2\r\nhost: other\r\n\r\n")
        response = await connection.read_response()
        assert response.json() == [
            ["host", "test"],
            ["transfer-encoding", "chunked"],
            ["x-forwarded-for", "192.0.2.1"],
        ]


class EchoWebSocket(asyncio.Protocol):
    """Sends back the handshake that it gets from the HTTP protocol."""

    def __init__(self, **_: object) -> None:
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert isinstance(self.transport, asyncio.WriteTransport)
        self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + data)
        self.transport.close()


async def test_a_websocket_handshake_is_handed_over_with_its_headers(served: Served) -> None:
    served.server.config.ws_protocol_class = EchoWebSocket
    connection = await served.connect()
    handshake = (
        b"GET /socket HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    )
    await connection.send(handshake)
    async with asyncio.timeout(PATIENCE):
        received = await connection.reader.read()
    assert received == b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + handshake


async def test_data_that_is_not_http_is_refused(served: Served) -> None:
    connection = await served.connect()
    await connection.send(b"\x16\x03\x01 hello\r\n\r\n")
    response = await connection.read_response()
    assert (response.status, response.json()["title"]) == (400, "Bad Request")
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    policy = response.headers["content-security-policy"]
    assert policy == "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])
    await served.pass_linger()
    assert await connection.closed()


async def test_a_running_request_gets_its_response_during_shutdown(served: Served) -> None:
    connection = await served.connect()
    await connection.send(GET % b"slow")
    await served.arrived.wait()
    await served.end()
    served.go_on.set()
    response = await connection.read_response()
    assert (response.status, response.json()) == (200, "slow")
    assert response.headers["connection"] == "close"
    assert await connection.closed()


async def test_a_request_being_received_gets_its_response_during_shutdown(served: Served) -> None:
    connections = [await served.connect() for _ in range(2)]
    await connections[0].send(GET % b"quick")
    assert "connection" not in (await connections[0].read_response()).headers
    await served.end()
    for connection in connections:  # with and without an earlier request
        await connection.send(GET % b"quick")
        response = await connection.read_response()
        assert (response.status, response.json()) == (200, "quick")
        assert response.headers["connection"] == "close"
        assert await connection.closed()


async def test_no_new_connection_is_accepted_during_shutdown(served: Served) -> None:
    port = served.port
    connection = await served.connect()
    await connection.send(GET % b"slow")
    await served.arrived.wait()
    await served.end()
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection("127.0.0.1", port)
    served.go_on.set()


async def test_an_idle_connection_is_closed_at_shutdown(served: Served) -> None:
    connection = await served.connect()
    await served.end()
    await served.pass_linger()
    assert await connection.closed()


async def test_a_stuck_request_is_503_after_the_shutdown_timeout(served: Served) -> None:
    connection = await served.connect()
    await connection.send(GET % b"slow")
    await served.arrived.wait()
    served.server.config.timeout_graceful_shutdown = 0
    served.server.should_exit = True
    response = await connection.read_response()
    assert (response.status, response.json()["detail"]) == (503, "The service is shutting down.")
    assert response.headers["retry-after"] == "1"
    assert await connection.closed()


UPGRADE = b"connection: upgrade\r\nupgrade: %s\r\n"


@pytest.mark.parametrize("kind", [b"h2c", b"websocket", b"x"])
@pytest.mark.parametrize("head", [b"content-length: %d\r\n", b"transfer-encoding: chunked\r\n"])
async def test_a_body_behind_an_upgrade_is_no_request(
    served: Served, kind: bytes, head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    inner = GET % b"slow"
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner)
    start = b"POST /echo HTTP/1.1\r\nhost: test\r\n" + UPGRADE % kind
    start += (head % len(inner) if b"%d" in head else head) + b"\r\n"
    connection = await served.connect()
    await connection.send(start)
    answer = await connection.read_response()
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert answer.json()["detail"] == "A request with Upgrade can't have a body."
    # In a packet of its own, it would be parsed as a request.
    await connection.send(inner if b"%d" in head else chunked)
    await served.pass_linger()
    assert await connection.closed()
    assert not served.arrived.is_set()
    assert "pip install" not in caplog.text


@pytest.mark.parametrize("kind", [b"h2c", b"websocket"])
async def test_an_upgrade_is_ignored_and_the_last_request(
    served: Served, kind: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    connection = await served.connect()
    head = GET.replace(b"\r\n\r\n", b"\r\n" + UPGRADE % kind + b"content-length: 0\r\n\r\n")
    await connection.send(head % b"slow")
    await served.arrived.wait()
    await connection.send(GET % b"quick")
    while Counting.arrived < connection.sent:  # noqa: ASYNC110 - each turn of the loop reads more
        await asyncio.sleep(0)
    (protocol,) = served.server.server_state.connections
    assert isinstance(protocol, Protocol)
    assert not protocol.pipeline  # it was not parsed
    served.go_on.set()
    answer = await connection.read_response()
    assert (answer.status, answer.json(), answer.headers["connection"]) == (200, "slow", "close")
    with suppress(ConnectionResetError):  # what follows is not read
        assert await connection.closed()
    assert caplog.text == ""


async def test_pipelined_requests_get_their_responses_in_order(served: Served) -> None:
    connection = await served.connect()
    lengths = range(server.MAX_PIPELINED + 1)
    for _ in range(3):
        await connection.send(b"".join(POST % length + b"x" * length for length in lengths))
        for length in lengths:
            answer = await connection.read_response()
            assert (answer.status, answer.json()) == (200, length)


async def test_too_many_pipelined_requests_end_the_connection(served: Served) -> None:
    connection = await served.connect()
    await connection.send(GET % b"slow" + GET % b"quick" * 1000)
    await served.arrived.wait()
    served.go_on.set()
    answers = [await connection.read_response() for _ in range(server.MAX_PIPELINED + 1)]
    assert [answer.json() for answer in answers] == ["slow"] + ["quick"] * server.MAX_PIPELINED
    assert [answer.headers.get("connection") for answer in answers][-2:] == [None, "close"]
    with suppress(ConnectionResetError):  # what it has sent is not read
        assert await connection.closed()


async def test_nothing_is_read_while_pipelined_requests_wait(served: Served) -> None:
    connection = await served.connect()
    await connection.send(GET % b"quick" + GET % b"slow" + GET % b"quick")
    await served.arrived.wait()
    await connection.send(GET % b"quick" * server.MAX_PIPELINED)  # with the one before, too many
    other = await served.connect()
    for _ in range(3):  # turns of the loop, in which it would be read
        await other.send(GET % b"quick")
        await other.read_response()
    served.go_on.set()
    for _ in range(3 + server.MAX_PIPELINED):
        assert (await connection.read_response()).status == 200


@pytest.mark.parametrize(
    ("wrong", "queued"),
    [(b"\0", 0), (b"\0", 1), (POST % 9 + b"x", 1), (b"GET / HTTP/1.1\r\nx: " + b"x" * MAX_HEAD, 0)],
    ids=["no HTTP", "no HTTP, queued", "a body", "a head"],
)
async def test_what_is_wrong_behind_a_request_is_not_its_response(
    served: Served, wrong: bytes, queued: int
) -> None:
    connection = await served.connect()
    await connection.send(GET % b"slow" + GET % b"quick" * queued + wrong)
    await served.arrived.wait()
    for each in served.server.server_state.connections:
        if isinstance(each, Protocol) and not each.refused:
            each._refuse(HTTPStatus.REQUEST_TIMEOUT, "late")  # noqa: SLF001 - of the body
    served.go_on.set()
    answers = [await connection.read_response() for _ in range(1 + queued)]
    assert [answer.json() for answer in answers] == ["slow", "quick"][: 1 + queued]
    assert answers[-1].headers["connection"] == "close"
    with suppress(ConnectionResetError):
        assert await connection.closed()
