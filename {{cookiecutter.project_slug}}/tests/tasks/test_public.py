"""No response contains an internal column."""

from typing import Any

from httpx2 import AsyncClient

from tests import caller
from tests.tasks.helpers import BATCH, TAGS, TASKS, create, path

TASK = {
    "id",
    "title",
    "description",
    "status",
    "due_at",
    "tags",
    "version",
    "created_at",
    "updated_at",
}
COMMENT = {"id", "author", "body", "created_at"}
PAGE = {"items", "next_cursor"}


def fields(document: Any) -> set[str]:
    """Return every name in a document, however deep."""
    match document:
        case dict():
            return set(document).union(*map(fields, document.values()))
        case list():
            return set[str]().union(*map(fields, document))
    return set()


async def test_every_response_has_exactly_the_fields_of_the_contract(
    client: AsyncClient,
) -> None:
    body = {"title": "Task", "tags": ["home"]}
    task = path(await create(client, tags=["home"]))
    comments = f"{task}/comments"
    responses = {
        "create": (await client.post(TASKS, json=body), TASK),
        "batch": (await client.post(BATCH, json={"items": [body]}), TASK | {"items"}),
        "list": (await client.get(TASKS), TASK | PAGE),
        "update": (await client.patch(task, json=body), TASK),
        "comment": (await client.post(comments, json={**caller.COMMENT, "body": "b"}), COMMENT),
        "comments": (await client.get(comments), COMMENT | PAGE),
        "get": (await client.get(task), TASK),
        "tags": (await client.get(TAGS), {"name", "task_count"} | PAGE),
    }
    for name, (response, expected) in responses.items():
        assert fields(response.json()) == expected, name
