"""The database is killed or has not started yet; the service is killed."""

import asyncio
import sys
import time

import pytest

from testing.baking import free_port
from testing.load import Lag, lag
from testing.serving import PostgreSQL, SQLite, Stage, until
from testing.writers import Writers, rows, spread, writing
from tests.figures import Measured

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="processes are stopped by POSIX signals"),
]

POOL_TIMEOUT = 3.0
MARGIN = 1.0
"""Seconds that a busy machine may add to a time limit."""
MAX_RECOVERY = 2.0
"""Maximum seconds from the start of the database to the first success."""


async def kill_the_database(stage: Stage, writers: Writers, rounds: int) -> list[float]:
    """Kill the database repeatedly under the writers; return the seconds of each recovery."""
    assert isinstance(stage.database, PostgreSQL)
    server = stage.database.server
    recoveries = []
    for _ in range(rounds):
        await writers.more(50)
        await asyncio.to_thread(server.kill)
        await writers.more(16, 503)
        await asyncio.to_thread(server.start)
        back = time.monotonic()
        await writers.more(1)
        recoveries.append(writers.first_success(back))
    return recoveries


def check_refused_in_time(writers: Writers, late: Lag) -> float:
    """Check that requests that could not be served were refused in time; return the worst time."""
    refused = writers.answers(503)
    assert all("retry-after" in answer.headers for answer in refused)
    slowest = max(answer.seconds for answer in refused)
    assert slowest < POOL_TIMEOUT + MARGIN + late.worst
    return slowest


@pytest.mark.alone
async def test_a_killed_database_loses_no_acknowledged_write(
    on_postgresql: Stage, rounds: int, measured: Measured
) -> None:
    async with on_postgresql.serving() as service, lag() as late:
        processes = service.processes()
        async with writing(service.port) as writers:
            recoveries = await kill_the_database(on_postgresql, writers, rounds)
        assert service.processes() == processes

    stored = await rows(on_postgresql.database)
    acknowledged = writers.titles(201)
    # The connection died during the commit: only the database knows the outcome.
    unknown = len(stored.keys() & writers.titles(503))
    measured(
        "A killed database loses no acknowledged write",
        on_postgresql.label,
        kills=rounds,
        acknowledged=len(acknowledged),
        lost=len(acknowledged - stored.keys()),
        responses_503=writers.statuses()[503],
        of_these_written_anyway=unknown,
        slowest_503=f"{check_refused_in_time(writers, late):.2f} s",
        back_in_service=spread(recoveries),
    )
    assert set(writers.statuses()) == {201, 422, 503}
    assert acknowledged <= stored.keys()
    assert set(stored.values()) == {1}
    assert not stored.keys() & writers.titles(422)
    assert unknown <= rounds * 5  # at most one for each connection that died
    assert max(recoveries) < MAX_RECOVERY + late.worst


@pytest.mark.alone
async def test_a_request_with_an_idempotency_key_runs_exactly_once(
    on_postgresql: Stage, rounds: int, measured: Measured
) -> None:
    async with (
        on_postgresql.serving() as service,
        writing(service.port, keyed=True) as writers,
        lag() as late,
    ):
        recoveries = await kill_the_database(on_postgresql, writers, rounds)

    stored = await rows(on_postgresql.database)
    wanted = {sent.title for sent in writers.sent}
    replayed = sum("idempotent-replayed" in answer.headers for answer in writers.answers(201))
    measured(
        "A request with an Idempotency-Key runs exactly once",
        on_postgresql.label,
        kills=rounds,
        requests=len(wanted),
        sent=len(writers.sent),
        replayed=replayed,
        missing=len(wanted - stored.keys()),
        twice=sum(count > 1 for count in stored.values()),
        back_in_service=spread(recoveries),
    )
    assert set(writers.statuses()) <= {201, 409, 503}
    assert stored.keys() == wanted
    assert set(stored.values()) == {1}
    check_refused_in_time(writers, late)
    assert max(recoveries) < MAX_RECOVERY + late.worst


@pytest.mark.alone
async def test_the_service_starts_without_its_database(
    on_postgresql: Stage, measured: Measured
) -> None:
    assert isinstance(on_postgresql.database, PostgreSQL)
    server = on_postgresql.database.server
    server.kill()
    async with on_postgresql.serving() as service, lag() as late:
        processes = service.processes()
        with service.client() as client:
            assert (await client.get("/health/live")).status == 200
            ready = await client.get("/health/ready")
            assert (ready.status, ready.headers["retry-after"]) == (503, "1")
            assert ready.json()["detail"]

        await asyncio.to_thread(server.start)
        seconds = await until(service.ready, "ready")

        assert service.processes() == processes
    measured(
        "The service starts without its database and becomes ready with it",
        on_postgresql.label,
        ready_after=f"{seconds:.2f} s",
    )
    assert seconds < MAX_RECOVERY + late.worst


async def test_a_killed_service_loses_no_acknowledged_write(
    stage: Stage, rounds: int, measured: Measured
) -> None:
    port = free_port()
    async with writing(port) as writers:
        for number in range(rounds):
            async with stage.serving(port=port) as service:
                await writers.more(20 + number)  # each time after another number of writes
                service.kill()
            if isinstance(stage.database, SQLite):
                assert await stage.database.fetch("PRAGMA integrity_check") == [("ok",)]

    stored = await rows(stage.database)
    acknowledged = writers.titles(201)
    measured(
        "A killed service loses no acknowledged write",
        stage.label,
        kills=rounds,
        acknowledged=len(acknowledged),
        lost=len(acknowledged - stored.keys()),
        written_without_a_response=len(stored.keys() & writers.titles(None)),
    )
    assert acknowledged <= stored.keys()
    assert set(stored.values()) == {1}
    assert not stored.keys() & writers.titles(422)
