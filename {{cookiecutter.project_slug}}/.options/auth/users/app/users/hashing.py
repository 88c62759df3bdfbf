"""A bounded queue for hashing passwords, which takes memory and time on purpose."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Final, TypeVar, cast

from fastapi import Request

from app.kit.errors import Unavailable
from app.kit.security_log import current_request

if TYPE_CHECKING:
    from app.users.settings import UserSettings

T = TypeVar("T")

SCRIPT: Final = (2, 10_000)
"""The default numbers of threads and waiting calls, for scripts."""


async def run(function: Callable[..., T], *arguments: str) -> T:
    """Run a function in a thread of the request's queue.

    Raises:
        Unavailable: the queue is full, or the client has disconnected.
    """
    request = current_request.get()
    if request is None:
        return await _queue(*SCRIPT).run(function, *arguments)
    settings = cast("UserSettings", request.app.state.settings)
    queue = _queue(settings.password_hash_threads, settings.password_hash_queue)
    return await queue.run(function, *arguments, request=request)


class HashQueue:
    """A few threads, and a queue of limited length for the calls that wait for one."""

    def __init__(self, threads: int, length: int) -> None:
        """Set how many calls may run and wait."""
        self._free = threads
        self._length = length
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="argon2")

    async def run(
        self, function: Callable[..., T], *arguments: str, request: Request | None = None
    ) -> T:
        """Run a function in a thread, in the order of the calls.

        Raises:
            Unavailable: the queue is full, or the client of the request has disconnected.
        """
        if self._free:
            self._free -= 1
        else:
            await self._wait(request)
        running = asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        running.add_done_callback(self._release)
        return await asyncio.shield(running)  # a thread can't be cancelled

    async def _wait(self, request: Request | None) -> None:
        if len(self._waiting) >= self._length:
            raise Unavailable("Too many passwords are being checked: try again.")
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await (turn if request is None else _turn_or_disconnect(turn, request))
        except BaseException:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:  # its turn came at the same time
                self._release()
            raise

    def _release(self, _: object = None) -> None:
        if self._waiting:
            self._waiting.popleft().set_result(None)
        else:
            self._free += 1


@cache
def _queue(threads: int, length: int) -> HashQueue:
    return HashQueue(threads, length)


async def _turn_or_disconnect(turn: asyncio.Future[None], request: Request) -> None:
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((turn, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
    if not turn.done():
        raise Unavailable("The client is gone.")


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
