"""The generic tests call any API, find faults in it, and name operations that they can't call."""

import re
from collections.abc import AsyncIterator
from email.parser import BytesParser
from email.policy import HTTP
from typing import Annotated, Any

import jsonschema_rs
import pytest
from fastapi import Cookie, Depends, FastAPI, Header, Query, Response, Security
from fastapi.security import (
    APIKeyCookie,
    APIKeyHeader,
    APIKeyQuery,
    HTTPBasic,
    HTTPBearer,
    OAuth2PasswordBearer,
)
from httpx2 import AsyncClient
from httpx2 import Response as Answer
from pydantic import Field

from app.kit.db.engine import Database
from app.kit.errors import Conflict, NotFound, error_responses
from app.kit.routing import Router
from app.kit.schemas import RequestModel, Text
from app.main import create_app
from tests.conftest import calling, settings_for
from tests.database import Databases
from tests.kit import realworld
from tests.kit.openapi import (
    FORM,
    JSON,
    MULTIPART,
    Api,
    Document,
    Example,
    Json,
    NoExample,
    Operation,
    Parameter,
    Request,
    Schema,
    encode,
    key_of,
    operations,
)
from tests.kit.test_bad_input import HINT, credential_findings, findings

DECLARED = error_responses(404, 413, 422, 431)


@pytest.fixture(scope="module")
async def api_url(databases: Databases, template: str) -> AsyncIterator[str]:
    url = await databases.copy(template)
    yield url
    await databases.drop(url)


@pytest.fixture
async def app(api_url: str) -> AsyncIterator[FastAPI]:
    """Return a new app, on which the test mounts routes."""
    app = create_app(settings_for(api_url))
    async with app.router.lifespan_context(app):
        yield app


async def tried(app: FastAPI, **options: Any) -> tuple[list[str], dict[str, list[str]]]:
    async def sign_in(_: Database) -> dict[str, str]:
        if store := getattr(app.state, "realworld", None):
            store.tokens.add(realworld.TOKEN)  # an earlier request may have ended the session
        return {"Authorization": realworld.TOKEN}

    return await findings(app, callers=[sign_in], **options)


async def test_realworld(app: FastAPI) -> None:
    realworld.mount(app)
    found, sent = await tried(app, below=realworld.PREFIX)
    assert not found, "\n".join(found)
    assert len(sent) == 25
    # An operation without input has no bad input.
    assert {name.split("/", 3)[-1] for name, names in sent.items() if not names} == {"user", "tags"}
    fields = {
        "POST /users": ["('user',)", "('user', 'username')", "('user', 'password')"],
        "PUT /user": ["('user', 'bio')", "('user', 'image')"],
        "POST /articles": ["('article', 'title')", "('article', 'tagList', 0)"],
        "PUT /articles/{slug}": ["('article', 'title')"],
        "POST /articles/{slug}/comments": ["('comment', 'body')"],
        "POST /drawings": [
            "('shape', 'shape')",
            "('shape', 'radius')",
            "('shape', 'corners', 0, 0)",
            "('shape', 'label')",
            "('tree', 'children', 0, 'name')",
            "('pair', 0)",
            "('code',)",
        ],
    }
    for operation, places in fields.items():
        method, path = operation.split()
        names = sent[f"{method} {realworld.PREFIX}{path}"]
        assert [place for place in places if f"{JSON}, {place} = NaN" not in names] == []
    drawings = sent[f"POST {realworld.PREFIX}/drawings"]
    assert any(re.search(r"\('colours', '\w+'\) = a NUL$", name) for name in drawings)
    assert f"{JSON}, ('colours',) = a key with a NUL" in drawings
    for place in ("query ids", "header x-client", "cookie session"):
        assert f"{place} = a NUL" in sent[f"GET {realworld.PREFIX}/search"]


class Leaf(RequestModel):
    title: Annotated[str, Field(max_length=50)]
    """Not ``Text``: this accepts a NUL."""


class Envelope(RequestModel):
    article: Leaf


class Branch(RequestModel):
    number: Annotated[int, Field(ge=0, lt=10)]


class Either(RequestModel):
    one: Branch | Leaf


class Nested(RequestModel):
    rows: Annotated[list[list[Leaf]], Field(max_length=3)]


class Free(RequestModel):
    values: dict[str, Annotated[Text, Field(max_length=9)]]


class Tree(RequestModel):
    below: Annotated[list["Tree"], Field(max_length=2)] = Field(default_factory=list)
    leaf: Leaf


def fail(value: object) -> None:
    """Fail like a database that can't store a NUL."""
    if "\\x00" in repr(value) or "%00" in repr(value):
        raise RuntimeError("not stored")


async def in_envelope(body: Envelope) -> None:
    fail(body)


async def in_alternative(body: Either) -> None:
    fail(body)


async def in_rows(body: Nested) -> None:
    fail(body)


async def in_keys(body: Free) -> None:
    fail(body)


async def in_tree(body: Tree) -> None:
    fail(body)


async def in_list(body: list[Leaf]) -> None:
    fail(body)


async def in_query(names: Annotated[list[Annotated[str, Field(max_length=9)]], Query()]) -> None:
    fail(names)


async def in_cookie(name: Annotated[str, Cookie(max_length=9)]) -> None:
    fail(name)


async def in_header(x_name: Annotated[str, Header(max_length=9)]) -> None:
    fail(x_name)


@pytest.mark.parametrize(
    ("handler", "where"),
    [
        (in_envelope, "application/json, ('article', 'title') = a NUL"),
        (in_alternative, "application/json, ('one', 'title') = a NUL"),
        (in_rows, "application/json, ('rows', 0, 0, 'title') = a NUL"),
        (in_keys, "application/json, ('values',) = a key with a NUL"),
        (in_tree, "application/json, ('below', 0, 'leaf', 'title') = a NUL"),
        (in_list, "application/json, (0, 'title') = a NUL"),
        (in_query, "query names = a NUL"),
        (in_cookie, "cookie name = a NUL"),
        (in_header, "header x-name = a NUL"),
    ],
)
async def test_a_fault_is_found(app: FastAPI, handler: Any, where: str) -> None:
    router = Router()
    router.post("/faulty", responses=DECLARED)(handler)
    app.include_router(router)
    found, _ = await tried(app, below="/faulty")
    wanted = f"POST /faulty, {where}: returned 500"
    assert [line for line in found if line.startswith(wanted)], found


async def test_a_missing_example_is_reported_and_can_be_provided(app: FastAPI) -> None:
    router = Router()

    @router.post("/orders/{customer}", status_code=202, responses=DECLARED)
    async def order(customer: Annotated[Text, Field(max_length=9)], body: Leaf) -> None:
        if (customer, body.title) != ("ada", "a good one"):
            raise NotFound("Nobody has this name.")

    app.include_router(router)
    found, sent = await tried(app, below="/orders")
    assert len(found) == 1
    assert found[0].startswith("POST /orders/{customer} can't be tried, ")
    assert found[0].endswith(f": {HINT}.")
    assert "404" in found[0]

    async def example(client: AsyncClient) -> Example:
        assert (await client.get("/health/live")).status_code == 200
        return Example(path={"customer": "ada"}, body={"title": "a good one"})

    examples = {"POST /orders/{customer}": example}
    found, sent = await tried(app, below="/orders", examples=examples)
    # The remaining finding is the fault of the route: it accepts a NUL and returns 404.
    assert found == []
    assert "application/json, ('title',) = a NUL" in sent["POST /orders/{customer}"]


async def test_a_refused_creation_is_reported(app: FastAPI) -> None:
    class Order(RequestModel):
        customer: Annotated[Text, Field(max_length=9)]
        note: Annotated[Text, Field(min_length=1, max_length=9)]

    router = Router()

    @router.post("/orders", status_code=201, responses=error_responses(409, 413, 422))
    async def create(body: Order) -> dict[str, str]:
        if body.customer != "ada":
            raise Conflict("Nobody has this name.")
        return {"order_id": "1"}

    @router.get("/orders/{order_id}", responses=DECLARED)
    async def get(order_id: Annotated[Text, Field(max_length=9)]) -> None:
        if order_id != "1":
            raise NotFound("There is no such order.")

    app.include_router(router)
    found, _ = await tried(app, below="/orders/")
    assert len(found) == 1
    assert found[0].startswith("GET /orders/{order_id} can't be tried, what it needs can't be ")
    assert "POST /orders returned 409" in found[0]

    async def example(client: AsyncClient) -> Example:
        return Example(body={"customer": "ada"})  # the note is generated

    examples = {"POST /orders": example}
    found, sent = await tried(app, below="/orders", examples=examples)
    assert found == []
    assert "application/json, ('note',) = a NUL" in sent["POST /orders"]


async def test_a_refused_valid_request_is_reported(app: FastAPI) -> None:
    router = Router()

    @router.post("/strict", responses=DECLARED)
    async def strict(body: Leaf) -> Response:
        return Response(status_code=422)

    app.include_router(router)
    found, _ = await tried(app, below="/strict")
    assert "POST /strict can't be tried, a request that should be valid returned 422" in found[-1]


@pytest.mark.parametrize(
    "scheme",
    [
        APIKeyHeader(name="Authorization", scheme_name="Token"),
        APIKeyHeader(name="X-Key"),
        APIKeyQuery(name="key"),
        APIKeyCookie(name="session"),
        HTTPBasic(),
        HTTPBearer(),
        OAuth2PasswordBearer("token"),
    ],
    ids=lambda scheme: f"{type(scheme).__name__} {scheme.scheme_name}",
)
async def test_bad_credentials_of_any_scheme(app: FastAPI, scheme: Any) -> None:
    async def refuse() -> None:
        raise realworld.Unauthorized("Sign in.")

    async def admit() -> None:
        return

    router = Router(responses=error_responses(401))
    described = [Depends(refuse), Security(scheme)]
    router.get("/closed", dependencies=described)(admit)
    router.get("/open", name="open", dependencies=[Security(scheme), Depends(admit)])(admit)
    app.include_router(router)
    app.dependency_overrides[scheme] = lambda: None
    every = [each for each in operations(app) if each.path in {"/closed", "/open"}]
    async with calling(app) as client:
        found, number = await credential_findings(Api(app, client, every, {}))
    assert number >= 12
    assert found
    assert all(line.startswith("GET /open, ") for line in found), found


def schema(definition: Any, **schemas: Any) -> Schema:
    return Schema(definition, Document({"components": {"schemas": schemas}}))


REF = {"$ref": "#/components/schemas/Node"}
OBJECT = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


@pytest.mark.parametrize(
    "definition",
    [
        True,
        {},
        {"type": ["null", "integer"], "minimum": 3},
        {"type": "integer", "exclusiveMinimum": 3, "multipleOf": 7},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "integer", "maximum": -1},
        {"type": "string", "minLength": 30},
        {"type": "string", "maxLength": 1},
        {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"},
        {"type": "string", "pattern": "^[0-9]+$", "minLength": 4, "maxLength": 4},
        {"type": "string", "format": "date"},
        {"type": "string", "format": "ipv4"},
        {"enum": ["a"]},
        {"const": 7},
        {"allOf": [OBJECT, {"properties": {"b": {"const": 1}}, "required": ["b"]}]},
        {"anyOf": [{"type": "null"}, OBJECT]},
        {"oneOf": [OBJECT, {"type": "object", "required": ["b"]}]},
        {"allOf": [{"anyOf": [OBJECT, {"type": "null"}]}, {"type": "object"}]},
        {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1},
        {"type": "object", "patternProperties": {"^x-[a-z]+$": {}}, "minProperties": 1},
        {"type": "array", "items": {"type": "string", "maxLength": 2}, "minItems": 3},
        {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "uniqueItems": True},
        {"type": "array", "items": {"type": "integer"}, "minItems": 2, "uniqueItems": True},
        {"type": "array", "prefixItems": [{"type": "integer"}, OBJECT], "minItems": 2},
        {"type": "array", "items": {"type": "array", "items": OBJECT, "minItems": 2}},
        {"properties": {"a": {"type": "integer"}}, "required": ["a", "b"]},
        {"not": {"type": "string"}, "type": ["string", "integer"]},
        REF,
    ],
    ids=str,
)
@pytest.mark.parametrize("full", [False, True])
def test_an_example_matches_its_schema(definition: Any, *, full: bool) -> None:
    node = {
        "type": "object",
        "properties": {"next": {"anyOf": [REF, {"type": "null"}]}, "below": {"items": REF}},
        "required": ["next", "below"],
    }
    found = schema(definition, Node=node)
    value = found.example(full=full)
    root = {"components": {"schemas": {"Node": node}}} | (
        definition if definition is not True else {}
    )
    assert jsonschema_rs.is_valid(root, value), value
    for place in found.places():  # this terminates
        assert place.where


@pytest.mark.parametrize(
    "definition",
    [False, {"type": "integer", "minimum": 2, "maximum": 1}, {"type": "string", "pattern": "(?<"}],
    ids=str,
)
def test_a_schema_without_an_example(definition: Any) -> None:
    with pytest.raises(NoExample):
        schema(definition).example()


def test_texts_differ() -> None:
    # For unique columns.
    for definition in ({"type": "string"}, {"type": "string", "format": "email"}):
        assert schema(definition).example() != schema(definition).example()


def test_each_field_is_put_into_a_valid_body() -> None:
    body = schema(
        {
            "oneOf": [
                {"type": "object", "properties": {"a": OBJECT}, "required": ["a"]},
                {"type": "object", "properties": {"b": {"type": "array", "items": OBJECT}}},
            ]
        }
    )
    put = {place.where: place.put(None) for place in body.places()}
    assert set(put) == {("a",), ("a", "a"), ("b",), ("b", 0), ("b", 0, "a")}
    assert put["a", "a"] == {"a": {"a": None}}
    assert put["b", 0, "a"] == {"b": [{"a": None}]}


def test_a_field_is_put_into_the_provided_body() -> None:
    body = schema({"type": "object", "properties": {"a": OBJECT, "b": {"type": "integer"}}})
    given = {"a": {"a": "known"}, "b": 7}
    put = {place.where: place.put(None) for place in body.places(given)}
    assert put["b",] == {"a": {"a": "known"}, "b": None}
    assert put["a", "a"] == {"a": {"a": None}, "b": 7}


@pytest.mark.parametrize(
    ("name", "content", "location", "key"),
    [
        ("task_id", b'{"title": "x", "id": 7}', "", 7),
        ("taskId", b'{"data": {"id": "a"}}', "", "a"),
        ("slug", b'{"article": {"author": {"slug": "no"}, "slug": "yes"}}', "", "yes"),
        ("id", b'{"author": {"x": 1}, "comment": {"id": 3}}', "", 3),
        ("username", b'{"user": {"id": 1, "username": "ada"}}', "", "ada"),
        ("task", b'[{"name": "n", "uuid": "u"}]', "", "u"),
        ("task", b'"plain"', "", "plain"),
        ("task_id", b'{"id": 7}', "https://host/tasks/a%20b/", "a b"),
        ("task_id", b"", "/v1/tasks/9?x=1", "9"),
        ("task_id", b"", "/elsewhere", "sent"),
        ("task_id", b"not JSON", "", "sent"),
    ],
)
def test_the_key_of_a_created_resource(name: str, content: bytes, location: str, key: Any) -> None:
    request = Request("POST", b"/tasks", b"", [], b'{"id": "sent"}')
    answer = Answer(201, content=content, headers={"location": location} if location else {})
    assert key_of(name, f"/tasks/{{{name}}}", request, answer) == key


@pytest.mark.parametrize(
    ("described", "value", "pairs"),
    [
        ({}, [1, "b c"], [("p", b"1"), ("p", b"b%20c")]),
        ({"explode": False}, [1, 2], [("p", b"1,2")]),
        ({"style": "pipeDelimited", "explode": False}, [1, 2], [("p", b"1|2")]),
        ({"style": "deepObject"}, {"a": 1, "b": True}, [("p[a]", b"1"), ("p[b]", b"true")]),
        ({}, {"a": 1}, [("a", b"1")]),
        ({"explode": False}, {"a": 1}, [("p", b"a,1")]),
        ({"in": "path"}, [1, 2], [("p", b"1,2")]),
        ({"in": "header"}, "b c", [("p", b"b c")]),
        ({"in": "cookie"}, True, [("p", b"true")]),
    ],
)
def test_parameters_on_the_wire(described: Json, value: Any, pairs: Any) -> None:
    assert parameter(described).pairs(value) == pairs


def parameter(described: Json) -> Parameter:
    return operation(
        {"parameters": [{"name": "p", "in": "query", "schema": {}} | described]}
    ).parameters[0]


def operation(definition: Json, **components: Any) -> Operation:
    return Operation("POST", "/p/{p}", definition, Document({"components": components}))


def test_parameters_of_an_object() -> None:
    found = parameter({"style": "deepObject", "schema": OBJECT})
    assert [name for name, _ in found.fields()] == ["p[a]"]


def test_references_in_an_operation() -> None:
    found = operation(
        {
            "parameters": [{"$ref": "#/components/parameters/P"}],
            "requestBody": {"$ref": "#/components/requestBodies/B"},
            "responses": {"2XX": {"$ref": "#/components/responses/R"}, "default": {}},
        },
        parameters={"P": {"name": "p", "in": "path", "required": True, "example": "a/b"}},
        requestBodies={"B": {"content": {"text/csv": {"example": "a,b"}, JSON: {}}}},
        responses={"R": {"content": {JSON: {"schema": {"properties": {"key": {}}}}}}},
    )
    request = found.request(Example())
    assert (request.path, request.content) == (b"/p/a%2Fb", b"a,b")
    assert found.media_types == ["text/csv", JSON]
    assert found.field_names() == {"key"}
    assert found.declares(204)
    assert found.declares(418)


def test_forms() -> None:
    form = schema(
        {
            "type": "object",
            "properties": {
                "file": {"type": "string", "format": "binary"},
                "names": {"type": "array"},
            },
        }
    )
    document = {"file": "content", "names": ["a", "b&"]}
    assert encode(FORM, document, form) == b"file=content&names=a&names=b%26"
    head = b"content-type: multipart/form-data; boundary=boundary\r\n\r\n"
    message = BytesParser(policy=HTTP).parsebytes(head + encode(MULTIPART, document, form))
    parts = [
        (
            part.get_param("name", header="content-disposition"),
            part.get_filename(),
            part.get_content().strip(),
        )
        for part in message.iter_parts()
    ]
    assert parts == [("file", "x", "content"), ("names", None, "a"), ("names", None, "b&")]
