"""The service as a process of its own, for what needs real sockets."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app import project
from tests.conftest import environment_for


@asynccontextmanager
async def serving(url: str, **settings: str) -> AsyncIterator[str]:
    """Run ``python -m app`` on a database at head; give the URL that it answers at."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app"),
        cwd=project.ROOT,
        env=environment_for(url, port="0", **settings),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    log = process.stderr
    try:
        async with asyncio.timeout(60):
            async for line in log:
                if running := re.search(r"running on (http://\S+)", line.decode()):
                    break
            else:
                pytest.fail("it ended before it served")
        reading = asyncio.create_task(log.read())  # else it would wait for a reader one day
        yield running[1]
        assert process.returncode is None, (await reading).decode()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
    text = (await reading).decode()
    assert "Traceback" not in text, text
