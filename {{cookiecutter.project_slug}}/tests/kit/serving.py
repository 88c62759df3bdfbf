"""Run the service as a separate process, for tests that need real sockets and signals."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from app.kit import project
from tests.conftest import PATIENCE, environment_for


@dataclass
class Service:
    """A running ``python -m app``."""

    process: asyncio.subprocess.Process
    url: str = ""
    signalled: bool = False
    lines: list[str] = field(default_factory=list)
    """The log so far."""
    _ended: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> None:
        """Read the log until the process closes it."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(line.decode())
            self._changed.set()
        self._ended = True
        self._changed.set()

    async def logged(self, text: str, times: int = 1) -> None:
        """Wait until ``text`` is in at least ``times`` lines of the log."""
        async with asyncio.timeout(PATIENCE):
            while sum(text in line for line in self.lines) < times:
                log = "".join(self.lines)
                assert not self._ended, f"the service ended without logging {text!r}: {log}"
                self._changed.clear()
                await self._changed.wait()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.signalled = True
        self.process.terminate()

    def terminate_group(self, number: signal.Signals) -> None:
        """Send a signal to the process and its workers, as a terminal or systemd does."""
        self.signalled = True
        os.killpg(self.process.pid, number)

    async def ended(self) -> str:
        """Wait until the process has ended, and return its log."""
        async with asyncio.timeout(PATIENCE):
            await self.process.wait()
            while not self._ended:
                self._changed.clear()
                await self._changed.wait()
        return "".join(self.lines)


def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill a process and its workers, which would otherwise keep running."""
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)


@asynccontextmanager
async def serving(url: str, **settings: str) -> AsyncIterator[Service]:
    """Run ``python -m app`` on a migrated database, and stop it if the test did not."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app"),
        cwd=project.ROOT,
        env=environment_for(url, port="0", **settings),
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # a group of its own, with its workers
    )
    service = Service(process)
    reading = asyncio.create_task(service.read())  # a full pipe would block the service
    try:
        # The main process logs its URL before all workers have started.
        await service.logged("startup complete", times=int(settings.get("workers", "1")))
        await service.logged("running on")
        running = re.search(r"running on (http://\S+)", "".join(service.lines))
        assert running is not None
        service.url = running[1]
        yield service
        if not service.signalled:
            assert process.returncode is None, await service.ended()
            process.terminate()
        text = await service.ended()
    finally:
        if process.returncode is None:
            _kill(process)
            await process.wait()
        await reading
    assert "Traceback" not in text, text
