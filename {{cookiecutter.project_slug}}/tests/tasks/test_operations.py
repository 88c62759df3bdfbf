"""Logs, slow statements and metrics of a running service."""

import json
import re

from httpx2 import AsyncClient

from app.kit.db.engine import Database
from tests import caller
from tests.conftest import settings_for
from tests.kit.serving import serving
from tests.tasks.helpers import NOBODY, TASKS

TOKEN = "a-token-of-prometheus"  # noqa: S105 - of a test


async def test_what_a_running_service_tells(live_url: str) -> None:
    database = Database(settings_for(live_url))
    headers = await caller.credentials(database)
    await database.close()
    async with (
        serving(live_url, metrics_token=TOKEN, log_slow_statements="1e-9") as service,
        AsyncClient(base_url=service.url, headers=headers) as client,
    ):
        created = await client.post(TASKS, json={"title": "canary", "tags": ["canary"]})
        assert created.status_code == 201
        path = created.headers["location"]
        read = await client.get(path, headers={"X-Request-ID": "mine"})
        assert (await client.get(NOBODY)).status_code == 404
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        metrics = (await client.get("/metrics", headers=bearer)).text
        await service.logged('"status": 404')
    text = "".join(service.lines)
    assert "canary" not in text + metrics
    assert not any(value in text for value in headers.values())
    lines = [json.loads(line) for line in service.lines]

    requests = [line for line in lines if line["logger"] == "app.access"]
    routes = [(line["method"], line["route"], line["status"]) for line in requests]
    one = f"{TASKS}/{{task_id}}"
    assert routes == [("POST", TASKS, 201), ("GET", one, 200), ("GET", one, 404)]
    assert all(("user" in line) is bool(headers) for line in requests)
    assert requests[1]["bytes"] == len(read.content)

    slow = [line for line in lines if line["event"] == "Slow statement"]
    inserts = [line for line in slow if line["statement"].startswith("INSERT INTO tasks ")]
    assert [line["route"] for line in inserts] == [f"POST {TASKS}"]
    assert {line["pool"] for line in inserts} == {"write"}
    assert all(len(line["parameters"]) > 3 for line in inserts)
    mine = {(line["route"], line["pool"]) for line in slow if line.get("request_id") == "mine"}
    assert mine == {(f"GET {one}", "read")}

    assert f'http_route="{one}"' in metrics
    (committed,) = re.findall(r'app_db_transactions_total\{outcome="committed"\} (\S+)', metrics)
    assert float(committed) >= 1
