"""A crowd that signs in at once keeps nobody else waiting."""

import asyncio
import threading

import pytest
from httpx2 import AsyncClient

from app.kit.db.engine import Database
from app.main import create_app
from app.users import security
from tests.conftest import PATIENCE, checked_out, running, settings_for
from tests.users.helpers import ADA, ME, ROOMY, RecordingHasher, add_user, bearer, login, try_login

DEAR = security.hasher
"""The hasher of production: read before a fixture puts a cheap one in its place."""


async def answer_meanwhile(client: AsyncClient, headers: dict[str, str]) -> None:
    for path in ("/health/live", "/health/ready", ME):
        answer = await client.get(path, headers=headers)
        assert answer.status_code == 200, answer.text


async def test_two_hundred_who_wait_for_their_hash_hold_nothing(
    live_url: str, recorded: RecordingHasher
) -> None:
    """All are held in hashing: everything else is answered, for no loop or connection is."""
    gate = threading.Event()
    app = create_app(settings_for(live_url, **ROOMY))
    async with running(app) as client:
        db: Database = app.state.database
        await add_user(db, ADA)
        headers = bearer(await login(client))
        counted = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wait() -> int:
            loop.call_soon_threadsafe(counted.set)
            assert gate.wait(PATIENCE), "nobody opened the gate: the loop was held"
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
        answers = await asyncio.gather(*logins)
        assert {answer.status_code for answer in answers} == {200}
        assert len(recorded.done) == 200


async def test_a_crowd_is_hashed_beside_what_else_there_is(
    live_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the parameters of production: other requests are answered within each single hash."""
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
        await add_user(app.state.database, ADA, password_hash=DEAR.hash("the words of Ada"))
        monkeypatch.setattr(security, "hasher", Timed(DEAR))
        logins = [asyncio.create_task(try_login(client, ADA, "the words of Ada")) for _ in range(4)]
        while not all(task.done() for task in logins):
            assert (await client.get("/health/live")).status_code == 200
            answered += 1
            await asyncio.sleep(0)  # nothing in this request waits, so the others would never run
        assert {login.result().status_code for login in logins} == {200}
    # It is none at all where a hash holds the event loop or the interpreter, and about a hundred
    # each where it does not: so few are enough that a busy machine is no reason to fail.
    assert len(within) == len(logins)
    assert sum(within) > len(logins)
