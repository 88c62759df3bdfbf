"""The metrics for Prometheus."""

import asyncio
import sys
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient
from opentelemetry.metrics import CallbackOptions, Observation
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from app.kit.db import metrics
from app.kit.db.engine import Database, WriteSession
from app.kit.errors import TransactionConflict
from tests.conftest import problem, running, settings_for
from tests.kit.serving import serving

TOKEN = "a-token-of-prometheus"  # noqa: S105 - of a test
BEARER = {"Authorization": f"Bearer {TOKEN}"}

Labels = dict[str, str]


class Scrape:
    """The samples of a response."""

    def __init__(self, text: str) -> None:
        self.samples = [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the samples with this name and these labels; one has to exist."""
        found = [
            value
            for sample, own, value in self.samples
            if sample == name and labels.items() <= own.items()
        ]
        assert found, f"no {name} {labels} in {sorted({sample[0] for sample in self.samples})}"
        return sum(found)

    def values(self, label: str) -> set[str]:
        """Return the values of a label."""
        return {own[label] for _, own, _ in self.samples if label in own}


async def test_prometheus_scrapes_the_service(live_url: str) -> None:
    settings = {"metrics_token": TOKEN, "allowed_hosts": "api.example.com"}
    async with (
        serving(live_url, **settings) as service,
        AsyncClient(base_url=service.url) as prober,
    ):
        for _ in range(3):
            assert (await prober.get("/health/ready")).status_code == 200
        assert (await prober.post("/health/ready")).status_code == 405
        host = {"Host": "api.example.com"}
        assert (await prober.get("/canary", headers=host)).status_code == 404
        response = await prober.get("/metrics", headers=BEARER)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/plain")
        scrape = Scrape(response.text)
        lower = {"Authorization": f"bearer {TOKEN}"}
        assert (await prober.get("/metrics", headers=lower)).status_code == 200
        for wrong in ({}, {"Authorization": "Bearer x"}, {"Authorization": TOKEN}):
            problem(await prober.get("/metrics", headers=wrong), 401)
    count = "http_server_request_duration_seconds_count"
    ready = {"http_route": "/health/ready", "http_request_method": "GET"}
    assert scrape.total(count, **ready, http_response_status_code="200") == 3
    assert scrape.total(count, http_response_status_code="404") == 1
    assert scrape.values("http_route") == {"/health/ready", ""}
    assert scrape.total("http_server_active_requests", http_request_method="GET") == 1
    pool = {"db_client_connection_pool_name": "write"}
    assert scrape.total("db_client_connection_count", **pool) >= 1
    assert scrape.total("db_client_connection_max", **pool) >= 1
    assert scrape.total("db_client_connection_pending_requests", **pool) == 0
    assert scrape.total("app_db_transactions_total", outcome="committed") >= 0
    assert scrape.total("app_db_retries_total") == 0
    if sys.platform == "linux":
        assert scrape.total("process_resident_memory_bytes") > 0
    assert "canary" not in response.text
    logged = [line for line in service.lines if '"/metrics"' in line]
    assert len(logged) == 3
    assert all('"status": 401' in line for line in logged)


async def test_there_are_no_metrics_by_default(client: AsyncClient, app: FastAPI) -> None:
    assert app.state.settings.metrics_token is None
    problem(await client.get("/metrics"), 404)
    problem(await client.get("/metrics", headers=BEARER), 404)


@pytest.mark.parametrize(
    "settings", [{"metrics_token": "short"}, {"metrics_token": TOKEN, "workers": 2}]
)
def test_bad_settings_are_refused(live_url: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="metrics_token"):
        settings_for(live_url, **settings)


def test_the_token_is_not_shown(live_url: str) -> None:
    settings = settings_for(live_url, metrics_token=TOKEN)
    assert TOKEN not in repr(settings)


Callback = Callable[[CallbackOptions], Iterable[Observation]]


def read(callback: Callback) -> dict[str, float]:
    """Return the observations by label; other apps of this process are not busy."""
    found: dict[str, float] = {}
    for each in callback(CallbackOptions()):
        label = str(next(iter((each.attributes or {"": ""}).values())))
        found[label] = found.get(label, 0) + each.value
    return found


async def test_transactions_and_retries_are_counted(live_app: FastAPI) -> None:
    async with running(live_app):
        database: Database = live_app.state.database
        before, retried = read(metrics.transactions), read(metrics.retries)
        async with database.transaction():
            pass
        with pytest.raises(ZeroDivisionError):
            async with database.transaction():
                raise ZeroDivisionError
        attempts = 0

        async def work(_: WriteSession) -> None:
            nonlocal attempts
            attempts += 1
            if attempts < 3:
                raise TransactionConflict("Again.")

        await database.retrying(work)
        after = read(metrics.transactions)
        assert after["committed"] - before["committed"] == 2
        assert after["rolled_back"] - before["rolled_back"] == 3
        assert read(metrics.retries)[""] - retried[""] == 2


async def test_those_that_wait_for_a_connection_are_counted(live_app: FastAPI) -> None:
    async with running(live_app):
        database: Database = live_app.state.database
        limiter = database.limiters["read"]
        assert read(metrics.sizes)["read"] >= limiter.size
        for _ in range(limiter.size):
            await limiter.__aenter__()
        waiting = [asyncio.create_task(limiter.__aenter__()) for _ in range(3)]
        await asyncio.sleep(0)
        assert limiter.waiting == read(metrics.waiting)["read"] == 3
        for _ in range(limiter.size + 3):
            await limiter.__aexit__()
        await asyncio.gather(*waiting)
        assert read(metrics.waiting)["read"] == 0
