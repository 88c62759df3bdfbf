"""The service as a process: start, requests and shutdown."""

import asyncio
import gc
import signal
import sys

import pytest
from httpx2 import AsyncClient

from app.kit import project
from app.main import create_process_app
from tests.conftest import PATIENCE, environment_for, problem
from tests.kit.serving import serving

# On Windows, a process that is stopped by a signal logs nothing.
needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")


@needs_signals
async def test_the_service_serves_and_stops(live_url: str) -> None:
    async with serving(live_url) as service:
        async with AsyncClient(base_url=service.url, timeout=PATIENCE) as client:
            # The database has one second to respond: a slow machine may need another try.
            while (response := await client.get("/health/ready")).status_code != 200:
                assert problem(response, 503)["detail"] == "The database does not respond."
            assert "server" not in response.headers
        service.terminate()
        log = await service.ended()
    assert service.process.returncode == -signal.SIGTERM  # uvicorn raises the signal again
    assert "Application shutdown complete" in log
    assert "GET /health" not in log  # the access log is for development


@needs_signals
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_shutdown_delay_can_be_cut_short(live_url: str, workers: int) -> None:
    async with (
        serving(live_url, workers=str(workers), shutdown_delay="3600") as service,
        AsyncClient(base_url=service.url, timeout=PATIENCE) as client,
    ):
        service.terminate()
        # Wait for all workers: a second signal before the first was handled has no effect.
        await service.logged("shutting down in 3600 s", times=workers)
        assert "shutting down" in problem(await client.get("/health/ready"), 503)["detail"]
        assert (await client.get("/openapi.json")).status_code == 200
        service.terminate()
        log = await service.ended()
    assert log.count("Application shutdown complete") == workers


@needs_signals
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_signal_to_the_process_group_counts_once(live_url: str, workers: int) -> None:
    async with (
        serving(live_url, workers=str(workers), shutdown_delay="3600") as service,
        AsyncClient(base_url=service.url, timeout=PATIENCE) as client,
    ):
        service.terminate_group(signal.SIGTERM)
        await service.logged("shutting down in 3600 s", times=workers)
        if workers > 1:  # each worker has also received the signal of its supervisor
            await service.logged("Terminated child process", times=workers)
        assert (await client.get("/openapi.json")).status_code == 200
        assert "shutting down" in problem(await client.get("/health/ready"), 503)["detail"]
        service.terminate_group(signal.SIGINT)
        log = await service.ended()
    assert log.count("Application shutdown complete") == workers
    assert log.count("shutting down in 3600 s") == workers


def test_a_worker_process_collects_garbage_less_often(
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


async def test_the_app_imports_neither_uvicorn_nor_alembic() -> None:
    # A script that imports the app does not need them.
    asked = "import sys, app.main; print(*{'alembic', 'uvicorn'} & set(sys.modules))"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", asked), cwd=project.ROOT, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert (process.returncode, printed.split()) == (0, [])
