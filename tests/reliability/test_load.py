"""More clients than connections, and many valid and invalid requests."""

import asyncio
import sys
import time
from collections import Counter

import pytest

from testing.client import Answer, Client, written
from testing.load import lag, loaded, read_or_write, slowest, speed, write
from testing.serving import PostgreSQL, Service, Stage, until
from tests.figures import Measured

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="processes are stopped by POSIX signals"),
]

POOL = 5
"""The default size of each pool; there is one for transactions and one for reads."""
POOL_TIMEOUT = 3.0
SESSION_TIMEOUT = 4.5
MARGIN = 1.0
"""Seconds that a busy machine may add to a time limit."""


async def looked_at(service: Service, answers: list[Answer]) -> None:
    """Call ``/health/live`` repeatedly."""
    with service.client() as client:
        while True:
            answers.append(await client.get("/health/live"))
            await asyncio.sleep(0.05)


@pytest.mark.alone
async def test_requests_to_a_locked_table_return_503_in_time(
    on_postgresql: Stage, measured: Measured
) -> None:
    clients, lock_for = 512, 6.0
    lives: list[Answer] = []
    async with (
        on_postgresql.serving() as service,
        loaded(service, clients, read_or_write) as load,
        lag() as late,
    ):
        await until(lambda: len(load.answers) > 2 * clients, "everybody connected")
        looking = asyncio.create_task(looked_at(service, lives))
        start = time.monotonic()
        await asyncio.sleep(2)
        before = load.rate(start, time.monotonic())
        async with on_postgresql.database.locked():
            await asyncio.sleep(lock_for)
        free = time.monotonic()
        await asyncio.sleep(3)
        after = load.rate(free + 1, time.monotonic())
        looking.cancel()

    refused = [answer for _, _, answer in load.answers if answer.status == 503]
    waited = [answer for answer in refused if "in use" in answer.json()["detail"]]
    held = [answer for answer in refused if "in use" not in answer.json()["detail"]]
    measured(
        "A locked table: requests that can't be served return 503 in time",
        on_postgresql.label,
        clients=clients,
        responses_503=len(refused),
        slowest_without_a_connection=f"{slowest(waited):.2f} s",
        slowest_with_one=f"{slowest(held):.2f} s",
        slowest_live=f"{slowest(lives):.2f} s",
        rate_afterwards_relative_to_before=f"{after / before:.2f}",
    )
    assert set(load.statuses()) == {200, 201, 503}
    assert all("retry-after" in answer.headers for answer in refused)
    assert waited
    assert slowest(waited) < POOL_TIMEOUT + MARGIN + late.worst
    assert slowest(held) < SESSION_TIMEOUT + MARGIN + late.worst
    assert {answer.status for answer in lives} == {200}
    assert slowest(lives) < MARGIN + late.worst
    assert after > before / 2


@pytest.mark.alone
async def test_clients_are_served_equally(stage: Stage, measured: Measured) -> None:
    clients, each = 32, 100
    async with stage.serving() as service, loaded(service, clients, write) as load:
        await until(lambda: len(load.by_client()) == clients, "every client to be served")
        load.answers.clear()
        await until(lambda: len(load.answers) > clients * each, "the responses", seconds=60)

    served = load.by_client()
    mean = served.total() / clients
    measured(
        "Clients are served equally",
        stage.label,
        clients=clients,
        requests_each=f"{min(served.values())} to {max(served.values())}, mean {mean:.1f}",
        slowest=f"{slowest([answer for _, _, answer in load.answers]):.2f} s",
    )
    assert set(load.statuses()) == {201}
    assert len(served) == clients
    assert min(served.values()) >= 0.8 * mean


async def test_sqlite_reports_no_lock_error(on_sqlite: Stage, measured: Measured) -> None:
    clients, each = 64, 12
    seen: Counter[int] = Counter()
    waits: list[Answer] = []

    async def change(service: Service, shared: str) -> None:
        with service.client() as client:
            own = (await write(client)).headers["location"]
            for number in range(each):
                path = shared if number % 2 else own
                task = await client.get(path)
                tag = task.headers["etag"]
                body = {"title": f"change {number}"}
                changed = await client.request("PATCH", path, body, if_match=tag)
                seen.update([task.status, changed.status])
                waits.append(changed)

    async with on_sqlite.serving() as service:
        with service.client() as client:
            shared = (await write(client)).headers["location"]
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(change(service, shared))

    measured(
        "Clients that read and then write get no lock error",
        on_sqlite.label,
        clients=clients,
        changes=len(waits),
        stale=seen[412],
        responses_5xx=sum(count for status, count in seen.items() if status >= 500),
        slowest=f"{slowest(waits):.2f} s",
    )
    assert set(seen) <= {200, 412}
    assert seen[200] > clients * each
    assert "locked" not in service.log()


class Mixture:
    """An endless mixture of valid and invalid requests."""

    def __init__(self) -> None:
        """Start with the first kind of request."""
        self.seen: Counter[int | str] = Counter()

    async def run(self, service: Service, requests: int, clients: int = 16) -> None:
        """Send a number of requests from a number of clients."""
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._client(service, requests // clients))

    async def _client(self, service: Service, requests: int) -> None:
        with service.client() as client:
            path = (await write(client)).headers["location"]
            for number in range(requests):
                await self._one(client, number % 7, path)

    async def _one(self, client: Client, kind: int, path: str) -> None:
        if kind == 6:  # disconnects before the response
            await client.send(written("POST", "/v1/tasks", {"title": "never mind"}))
            client.close(rudely=True)
            self.seen["gone"] += 1
            return
        answer = await [
            lambda: write(client),
            lambda: client.get(path),
            lambda: client.get("/v1/tasks?limit=3"),
            lambda: client.get("/v1/tasks/00000000-0000-0000-0000-000000000000"),
            lambda: client.request("PATCH", path, {"title": "x"}, if_match='"99"'),
            lambda: client.post("/v1/tasks", {"title": ""}),
        ][kind]()
        self.seen[answer.status] += 1


async def test_many_requests_leak_no_connection_or_memory(
    stage: Stage, rounds: int, measured: Measured
) -> None:
    requests = 500 * rounds
    mixture = Mixture()
    async with stage.serving() as service:
        await mixture.run(service, 2000)
        warm = service.resident()
        mixture.seen.clear()
        await mixture.run(service, requests)
        grown = service.resident()
        if isinstance(stage.database, PostgreSQL):
            await nothing_held(stage.database)

    measured(
        "Many valid and invalid requests leak nothing",
        stage.label,
        requests=requests,
        clients_that_disconnected=mixture.seen["gone"],
        memory=f"{warm:.1f} MiB, then {grown:.1f} MiB",
    )
    assert set(mixture.seen) == {200, 201, 404, 412, 422, "gone"}
    assert grown < 1.05 * warm


async def nothing_held(database: PostgreSQL) -> None:
    """Check that no connection is in a transaction, and that pools have their usual size."""

    async def idle() -> bool:
        return await database.connections("state <> 'idle'") == 0

    await until(idle, "every connection idle", seconds=2)
    assert await database.connections() <= 2 * POOL


async def gone_in_mid_request(service: Service, number: int) -> Client:
    """Send a request or a part of it; return the client, which waits for the response."""
    client = service.client()
    if number % 4 == 0:
        await client.send(written("GET", "/v1/tasks"))
        return client
    data = written("POST", "/v1/tasks", {"title": "gone", "description": "x" * 5000})
    await client.send(data if number % 2 else data[: len(data) // 2])
    return client


@pytest.mark.alone
async def test_disconnected_clients_release_their_connections(
    stage: Stage, measured: Measured
) -> None:
    gone = 200
    async with stage.serving() as service:
        before = await speed(service, 16, read_or_write)
        async with stage.database.locked():
            clients = [await gone_in_mid_request(service, number) for number in range(gone)]
            with service.client() as other:  # earlier requests have been read
                assert (await other.get("/health/live")).status == 200
            for number, client in enumerate(clients):
                client.close(rudely=number % 3 == 0)
        if isinstance(stage.database, PostgreSQL):
            await nothing_held(stage.database)
            await every_connection_is_free(service, stage)
        after = 0.0
        for _ in range(3):  # a leak makes the service slow for good, a busy machine does not
            after = max(after, await speed(service, 16, read_or_write))
            if after > before / 2:
                break

    measured(
        "Disconnected clients release their connections",
        stage.label,
        disconnected=gone,
        rate_afterwards_relative_to_before=f"{after / before:.2f}",
    )
    assert "Traceback" not in service.log()
    assert after > before / 2


async def every_connection_is_free(service: Service, stage: Stage) -> None:
    """Use all connections of both pools at once, to show that none is lost."""
    database = stage.database
    assert isinstance(database, PostgreSQL)

    async def all_wait() -> bool:
        return await database.connections("wait_event_type = 'Lock'") == 2 * POOL

    async def one(number: int) -> None:
        with service.client() as client:
            await read_or_write(client, number)

    async with asyncio.TaskGroup() as group, database.locked():
        for number in range(2 * POOL):
            group.create_task(one(number))
        await until(all_wait, "a statement on each connection", seconds=3)


BAD_BODIES = {
    "a NUL byte": b'{"title": "\\u0000"}',
    "a lone surrogate": b'{"title": "\\ud800"}',
    "no UTF-8": b'{"title": "\xff"}',
    "a key twice": b'{"title": "a", "title": "b"}',
    "5,000 digits": b'{"title": ' + b"9" * 5000 + b"}",
    "1e400": b'{"title": 1e400}',
    "10,000 deep": b'{"title": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "a megabyte of text": b'{"title": "' + b"x" * 1_000_000 + b'"}',
    "2 MB": b'{"title": "' + b"x" * 2_000_000 + b'"}',
    "a thousand bad tasks": b'{"items": [' + b",".join([b'{"title": ""}'] * 1000) + b"]}",
    "many unknown fields": b"{"
    + b",".join(b'"f%d": 1' % number for number in range(50_000))
    + b"}",
}


async def test_invalid_input_uses_little_memory(
    stage: Stage, rounds: int, measured: Measured
) -> None:
    refused: Counter[int] = Counter()
    async with stage.serving() as service:
        with service.client() as client:
            for number in range(200):
                await read_or_write(client, number)
        before = service.resident()
        for _ in range(rounds):
            for name, body in BAD_BODIES.items():
                for path in ("/v1/tasks", "/v1/tasks/batch"):
                    with service.client() as client:
                        answer = await client.post(path, body)
                    assert 400 <= answer.status < 500, (name, answer.body)
                    assert len(answer.body) < 4096, name
                    refused[answer.status] += 1
        grown = service.resident() - before

    measured(
        "Invalid input uses little memory",
        stage.label,
        refused=refused.total(),
        memory=f"{before:.1f} MiB, then {grown:+.1f} MiB",
    )
    assert set(refused) == {413, 422}
    assert grown <= 20
