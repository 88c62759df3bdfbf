"""The service as a process of its own, for what needs real sockets and signals."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app import project
from tests.conftest import environment_for


@dataclass
class Service:
    """A running ``python -m app``."""

    url: str
    process: asyncio.subprocess.Process
    log: asyncio.Task[bytes]
    told: bool = False

    def terminate(self) -> None:
        """Tell it to end."""
        self.told = True
        self.process.terminate()

    async def ended(self) -> str:
        """Wait for its end; give what it logged since it was up."""
        await self.process.wait()
        return (await self.log).decode()


@asynccontextmanager
async def serving(url: str, **settings: str) -> AsyncIterator[Service]:
    """Run ``python -m app`` on a database at head, and end it if the test did not."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app"),
        cwd=project.ROOT,
        env=environment_for(url, port="0", **settings),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    address, starting = "", int(settings.get("workers", "1"))
    try:
        async with asyncio.timeout(60):
            while not address or starting:  # several are said to run before they do
                line = (await process.stderr.readline()).decode()
                assert line, "it ended before it served"
                starting -= "startup complete" in line
                if running := re.search(r"running on (http://\S+)", line):
                    address = running[1]
        log = asyncio.create_task(process.stderr.read())  # else it would wait for a reader one day
        service = Service(address, process, log)
        yield service
        if not service.told:
            assert process.returncode is None, await service.ended()
            process.terminate()
        async with asyncio.timeout(60):
            text = await service.ended()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert "Traceback" not in text, text
