"""A complete flow with the client of openapi-python-client, checked by mypy strict."""

import sys
from typing import TypeVar
from uuid import uuid4

from service_client import AuthenticatedClient, Client
from service_client.api.api_keys import create_key
from service_client.api.auth import sign_in
from service_client.api.tasks import create_task, delete_task, get_task, list_tasks, update_task
from service_client.api.users import register
from service_client.models.api_key_create import APIKeyCreate
from service_client.models.api_key_create_scopes_item import APIKeyCreateScopesItem
from service_client.models.api_key_secret import APIKeySecret
from service_client.models.login import Login
from service_client.models.problem import Problem
from service_client.models.registered import Registered
from service_client.models.task_create import TaskCreate
from service_client.models.task_page import TaskPage
from service_client.models.task_public import TaskPublic
from service_client.models.task_update import TaskUpdate
from service_client.models.tokens import Tokens
from service_client.models.user_create import UserCreate
from service_client.types import UNSET, Unset

T = TypeVar("T")


def expect(kind: type[T], found: object) -> T:
    """Return a parsed body, after checking its type."""
    assert isinstance(found, kind), found
    return found


def main(url: str) -> None:
    """Register, sign in, create a key, and work on tasks with it."""
    client = Client(base_url=url)
    email, password = f"{uuid4()}@example.com", "rainy Tuesday in Lisbon"
    user = UserCreate(email=email, name="Ada", password=password)
    assert expect(Registered, register.sync(client=client, body=user)).email == email

    login = Login(username=email, password=password)
    tokens = expect(Tokens, sign_in.sync(client=client, body=login))
    signed_in = AuthenticatedClient(base_url=url, token=tokens.access_token)
    scopes = [APIKeyCreateScopesItem.READ, APIKeyCreateScopesItem.WRITE]
    wanted = APIKeyCreate(name="flow", scopes=scopes)
    key = expect(APIKeySecret, create_key.sync(client=signed_in, body=wanted)).key
    own = AuthenticatedClient(base_url=url, token=key, prefix="", auth_header_name="X-API-Key")

    for number in range(3):
        created = create_task.sync_detailed(
            client=own, body=TaskCreate(title=f"Task {number}"), idempotency_key=str(uuid4())
        )
        assert created.headers["Location"].endswith(str(expect(TaskPublic, created.parsed).id))

    titles = list[str]()
    cursor: str | Unset = UNSET
    while True:
        page = expect(TaskPage, list_tasks.sync(client=own, limit=2, cursor=cursor))
        titles += [task.title for task in page.items]
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
    assert titles == ["Task 2", "Task 1", "Task 0"]

    task = page.items[0]
    tag = get_task.sync_detailed(task.id, client=own).headers["ETag"]
    change = TaskUpdate(title="Changed")
    changed = update_task.sync(task.id, client=own, body=change, if_match=tag)
    assert expect(TaskPublic, changed).title == "Changed"
    stale = expect(Problem, update_task.sync(task.id, client=own, body=change, if_match=tag))
    assert (stale.status, stale.title) == (412, "Precondition Failed")
    assert delete_task.sync_detailed(task.id, client=own).status_code == 204
    assert expect(Problem, get_task.sync(task.id, client=own)).status == 404


if __name__ == "__main__":
    main(sys.argv[1])
