"""The service is stopped while it handles requests."""

import asyncio
import signal
import sys
import time
from collections import Counter

import pytest

from testing.client import Client, CutError, written
from testing.load import lag
from testing.serving import PostgreSQL, Service, Stage, listens, until
from tests.figures import Measured

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="processes are stopped by POSIX signals"),
]

CLIENTS = 16
TIMEOUT = 5
MARGIN = 1.0
FOREVER = "120"
EXPECTED_STATUSES = {0, -signal.SIGTERM, 128 + signal.SIGTERM}
"""Exit statuses after a stop signal: 0, or the signal that uvicorn raises again."""


class Crowd:
    """Clients that send requests until the port is closed."""

    def __init__(self, service: Service) -> None:
        """Count the responses of ``service``."""
        self.service = service
        self.stopped_at = float("inf")
        self.statuses: Counter[int] = Counter()
        self.answered_since = 0
        self.cut: list[str] = []

    async def ask(self, number: int) -> None:
        """Send requests until the service has stopped."""
        batch = {"items": [{"title": "one of many"}] * 100}
        with self.service.client() as client:
            while True:
                kept_alive = client.connected
                try:
                    await client.connect()
                except ConnectionError:
                    assert time.monotonic() > self.stopped_at, "refused too early"
                    return
                try:
                    if number % 4:
                        answer = await client.get("/v1/tasks?limit=5")
                    else:
                        answer = await client.post("/v1/tasks/batch", batch)
                except CutError:
                    since = time.monotonic() - self.stopped_at
                    which = "kept alive" if kept_alive else "new"
                    self.cut.append(f"{which} connection, {since:.3f} s after the signal")
                    continue
                self.statuses[answer.status] += 1
                self.answered_since += time.monotonic() > self.stopped_at


async def check_disconnected(stage: Stage) -> None:
    """Check that the service has closed its connections."""
    database = stage.database
    if isinstance(database, PostgreSQL):

        async def none() -> bool:
            return await database.connections() == 0

        await until(none, "no connection", seconds=1)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_shutdown_interrupts_no_request(
    stage: Stage, workers: int, measured: Measured
) -> None:
    async with stage.serving(WORKERS=str(workers)) as service:
        crowd = Crowd(service)
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(crowd.ask(number))
            await until(lambda: crowd.statuses.total() > 300, "a busy service")
            crowd.stopped_at = time.monotonic()
            service.terminate()
            seconds = await service.ended(20)
        log = service.log()

    measured(
        f"A shutdown interrupts no request ({workers} workers)",
        stage.label,
        responses=crowd.statuses.total(),
        of_these_after_the_signal=crowd.answered_since,
        interrupted=len(crowd.cut),
        ended_after=f"{seconds:.2f} s",
    )
    assert not crowd.cut, "\n".join(crowd.cut)
    assert set(crowd.statuses) == {200, 201}
    assert service.process.returncode in EXPECTED_STATUSES
    assert "Traceback" not in log
    await check_disconnected(stage)


async def outcome_of(client: Client) -> int | str:
    """Return the status of the expected response, or report that there was none."""
    try:
        return (await client.answer()).status
    except CutError:
        return "interrupted"


async def wait_until_received(service: Service) -> None:
    """Wait until the service has read the requests that were sent before this one."""
    with service.client() as client:
        for _ in range(3):
            assert (await client.get("/health/live")).status == 200


@pytest.mark.alone
async def test_a_shutdown_ends_within_its_timeout(stage: Stage, measured: Measured) -> None:
    async with (
        stage.serving(
            SHUTDOWN_TIMEOUT=str(TIMEOUT),
            DATABASE_POOL_TIMEOUT=FOREVER,
            DATABASE_SESSION_TIMEOUT=FOREVER,
            DATABASE_STATEMENT_TIMEOUT=FOREVER,
            DATABASE_BUSY_TIMEOUT=FOREVER,
        ) as service,
        lag() as late,
    ):

        async def nobody_listens() -> bool:
            return not await listens(service.port)

        clients = [service.client() for _ in range(8)]
        async with stage.database.locked():
            for client in clients:
                await client.send(written("POST", "/v1/tasks", {"title": "stuck"}))
            await wait_until_received(service)
            service.terminate()
            refused = await until(nobody_listens, "no new connections", seconds=TIMEOUT)
            seconds = await service.ended(TIMEOUT + 10)
            ends = Counter([await outcome_of(client) for client in clients])
        for client in clients:
            client.close()
        log = service.log()

    measured(
        "A shutdown ends within its timeout",
        stage.label,
        timeout=f"{TIMEOUT} s",
        stuck=len(clients),
        responses_503=ends[503],
        new_connections_refused_after=f"{refused:.2f} s",
        ended_after=f"{seconds + refused:.2f} s",
    )
    assert ends == {503: len(clients)}, log
    assert refused < MARGIN + late.worst
    assert seconds + refused < TIMEOUT + 2 * MARGIN + late.worst
    assert service.process.returncode in EXPECTED_STATUSES
    assert "Traceback" not in log
    await check_disconnected(stage)


@pytest.mark.parametrize("workers", [1, 2])
async def test_readiness_fails_during_the_shutdown_delay(
    stage: Stage, workers: int, measured: Measured
) -> None:
    delay = 3
    async with stage.serving(WORKERS=str(workers), SHUTDOWN_DELAY=str(delay)) as service:

        async def announced() -> bool:
            return not await service.ready()

        assert await service.ready()
        started = time.monotonic()
        service.terminate()
        seconds = await until(announced, "not ready", seconds=delay)
        with service.client() as client:  # on a new connection
            for _ in range(10):
                assert (await client.get("/v1/tasks")).status == 200
        await service.ended(20)
        ended = time.monotonic() - started
        log = service.log()

    measured(
        f"A shutdown can be announced ({workers} workers)",
        stage.label,
        delay=f"{delay} s",
        not_ready_after=f"{seconds:.2f} s",
        ended_after=f"{ended:.2f} s",
    )
    assert ended >= delay
    assert service.process.returncode in EXPECTED_STATUSES
    assert "Traceback" not in log
