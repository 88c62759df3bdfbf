"""The service conforms to its OpenAPI document for requests that Schemathesis generates.

``schemathesis.toml`` configures it, and ``tests/kit/fuzzing.py`` has its hooks. ``just fuzz 1000``
makes up more requests.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.kit import project
from app.kit.db.engine import Database
from app.settings import Settings
from tests import caller
from tests.conftest import settings_for
from tests.examples import RULES
from tests.kit.serving import serving

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "5"))
"""The most requests of each kind that are generated for an operation."""

SEED = os.environ.get("FUZZ_SEED", "1")
"""Another seed generates other requests."""

LONGEST = 100 + EXAMPLES
"""Seconds after which a run counts as hanging."""

# A password takes long to hash: a few are enough. A token has to last as long as the whole run.
LIMITS = {
    name: "86400" if name == "access_token_lifetime" else str(min(2 * EXAMPLES, 100))
    for name in Settings.model_fields
    if name.startswith("throttle_per_") or name == "access_token_lifetime"
}


Callers = Sequence[Callable[[], Awaitable[dict[str, str]]]]
"""Functions that create a caller and return their headers, the least powerful first."""


@asynccontextmanager
async def credentials(callers: Callers) -> AsyncIterator[int]:
    """Serve the headers of new callers on a local port, as JSON.

    A client sends a line with the number of the caller. Credentials have to be new each time: a
    request may have ended those before, or deleted their user.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        headers = await callers[int(await reader.readline())]()
        writer.write(json.dumps(headers).encode() + b"\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def fuzz(
    url: str,
    callers: Callers,
    folder: Path,
    *options: str,
    examples: int = EXAMPLES,
) -> dict[str, Any]:
    """Run Schemathesis against a service; return its report.

    Args:
        url: the service.
        callers: who calls it.
        folder: for the report.
        options: options of ``schemathesis run`` to add.
        examples: the number of requests of each kind for an operation.
    """
    report = folder / "report.json"
    arguments = (
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml"),
        *("run", f"{url}/openapi.json", *options),
        *("--max-examples", str(examples), "--seed", SEED, "--report-json-path", str(report)),
    )
    # Without coverage: its own lines are not the service's.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
    }
    async with credentials(callers) as port:
        environment |= {
            "FUZZ_CALLERS": str(len(callers)),
            "FUZZ_RULES": " ".join(sorted(RULES)),
            # Unicode tables, which take two seconds to generate, are shared by all runs.
            "HYPOTHESIS_STORAGE_DIRECTORY": str(project.ROOT / ".pytest_cache" / "hypothesis"),
            "FUZZ_CREDENTIALS_PORT": str(port),
        }
        for _ in range(2):
            process = await asyncio.create_subprocess_exec(
                *arguments, cwd=project.ROOT, env=environment
            )
            try:
                await asyncio.wait_for(process.wait(), LONGEST)
                break
            except TimeoutError:  # one run in thirty hangs in the tool itself
                process.kill()
                await process.wait()
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


@pytest.mark.fuzz
async def test_fuzz(live_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LIMITS.items():
        monkeypatch.setenv(name.upper(), value)  # also for what signs the access tokens
    database = Database(settings_for(live_url))
    await database.open()
    callers = [partial(create, database) for create in caller.CALLERS]
    async with serving(live_url) as service:
        report = await fuzz(service.url, callers, tmp_path)
    await database.close()
    assert report["exit_code"] == 0
    assert report["operations"]["tested"] == report["operations"]["selected"]
