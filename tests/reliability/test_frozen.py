"""A frozen database: connections stay open, but nothing responds."""

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from testing.client import Answer
from testing.load import lag, read_or_write, slowest
from testing.routes import Route, routes
from testing.serving import Databases, PostgreSQL, Service, Stage, until
from testing.writers import writing
from tests.figures import Measured
from tests.reliability.conftest import Renders

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.skipif(sys.platform == "win32", reason="processes are stopped by POSIX signals"),
]

LIMIT = 5.0
"""Seconds within which every route responds."""
READY_LIMIT = 1.5
LIVE_LIMIT = 0.5
MAX_RECOVERY = 2.0
CLIENTS = 32


async def register(service: Service) -> dict[str, str]:
    """Register and return the header of the credential, or none without users."""
    account = {"email": f"{uuid4()}@example.com", "password": "correct horse", "name": "Me"}
    with service.client() as client:
        registered = await client.post("/v1/users?with_api_key=true", account)
    if registered.status == 404:
        return {}
    assert registered.status == 201, registered.body
    return {"x_api_key": registered.json()["api_key"]["key"]}


async def ask(service: Service, route: Route) -> Answer:
    """Send one request, on a connection of its own."""
    with service.client() as client:
        return await route.ask(client)


async def usable_routes(service: Service) -> list[Route]:
    """Return the routes that use the database, after checking that each accepts its request."""
    with service.client() as client:
        document = (await client.get("/openapi.json")).json()
    found = [route for route in routes(document) if not route.path.startswith("/health/")]
    for route in found:
        service.headers = await register(service)  # one of the routes deletes the caller
        answer = await ask(service, route)
        assert answer.status < 500, (str(route), answer.body)
        assert answer.status != 422, (str(route), answer.body)
    service.headers = await register(service)
    return found


async def use_both_pools(service: Service) -> None:
    """Leave a connection in each pool, so that the first requests use an open connection."""
    with service.client() as client:
        for number in range(2):
            assert (await read_or_write(client, number)).status < 300


class Times:
    """The durations of requests while the database was frozen."""

    def __init__(self) -> None:
        """Start without durations."""
        self.alone: dict[str, float] = {}
        self.crowd: dict[str, float] = {}
        self.live: list[Answer] = []
        self.ready: list[Answer] = []

    async def ask_all(self, service: Service, found: Sequence[Route]) -> None:
        """Send one request to each route, then several at once."""
        for route in found:
            for many, times in ((1, self.alone), (CLIENTS, self.crowd)):
                answers = await asyncio.gather(*(ask(service, route) for _ in range(many)))
                wrong = {answer.status for answer in answers} - {503}
                assert not wrong, (str(route), wrong)
                assert all("retry-after" in answer.headers for answer in answers)
                times[f"{route} of {service.port}"] = slowest(answers)

    async def check_health(self, service: Service) -> None:
        """Call the health checks repeatedly."""
        with service.client() as client:
            while True:
                self.live.append(await client.get("/health/live"))
                self.ready.append(await client.get("/health/ready"))


async def test_every_route_returns_503_in_time_while_the_database_is_frozen(
    renders: Renders, databases: Databases, measured: Measured
) -> None:
    times = Times()
    async with AsyncExitStack() as stack:
        late = await stack.enter_async_context(lag())
        shares: list[tuple[Service, list[Route]]] = []
        # In parallel, because each spends its time waiting.
        for auth, count in (("users", 6), ("none", 3)):
            project = renders("postgresql", auth)
            database = await databases.make(project)
            stage = Stage(project, database)
            services = [
                await stack.enter_async_context(
                    stage.serving(THROTTLE_PER_ADDRESS="1000", THROTTLE_AT_ONCE="1000", wait=False)
                )
                for _ in range(count)
            ]
            for service in services:
                await until(service.ready, "ready")
            found = await usable_routes(services[0])
            for number, service in enumerate(services):
                service.headers = services[0].headers
                shares.append((service, found[number::count]))
        assert isinstance(database, PostgreSQL)
        for service, _ in shares:
            await use_both_pools(service)
        with database.server.frozen():
            looking = [asyncio.create_task(times.check_health(service)) for service, _ in shares]
            async with asyncio.TaskGroup() as group:
                for service, found in shares:
                    group.create_task(times.ask_all(service, found))
            for task in looking:
                task.cancel()
            await asyncio.gather(*looking, return_exceptions=True)
        back = [await until(service.ready, "ready") for service, _ in shares]

    measured(
        "Every route returns 503 in time while the database is frozen",
        "PostgreSQL",
        routes=len(times.alone),
        slowest_alone=f"{max(times.alone.values()):.2f} s",
        slowest_of_32_at_once=f"{max(times.crowd.values()):.2f} s",
        slowest_live=f"{slowest(times.live):.2f} s",
        slowest_ready=f"{slowest(times.ready):.2f} s",
        back_in_service=f"{max(back):.2f} s",
    )
    too_late = {
        name: round(seconds, 2)
        for part in (times.alone, times.crowd)
        for name, seconds in part.items()
        if seconds > LIMIT + late.worst
    }
    assert too_late == {}
    assert {answer.status for answer in times.live} == {200}
    assert slowest(times.live) < LIVE_LIMIT + late.worst
    assert {answer.status for answer in times.ready} == {503}
    assert slowest(times.ready) < READY_LIMIT + late.worst
    assert max(back) < MAX_RECOVERY + late.worst


async def test_a_database_freezes_under_load(on_postgresql: Stage, measured: Measured) -> None:
    assert isinstance(on_postgresql.database, PostgreSQL)
    recoveries = []
    async with (
        on_postgresql.serving() as service,
        writing(service.port) as writers,
        lag() as late,
    ):
        processes = service.processes()
        for _ in range(2):
            await writers.more(50)
            with on_postgresql.database.server.frozen():
                await asyncio.sleep(LIMIT + 1)
            thawed = time.monotonic()
            await writers.more(1)
            recoveries.append(writers.first_success(thawed))
        assert service.processes() == processes

    refused = writers.answers(503)
    measured(
        "The database freezes under load",
        on_postgresql.label,
        responses_503=len(refused),
        slowest_503=f"{slowest(refused):.2f} s",
        back_in_service=f"{max(recoveries):.2f} s",
    )
    assert set(writers.statuses()) == {201, 422, 503}
    assert refused
    assert slowest(refused) < LIMIT + late.worst
    assert max(recoveries) < MAX_RECOVERY + late.worst
