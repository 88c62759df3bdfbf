"""The service as a process: it starts, answers, and ends when it is told to."""

import asyncio
import gc
import re
import signal
import sys

import pytest
from httpx2 import AsyncClient

from app import project
from app.main import create_process_app
from tests.conftest import environment_for


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")
async def test_the_service_serves_and_ends(live_url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app"),
        cwd=project.ROOT,
        env=environment_for(live_url, port="0"),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    async with asyncio.timeout(60):
        async for line in process.stderr:
            if running := re.search(r"running on (http://\S+)", line.decode()):
                break
        else:
            pytest.fail("it ended before it served")
        async with AsyncClient(base_url=running[1]) as client:
            response = await client.get("/health/ready")
            assert response.status_code == 200
            assert "server" not in response.headers
        process.send_signal(signal.SIGTERM)
        log = (await process.stderr.read()).decode()
        assert await process.wait() == -signal.SIGTERM  # uvicorn ends by what it was told
    assert "Application shutdown complete" in log
    assert "GET /health" not in log  # the access log is for development


def test_a_process_of_its_own_looks_for_garbage_less_often(
    template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment_for(template).items():
        monkeypatch.setenv(name, value)
    thresholds = gc.get_threshold()
    try:
        assert create_process_app().routes
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
