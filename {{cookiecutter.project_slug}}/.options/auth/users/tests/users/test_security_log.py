"""The security log: one line for each event, without secrets, that clients can't forge."""

import json
import logging
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient
from sqlalchemy import Column, ForeignKey, MetaData, Table, delete, insert, update

from app.kit.db.engine import Database
from app.kit.security_log import security_event
from app.users.models import User, UserSession
from tests import caller
from tests.conftest import problem, running
from tests.kit.serving import serving
from tests.users.helpers import (
    ADA,
    BOB,
    KEYS,
    LOGOUT,
    ME,
    OTHER_WORDS,
    REFRESH,
    USERS,
    WORDS,
    add_key,
    add_user,
    bearer,
    body,
    count,
    login,
    past,
    refresh,
    register,
    try_login,
)

blockers = Table(
    "tests_blockers",
    MetaData(),
    # Checked only at commit, on both databases.
    Column("user_id", ForeignKey(User.id, deferrable=True, initially="DEFERRED")),
)

SENT = {"X-Request-ID": "request-1"}


class Log:
    """The lines of the security log so far."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.caplog = caplog

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines since the last call."""
        records = [each for each in self.caplog.records if each.name == "app.security"]
        messages = [record.getMessage() for record in records]
        self.caplog.clear()
        assert all(len(message.splitlines()) == 1 for message in messages)
        return [json.loads(message) for message in messages]

    def one(self, event: str, **fields: Any) -> dict[str, Any]:
        """Return the only line since the last call, with these fields."""
        (line,) = self.lines()
        assert line["event"] == event
        assert line["address"] == "127.0.0.1"
        assert line["request_id"] == "request-1"
        assert {name: line.get(name) for name in fields} == fields
        return line


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, anonymous: AsyncClient) -> Log:
    """Return the security log of a client."""
    caplog.set_level(logging.INFO, logger="app.security")
    anonymous.headers.update(SENT)
    return Log(caplog)


async def test_each_event_is_logged(
    anonymous: AsyncClient, db: Database, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = [WORDS, OTHER_WORDS, ADA]
    written = ""

    def one(event: str, **fields: Any) -> None:
        nonlocal written
        written += caplog.text
        log.one(event, **fields)

    ada = (await register(anonymous))["id"]
    one("registered", user=ada)
    await try_login(anonymous, password=OTHER_WORDS)
    one("sign_in_failed", user=ada)
    await try_login(anonymous, "nobody@example.com")
    one("sign_in_failed", user=None)
    tokens = await login(anonymous)
    one("signed_in", user=ada)
    secrets += [tokens["access_token"], tokens["refresh_token"]]
    headers = bearer(tokens)

    key = (await anonymous.post(KEYS, json={"name": "k"}, headers=headers)).json()
    one("api_key_created", user=ada, api_key=key["id"])
    secrets.append(key["key"])
    await anonymous.delete(f"{KEYS}/{key['id']}", headers=headers)
    one("api_key_revoked", user=ada, api_key=key["id"])

    fresh = await refresh(anonymous, tokens)
    assert log.lines() == []
    secrets += [fresh["access_token"], fresh["refresh_token"]]

    wrong = {"password": OTHER_WORDS, "current_password": OTHER_WORDS}
    await anonymous.patch(ME, json=wrong, headers=headers)
    one("password_check_failed", user=ada)
    await anonymous.patch(ME, json=wrong | {"current_password": WORDS}, headers=headers)
    one("password_changed", user=ada)
    tokens = await login(anonymous, password=OTHER_WORDS)
    one("signed_in", user=ada)
    root = await caller.superuser(db)
    changed = await anonymous.patch(f"{USERS}/{ada}", json={"is_superuser": True}, headers=root)
    assert changed.status_code == 200
    superuser = str(caller.CALLERS_CREATED[-1])
    one("user_changed", user=ada, caller=superuser, is_superuser=True)
    tokens = await login(anonymous, password=OTHER_WORDS)  # a change of role ends sessions
    one("signed_in", user=ada)
    await anonymous.delete(ME, headers=bearer(tokens))
    one("user_deleted", user=ada)
    assert not [secret for secret in secrets if secret in written]


async def test_a_reused_refresh_token_is_logged(anonymous: AsyncClient, log: Log) -> None:
    ada = (await register(anonymous))["id"]
    tokens = await login(anonymous)
    await refresh(anonymous, await refresh(anonymous, tokens))
    log.lines()
    sent = {"refresh_token": tokens["refresh_token"]}
    assert (await anonymous.post(REFRESH, json=sent)).status_code == 401
    log.one("refresh_token_reused")
    for _ in range(2):  # of a session that has ended
        assert (await anonymous.post(REFRESH, json=sent)).status_code == 401
        log.one("refused", status=401, reason="invalid_refresh_token")
    tokens = await login(anonymous)
    (signed_in,) = log.lines()
    await anonymous.post(LOGOUT, json={"refresh_token": tokens["refresh_token"]})
    log.one("signed_out", user=ada, session=signed_in["session"])


async def test_a_throttled_attempt_is_logged(
    anonymous: AsyncClient, app: FastAPI, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"throttle_per_email_and_address": 1}
    settings = app.state.settings.model_copy(update=limits)
    monkeypatch.setitem(app.state._state, "settings", settings)  # noqa: SLF001
    await add_user(app.state.database, ADA)
    await try_login(anonymous, password=OTHER_WORDS)
    log.lines()
    assert (await try_login(anonymous)).status_code == 429
    log.one("throttled", limits=["email_and_address"])


@pytest.mark.parametrize("given", ["a\nb", 'x", "event": "signed_in', "x" * 101, "\u2028", "a b"])
async def test_log_lines_can_not_be_forged(anonymous: AsyncClient, log: Log, given: str) -> None:
    security_event("test", detail=given)
    (line,) = log.lines()
    assert line == {"event": "test", "detail": given}
    headers = [(b"X-Request-ID", given.encode())]
    del anonymous.headers["X-Request-ID"]
    sent = {"username": f"{given}@example.com", "password": WORDS}
    await anonymous.post("/v1/auth/token", data=sent, headers=headers)
    await anonymous.post("/v1/auth/token", data=sent | {"username": ADA}, headers=headers)
    for line in log.lines():
        assert re.fullmatch("[0-9a-f]{32}", line.pop("request_id"))
        assert line == {"event": "sign_in_failed", "address": "127.0.0.1"}


async def test_refusals_are_logged_with_the_reason(
    anonymous: AsyncClient, db: Database, log: Log
) -> None:
    async def one(url: str, headers: dict[str, str], status: int, reason: str, **who: Any) -> None:
        assert (await anonymous.post(url, json={}, headers=headers)).status_code == status
        log.one("refused", status=status, reason=reason, **who)

    await one(KEYS, {}, 401, "no_credential", user=None)
    await one(KEYS, {"Authorization": "Bearer x"}, 401, "invalid_token", user=None)
    await one(KEYS, {"X-API-Key": "x"}, 401, "invalid_key", user=None)
    ada = await add_user(db, ADA)
    key = await add_key(db, ada, "read")
    await one(KEYS, key, 403, "scope", user=str(ada.id))
    key = await add_key(db, ada, "read", "write")
    await one(KEYS, key, 403, "api_key", user=str(ada.id))
    headers = bearer(await login(anonymous))
    log.lines()
    assert (await anonymous.get(USERS, headers=headers)).status_code == 403
    log.one("refused", status=403, reason="not_superuser", user=str(ada.id))
    async with db.transaction() as session:
        await session.execute(update(UserSession).values(created_at=past(301)))
    assert (await anonymous.delete(ME, headers=headers)).status_code == 403
    log.one("refused", reason="old_sign_in", user=str(ada.id))


async def test_registrations_that_are_refused_have_a_line(
    anonymous: AsyncClient, app: FastAPI, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(anonymous)
    log.lines()
    problem(await anonymous.post(USERS, json=body()), 409)
    log.one("refused", status=409, reason="email_taken")
    settings = app.state.settings.model_copy(update={"registration_open": False})
    monkeypatch.setitem(app.state._state, "settings", settings)  # noqa: SLF001
    problem(await anonymous.post(USERS, json=body()), 403)
    log.one("refused", status=403, reason="registration_closed")


async def test_a_new_address_that_is_taken_has_a_line(
    anonymous: AsyncClient, db: Database, log: Log
) -> None:
    ada = await add_user(db, ADA)
    await add_user(db, BOB)
    sent = {"email": BOB, "current_password": WORDS}
    problem(await anonymous.patch(ME, json=sent, headers=caller.headers(ada)), 409)
    log.one("refused", status=409, reason="email_taken", user=str(ada.id))


async def test_events_are_logged_after_the_commit_only(
    live_app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="app.security")
    async with running(live_app) as client:
        db: Database = live_app.state.database
        ada = await add_user(db, ADA)
        headers = bearer(await login(client))
        async with db.write_engine.begin() as connection:
            await connection.run_sync(blockers.create)
            await connection.execute(insert(blockers), {"user_id": ada.id})
        problem(await client.delete(ME, headers=headers), 409)  # the commit fails
        assert await count(db, User) == 1
        assert "user_deleted" not in caplog.text
        async with db.write_engine.begin() as connection:
            await connection.execute(delete(blockers))
        assert (await client.delete(ME, headers=headers)).status_code == 204
        assert caplog.text.count("user_deleted") == 1


async def test_the_server_writes_json_with_time_and_level(live_url: str) -> None:
    async with serving(live_url) as service:
        async with AsyncClient(base_url=service.url) as client:
            before = datetime.now(UTC)
            sent = {"username": ADA, "password": WORDS}
            response = await client.post("/v1/auth/token", data=sent)
            assert response.status_code == 401
        await service.logged("sign_in_failed")
        (text,) = [line for line in service.lines if "sign_in_failed" in line]
        line = json.loads(text)
        time = datetime.fromisoformat(line["time"])
        assert time.utcoffset() == timedelta(0)
        assert before - timedelta(seconds=1) <= time <= datetime.now(UTC)
        assert line["level"] == "warning"
        assert line["request_id"] == response.headers["x-request-id"]


async def test_events_are_counted(live_url: str) -> None:
    token = "a-token-of-prometheus"  # noqa: S105 - of a test
    settings = {"metrics_token": token, "throttle_per_email_and_address": "2"}
    async with (
        serving(live_url, **settings) as service,
        AsyncClient(base_url=service.url) as client,
    ):
        responses = [await try_login(client) for _ in range(4)]
        assert [response.status_code for response in responses] == [401, 401, 429, 429]
        headers = {"Authorization": f"Bearer {token}"}
        metrics = (await client.get("/metrics", headers=headers)).text
    assert 'app_security_events_total{event="sign_in_failed"} 2.0' in metrics
    assert 'app_security_events_total{event="throttled"} 2.0' in metrics
