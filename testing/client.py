"""An HTTP client that shows the bytes of requests and responses, also of incomplete ones."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

PATIENCE: Final = 30.0
"""Seconds after which a request counts as hanging; every limit of the service is shorter."""


class CutError(Exception):
    """The connection ended before the response to a request was complete."""


@dataclass(frozen=True)
class Answer:
    """A response, and the seconds until it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    def json(self) -> Any:
        """Read the body."""
        return json.loads(self.body)


def written(method: str, path: str, body: object = None, **headers: str) -> bytes:
    """Return the bytes of a request; ``if_match="x"`` is the header ``If-Match: x``."""
    if body is None:
        body = b""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: service", f"Content-Length: {len(payload)}"]
    named = {"content_type": "application/json"} | headers
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in named.items()]
    return "\r\n".join([*lines, "\r\n"]).encode() + payload


class Client:
    """One client with one connection, kept alive for as long as the server keeps it."""

    def __init__(self, port: int, **headers: str) -> None:
        """Send ``headers`` with each request."""
        self.port = port
        self.headers = headers
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._sent = 0.0

    def __enter__(self) -> Self:
        """Close the connection."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    @property
    def connected(self) -> bool:
        """Whether there is a connection that the server has not closed."""
        return self._streams is not None and not self._streams[0].at_eof()

    async def connect(self) -> None:
        """Connect if necessary; raise ConnectionError if the port is closed."""
        if not self.connected:
            self.close()
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)

    def close(self, *, rudely: bool = False) -> None:
        """Close the connection at once."""
        if self._streams is not None:
            writer = self._streams[1]
            self._streams = None
            writer.transport.abort() if rudely else writer.close()

    async def send(self, data: bytes) -> None:
        """Send bytes without waiting for a response."""
        await self.connect()
        assert self._streams
        self._sent = time.perf_counter()
        self._streams[1].write(data)
        await self._streams[1].drain()

    async def answer(self) -> Answer:
        """Read a response; raise TimeoutError if there is none in time."""
        assert self._streams
        reader = self._streams[0]
        try:
            async with asyncio.timeout(PATIENCE):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.rstrip().split("\r\n")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in lines)
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.close()
            raise CutError from error
        except BaseException:
            self.close()
            raise
        if headers.get("connection") == "close":
            self.close()
        seconds = time.perf_counter() - self._sent
        return Answer(int(first.split(" ")[1]), headers, body, seconds)

    async def request(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Send a request and read its response."""
        await self.connect()
        try:
            await self.send(written(method, path, body, **(self.headers | headers)))
        except ConnectionError as error:
            self.close()
            raise CutError from error
        return await self.answer()

    async def get(self, path: str, **headers: str) -> Answer:
        """Send a GET request."""
        return await self.request("GET", path, **headers)

    async def post(self, path: str, body: object, **headers: str) -> Answer:
        """Send a POST request."""
        return await self.request("POST", path, body, **headers)
