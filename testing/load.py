"""Many concurrent clients, and the responses of each."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from testing.client import Answer, Client
from testing.serving import Service

Request = Callable[[Client, int], Awaitable[Answer]]
"""The request of a client, by the number of the client."""

BACK_OFF = 0.05
"""Seconds that a client waits after a 503."""


@dataclass
class Load:
    """The responses, each with the number of the client and the time at which it ended."""

    answers: list[tuple[int, float, Answer]] = field(default_factory=list)

    def statuses(self) -> Counter[int]:
        """Count the statuses."""
        return Counter(answer.status for _, _, answer in self.answers)

    def rate(self, start: float, end: float) -> float:
        """Return the successful responses per second between two times."""
        good = [at for _, at, answer in self.answers if answer.status < 300]
        return sum(start <= at < end for at in good) / (end - start)

    def by_client(self) -> Counter[int]:
        """Count the successes of each client."""
        return Counter(client for client, _, answer in self.answers if answer.status < 300)


@dataclass
class Lag:
    """The scheduling delay of this process, by which every measured latency may be too long."""

    worst: float = 0.0
    """Seconds."""


@asynccontextmanager
async def lag() -> AsyncIterator[Lag]:
    """Measure the scheduling delay of this process meanwhile."""
    measured, interval = Lag(), 0.01

    async def look() -> None:
        while True:
            asked = time.perf_counter()
            await asyncio.sleep(interval)
            measured.worst = max(measured.worst, time.perf_counter() - asked - interval)

    task = asyncio.create_task(look())
    try:
        yield measured
    finally:
        task.cancel()


@asynccontextmanager
async def loaded(service: Service, clients: int, request: Request) -> AsyncIterator[Load]:
    """Let clients send requests meanwhile, each as soon as it has the previous response."""
    load = Load()
    stopping = False

    async def ask(number: int) -> None:
        with service.client() as client:
            while not stopping:
                answer = await request(client, number)
                load.answers.append((number, time.monotonic(), answer))
                if answer.status == 503:
                    await asyncio.sleep(BACK_OFF)

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(ask(number))
        try:
            yield load
        finally:
            stopping = True


async def speed(service: Service, clients: int, request: Request, seconds: float = 2) -> float:
    """Return the successful responses per second of a number of clients."""
    async with loaded(service, clients, request) as load:
        start = time.monotonic()
        await asyncio.sleep(seconds)
        end = time.monotonic()
    return load.rate(start, end)


async def write(client: Client, _: int = 0) -> Answer:
    """Write a task."""
    return await client.post("/v1/tasks", {"title": "one more"})


async def read_or_write(client: Client, number: int) -> Answer:
    """Write a task, or list the newest ones: every other client does the same."""
    return await (client.get("/v1/tasks?limit=5") if number % 2 else write(client))


def slowest(answers: Sequence[Answer]) -> float:
    """Return the longest wait of a client, in seconds."""
    return max((answer.seconds for answer in answers), default=0.0)
