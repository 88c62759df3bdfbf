"""What Schemathesis, which makes up requests from the OpenAPI document, has to know beyond it."""

from typing import Any

import schemathesis
from hypothesis import strategies
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import RejectedPositiveData

# What is good in a request only if an earlier answer, or request, makes it so: no schema can tell.
STATE = {"query.cursor", "header.Idempotency-Key"}

# Others make up addresses in domains that are reserved, where nobody can have one.
schemathesis.openapi.format("email", strategies.emails(domains=strategies.just("example.com")))


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext,
    failure: Failure,
    case: schemathesis.Case[Any],
    response: schemathesis.Response,
) -> bool:
    """Let good data be refused for nothing but the state that it does not fit."""
    if not isinstance(failure, RejectedPositiveData) or response.status_code != 422:
        return True
    blamed = {error["field"] for error in response.json().get("errors", ())}
    return not blamed or not blamed <= STATE
