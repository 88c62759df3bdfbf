"""Clients that write one task after another and keep the responses."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from uuid import uuid4

from testing.client import Answer, Client, CutError
from testing.serving import Database, until

WRITERS = 16
BACK_OFF = 0.05
"""Seconds that a client waits after a 503."""


@dataclass(frozen=True)
class Sent:
    """A request to write a task, and its response."""

    title: str
    answer: Answer | None
    """None if the port was closed or the connection ended without a response."""
    ended: float

    @property
    def status(self) -> int | None:
        """The status of the answer."""
        return self.answer.status if self.answer else None


@dataclass
class Writers:
    """What the clients have sent so far."""

    port: int
    keyed: bool
    """Whether each task has an idempotency key and is retried until it is acknowledged."""
    sent: list[Sent] = field(default_factory=list)
    stopping: bool = False

    def titles(self, status: int | None) -> set[str]:
        """Return the titles of the tasks whose response had this status."""
        return {sent.title for sent in self.sent if sent.status == status}

    def statuses(self) -> Counter[int | None]:
        """Count the responses by status."""
        return Counter(sent.status for sent in self.sent)

    def answers(self, status: int) -> list[Answer]:
        """Return the responses with a status."""
        return [sent.answer for sent in self.sent if sent.answer and sent.status == status]

    def first_success(self, since: float) -> float:
        """Return the seconds from a moment to the first success after it."""
        ends = [sent.ended for sent in self.sent if sent.status == 201 and sent.ended > since]
        return min(ends) - since

    async def more(self, count: int, status: int = 201) -> None:
        """Wait for a number of further responses."""
        wanted = self.statuses()[status] + count
        await until(lambda: self.statuses()[status] >= wanted, f"{count} more answers {status}")

    async def write(self) -> None:
        """Write until stopped; a task with a key is retried until it is acknowledged."""
        with Client(self.port) as client:
            while not self.stopping:
                title = uuid4().hex
                if self.keyed:
                    while await self._post(client, title, idempotency_key=title) != 201:
                        pass
                elif title[0] in "01":  # one in eight can't be taken
                    await self._post(client, title, unknown_field=True)
                else:
                    await self._post(client, title)

    async def _post(
        self, client: Client, title: str, *, unknown_field: bool = False, **headers: str
    ) -> int | None:
        body = {"title": title} | ({"unknown": 1} if unknown_field else {})
        answer = None
        with suppress(ConnectionError, CutError):
            answer = await client.post("/v1/tasks", body, **headers)
        self.sent.append(sent := Sent(title, answer, time.monotonic()))
        if sent.status in {None, 503}:
            await asyncio.sleep(BACK_OFF)
        return sent.status


@asynccontextmanager
async def writing(port: int, *, keyed: bool = False) -> AsyncIterator[Writers]:
    """Let clients write meanwhile."""
    writers = Writers(port, keyed)
    async with asyncio.TaskGroup() as group:
        for _ in range(WRITERS):
            group.create_task(writers.write())
        try:
            yield writers
        finally:
            writers.stopping = True


async def rows(database: Database) -> Counter[str]:
    """Count the tasks of each title, past the service."""
    return Counter(row[0] for row in await database.fetch("SELECT title FROM tasks"))


def spread(seconds: Collection[float]) -> str:
    """Return the median and the maximum of durations."""
    return f"median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s"
