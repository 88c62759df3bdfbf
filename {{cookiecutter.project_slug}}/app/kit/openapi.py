"""The OpenAPI document, as generators of clients need it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts

Json = dict[str, Any]

HEADERS: Final[Mapping[str, Json]] = {
    "ETag": {
        "description": "The version of this body, for `If-Match` and `If-None-Match`.",
        "schema": {"type": "string", "examples": ['"1"']},
    },
    "Idempotent-Replayed": {
        "description": "The stored response of an earlier request with the same key.",
        "schema": {"type": "string", "const": "true"},
    },
    "Location": {
        "description": "The path of the new resource.",
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "Retry-After": {
        "description": "Seconds after which the same request may succeed.",
        "schema": {"type": "integer", "minimum": 0, "examples": [1]},
    },
}
"""The response headers that the document declares, by name."""


_REF: Final = "#/components/schemas/"


_IF_NONE_MATCH: Final[Json] = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "The `ETag` last seen: the response is 304 if it is still the current one.",
    "schema": {"type": "string", "title": "If-None-Match"},
}


def response_headers(status: int, *names: str) -> dict[int | str, Json]:
    """Declare headers of a response: ``responses=response_headers(201, "Location")``."""
    return {status: {"headers": {name: dict(HEADERS[name]) for name in names}}}


def operation_id(route: APIRoute) -> str:
    """Return the name of the endpoint, which generators use as the name of a function."""
    return route.name


def install(app: FastAPI) -> None:
    """Let ``app.openapi`` return the document, built once."""

    def openapi() -> Json:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


class _Documented(RouteContext):
    # HEAD is implied by GET: as an operation of its own, it would double every client.
    @property
    def methods(self) -> set[str] | None:
        methods = super().methods or set()
        return methods - {"HEAD"} if "GET" in methods else methods


def _document(app: FastAPI) -> Json:
    routes = [_Documented(*vars(each).values()) for each in iter_route_contexts(app.routes)]
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        contact=app.contact,
        license_info=app.license_info,
        servers=app.servers,
        routes=routes,
    )
    _declare_guards(document, routes)
    described = {tag["name"]: tag for tag in app.openapi_tags or ()}
    tags: dict[str, Json] = {}
    for operation in _operations(document):
        operation.setdefault("security", [])
        for parameter in operation.get("parameters", ()):
            _drop_null(parameter["schema"])
        _declare_headers(operation)
        if "304" in operation["responses"]:
            operation.setdefault("parameters", []).append(dict(_IF_NONE_MATCH))
        for tag in operation.get("tags", ()):
            tags[tag] = described.get(tag, {"name": tag, "description": tag.capitalize() + "."})
    document["tags"] = list(tags.values())
    _use_titles(document)
    _drop_defaults(document)
    return document


def _declare_guards(document: Json, routes: Sequence[RouteContext]) -> None:
    """Declare the credentials that closed routes accept."""
    for route in routes:
        guard = getattr(route.original_route, "guard", None)
        if guard is None or not route.include_in_schema:
            continue
        components = document.setdefault("components", {})
        declared = components.setdefault("securitySchemes", {})
        for scheme in guard.schemes:
            declared[scheme.scheme_name] = jsonable_encoder(scheme.model, exclude_none=True)
        for method in route.methods or ():
            operation = document["paths"][route.path_format][method.lower()]
            operation["security"] = [{scheme.scheme_name: []} for scheme in guard.schemes]


def _use_titles(document: Json) -> None:
    """Name schemas by their titles: a generic model's own name has its parameters in it."""
    schemas: dict[str, Json] = document.get("components", {}).get("schemas", {})
    titles = [schema.get("title", "") for schema in schemas.values()]
    names = {
        name: title
        for name, title in zip(list(schemas), titles, strict=True)
        if title.isidentifier() and titles.count(title) == 1 and title not in schemas
    }
    for name, title in names.items():
        schemas[title] = schemas.pop(name)
    refs = {_REF + name: _REF + title for name, title in names.items()}
    for part in _objects(document):
        if isinstance(part.get("$ref"), str):
            part["$ref"] = refs.get(part["$ref"], part["$ref"])


def _drop_defaults(document: Json) -> None:
    """Remove the defaults of fields of requests: clients' generators would require the fields."""
    schemas: dict[str, Json] = document.get("components", {}).get("schemas", {})
    bodies = [each["requestBody"] for each in _operations(document) if "requestBody" in each]
    seen = set[str]()
    while bodies:
        for part in _objects(bodies.pop()):
            for field in part.get("properties", {}).values():
                field.pop("default", None)
            name = str(part.get("$ref", "")).removeprefix(_REF)
            if name in schemas and name not in seen:
                seen.add(name)
                bodies.append(schemas[name])


def _objects(value: Any) -> Iterator[Json]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            yield from _objects(inner)


def _operations(document: Json) -> Iterator[Json]:
    for item in document["paths"].values():
        yield from item.values()


def _drop_null(schema: Json) -> None:
    """Remove ``null`` from the schema of a parameter: it is left out instead."""
    branches = schema.get("anyOf", ())
    kept = [each for each in branches if each.get("type") != "null"]
    if len(kept) < len(branches):
        del schema["anyOf"]
        schema.update({"anyOf": kept} if len(kept) > 1 else kept[0])


def _declare_headers(operation: Json) -> None:
    """Declare the headers that the kit itself sends."""
    responses: dict[str, Json] = operation["responses"]
    is_idempotent = any(
        each["name"] == "Idempotency-Key" for each in operation.get("parameters", ())
    )
    for status, response in responses.items():
        names = set[str]()
        if status in {"429", "503"} or (status == "409" and is_idempotent):
            names.add("Retry-After")
        if status.startswith("2") and is_idempotent:
            names.add("Idempotent-Replayed")
        if status == "304" or (status == "200" and {"304", "412"} & responses.keys()):
            names.add("ETag")
        for name in sorted(names):
            response.setdefault("headers", {}).setdefault(name, dict(HEADERS[name]))
