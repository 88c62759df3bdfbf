"""Hooks for Schemathesis, with what the OpenAPI document does not describe.

``tests/kit/test_fuzz.py`` runs Schemathesis, and provides credentials on a local port.
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

# Fields whose valid values depend on an earlier response, or are described in `tests/examples.py`.
UNKNOWN = {"query.cursor", "header.Idempotency-Key", *os.environ.get("FUZZ_RULES", "").split()}

# Generated addresses are in reserved domains by default, which e-mail validators refuse.
schemathesis.openapi.format("email", strategies.emails(domains=strategies.just("example.com")))

forbidden: dict[str, int] = {}
"""For each operation: how many callers got 403."""

NOBODY: Json = {"": ""}
"""Differs from the credentials of every request, even of one without credentials."""

reachable_by: dict[str, Json] = {}
"""For each key of a resource: the credentials that created it, or ``NOBODY`` if its key changed."""


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: Json) -> None:
    """Declare OAuth2 as a bearer token: Schemathesis does not check OAuth2."""
    for scheme in raw_schema.get("components", {}).get("securitySchemes", {}).values():
        if scheme["type"] in {"oauth2", "openIdConnect"}:
            scheme.clear()
            scheme.update(type="http", scheme="bearer")


def caller_of(case: Case, context: schemathesis.AuthContext) -> int:
    """Return the number of the caller to use: the first who got no 403, or -1 if public."""
    operation = context.operation
    security = operation.definition.raw.get("security", operation.schema.raw_schema.get("security"))
    return forbidden.get(operation.label, 0) if security else -1


@schemathesis.auth(cache_by_key=caller_of)
class Caller:
    """Add credentials to requests. After a 401, get new ones and send the request again.

    A request may therefore change the caller's password, end the session or delete the account.
    """

    def get(self, case: Case, context: schemathesis.AuthContext) -> Json | None:
        """Return new credentials, or ``None`` if the operation is public."""
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
    """Record which callers got 403, and which credentials created each resource."""
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
    """Return all values in a JSON response as strings."""
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
    """Return whether a failure is real: ``False`` if earlier requests explain it."""
    if isinstance(failure, EnsureResourceAvailability):
        # The resource was renamed, or its owner was deleted.
        own = sent_by(response)
        keys = [str(value) for value in (case.path_parameters or {}).values()]
        return all(reachable_by.get(key, own) == own for key in keys)
    if isinstance(failure, RejectedPositiveData) and response.status_code == 422:
        invalid = {error["field"] for error in response.json().get("errors", ())}
        return not invalid or not invalid <= UNKNOWN
    return True
