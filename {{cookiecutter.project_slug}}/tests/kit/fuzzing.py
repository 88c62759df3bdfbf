"""Hooks for Schemathesis, which add to the OpenAPI document.

``tests/kit/test_fuzz.py`` runs it, and hands out credentials on a local port.
"""

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import schemathesis
from hypothesis import strategies
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import EnsureResourceAvailability, RejectedPositiveData

Json = dict[str, Any]
Case = schemathesis.Case[Any]

CREDENTIALS_PORT = int(os.environ.get("FUZZ_CREDENTIALS_PORT", "0"))
CALLERS = int(os.environ.get("FUZZ_CALLERS", "1"))

# Fields whose valid values depend on an earlier response, or on a rule of `tests/examples.py`.
UNKNOWN = {"query.cursor", "header.Idempotency-Key", *os.environ.get("FUZZ_RULES", "").split()}

# By default they are made up in reserved domains, which e-mail validators refuse.
schemathesis.openapi.format("email", strategies.emails(domains=strategies.just("example.com")))

forbidden: dict[str, int] = {}
"""By operation: how many of the callers got 403 there."""

NOBODY: Json = {"": ""}
"""Credentials that no request has, not even one of a public operation."""

reachable_by: dict[str, Json] = {}
"""By key of a resource: the credentials that made it, or ``NOBODY`` if it has another key now."""


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: Json) -> None:
    """Describe OAuth2 as what it is in a request, a bearer token: else it is not checked."""
    for scheme in raw_schema.get("components", {}).get("securitySchemes", {}).values():
        if scheme["type"] in {"oauth2", "openIdConnect"}:
            scheme.clear()
            scheme.update(type="http", scheme="bearer")


def caller_of(case: Case, context: schemathesis.AuthContext) -> int:
    """Return which of the callers sends a request: the next one, where those before got 403."""
    operation = context.operation
    security = operation.definition.raw.get("security", operation.schema.raw_schema.get("security"))
    return forbidden.get(operation.label, 0) if security else -1


@schemathesis.auth(cache_by_key=caller_of)
class Caller:
    """Signs requests. After a 401, it gets new credentials and the request is sent again.

    So a request may change the caller's password, end the session or delete the account.
    """

    def get(self, case: Case, context: schemathesis.AuthContext) -> Json | None:
        """Return new credentials; none where the operation is public."""
        number = caller_of(case, context)
        if number < 0:
            return None
        with socket.create_connection(("127.0.0.1", CREDENTIALS_PORT)) as connection:
            connection.sendall(b"%d\n" % number)
            found: Json = json.loads(connection.makefile().readline())
        return found or None

    def set(self, case: Case, data: Json, context: schemathesis.AuthContext) -> None:
        """Add the headers."""
        case.headers.update(data)


@schemathesis.hook
def after_call(
    context: schemathesis.HookContext, case: Case, response: schemathesis.Response
) -> None:
    """Remember who may not call what, and who can reach which resource."""
    label = case.operation.label
    if response.status_code == 403:
        forbidden[label] = min(forbidden.get(label, 0) + 1, CALLERS - 1)
    if case.method in {"POST", "PUT", "PATCH"} and 200 <= response.status_code < 300:
        keys = set(texts(response))
        reachable_by.update((key, sent_by(response)) for key in keys)
        if case.method != "POST":
            renamed = {str(value) for value in (case.path_parameters or {}).values()} - keys
            reachable_by.update((key, NOBODY) for key in renamed)


def sent_by(response: schemathesis.Response) -> Json:
    """Return the credentials of the request."""
    return {
        name: value
        for name, value in response.request.headers.items()
        if name.lower() in {"authorization", "cookie", "x-api-key"}
    }


def texts(response: schemathesis.Response) -> Iterator[str]:
    """Return all values in a response, as texts."""
    try:
        level = [response.json()]
    except ValueError:
        return
    while level:
        value = level.pop()
        if isinstance(value, dict):
            level += value.values()
        elif isinstance(value, list):
            level += value
        else:
            yield str(value)


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext,
    failure: Failure,
    case: Case,
    response: schemathesis.Response,
) -> bool:
    """Drop a failure that the document and the request alone don't explain."""
    if isinstance(failure, EnsureResourceAvailability):
        # The resource has another key since, or it belongs to a caller who is gone.
        own = sent_by(response)
        keys = [str(value) for value in (case.path_parameters or {}).values()]
        return all(reachable_by.get(key, own) == own for key in keys)
    if isinstance(failure, RejectedPositiveData) and response.status_code == 422:
        blamed = {error["field"] for error in response.json().get("errors", ())}
        return not blamed or not blamed <= UNKNOWN
    return True
