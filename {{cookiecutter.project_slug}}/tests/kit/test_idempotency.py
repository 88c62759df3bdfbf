"""A request that is sent again with the same ``Idempotency-Key`` runs once."""

import asyncio
from datetime import timedelta

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient, Response
from sqlalchemy import func, select, update

from app.kit.db.engine import Database
from app.kit.db.models import now
from app.kit.errors import Unavailable
from app.kit.idempotency import session as idempotency
from app.kit.idempotency.models import IdempotencyKey
from app.kit.idempotency.repository import DELETED_AT_ONCE, IdempotencyRepository, delete_expired
from app.main import create_app
from tests.conftest import PATIENCE, calling, problem, running, settings_for
from tests.kit.sample_feature import add_things

ONCE = "/things/once"


async def send(client: AsyncClient, key: str, number: int = 1, path: str = ONCE) -> Response:
    return await client.post(path, json={"id": number}, headers={"Idempotency-Key": key})


async def count(database: Database) -> int:
    async with database.reading() as session:
        return await session.scalar(select(func.count()).select_from(IdempotencyKey)) or 0


async def test_the_stored_response_is_returned_again(things: AsyncClient) -> None:
    first = await send(things, "a key")
    again = await send(things, "a key")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again.headers.pop("idempotent-replayed") == "true"
    assert again.headers.pop("x-request-id") != first.headers.pop("x-request-id")
    assert again.headers == first.headers
    assert (await things.get("/things")).json() == [1]


async def test_without_a_key_each_request_runs(things: AsyncClient) -> None:
    assert (await things.post(ONCE, json={"id": 1})).status_code == 201
    assert (await things.post(ONCE, json={"id": 1})).status_code == 409


async def test_a_key_may_be_quoted(things: AsyncClient) -> None:
    await send(things, '"a key"')
    assert "idempotent-replayed" in (await send(things, "a key")).headers


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "a\tb", "\xe9", 'a"b'])
async def test_invalid_keys_are_refused(things: AsyncClient, key: str) -> None:
    headers = {b"idempotency-key": key.encode("latin-1")}
    response = await things.post(ONCE, json={"id": 1}, headers=headers)
    (error,) = problem(response, 422)["errors"]
    assert error["field"] == "header.Idempotency-Key"


async def test_a_key_is_valid_for_one_request(things: AsyncClient) -> None:
    await send(things, "a key")
    problem(await send(things, "a key", number=2), 422)
    problem(await send(things, "a key", path=f"{ONCE}?x=1"), 422)
    assert (await things.get("/things")).json() == [1]


async def test_a_refused_request_may_be_retried(things: AsyncClient) -> None:
    await things.post("/things", json={"id": 1})
    problem(await send(things, "a key"), 409)
    assert (await send(things, "a key", number=2)).status_code == 201


async def test_a_stored_response_belongs_to_its_caller(
    things_app: FastAPI, things: AsyncClient
) -> None:
    database: Database = things_app.state.database
    async with database.transaction() as session:
        response = {"fingerprint": b"x", "status": 201, "headers": {}, "body": b"secret"}
        await IdempotencyRepository(session).save(caller="somebody", key="a key", **response)
    first = await send(things, "a key")
    assert first.status_code == 201
    assert "idempotent-replayed" not in first.headers


async def test_two_keys_are_refused(things: AsyncClient) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    (error,) = problem(await things.post(ONCE, json={"id": 1}, headers=headers), 422)["errors"]
    assert error["field"] == "header.Idempotency-Key"


async def test_a_request_that_is_still_running_is_409(live_app: FastAPI, live: AsyncClient) -> None:
    await add_things(live_app)
    responses = await asyncio.gather(*(send(live, "a key") for _ in range(20)))
    codes = [response.status_code for response in responses]
    assert codes.count(201) + codes.count(409) == 20
    firsts = [response for response in responses if response.status_code == 201]
    assert (
        len([response for response in firsts if "idempotent-replayed" not in response.headers]) == 1
    )
    for response in responses:
        if response.status_code == 409:
            assert response.headers["retry-after"] == "1"
    assert (await live.get("/things")).json() == [1]


async def test_a_request_that_is_still_running_in_another_process_is_409(live_url: str) -> None:
    apps = [create_app(settings_for(live_url)) for _ in range(2)]
    async with (
        apps[0].router.lifespan_context(apps[0]),
        apps[1].router.lifespan_context(apps[1]),
        calling(apps[0]) as one,
        calling(apps[1]) as other,
    ):
        for app in apps:
            await add_things(app)
        responses = await asyncio.gather(
            *(send(client, f"key {n}", number=n) for n in range(10) for client in (one, other))
        )
        codes = {response.status_code for response in responses}
        assert codes in ({201}, {201, 409})
        assert sorted((await one.get("/things")).json()) == list(range(10))


async def test_a_response_whose_commit_fails_is_not_stored(
    live_app: FastAPI, live: AsyncClient
) -> None:
    await add_things(live_app)
    headers = {"Idempotency-Key": "a key"}
    # The foreign key is checked at COMMIT, after the response was built and stored.
    problem(await live.post(ONCE, json={"id": 1, "part_of": 99}, headers=headers), 409)
    again = await live.post(ONCE, json={"id": 1}, headers=headers)
    assert (again.status_code, "idempotent-replayed" in again.headers) == (201, False)


async def test_expired_responses_are_deleted(live_app: FastAPI, live: AsyncClient) -> None:
    await add_things(live_app)
    database: Database = live_app.state.database
    for number in range(3):
        await send(live, f"key {number}", number)
    async with database.transaction() as session:
        old = now() - timedelta(seconds=101)
        await session.execute(
            update(IdempotencyKey).where(IdempotencyKey.key != "key 0").values(created_at=old)
        )
    await delete_expired(database, lifetime=100)
    assert await count(database) == 1
    assert (await send(live, "key 0", 0)).headers["idempotent-replayed"] == "true"
    assert (await send(live, "key 1", 9)).status_code == 201


async def test_expired_responses_are_deleted_in_batches(
    live_app: FastAPI, live: AsyncClient
) -> None:
    database: Database = live_app.state.database
    rows = [
        {"caller": "", "key": str(number), "fingerprint": b"", "body": b""}
        for number in range(DELETED_AT_ONCE + 1)
    ]
    async with database.transaction() as session:
        session.add_all(IdempotencyKey(**row, status=201, headers={}) for row in rows)
    await delete_expired(database, lifetime=-1)
    assert await count(database) == 0


async def test_the_service_deletes_expired_responses_by_itself(
    live_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0
    swept = asyncio.Event()

    async def fail_then_delete(_: Database, lifetime: float) -> None:
        nonlocal tries
        assert lifetime == 60
        tries += 1
        if tries == 1:
            raise Unavailable("The database is away.")
        swept.set()

    monkeypatch.setattr(idempotency, "FIRST_CLEANUP", 0)
    monkeypatch.setattr(idempotency, "CLEANUP_INTERVAL", 0)
    monkeypatch.setattr(idempotency, "delete_expired", fail_then_delete)
    async with running(create_app(settings_for(live_url, idempotency_lifetime=60))):
        await asyncio.wait_for(swept.wait(), PATIENCE)
    assert "The database is away." in caplog.text
