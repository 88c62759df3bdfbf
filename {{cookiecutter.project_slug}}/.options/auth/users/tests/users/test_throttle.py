"""Logins and registrations are limited per client address and e-mail, for all workers together."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient, Response
from sqlalchemy import select, update

from app.kit.db.engine import Database
from app.kit.errors import Unavailable
from app.main import create_app
from app.users import hashing, throttle
from app.users.hashing import HashQueue
from app.users.models import Attempt
from app.users.throttle import user_limits
from tests.conftest import Statements, problem, settings_for
from tests.users.helpers import (
    ADA,
    BOB,
    LOGOUT,
    ME,
    OTHER_WORDS,
    REFRESH,
    USERS,
    WORDS,
    RecordingHasher,
    add_user,
    bearer,
    body,
    calling_from,
    count,
    login,
    past,
    try_login,
    try_refresh,
)

WINDOW = 7200
LIMITS = {
    "throttle_per_email_and_address": 3,
    "throttle_per_email": 6,
    "throttle_per_address": 5,
    "throttle_window": WINDOW,
}


@pytest.fixture
async def narrow(live_url: str) -> AsyncIterator[FastAPI]:
    """Run an app with low limits."""
    app = create_app(settings_for(live_url, **LIMITS))
    async with app.router.lifespan_context(app):
        await add_user(app.state.database, ADA)
        yield app


@pytest.fixture
async def near(narrow: FastAPI) -> AsyncIterator[AsyncClient]:
    """Return a client with one address."""
    async with calling_from(narrow, "192.0.2.1") as client:
        yield client


@pytest.fixture
async def far(narrow: FastAPI) -> AsyncIterator[AsyncClient]:
    """Return a client with another address."""
    async with calling_from(narrow, "2001:db8::1") as client:
        yield client


class Busy(HashQueue):
    """A queue that is full."""

    async def run(self, *_: Any, **__: Any) -> Any:
        raise Unavailable("Too many passwords are being checked: try again.")


async def attempts(app: FastAPI) -> list[Attempt]:
    db: Database = app.state.database
    async with db.reading() as session:
        return list(await session.scalars(select(Attempt)))


async def counts(app: FastAPI) -> dict[str, int]:
    return {attempt.subject: attempt.count for attempt in await attempts(app)}


async def let_the_window_pass(app: FastAPI) -> None:
    db: Database = app.state.database
    async with db.transaction() as session:
        await session.execute(update(Attempt).values(resets_at=past(1)))


def throttled(response: Response) -> None:
    """Check that a response is 429, with the rest of the window in ``Retry-After``."""
    problem(response, 429)
    assert WINDOW - 3600 < int(response.headers["retry-after"]) <= WINDOW
    assert ADA not in response.text


async def test_wrong_logins_do_not_lock_the_user_out_elsewhere(
    narrow: FastAPI, near: AsyncClient, far: AsyncClient, recorded: RecordingHasher
) -> None:
    for _ in range(3):
        problem(await try_login(near, password=OTHER_WORDS), 401)
    recorded.done.clear()
    # The limit ignores case, applies to the right password too, and is checked before hashing.
    for spelling in (ADA, ADA.upper(), f" {ADA}"):
        throttled(await try_login(near, spelling))
    assert recorded.done == []
    await login(far)
    await add_user(narrow.state.database, BOB)
    await login(near, BOB)


async def test_guesses_from_many_addresses_have_a_limit(narrow: FastAPI) -> None:
    for number in range(6):
        async with calling_from(narrow, f"192.0.2.{number}") as client:
            problem(await try_login(client, password=OTHER_WORDS), 401)
    async with calling_from(narrow, "192.0.2.99") as client:
        throttled(await try_login(client))


async def test_guesses_from_elsewhere_leave_known_clients_their_own(
    narrow: FastAPI, far: AsyncClient
) -> None:
    await login(far)
    for number in range(6):
        async with calling_from(narrow, f"2001:db8:1:{number}00::1") as client:
            problem(await try_login(client, password=OTHER_WORDS), 401)
    async with calling_from(narrow, "198.51.100.1") as stranger:
        throttled(await try_login(stranger))
    async with calling_from(narrow, "2001:db8:0:ff::2") as client:  # in the same network
        for _ in range(3):
            problem(await try_login(client, password=OTHER_WORDS), 401)
        throttled(await try_login(client))  # its own limit
    await let_the_window_pass(narrow)
    for number in range(6):
        async with calling_from(narrow, f"2001:db8:1:{number}00::1") as client:
            problem(await try_login(client, password=OTHER_WORDS), 401)
    await login(far)


async def test_attempts_of_a_client_are_limited(
    narrow: FastAPI, near: AsyncClient, far: AsyncClient
) -> None:
    for number in range(5):
        problem(await try_login(near, f"{number}@example.com"), 401)
    throttled(await try_login(near, "another@example.com"))
    throttled(await try_login(near))
    await login(far)


async def test_attempts_of_a_throttled_address_do_not_count_for_an_email(
    narrow: FastAPI, near: AsyncClient
) -> None:
    for number in range(5):
        problem(await try_login(near, f"{number}@example.com"), 401)
    before = await counts(narrow)
    for _ in range(6):
        throttled(await try_login(near, password=OTHER_WORDS))
    assert await counts(narrow) == before


async def test_success_resets_the_email_but_not_the_address(
    narrow: FastAPI, near: AsyncClient
) -> None:
    for _ in range(2):
        for _ in range(2):
            problem(await try_login(near, password=OTHER_WORDS), 401)
        await login(near)
    assert sorted((await counts(narrow)).values()) == [0, 0, 4]
    for _ in range(3):
        await login(near)
    problem(await try_login(near, password=OTHER_WORDS), 401)
    throttled(await try_login(near))  # the fifth wrong one was the last that is allowed


@pytest.mark.parametrize(
    ("address", "alike", "other"),
    [
        ("2001:db8::1", "2001:db8:0:ff:ffff::2", "2001:db8:0:100::1"),
        ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
    ],
)
async def test_an_ipv6_network_is_one_client(
    narrow: FastAPI, address: str, alike: str, other: str
) -> None:
    async with calling_from(narrow, address) as client:
        for number in range(5):
            problem(await try_login(client, f"{number}@example.com"), 401)
    async with calling_from(narrow, alike) as client:
        throttled(await try_login(client))
    async with calling_from(narrow, other) as client:
        await login(client)


async def test_unknown_email_addresses_are_counted_too(near: AsyncClient) -> None:
    for _ in range(3):
        problem(await try_login(near, "nobody@example.com"), 401)
    throttled(await try_login(near, "nobody@example.com"))


async def test_registrations_are_counted_too(narrow: FastAPI, near: AsyncClient) -> None:
    for status in (201, 409, 409):
        assert (await near.post(USERS, json=body(BOB))).status_code == status
    throttled(await near.post(USERS, json=body(BOB)))
    throttled(await try_login(near, BOB))
    for number in range(2):  # five attempts of this client in all
        response = await near.post(USERS, json=body(f"{number}@example.com"))
        assert response.status_code == 201
    users = await count(narrow.state.database, Attempt)
    throttled(await near.post(USERS, json=body("new@example.com")))
    throttled(await try_login(near, "new@example.com"))
    assert users == await count(narrow.state.database, Attempt)


async def test_an_unreadable_form_is_not_counted(narrow: FastAPI, near: AsyncClient) -> None:
    for _ in range(6):
        assert (await near.post(USERS, json=body(BOB, "short"))).status_code == 422
    assert await attempts(narrow) == []


async def test_requests_of_signed_in_users_are_not_counted(
    narrow: FastAPI, near: AsyncClient
) -> None:
    tokens = await login(near)
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    for _ in range(8):
        assert (await near.get(ME, headers=headers)).status_code == 200
        fresh = await try_refresh(near, tokens)
        assert fresh.status_code == 200
        tokens = fresh.json()
    sent = {"refresh_token": tokens["refresh_token"]}
    assert (await near.post(LOGOUT, json=sent)).status_code == 204
    assert (await near.post(REFRESH, json=sent)).status_code == 401
    assert set((await counts(narrow)).values()) == {0}


async def test_guesses_of_the_current_password_are_limited(
    narrow: FastAPI, near: AsyncClient
) -> None:
    headers = bearer(await login(near))
    guess = {"password": "new words", "current_password": OTHER_WORDS}
    for _ in range(3):
        problem(await near.patch(ME, json=guess, headers=headers), 403)
    right = guess | {"current_password": WORDS}
    throttled(await near.patch(ME, json=right, headers=headers))
    async with calling_from(narrow, "192.0.2.9") as client:  # counted by user, from any address
        throttled(await client.patch(ME, json=right, headers=headers))
    response = await near.patch(ME, json={"name": "Ada"}, headers=headers)
    assert response.status_code == 200
    await login(near)  # guesses do not block logins


async def test_changes_of_the_address_have_a_limit(narrow: FastAPI, near: AsyncClient) -> None:
    """Success does not reset it: each tells whether an address is taken."""
    await add_user(narrow.state.database, BOB)
    headers = bearer(await login(near))
    for email, status in ((BOB, 409), ("free@example.com", 200), (BOB, 409)):
        sent = {"email": email, "current_password": WORDS}
        assert (await near.patch(ME, json=sent, headers=headers)).status_code == status
    for email in (BOB, ADA):
        sent = {"email": email, "current_password": WORDS, "password": OTHER_WORDS}
        throttled(await near.patch(ME, json=sent, headers=headers))
    change = {"password": OTHER_WORDS, "current_password": WORDS, "name": "Ada"}
    assert (await near.patch(ME, json=change, headers=headers)).status_code == 200


async def test_wrong_logins_do_not_block_a_password_change(
    narrow: FastAPI, near: AsyncClient
) -> None:
    headers = bearer(await login(near))
    for _ in range(3):
        problem(await try_login(near, password=OTHER_WORDS), 401)
    throttled(await try_login(near))
    change = {"password": OTHER_WORDS, "current_password": WORDS}
    assert (await near.patch(ME, json=change, headers=headers)).status_code == 200


async def test_attempts_are_allowed_again_after_the_window(
    narrow: FastAPI, near: AsyncClient
) -> None:
    for _ in range(2):
        for _ in range(3):
            problem(await try_login(near, password=OTHER_WORDS), 401)
        throttled(await try_login(near))
        await let_the_window_pass(narrow)
    await login(near)


async def test_refused_attempts_do_not_extend_the_window(
    narrow: FastAPI, near: AsyncClient
) -> None:
    await try_login(near, password=OTHER_WORDS)
    before = {attempt.subject: attempt.resets_at for attempt in await attempts(narrow)}
    for _ in range(6):
        await try_login(near, password=OTHER_WORDS)
    assert {attempt.subject: attempt.resets_at for attempt in await attempts(narrow)} == before


async def test_expired_counts_are_deleted(narrow: FastAPI, near: AsyncClient) -> None:
    for number in range(4):
        await try_login(near, f"{number}@example.com")
    await let_the_window_pass(narrow)
    await try_login(near)
    assert len(await attempts(narrow)) == 3


async def test_workers_share_the_counts(live_url: str, narrow: FastAPI, near: AsyncClient) -> None:
    other = create_app(narrow.state.settings)
    async with other.router.lifespan_context(other), calling_from(other, "192.0.2.1") as client:
        for each in (near, client, near):
            problem(await try_login(each, password=OTHER_WORDS), 401)
        throttled(await try_login(client, password=WORDS))
        throttled(await try_login(near, password=WORDS))


async def test_concurrent_attempts_are_all_counted(narrow: FastAPI) -> None:
    async with calling_from(narrow, "192.0.2.7") as client:
        responses = await asyncio.gather(
            *(try_login(client, password=OTHER_WORDS) for _ in range(20))
        )
    assert Counter(response.status_code for response in responses) == {401: 3, 429: 17}
    assert set((await counts(narrow)).values()) == {3}


async def test_a_refused_attempt_only_reads(
    anonymous: AsyncClient, app: FastAPI, statements: Statements, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = app.state.settings.model_copy(update=LIMITS)
    monkeypatch.setitem(app.state._state, "settings", settings)  # noqa: SLF001
    for _ in range(3):
        problem(await try_login(anonymous, password=OTHER_WORDS), 401)
    before = await counts(app)
    for email in (ADA, ADA, ADA):
        statements.clear()
        throttled(await try_login(anonymous, email))
        assert len(statements) == 1, statements.sent
        assert statements.sent[0].startswith("SELECT")
    assert await counts(app) == before


async def test_the_table_contains_no_address(narrow: FastAPI, near: AsyncClient) -> None:
    await try_login(near)
    stored = await attempts(narrow)
    assert len(stored) == 3
    for attempt in stored:
        assert len(attempt.subject) == 64
        assert set(attempt.subject) <= set("0123456789abcdef")


async def test_an_attempt_without_a_result_is_not_counted(
    narrow: FastAPI, near: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem(await try_login(near, password=OTHER_WORDS), 401)
    before = await counts(narrow)
    async with calling_from(narrow, "192.0.2.200") as client:
        await add_user(narrow.state.database, "eve@example.com")
        headers = bearer(await login(client, "eve@example.com"))
    change = {"password": OTHER_WORDS, "current_password": WORDS}
    with monkeypatch.context() as patch:
        patch.setattr(hashing, "_queue", lambda *_: Busy(1, 1))
        for _ in range(12):
            problem(await try_login(near), 503)
            problem(await near.patch(ME, json=change, headers=headers), 503)
            problem(await near.post(USERS, json=body(BOB)), 503)
    # A wrong guess stays counted.
    after = await counts(narrow)
    assert {subject: after[subject] for subject in before} == before
    assert sum(after.values()) == sum(before.values())
    await login(near)


async def test_a_cancelled_attempt_is_not_counted(narrow: FastAPI) -> None:
    db: Database = narrow.state.database
    limits = user_limits(narrow.state.settings, UUID(int=1), "192.0.2.1", "password")
    inside = asyncio.Event()

    async def wait() -> None:
        async with throttle.throttled(db, limits):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await inside.wait()
    assert set((await counts(narrow)).values()) == {1}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert set((await counts(narrow)).values()) == {0}
