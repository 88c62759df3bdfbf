"""Connections of clients that send slowly or nothing are closed, and don't block others."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from app.kit import errors, server
from app.kit.server import ConnectionLimits, Protocol, limits_of
from tests.conftest import PATIENCE, settings_for
from tests.kit.test_server import Connection

GET = b"GET /quick HTTP/1.1\r\nhost: test\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nhost: test\r\n"
BODY = POST + b"content-length: %d\r\n\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"

LONG = 3600.0


class Watched(Protocol):
    """A connection with little room in the system's buffers."""

    def __init__(self, made: list["Watched"], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.lost = asyncio.Event()
        made.append(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost.set()

    def is_held_up(self) -> bool:
        """Return whether the client has to read before the server goes on."""
        return self.flow.write_paused or self.transport.get_write_buffer_size() > 0


@dataclass
class Served:
    """A running server with its limits."""

    port: int
    limits: ConnectionLimits
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """The endless response has ended."""
    made: list[Watched] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)

    async def connect(self, data: bytes = b"") -> Connection:
        """Return a new connection on which ``data`` has been sent."""
        connection = Connection(*await asyncio.open_connection("127.0.0.1", self.port))
        self.connections.append(connection)
        await connection.send(data)
        return connection

    async def stall(self, data: bytes, number: int = 1) -> list[Connection]:
        """Return stalled connections, after the server has read all data."""
        before = len(self.limits.waiting)
        bodies = self.limits.buffered
        body = len(data.partition(b"\r\n\r\n")[2])
        stalled = [await self.connect(data) for _ in range(number)]
        wanted = (before + number, bodies + body * number)
        while (len(self.limits.waiting), self.limits.buffered) != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0)
        return stalled


async def gone(connection: Connection) -> None:
    """Wait until the server has closed a connection, normally or by a reset."""
    with suppress(ConnectionResetError):
        assert await connection.closed()


def add_big_responses(app: FastAPI, served: Served) -> None:
    """Add routes whose clients may not read."""

    @app.get("/big")
    async def big() -> Response:
        return Response(b"x" * SIZE)

    @app.get("/some")
    async def some() -> Response:
        return Response(b"x" * 50_000)

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        async def content() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 10_000
                    await asyncio.sleep(0)
            finally:
                served.ended.set()

        return StreamingResponse(content())


@asynccontextmanager
async def serving(
    limits: ConnectionLimits, keep_alive: int = int(PATIENCE)
) -> AsyncIterator[Served]:
    """Run a server with these limits."""
    app = FastAPI()
    errors.install(app, max_body_size=2**20)
    made: list[Watched] = []
    config = uvicorn.Config(
        app,
        port=0,
        http=partial(Watched, made, limits=limits),  # type: ignore[arg-type]  # as a class
        timeout_keep_alive=keep_alive,
        log_config=None,
        access_log=False,
        backlog=2048,
    )
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve())
    async with asyncio.timeout(PATIENCE):
        while not running.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        served = Served(running.servers[0].sockets[0].getsockname()[1], limits, made=made)

        @app.get("/quick")
        async def quick() -> str:
            return "quick"

        @app.post("/echo")
        async def echo(request: Request) -> int:
            return len(await request.body())

        @app.post("/slow")
        async def slow(request: Request) -> int:
            served.entered.set()
            await served.go_on.wait()
            return len(await request.body())

        add_big_responses(app, served)
        yield served
        running.should_exit = True
        served.go_on.set()
        for connection in served.connections:
            connection.writer.close()
        await task
    assert not limits.waiting
    assert limits.buffered == 0


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", None),
        (b"\r\n", None),
        (b"GET /quick HT", 408),
        (b"GET /quick HTTP/1.1\r\nhost: te", 408),
        (GET[:-2], 408),
        (BODY % 10, 408),
        (BODY % 10 + b"12345", 408),
        (CHUNKED, 408),
        (CHUNKED + b"5\r\n123", 408),
        (CHUNKED + b"5\r\n12345\r\n", 408),
        (CHUNKED + b"5\r\n12345\r\n0\r\nx: ", 408),
    ],
)
@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
async def test_a_stalled_request_is_closed(sent: bytes, status: int | None, *, used: bool) -> None:
    async with serving(ConnectionLimits(head_timeout=0.1, body_timeout=0.1)) as served:
        connection = await served.connect()
        if used and sent:
            await connection.send(GET)
            assert (await connection.read_response()).status == 200
        await connection.send(sent)
        if status is not None:
            response = await connection.read_response()
            assert (response.status, response.json()["title"]) == (status, "Request Timeout")
            assert response.headers["content-type"] == "application/problem+json"
            assert response.headers["connection"] == "close"
        assert await connection.closed()


async def test_a_disconnected_client_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(ConnectionLimits()) as served:
        (stalled,) = await served.stall(BODY % 10 + b"12345")
        stalled.writer.close()
        while served.limits.waiting:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0)
        connection = await served.connect(GET)
        assert (await connection.read_response()).status == 200
    assert "Unhandled error" not in caplog.text


@pytest.mark.parametrize("head", [b"GET /quick HTTP/1.1\r\nx: ", BODY % 100_000, CHUNKED])
async def test_sending_slowly_does_not_extend_the_time_limit(head: bytes) -> None:
    async with serving(ConnectionLimits(head_timeout=0.2, body_timeout=0.2)) as served:
        connection = await served.connect(head)
        receiving = asyncio.create_task(connection.read_response())
        while not receiving.done():
            await connection.send(b"1\r\nx\r\n" if head == CHUNKED else b"x")
            await asyncio.sleep(0.01)
        assert receiving.result().status == 408


async def test_a_body_has_its_own_time_limit() -> None:
    async with serving(ConnectionLimits(head_timeout=0.1, body_timeout=LONG)) as served:
        connection = await served.connect(BODY % 2 + b"1")
        silent = await served.connect()  # closed after the time limit of headers
        assert await silent.closed()
        await connection.send(b"2")
        assert (await connection.read_response()).json() == 2


async def test_the_time_of_the_app_does_not_count() -> None:
    async with serving(ConnectionLimits(head_timeout=0.05, body_timeout=0.05)) as served:
        request = b"POST /slow HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n"
        connection = await served.connect(request)
        pipelined = await served.connect(request + GET[:10])
        await served.entered.wait()
        for _ in range(3):
            assert await (await served.connect()).closed()  # this time has passed
        served.go_on.set()
        for each in (connection, pipelined):
            assert (await each.read_response()).status == 200


async def test_an_idle_connection_is_closed_after_its_timeout() -> None:
    async with serving(ConnectionLimits(head_timeout=0.05), keep_alive=1) as served:
        connection = await served.connect(GET)
        await connection.read_response()
        for _ in range(3):
            assert await (await served.connect()).closed()
        await connection.send(GET)  # uvicorn's timer is for idle connections
        await connection.read_response()
        assert await connection.closed()


@pytest.mark.parametrize("sent", [b"", GET[:9], BODY % 10, CHUNKED + b"5\r\n123"])
async def test_at_the_limit_the_longest_waiting_connection_is_closed(sent: bytes) -> None:
    limits = ConnectionLimits(head_timeout=LONG, body_timeout=LONG, connections=3)
    async with serving(limits) as served:
        first, second, third = [await served.connect(sent) for _ in range(3)]
        while len(limits.waiting) < 3:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0)
        fourth = await served.connect(GET)
        assert (await fourth.read_response()).status == 200
        await gone(first)
        assert not second.reader.at_eof()
        assert not third.reader.at_eof()
        await served.connect(GET)
        await gone(second)


async def test_connections_with_a_running_request_are_not_closed_for_new_ones() -> None:
    async with serving(ConnectionLimits(connections=1)) as served:
        busy = await served.connect(b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        await served.entered.wait()
        refused = await served.connect()
        response = await refused.read_response()
        assert (response.status, response.json()["title"]) == (503, "Service Unavailable")
        served.go_on.set()
        assert (await busy.read_response()).status == 200


async def test_stalled_bodies_use_limited_memory() -> None:
    limits = ConnectionLimits(head_timeout=LONG, body_timeout=LONG, bodies=400_000)
    async with serving(limits) as served:
        stalled = await served.stall(BODY % 200_000 + b"x" * 100_000, 4)
        assert limits.buffered == 400_000
        good = await served.connect(BODY % 150_000 + b"x" * 150_000)
        assert (await good.read_response()).json() == 150_000
        for each in stalled[:2]:
            await gone(each)
        await stalled[3].send(b"x" * 100_000)
        assert (await stalled[3].read_response()).json() == 200_000


async def test_a_thousand_stalled_clients_block_no_others(live_url: str) -> None:
    """A good client among them is served without a delay, by CPU time and by order."""
    settings = settings_for(live_url)
    limits = limits_of(settings)
    limits.head_timeout = limits.body_timeout = LONG
    limits.connections = 400  # fewer than a thousand, because of the limit of open files
    kinds = [b"", GET[:20], BODY % 10 + b"1", CHUNKED + b"5\r\n123"]
    async with serving(limits) as served:

        async def ask() -> float:
            loop = asyncio.get_running_loop()
            times = []
            for _ in range(50):
                started = loop.time()
                connection = await served.connect(GET)
                assert (await connection.read_response()).status == 200
                times.append(loop.time() - started)
                connection.writer.close()
            return sorted(times)[len(times) // 2]

        before = await ask()
        for number in range(1000):
            await served.connect(kinds[number % 4])
        assert len(limits.waiting) <= limits.connections
        ratio = await ask() / before
        assert ratio < 20


def test_the_settings_are_the_limits(template: str) -> None:
    settings = settings_for(
        template,
        max_connections=7,
        max_bodies_size=8,
        max_body_size=9,
        request_head_timeout=10,
        request_body_timeout=11,
    )
    limits = limits_of(settings)
    assert (limits.connections, limits.bodies) == (7, 9)
    assert (limits.head_timeout, limits.body_timeout) == (10, 11)
    assert settings.keep_alive_timeout > server.ConnectionLimits.body_timeout


SIZE = 16 * 2**20
BIG = GET.replace(b"/quick", b"/big")
ENDLESS = GET.replace(b"/quick", b"/endless")
CLOSING = GET.replace(b"/quick", b"/some").replace(b"host", b"connection: close\r\nhost")
"""Less than what is buffered before writing is paused."""


async def unread(served: Served, data: bytes) -> socket.socket:
    """Return a connection whose client does not read, once the server is held up by that."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.settimeout(0)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", served.port))
    await loop.sock_sendall(client, data)
    found: list[Watched] = []
    while not found:
        await asyncio.sleep(0)
        name = client.getsockname()
        found = [each for each in served.made if each.client == name and each.is_held_up()]
    return client


@pytest.mark.parametrize("data", [BIG, ENDLESS], ids=["big", "endless"])
async def test_a_client_that_does_not_read_makes_room_for_others(data: bytes) -> None:
    limits = ConnectionLimits(head_timeout=LONG, body_timeout=LONG, connections=3)
    async with serving(limits) as served:
        clients = [await unread(served, data) for _ in range(3)]
        for _ in range(3):
            good = await served.connect(GET)
            assert (await good.read_response()).status == 200
        for client in clients:
            client.close()


@pytest.mark.parametrize("data", [BIG, BIG + GET, CLOSING], ids=["big", "pipelined", "close"])
async def test_a_client_that_does_not_read_is_closed(data: bytes) -> None:
    async with serving(ConnectionLimits(head_timeout=LONG, body_timeout=0.1)) as served:
        client = await unread(served, data)
        await served.made[0].lost.wait()
        client.close()


async def test_a_client_that_reads_is_not_closed() -> None:
    async with serving(ConnectionLimits(head_timeout=LONG, body_timeout=LONG)) as served:
        connection = await served.connect(BIG)
        while not served.made or not served.made[0].is_held_up():  # noqa: ASYNC110 - no event
            await asyncio.sleep(0)
        (protocol,) = served.made
        assert protocol.abort_timer is not None
        assert protocol in served.limits.waiting
        assert len((await connection.read_response()).body) == SIZE
        assert protocol.abort_timer is None
        await connection.send(GET)
        assert (await connection.read_response()).status == 200


async def test_requests_of_a_lost_connection_end(caplog: pytest.LogCaptureFixture) -> None:
    """Also one that runs while others are queued behind it."""
    async with serving(ConnectionLimits(head_timeout=LONG, body_timeout=0.1)) as served:
        client = await unread(served, ENDLESS + GET)
        await served.ended.wait()
        client.close()
    assert caplog.text == ""
