"""What clients send and get. None of these is a table: internal columns can't leak."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import MISSING, BeforeValidator, Field

from app.kit.schemas import Body, PageQuery, Public, Text, UTCTime
from app.tasks.models import Tag, TaskStatus

Title = Annotated[Text, Field(min_length=1, max_length=200)]
Description = Annotated[Text, Field(max_length=10_000)]
TagName = Annotated[Text, Field(min_length=1, max_length=50)]
TagNames = Annotated[list[TagName], Field(max_length=20)]


def _sorted_names(tags: list[Tag]) -> list[str]:
    # Sorted here: a task that was just written has them in no order, and each database another.
    return sorted(tag.name for tag in tags)


class TaskCreate(Body):
    """A new task."""

    title: Title
    description: Description | None = None
    status: TaskStatus = TaskStatus.TODO
    due_at: UTCTime | None = None
    tags: TagNames = Field(default=[])


class TaskUpdate(Body):
    """What shall change: a field that is not sent stays as it is."""

    title: Title | MISSING = MISSING
    description: Description | MISSING | None = MISSING
    status: TaskStatus | MISSING = MISSING
    due_at: UTCTime | MISSING | None = MISSING
    tags: TagNames | MISSING = MISSING


class TaskBatch(Body):
    """Many new tasks: all of them, or none."""

    items: Annotated[list[TaskCreate], Field(min_length=1, max_length=1000)]


class TaskQuery(PageQuery):
    """Which tasks to list, and in which order."""

    status: TaskStatus | None = None
    tag: TagName | None = None
    sort: Literal["created_at", "-created_at", "due_at", "-due_at", "title", "-title"] = Field(
        default="-created_at", description="`-` turns the order round. No due date comes last."
    )


class TaskPublic(Public):
    """A task."""

    id: UUID
    title: str
    description: str | None
    status: TaskStatus
    due_at: datetime | None
    tags: Annotated[list[str], BeforeValidator(_sorted_names, json_schema_input_type=list[str])]
    version: int
    created_at: datetime
    updated_at: datetime


class CommentCreate(Body):
    """A new comment."""

    author: Annotated[Text, Field(min_length=1, max_length=100)]
    body: Annotated[Text, Field(min_length=1, max_length=5000)]


class CommentPublic(Public):
    """A comment."""

    id: UUID
    author: str
    body: str
    created_at: datetime


class TaskDetail(TaskPublic):
    """A task with its first hundred comments; the list of its comments has all."""

    comments: list[CommentPublic]


class TagPublic(Public):
    """A tag, and how many tasks have it."""

    name: str
    task_count: int


class TaskList(Public):
    """Tasks that were made together."""

    items: list[TaskPublic]
