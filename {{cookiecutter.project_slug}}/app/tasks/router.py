"""Task routes."""

from typing import Annotated
from uuid import UUID

from fastapi import Query, Request, Response

from app.kit.db.session import repository
from app.kit.errors import error_responses
from app.kit.etag import IfMatch
from app.kit.idempotency.session import idempotent
from app.kit.openapi import response_headers
from app.kit.pagination import Page, PageQuery
from app.kit.routing import Router
from app.tasks.models import Comment, Task
from app.tasks.repository import COMMENTS, TAGS, TASKS, TaskRepository
from app.tasks.schemas import (
    CommentCreate,
    CommentPublic,
    TagPublic,
    TaskBatch,
    TaskCreate,
    TaskList,
    TaskPublic,
    TaskQuery,
    TaskUpdate,
)

router = Router(tags=["tasks"], description="Tasks with their tags and comments.")

Tasks = Annotated[TaskRepository, repository(TaskRepository)]


# The most frequent route comes first: routes are tried in order.
@router.get("/tasks/{task_id:uuid}", response_model=TaskPublic, responses=error_responses(304, 404))
async def get_task(task_id: UUID, tasks: Tasks, response: Response) -> Task:
    """Get a task with its tags."""
    task = await tasks.get(task_id)
    response.headers["ETag"] = task.etag
    return task


@router.post(
    "/tasks",
    status_code=201,
    response_model=TaskPublic,
    responses=error_responses(409) | response_headers(201, "ETag", "Location"),
)
@idempotent
async def create_task(body: TaskCreate, tasks: Tasks, request: Request, response: Response) -> Task:
    """Create a task, and those of its tags that are new."""
    (task,) = await tasks.add([body])
    response.headers["Location"] = f"{request.url.path}/{task.id}"
    response.headers["ETag"] = task.etag
    return task


@router.post(
    "/tasks/batch", status_code=201, response_model=TaskList, responses=error_responses(409)
)
@idempotent
async def create_tasks(body: TaskBatch, tasks: Tasks) -> dict[str, object]:
    """Create many tasks: all of them, or none."""
    return {"items": await tasks.add(body.items)}


@router.get("/tasks", response_model=Page[TaskPublic])
async def list_tasks(query: Annotated[TaskQuery, Query()], tasks: Tasks) -> object:
    """List tasks, page by page."""
    return await tasks.page(TASKS, query)


@router.patch(
    "/tasks/{task_id:uuid}", response_model=TaskPublic, responses=error_responses(404, 412)
)
async def update_task(
    task_id: UUID, body: TaskUpdate, if_match: IfMatch, tasks: Tasks, response: Response
) -> Task:
    """Change the fields that are sent; with `If-Match`, only if the task has not changed."""
    task = await tasks.change(task_id, body, if_match)
    response.headers["ETag"] = task.etag
    return task


@router.delete("/tasks/{task_id:uuid}", status_code=204, responses=error_responses(404, 412))
async def delete_task(task_id: UUID, if_match: IfMatch, tasks: Tasks) -> None:
    """Delete a task: no request returns it any more."""
    await tasks.delete(task_id, if_match)


@router.post(
    "/tasks/{task_id:uuid}/comments",
    status_code=201,
    response_model=CommentPublic,
    responses=error_responses(404, 409),
)
@idempotent
async def create_comment(task_id: UUID, body: CommentCreate, tasks: Tasks) -> Comment:
    """Comment on a task."""
    return await tasks.comment(task_id, body)


@router.get(
    "/tasks/{task_id:uuid}/comments",
    response_model=Page[CommentPublic],
    responses=error_responses(404),
)
async def list_comments(
    task_id: UUID, query: Annotated[PageQuery, Query()], tasks: Tasks
) -> object:
    """List the comments of a task, the oldest first, page by page."""
    page = await tasks.page(COMMENTS, query, task_id=task_id)
    if not page.items:
        await tasks.get(task_id)  # raises NotFound
    return page


@router.get("/tags", response_model=Page[TagPublic])
async def list_tags(query: Annotated[PageQuery, Query()], tasks: Tasks) -> object:
    """List tags by name, each with its number of tasks."""
    return await tasks.page(TAGS, query)
