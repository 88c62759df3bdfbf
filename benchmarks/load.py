"""The load generators: wrk, and one that counts the responses of each client."""

import asyncio
import json
import math
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, cast

SCRIPT: Final = Path(__file__).with_name("replay.lua")

PATIENCE: Final = 30
"""Seconds after which wrk counts a request as an error."""

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Run:
    """The responses in a number of seconds; latencies are in milliseconds."""

    seconds: float
    answers: int
    """Responses with a status of 2xx."""
    errors: int
    """Other responses, broken connections and timeouts."""
    p50: float
    p99: float
    worst: float
    per_client: tuple[int, ...] = ()
    """The responses of each client, where they were counted."""

    @property
    def rate(self) -> float:
        """Responses per second."""
        return self.answers / self.seconds


def wrk(program: str, port: int, requests: Sequence[bytes], clients: int, seconds: float) -> Run:
    """Load a server with wrk, which takes whole seconds."""
    seconds = math.ceil(seconds)
    with tempfile.NamedTemporaryFile(suffix=".requests") as file:
        file.write(b"\0".join(requests))
        file.flush()
        done = subprocess.run(
            [
                *(program, "--threads", "1", "--connections", str(clients)),
                *("--duration", str(seconds), "--timeout", str(PATIENCE), "--script", str(SCRIPT)),
                *(f"http://127.0.0.1:{port}", "--", file.name),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=seconds + 2 * PATIENCE,
            check=True,
        )
    found = json.loads(done.stdout.rstrip().rpartition("\n")[2])
    return Run(
        seconds=found["seconds"],
        answers=found["requests"] - found["refused"],
        errors=found["refused"] + found["broken"],
        p50=found["p50"] / 1000,
        p99=found["p99"] / 1000,
        worst=found["worst"] / 1000,
    )


def counted(port: int, requests: Sequence[bytes], clients: int, seconds: float) -> Run:
    """Load a server, and count the responses of each client."""
    return asyncio.run(_counted(port, requests, clients, seconds))


@dataclass
class _Tally:
    waits: list[float] = field(default_factory=list)
    errors: int = 0


class _Client(asyncio.Protocol):
    """One connection, which sends a request as soon as it has the previous response."""

    def __init__(self, requests: Sequence[bytes], first: int, tally: _Tally) -> None:
        self.requests = requests
        self.next = first
        self.tally = tally
        self.answers = 0
        self.sent_at = 0.0
        self.buffer = b""
        self.transport: asyncio.Transport
        self.over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def ask(self) -> None:
        """Send the next request."""
        self.sent_at = time.perf_counter()
        self.transport.write(self.requests[self.next % len(self.requests)])
        self.next += 1

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        if self.over or head < 0:
            return
        length = _LENGTH.search(self.buffer, 0, head)
        if len(self.buffer) < head + 4 + (int(length[1]) if length else 0):
            return
        self.tally.waits.append(time.perf_counter() - self.sent_at)
        if self.buffer[9:10] == b"2":  # HTTP/1.1 2xx
            self.answers += 1
        else:
            self.tally.errors += 1
        self.buffer = b""
        self.ask()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.over:
            self.tally.errors += 1

    def end(self, now: float) -> float:
        """Close the connection; return how long the client has waited for its response."""
        self.over = True
        self.transport.abort()
        return now - self.sent_at


async def _counted(port: int, requests: Sequence[bytes], clients: int, seconds: float) -> Run:
    loop = asyncio.get_running_loop()
    tally = _Tally()
    crowd = []
    for number in range(clients):
        first = number * len(requests) // clients
        _, client = await loop.create_connection(
            partial(_Client, requests, first, tally), "127.0.0.1", port
        )
        crowd.append(client)
    started = time.perf_counter()
    for client in crowd:
        client.ask()
    await asyncio.sleep(seconds)
    ended = time.perf_counter()
    # A client without any response has waited for the whole round.
    waiting = [client.end(ended) for client in crowd]
    await asyncio.sleep(0)
    waits = sorted(tally.waits)
    per_client = tuple(client.answers for client in crowd)
    return Run(
        seconds=ended - started,
        answers=sum(per_client),
        errors=tally.errors,
        p50=1000 * _percentile(waits, 50),
        p99=1000 * _percentile(waits, 99),
        worst=1000 * max([*waits[-1:], *waiting]),
        per_client=per_client,
    )


def _percentile(ordered: Sequence[float], percent: int) -> float:
    return ordered[(len(ordered) - 1) * percent // 100] if ordered else math.nan
