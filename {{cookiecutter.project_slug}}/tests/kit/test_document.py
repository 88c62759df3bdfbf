"""The OpenAPI document describes the service in a way that client generators understand."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient, Response

from app.kit.openapi import HEADERS
from app.kit.routing import Router, check_routes
from tests import caller
from tests.conftest import PATIENCE
from tests.kit.openapi import NoExample, Operation, operations
from tests.kit.serving import serving
from tests.kit.test_bad_input import trying

# Headers that differ between two requests, or describe the transfer of the body.
OWN_HEADERS = {"x-request-id", "date"}


def same_headers(one: Response, other: Response) -> bool:
    def compared(response: Response) -> Mapping[str, str]:
        return {name: value for name, value in response.headers.items() if name not in OWN_HEADERS}

    return compared(one) == compared(other)


async def test_head_is_get_without_a_body(shared_app: FastAPI) -> None:
    async with trying(shared_app, caller.CALLERS[-1]) as api:
        read = [each for each in api.operations if each.method == "GET"]
        for operation in read:
            path = operation.request(await api.example(operation)).path.decode()
            got, head = await api.client.get(path), await api.client.head(path)
            assert head.status_code == got.status_code, str(operation)
            assert same_headers(head, got), str(operation)
            assert head.content == b"", str(operation)
            known = {"If-None-Match": got.headers.get("etag", "")}
            if known["If-None-Match"]:
                assert (await api.client.head(path, headers=known)).status_code == 304
        assert read


async def test_head_of_a_running_service(live_url: str) -> None:
    async with (
        serving(live_url) as service,
        AsyncClient(base_url=service.url, timeout=PATIENCE) as client,
    ):
        # A client would read a body as the beginning of the next response.
        for path in ("/health/live", "/nowhere", "/openapi.json", "/health/live"):
            got, head = await client.get(path), await client.head(path)
            assert head.status_code == got.status_code
            assert head.headers["content-length"] == got.headers["content-length"] != "0"


def undeclared(operation: Operation, response: Response) -> list[str]:
    """Return the headers of a response that the document does not declare."""
    responses = operation.definition["responses"]
    declared = operation.document.resolve(responses.get(str(response.status_code), {}))
    known = {name.lower() for name in declared.get("headers", {})}
    return [name for name in HEADERS if name.lower() in response.headers.keys() - known]


async def test_headers_are_declared(shared_app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    caller.hash_cheaply(monkeypatch)
    found = []
    for who, operation in itertools.product(caller.CALLERS, operations(shared_app)):
        async with trying(shared_app, who) as api:
            example = await api.example(operation)
            headers = {b"idempotency-key": b"one"} if operation.has("Idempotency-Key") else {}
            try:
                request = operation.request(example, sent=api.names, headers=headers)
            except NoExample:
                continue
            for _ in range(2):
                response = await request.send(api.app, api.headers)
                found += [
                    f"{operation} sends {name} with {response.status_code}: declare it with "
                    f'responses=response_headers({response.status_code}, "{name}").'
                    for name in undeclared(operation, response)
                ]
    assert not found, "\n".join(found)


def test_conditional_reads_declare_their_header(shared_app: FastAPI) -> None:
    """A client made from the document can send the ETag that it has."""
    for operation in operations(shared_app):
        is_conditional = "304" in operation.definition["responses"]
        assert operation.has("If-None-Match") == is_conditional, str(operation)


def test_every_operation_declares_its_security(shared_app: FastAPI) -> None:
    assert [str(each) for each in operations(shared_app) if "security" not in each.definition] == []


def test_every_tag_is_described(shared_app: FastAPI) -> None:
    document = shared_app.openapi()
    described = {tag["name"] for tag in document["tags"] if tag["description"]}
    assert described >= {
        tag for each in operations(shared_app) for tag in each.definition.get("tags", ())
    }


def test_no_parameter_allows_null(shared_app: FastAPI) -> None:
    for operation in operations(shared_app):
        for parameter in operation.parameters:
            assert not parameter.schema.is_kind("null"), f"{operation} {parameter.name}"


def fields(value: object, schemas: dict[str, Any], seen: set[str]) -> Iterator[tuple[str, Any]]:
    """Return the fields of a schema and of those that it refers to, each with its schema."""
    if isinstance(value, list):
        for each in value:
            yield from fields(each, schemas, seen)
    if isinstance(value, dict):
        yield from value.get("properties", {}).items()
        for each in value.values():
            yield from fields(each, schemas, seen)
        name = str(value.get("$ref", "")).rpartition("/")[2]
        if name and name not in seen:
            seen.add(name)
            yield from fields(schemas[name], schemas, seen)


def test_no_field_of_a_request_has_a_default(shared_app: FastAPI) -> None:
    # Generators of clients would make it a required one.
    schemas = shared_app.openapi()["components"]["schemas"]
    for operation in operations(shared_app):
        for name, schema in fields(operation.definition.get("requestBody"), schemas, set()):
            assert "default" not in schema, f"{operation} {name}"


async def first() -> None:
    """Do nothing."""


async def second() -> None:
    """Do nothing."""


def test_duplicate_operation_ids_stop_the_app() -> None:
    def app_with(name: str) -> FastAPI:
        app = FastAPI(generate_unique_id_function=lambda route: route.name)
        router = Router(prefix="/articles")
        router.add_api_route("", first, methods=["GET"])
        router.add_api_route("/{key}", second, methods=["PUT"], name=name)
        app.include_router(router, prefix="/v1")
        return app

    check_routes(app_with("second"))
    with pytest.raises(RuntimeError) as caught:
        check_routes(app_with("first"))
    assert str(caught.value).startswith(
        "GET /v1/articles and PUT /v1/articles/{key} have the same operation id, 'first'"
    )
