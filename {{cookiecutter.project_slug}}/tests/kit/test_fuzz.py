"""The service keeps the promises of its OpenAPI document, whatever Schemathesis makes up.

``schemathesis.toml`` says what is asked of it; ``just fuzz 1000`` asks it more often.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from app.kit import project
from app.kit.db.engine import Database
from app.settings import Settings
from tests import caller
from tests.conftest import settings_for
from tests.kit.serving import serving

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "5"))
"""How many requests of each kind are made up for an operation, at most."""

SEED = os.environ.get("FUZZ_SEED", "1")
"""Another one makes up other requests."""

LONGEST = 100 + EXAMPLES
"""Seconds that a run may take."""

# A password takes long to hash: a few are enough. A token has to last as long as the whole run.
LIMITS = {
    name: "86400" if name == "access_token_lifetime" else str(min(2 * EXAMPLES, 100))
    for name in Settings.model_fields
    if name.startswith("throttle_per_") or name == "access_token_lifetime"
}


async def fuzz(
    url: str,
    headers: dict[str, str],
    report: Path,
    *options: str,
    config: Path = project.ROOT / "schemathesis.toml",
) -> dict[str, Any]:
    """Let Schemathesis try a service; give its report."""
    arguments = (
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)),
        *("run", f"{url}/openapi.json", *options),
        *("--max-examples", str(EXAMPLES), "--seed", SEED, "--report-json-path", str(report)),
        *(text for header in headers.items() for text in ("--header", ": ".join(header))),
    )
    # Its tables of Unicode are kept beside the report. Its own lines are nobody's to count.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
    }
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            *arguments,
            cwd=project.ROOT,
            env=environment | {"HYPOTHESIS_STORAGE_DIRECTORY": str(report.parent)},
        )
        try:
            await asyncio.wait_for(process.wait(), LONGEST)
            break
        except TimeoutError:  # seen once in some thirty runs: the tool itself spins for ever
            process.kill()
            await process.wait()
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


async def test_fuzz(live_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LIMITS.items():
        monkeypatch.setenv(name.upper(), value)  # also for whoever makes the access token
    database = Database(settings_for(live_url))
    await database.open()
    headers = await caller.credentials(database)
    await database.close()
    async with serving(live_url) as service:
        report = await fuzz(service.url, headers, tmp_path / "report.json")
    assert report["exit_code"] == 0
    assert report["operations"]["tested"] == report["operations"]["selected"]
