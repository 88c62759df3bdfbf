"""Every error is a problem document without internal details."""

import logging
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Form, Query, Request
from httpx2 import ASGITransport, AsyncClient, Response
from pydantic import AfterValidator, Field
from sqlalchemy import insert, select, text

from app.kit.db.engine import Database
from app.kit.db.session import ReadSessionDep, SessionDep
from app.kit.errors import (
    MAX_ECHO,
    MAX_ERRORS,
    MAX_KINDS,
    NOT_MIGRATED,
    CauseLog,
    Conflict,
    FieldError,
    UnhandledErrorMiddleware,
    install,
)
from app.kit.idempotency.models import IdempotencyKey
from app.kit.routing import Router
from app.kit.schemas import CamelRequestModel, RequestModel, Text
from app.main import create_app
from tests.conftest import calling, problem, running, settings_for
from tests.database import Databases
from tests.kit.sample_feature import add_things


async def test_an_unknown_path(client: AsyncClient) -> None:
    assert problem(await client.get("/nowhere"), 404)["instance"] == "/nowhere"


async def test_an_unsupported_method(client: AsyncClient) -> None:
    response = await client.delete("/health/live")
    assert problem(response, 405)["title"] == "Method Not Allowed"
    assert response.headers["allow"] == "GET, HEAD"
    problem(await client.request("TRACE", "/health/live"), 405)


async def test_allow_lists_every_method_of_a_path(things: AsyncClient) -> None:
    response = await things.put("/things")
    problem(response, 405)
    assert response.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("declared", [True, False], ids=["by its length", "in parts"])
async def test_a_body_that_is_too_large(
    things_app: FastAPI, things: AsyncClient, *, declared: bool, method: str
) -> None:
    router = Router()

    @router.api_route("/read", methods=["GET", "POST"])
    async def read(request: Request) -> int:
        return len(await request.body())

    sent = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 2**16
            yield b"x" * 2**16

    headers = {"content-type": "application/json"}
    if declared:
        headers["content-length"] = "1000000000"
    routes = list(things_app.router.routes)
    things_app.include_router(router)
    problem(await things.request(method, "/read", content=parts(), headers=headers), 413)
    things_app.router.routes[:] = routes
    assert sent <= 2**21  # the rest is never read


@pytest.mark.parametrize("length", ["9" * 5000, "1" * 30])
async def test_a_content_length_with_many_digits_is_refused(
    things: AsyncClient, length: str
) -> None:
    headers = {"content-length": length}
    problem(await things.post("/things", content=b"{}", headers=headers), 413)


async def test_headers_that_are_too_large(things: AsyncClient) -> None:
    problem(await things.get("/things", headers={"x": "x" * 33_000}), 431)
    assert (await things.get("/things", headers={"x": "x" * 30_000})).status_code == 200


@pytest.mark.parametrize("query", ["limit=%ff", "limit=1&%c3=1", "limit=%ed%a0%80"])
async def test_a_query_that_is_not_utf_8(things: AsyncClient, query: str) -> None:
    problem(await things.get(f"/things/entries?{query}"), 422)


async def test_an_object_with_too_many_keys(things: AsyncClient) -> None:
    response = await things.post("/things", json={f"{number}": 1 for number in range(1001)})
    (error,) = problem(response, 422)["errors"]
    assert error["message"] == "Not JSON: An object has too many keys"


async def test_a_duplicate_key(things: AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    response = await things.post("/things", content=b'{"id": 1, "id": 2}', headers=headers)
    (error,) = problem(response, 422)["errors"]
    assert error["message"] == "Not JSON: An object repeats a key"


class Search(RequestModel):
    name: str = ""
    tag: list[str] = Field(default_factory=list)


async def in_query(name: str, tag: Annotated[list[str], Query()]) -> list[str]:
    return [name, *tag]


async def in_query_model(search: Annotated[Search, Query()]) -> list[str]:
    return [search.name, *search.tag]


async def in_form(search: Annotated[Search, Form()]) -> list[str]:
    return [search.name, *search.tag]


@pytest.mark.parametrize("endpoint", [in_query, in_query_model, in_form])
async def test_a_parameter_that_is_sent_twice(endpoint: Callable[..., Any]) -> None:
    app, router = FastAPI(), Router()
    is_form = endpoint is in_form
    if is_form:
        pytest.importorskip("python_multipart")  # there are no forms without it
    router.add_api_route("/", endpoint, methods=["POST"])
    app.include_router(router)
    install(app, max_body_size=1000)
    async with calling(app) as client:

        async def send(text: str) -> Response:
            headers = {"content-type": "application/x-www-form-urlencoded"} if is_form else {}
            url = "/" if is_form else f"/?{text}"
            return await client.post(url, content=text if is_form else "", headers=headers)

        assert (await send("name=a&tag=b&tag=c")).json() == ["a", "b", "c"]
        for text in ("name=a&tag=b&name=z", "name=a&tag=b&name=a"):
            (error,) = problem(await send(text), 422)["errors"]
            assert error["field"] == f"{'body' if is_form else 'query'}.name"
            assert error["message"] == "Sent more than once"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"{", ["body.1"]),
        (b"", ["body"]),
        (b"[]", ["body"]),
        (b'{"id": NaN}', ["body.id"]),
        (b'{"id": 1e400}', ["body.id"]),
        (b'{"id": 99999999999999999999}', ["body.id"]),
        (b'{"id": 1, "name": "a\\u0000b"}', ["body.name"]),
        (b'{"id": 1, "name": "\\ud800"}', ["body.name"]),
        (b'{"id": 1, "name": "12345678901"}', ["body.name"]),
        (b'{"id": 1, "\\ud800": 1}', ["body"]),
        (b'{"id": "x", "other": 1}', ["body.id", "body.other"]),
    ],
)
async def test_bad_input_names_the_field(
    things: AsyncClient, body: bytes, fields: list[str]
) -> None:
    headers = {"content-type": "application/json"}
    response = await things.post("/things", content=body, headers=headers)
    errors = problem(response, 422)["errors"]
    assert [error["field"] for error in errors] == fields


@pytest.mark.parametrize(
    "body",
    [
        b'{"id": ' + b"9" * 5000 + b"}",
        b'{"id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"id": "\xff"}',
    ],
    ids=["5,000 digits", "100,000 deep", "not UTF-8"],
)
async def test_an_unreadable_body(things: AsyncClient, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    problem(await things.post("/things", content=body, headers=headers), 422)


async def test_errors_quote_little_of_the_input(things: AsyncClient) -> None:
    body = {"id": 1} | {f"{number}{'x' * 10_000}": 1 for number in range(50)}
    response = await things.post("/things", json=body)
    document = problem(response, 422)
    assert document["detail"] == "50 errors."
    assert len(document["errors"]) == MAX_ERRORS
    assert len(response.content) < MAX_ERRORS * (MAX_ECHO + 200)
    assert len((await things.get(f"/{'x' * 10_000}")).content) < MAX_ECHO + 300


async def test_a_duplicate_value_names_its_field(things: AsyncClient) -> None:
    await things.post("/things", json={"id": 1, "name": "secret"})
    response = await things.post("/things", json={"id": 2, "name": "secret"})
    document = problem(response, 409)
    assert [error["field"] for error in document["errors"]] == ["body.name"]
    assert "secret" not in response.text
    assert "INSERT" not in response.text


class Person(CamelRequestModel):
    user_name: Text
    friends: list["Person"] = Field(default_factory=list)


class Envelope(RequestModel):
    person: Person | None
    other: int = 0


@pytest.mark.parametrize(
    ("columns", "fields"),
    [
        (["user_name"], ["body.person.userName"]),
        (["other", "user_name"], ["body.other", "body.person.userName"]),
        (["owner_id", "user_name"], ["body.person.userName"]),
        (["group_id"], ["path.group_id"]),
        (["nowhere"], ["nowhere"]),
        (["header.If-Match"], ["header.If-Match"]),
    ],
)
async def test_a_duplicate_value_is_named_as_in_the_request(
    columns: list[str], fields: list[str]
) -> None:
    app, router = FastAPI(), Router()

    @router.post("/groups/{group_id}")
    async def create(group_id: int, body: Envelope) -> None:
        raise Conflict("Taken.", errors=[FieldError(field=each, message="x") for each in columns])

    app.include_router(router)
    install(app, max_body_size=1000)
    async with calling(app) as client:
        response = await client.post("/groups/1", json={"person": {"userName": "x"}})
    assert [error["field"] for error in problem(response, 409)["errors"]] == fields


OURS = "This is a message of the service. " * 5


def refuse(text: str) -> str:
    raise ValueError(OURS if len(text) < 10 else text)


class Refused(RequestModel):
    text: Annotated[Text, Field(min_length=2, max_length=150)] = "xx"
    other: Annotated[str, AfterValidator(refuse)] = ""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"text": "x" * 151}, "String should have at most 150 characters"),
        ({"text": "x"}, "String should have at least 2 characters"),
        ({"other": "x"}, OURS),
        ({"other": "x" * 1000}, "x" * MAX_ECHO + "..."),
    ],
    ids=["too long", "too short", "a message of the service", "an echo"],
)
async def test_validation_messages_are_complete(body: dict[str, str], message: str) -> None:
    app, router = FastAPI(), Router()

    @router.post("/")
    async def create(body: Refused) -> None: ...

    app.include_router(router)
    install(app, max_body_size=10_000)
    async with calling(app) as client:
        (error,) = problem(await client.post("/", json=body), 422)["errors"]
    assert error["message"] == message


def test_a_cause_is_logged_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    times = iter([0.0, 0.1, 0.2, 0.9, 1.0, 1.1, 5.0])
    causes = CauseLog(lambda: next(times))
    for cause in ("one", "one", "other", "one", "one", "one", "one"):
        causes.add("Away.", cause)
    assert caplog.messages == [
        "503: Away. (one)",
        "503: Away. (other)",
        "503: Away. (one) and 2 more",
        "503: Away. (one) and 1 more",
    ]


def test_the_number_of_logged_causes_is_limited(caplog: pytest.LogCaptureFixture) -> None:
    causes = CauseLog(lambda: 0.0)
    for number in range(10 * MAX_KINDS):
        causes.add("Away.", f"{number}")
        assert len(causes._kinds) <= MAX_KINDS + 1  # noqa: SLF001


@pytest.mark.parametrize(
    "statement",
    ["INSERT INTO tests_entries (version) VALUES (1)", "SELECT nothing FROM tests_entries"],
    ids=["NOT NULL", "no such column"],
)
async def test_a_server_defect_is_not_reported_as_a_client_error(
    live_app: FastAPI, live: AsyncClient, caplog: pytest.LogCaptureFixture, statement: str
) -> None:
    await add_things(live_app)
    router = Router()

    @router.post("/defect")
    async def defect(session: SessionDep) -> None:
        await session.execute(text(statement))

    live_app.include_router(router)
    problem(await live.post("/defect"), 500)
    assert "Unhandled error in POST /defect" in caplog.text
    assert "DBAPIError" in caplog.text or "IntegrityError" in caplog.text or "Error)" in caplog.text


async def test_a_write_through_a_read_session_is_a_server_error(
    live_app: FastAPI, live: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await add_things(live_app)
    router = Router()

    @router.get("/writes")
    async def write(session: ReadSessionDep) -> None:
        await session.execute(text("DELETE FROM tests_things"))

    live_app.include_router(router)
    problem(await live.get("/writes"), 500)
    assert "InvalidRequestError: A read session can't write: use a transaction" in caplog.text


async def test_a_missing_schema_is_503_and_one_line_in_the_log(
    databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    url = await databases.create()
    app = create_app(settings_for(url))
    router = Router()

    @router.get("/keys")
    async def keys(session: ReadSessionDep) -> None:
        await session.execute(select(IdempotencyKey))

    app.include_router(router)
    async with running(app) as client:
        assert caplog.messages.count(f"Not ready: {NOT_MIGRATED}") == 1
        caplog.clear()
        responses = [await client.get("/keys") for _ in range(3)]
    assert [problem(response, 503)["detail"] for response in responses] == [NOT_MIGRATED] * 3
    (line, *_) = caplog.messages
    assert line.startswith(f"503: {NOT_MIGRATED} (")
    assert "idempotency_keys" in line
    assert len(caplog.messages) < 3 or "more" in caplog.text
    await databases.drop(url)


async def test_a_schema_without_a_column_is_503_and_one_line(
    live_app: FastAPI, live: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    database: Database = live_app.state.database
    async with database.transaction() as session:
        await session.execute(text("ALTER TABLE idempotency_keys RENAME COLUMN key TO other"))
    router = Router()

    @router.get("/keys")
    async def keys(session: ReadSessionDep) -> None:
        await session.execute(select(IdempotencyKey))

    @router.post("/keys")
    async def add(session: SessionDep) -> None:
        await session.execute(insert(IdempotencyKey).values(key="x", caller="x"))

    @router.get("/typo")
    async def typo(session: ReadSessionDep) -> None:
        await session.execute(text("SELECT kez FROM idempotency_keys"))

    live_app.include_router(router)
    for answer in [await live.get("/keys") for _ in range(3)] + [await live.post("/keys")]:
        assert problem(answer, 503)["detail"] == NOT_MIGRATED
    (line, *_) = caplog.messages
    assert line.startswith(f"503: {NOT_MIGRATED} (")
    assert "key" in line
    assert "Traceback" not in caplog.text
    problem(await live.get("/typo"), 500)


async def test_an_unexpected_error(things: AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        response = await things.post("/things/crash", json={"id": 1})
    problem(response, 500)
    assert "secret" not in response.text
    assert "secret: unexpected" in caplog.text  # with its traceback


async def test_an_error_after_the_response_started_closes_the_connection() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("half-way")

    transport = ASGITransport(UnhandledErrorMiddleware(app))
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        with pytest.raises(RuntimeError, match="half-way"):
            await client.get("/")


def test_openapi_declares_the_errors_of_every_operation(shared_app: FastAPI) -> None:
    document = shared_app.openapi()
    assert document["components"]["schemas"]["Problem"]["properties"]["errors"]
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            failures = {
                status: response
                for status, response in operation["responses"].items()
                if status >= "400"
            }
            assert path.startswith("/health/") or {"422", "503"} <= set(failures)
            for response in failures.values():
                assert list(response["content"]) == ["application/problem+json"]
