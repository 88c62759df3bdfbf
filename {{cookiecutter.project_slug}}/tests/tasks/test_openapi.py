"""What the OpenAPI document says about tasks."""

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient

from tests.conftest import problem
from tests.kit.openapi import missing_examples, operations
from tests.tasks.helpers import BATCH


def test_names(shared_app: FastAPI) -> None:
    document = shared_app.openapi()
    found = {
        operation.definition["operationId"]
        for operation in operations(shared_app)
        if "tasks" in operation.definition["tags"]
    }
    assert found == {
        *("create_task", "create_tasks", "get_task", "list_tasks", "update_task", "delete_task"),
        *("create_comment", "list_comments", "list_tags"),
    }
    assert {"TaskPage", "CommentPage", "TagPage"} <= document["components"]["schemas"].keys()


def test_every_field_has_an_example(shared_app: FastAPI) -> None:
    own = [each for each in operations(shared_app) if "tasks" in each.definition["tags"]]
    assert [line for each in own for line in missing_examples(each)] == []


def test_if_match_is_one_string(shared_app: FastAPI) -> None:
    for method in ("patch", "delete"):
        operation = shared_app.openapi()["paths"]["/v1/tasks/{task_id}"][method]
        (found,) = [each for each in operation["parameters"] if each["in"] == "header"]
        assert (found["name"], found["schema"]["type"]) == ("If-Match", "string")


def test_headers(shared_app: FastAPI) -> None:
    responses = shared_app.openapi()["paths"]["/v1/tasks"]["post"]["responses"]
    assert responses["201"]["headers"].keys() == {"ETag", "Location", "Idempotent-Replayed"}
    assert responses["503"]["headers"].keys() == {"Retry-After"}


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_the_batch_path_is_not_a_task_id(client: AsyncClient, method: str) -> None:
    response = await client.request(method, BATCH)
    problem(response, 405)
    assert response.headers["Allow"] == "POST"
