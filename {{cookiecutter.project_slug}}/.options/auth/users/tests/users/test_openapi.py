"""What the OpenAPI document says about users."""

from fastapi import FastAPI

from tests.kit.openapi import missing_examples, operations

TAGS = {"auth", "users", "API keys"}


def test_every_field_has_an_example(shared_app: FastAPI) -> None:
    own = [each for each in operations(shared_app) if TAGS & set(each.definition["tags"])]
    assert len(own) > 10
    assert [line for each in own for line in missing_examples(each)] == []


def test_public_routes_declare_no_security(shared_app: FastAPI) -> None:
    public = {
        each.definition["operationId"]
        for each in operations(shared_app)
        if each.definition["security"] == []
    }
    assert public == {"register", "sign_in", "refresh", "sign_out", "live", "ready"}
