"""The HTTP face of tasks: what is asked for, what is answered."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query, Request, Response

from app.kit.db.session import ReadSessionDep, SessionDep
from app.kit.errors import problems
from app.kit.etag import IfMatch, etag
from app.kit.idempotency.session import IdempotentSessionDep
from app.kit.pagination import Page
from app.kit.routing import Router
from app.kit.schemas import PageQuery
from app.tasks.models import Comment, Task
from app.tasks.repository import TaskReader, TaskRepository
from app.tasks.schemas import (
    CommentCreate,
    CommentPublic,
    TagPublic,
    TaskBatch,
    TaskCreate,
    TaskDetail,
    TaskList,
    TaskPublic,
    TaskQuery,
    TaskUpdate,
)

router = Router(tags=["tasks"])


async def task_reader(session: ReadSessionDep) -> TaskReader:
    """Give what answers questions about tasks."""
    return TaskReader(session)


async def task_repository(session: SessionDep) -> TaskRepository:
    """Give what changes tasks, in the request's transaction."""
    return TaskRepository(session)


async def task_creator(session: IdempotentSessionDep) -> TaskRepository:
    """Give what makes tasks: once, however often a client sends the same request."""
    return TaskRepository(session)


Reader = Annotated[TaskReader, Depends(task_reader)]
Repository = Annotated[TaskRepository, Depends(task_repository)]
Creator = Annotated[TaskRepository, Depends(task_creator)]


# The most asked for comes first: routes are tried in turn.
@router.get("/tasks/{task_id}", response_model=TaskDetail, responses=problems(404))
async def get_task(task_id: UUID, tasks: Reader, response: Response) -> Task:
    """Get a task with its tags and its first hundred comments."""
    task = await tasks.get(task_id)
    response.headers["ETag"] = etag(task.version)
    return task


@router.post("/tasks", status_code=201, response_model=TaskPublic, responses=problems(409))
async def create_task(
    body: TaskCreate, tasks: Creator, request: Request, response: Response
) -> Task:
    """Create a task. Tags that are new are created with it."""
    (task,) = await tasks.create([body])
    response.headers["Location"] = f"{request.url.path}/{task.id}"
    response.headers["ETag"] = etag(task.version)
    return task


@router.post("/tasks/batch", status_code=201, response_model=TaskList, responses=problems(409))
async def create_tasks(body: TaskBatch, tasks: Creator) -> dict[str, object]:
    """Create many tasks: all of them, or none."""
    return {"items": await tasks.create(body.items)}


@router.get("/tasks", response_model=Page[TaskPublic])
async def list_tasks(query: Annotated[TaskQuery, Query()], tasks: Reader) -> object:
    """List tasks, page by page."""
    return await tasks.page(query)


@router.patch("/tasks/{task_id}", response_model=TaskPublic, responses=problems(404, 412))
async def update_task(
    task_id: UUID, body: TaskUpdate, if_match: IfMatch, tasks: Repository, response: Response
) -> Task:
    """Change the fields that are sent; with `If-Match`, only if the task is as it was seen."""
    task = await tasks.update(task_id, body.model_dump(exclude_unset=True), if_match)
    response.headers["ETag"] = etag(task.version)
    return task


@router.delete(
    "/tasks/{task_id}", status_code=204, response_class=Response, responses=problems(404, 412)
)
async def delete_task(task_id: UUID, if_match: IfMatch, tasks: Repository) -> None:
    """Delete a task: it is gone from every read."""
    await tasks.delete(task_id, if_match)


@router.post(
    "/tasks/{task_id}/comments",
    status_code=201,
    response_model=CommentPublic,
    responses=problems(404, 409),
)
async def create_comment(task_id: UUID, body: CommentCreate, tasks: Creator) -> Comment:
    """Comment on a task."""
    return await tasks.comment(task_id, body)


@router.get(
    "/tasks/{task_id}/comments", response_model=Page[CommentPublic], responses=problems(404)
)
async def list_comments(
    task_id: UUID, query: Annotated[PageQuery, Query()], tasks: Reader
) -> object:
    """List the comments of a task, the oldest first, page by page."""
    return await tasks.comments(task_id, query)


@router.get("/tags", response_model=Page[TagPublic])
async def list_tags(query: Annotated[PageQuery, Query()], tasks: Reader) -> object:
    """List tags by name, each with its number of tasks."""
    return await tasks.tags(query)
