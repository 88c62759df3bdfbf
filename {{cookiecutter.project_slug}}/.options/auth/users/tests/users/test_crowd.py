"""Many concurrent logins do not delay other requests."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import islice

import pytest
import uvicorn
from httpx2 import AsyncClient

from app.kit.db.engine import Database
from app.kit.server import Protocol
from app.main import create_app
from app.users import hashing, security
from tests.conftest import PATIENCE, calling, checked_out, problem, running, settings_for
from tests.users.helpers import (
    ADA,
    BOB,
    CHEAP,
    ME,
    ROOMY,
    WORDS,
    RecordingHasher,
    add_user,
    bearer,
    calling_from,
    login,
    try_login,
)

PRODUCTION_HASHER = security.hasher
"""The production hasher, read before a fixture replaces it with a cheap one."""


async def answer_meanwhile(client: AsyncClient, headers: dict[str, str]) -> None:
    for path in ("/health/live", "/health/ready", ME):
        response = await client.get(path, headers=headers)
        assert response.status_code == 200, response.text


async def test_requests_waiting_for_a_hash_hold_no_connection(
    live_url: str, recorded: RecordingHasher
) -> None:
    """While hashing blocks these requests, all others are served: they hold no connection."""
    gate = threading.Event()
    app = create_app(settings_for(live_url, **ROOMY, password_hash_queue=200))
    async with running(app) as client:
        db: Database = app.state.database
        await add_user(db, ADA)
        headers = bearer(await login(client))
        counted = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wait() -> int:
            loop.call_soon_threadsafe(counted.set)
            assert gate.wait(PATIENCE), "nobody opened the gate: the event loop was blocked"
            return checked_out(db)

        recorded.held = wait
        recorded.done.clear()
        logins = [asyncio.create_task(try_login(client)) for _ in range(200)]
        try:
            async with asyncio.timeout(PATIENCE):
                await counted.wait()
                for _ in range(20):
                    await answer_meanwhile(client, headers)
            assert not any(task.done() for task in logins)
        finally:
            gate.set()
        responses = await asyncio.gather(*logins)
        assert {response.status_code for response in responses} == {200}
        assert len(recorded.done) == 200


async def test_requests_are_served_while_passwords_are_hashed(
    live_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With production parameters: other requests are served during each hash."""
    answered = 0
    within: list[int] = []

    class Timed(RecordingHasher):
        def verify(self, stored: str, password: str) -> bool:
            before = answered
            good = super().verify(stored, password)
            within.append(answered - before)
            return good

    app = create_app(settings_for(live_url, **ROOMY))
    async with running(app) as client:
        await add_user(
            app.state.database, ADA, password_hash=PRODUCTION_HASHER.hash("the words of Ada")
        )
        monkeypatch.setattr(security, "hasher", Timed(PRODUCTION_HASHER))
        logins = [asyncio.create_task(try_login(client, ADA, "the words of Ada")) for _ in range(4)]
        while not all(task.done() for task in logins):
            assert (await client.get("/health/live")).status_code == 200
            answered += 1
            await asyncio.sleep(0)  # this request never waits, so let the others run
        assert {login.result().status_code for login in logins} == {200}
    # None are served if a hash blocks the event loop or the interpreter, and about a hundred if
    # not. The limit is low, so that a busy machine does not fail the test.
    assert len(within) == len(logins)
    assert sum(within) > len(logins)


class Gate(RecordingHasher):
    """A hasher that waits at each hash until the test opens its gate."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def verify(self, stored: str, password: str) -> bool:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.opened.wait(PATIENCE), "nobody opened the gate"
        good = super().verify(stored, password)
        with self._lock:
            self.running -= 1
        return good

    async def entered(self, number: int) -> None:
        """Wait until ``number`` hashes run."""
        async with asyncio.timeout(PATIENCE):
            while self.running < number:  # noqa: ASYNC110 - it changes in another thread
                await asyncio.sleep(0.001)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Return a hasher that waits."""
    gate = Gate()
    monkeypatch.setattr(security, "hasher", gate)
    yield gate
    gate.opened.set()


@pytest.mark.parametrize("threads", [1, 3])
async def test_hashes_running_and_waiting_are_limited(
    live_url: str, gate: Gate, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)  # of the machine: a container may have less
    limits = {"password_hash_threads": threads, "password_hash_queue": 5}
    app = create_app(settings_for(live_url, **ROOMY, **limits))
    async with running(app) as client:
        await add_user(app.state.database, ADA)
        logins = [asyncio.create_task(try_login(client)) for _ in range(threads + 5 + 10)]
        async with asyncio.timeout(PATIENCE):
            for refused in islice(asyncio.as_completed(logins), 10):
                response = await refused
                problem(response, 503)
                assert response.headers["retry-after"] == "1"
        await gate.entered(threads)
        gate.opened.set()
        responses = await asyncio.gather(*logins)
    assert Counter(response.status_code for response in responses) == {200: threads + 5, 503: 10}
    assert gate.most == threads
    assert len(gate.done) == threads + 5


@pytest.mark.parametrize("alike", ["address", "user"])
async def test_one_client_leaves_the_queue_to_others(live_url: str, gate: Gate, alike: str) -> None:
    """Also with right passwords, which no count of attempts holds up."""
    limits = {"password_hash_threads": 1, "password_hash_queue": 8}
    app = create_app(settings_for(live_url, **ROOMY | {"throttle_at_once": 4}, **limits))
    async with running(app), AsyncExitStack() as stack:
        emails = [f"{number}@example.com" for number in range(12)]
        for email in (ADA, *emails):
            await add_user(app.state.database, email)
        callers = [
            (
                f"192.0.2.{1 if alike == 'address' else number}",
                BOB if alike == "user" else emails[number],
            )
            for number in range(12)
        ]
        await add_user(app.state.database, BOB)
        logins = [
            asyncio.create_task(
                try_login(await stack.enter_async_context(calling_from(app, address)), email)
            )
            for address, email in callers
        ]
        async with asyncio.timeout(PATIENCE):
            for refused in islice(asyncio.as_completed(logins), 8):
                answer = await refused
                problem(answer, 429)
                assert answer.headers["retry-after"] == "1"
        other = await stack.enter_async_context(calling_from(app, "198.51.100.1"))
        following = asyncio.create_task(try_login(other))
        gate.opened.set()
        assert (await following).status_code == 200
        answers = await asyncio.gather(*logins)
        assert Counter(answer.status_code for answer in answers) == {200: 4, 429: 8}
        assert (await try_login(other, callers[0][1])).status_code == 200  # later


async def test_a_disconnected_client_leaves_the_hash_queue(live_url: str, gate: Gate) -> None:
    """Clients of a real server that close their connection leave the queue."""
    limits = {"password_hash_threads": 1, "password_hash_queue": 41}
    app = create_app(settings_for(live_url, **ROOMY, **limits))
    config = uvicorn.Config(app, port=0, http=Protocol, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    form = f"username={ADA}&password=none".encode()
    head = b"POST /v1/auth/token HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n"
    head += b"content-type: application/x-www-form-urlencoded\r\n\r\n"
    async with asyncio.timeout(PATIENCE):
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(41)]
        for _, writer in clients:
            writer.write(head % len(form) + form)
        queue = hashing._queue(1, 41)  # noqa: SLF001
        while len(queue._waiting) < 40:  # noqa: ASYNC110, SLF001 - nor for this
            await asyncio.sleep(0.01)
        await gate.entered(1)
        for _, writer in clients:
            writer.close()
        while queue._waiting:  # noqa: ASYNC110, SLF001 - nor for this
            await asyncio.sleep(0.01)
        async with calling(app) as client:
            following = asyncio.create_task(try_login(client))
            gate.opened.set()
            problem(await following, 401)
        server.should_exit = True
        await serving
    assert len(gate.done) == 2


async def test_a_cancelled_request_does_not_break_the_queue(gate: Gate) -> None:
    queue = hashing.HashQueue(1, 2)

    def hash_in_queue() -> asyncio.Task[bool]:
        return asyncio.create_task(queue.run(gate.verify, CHEAP.hash(WORDS), WORDS))

    first, second, third = hash_in_queue(), hash_in_queue(), hash_in_queue()
    await gate.entered(1)
    for task in (second, first):  # one waits, one runs
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    gate.opened.set()
    async with asyncio.timeout(PATIENCE):
        assert await third
        assert await hash_in_queue()
    assert len(gate.done) == 3


async def test_a_request_cancelled_on_its_turn_wakes_the_next_one(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = hashing.HashQueue(1, 2)
    release = queue._release  # noqa: SLF001

    def release_and_cancel(done: object) -> None:
        release(done)
        second.cancel()

    monkeypatch.setattr(queue, "_release", release_and_cancel)
    first, second, third = (
        asyncio.create_task(queue.run(gate.verify, CHEAP.hash(WORDS), WORDS)) for _ in range(3)
    )
    await gate.entered(1)
    monkeypatch.setattr(queue, "_release", release)
    gate.opened.set()
    async with asyncio.timeout(PATIENCE):
        assert await first
        assert await third
    assert second.cancelled()
