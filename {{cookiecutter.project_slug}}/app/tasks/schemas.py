"""The request and response bodies of tasks. Other columns are never returned."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import MISSING, BeforeValidator, Field

from app.kit.pagination import PageQuery
from app.kit.schemas import RequestModel, ResponseModel, Text, UTCTime
from app.tasks.models import Tag, TaskStatus
from app.users.owner import SignedModel

Title = Annotated[Text, Field(min_length=1, max_length=200, examples=["Order new chairs"])]
Description = Annotated[
    Annotated[Text, Field(max_length=10_000)] | None,
    Field(examples=["Six for the meeting room, the same as last year."]),
]
Status = Annotated[TaskStatus, Field(examples=[TaskStatus.DOING])]
DueTime = Annotated[UTCTime | None, Field(examples=["2030-06-28T15:00:00Z"])]
TagName = Annotated[Text, Field(min_length=1, max_length=50)]
TagNames = Annotated[list[TagName], Field(max_length=20, examples=[["office", "purchases"]])]


def _sorted_names(tags: list[Tag]) -> list[str]:
    # Tags that were just written have no order, and each database sorts texts differently.
    return sorted(tag.name for tag in tags)


class TaskCreate(RequestModel):
    """A new task."""

    title: Title
    description: Description = None
    status: Status = TaskStatus.TODO
    due_at: DueTime = None
    tags: TagNames = Field(default=[])


class TaskUpdate(RequestModel):
    """Changes to a task: a field that is not sent stays as it is."""

    title: Title | MISSING = MISSING
    description: Description | MISSING = MISSING
    status: Status | MISSING = MISSING
    due_at: DueTime | MISSING = MISSING
    tags: TagNames | MISSING = MISSING


class TaskBatch(RequestModel):
    """Many new tasks: all of them are created, or none."""

    items: Annotated[list[TaskCreate], Field(min_length=1, max_length=1000)]


class TaskQuery(PageQuery):
    """Filters and order of the list of tasks."""

    status: TaskStatus | None = None
    tag: TagName | None = None
    sort: Literal["created_at", "-created_at", "due_at", "-due_at", "title", "-title"] = Field(
        default="-created_at", description="`-` reverses the order. No due date sorts last."
    )


class TaskPublic(ResponseModel):
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


class TaskList(ResponseModel):
    """Tasks that were created together."""

    items: list[TaskPublic]


class CommentCreate(SignedModel):
    """A new comment."""

    body: Annotated[Text, Field(min_length=1, max_length=5000, examples=["They arrive on Friday."])]


class CommentPublic(ResponseModel):
    """A comment."""

    id: UUID
    author: str
    body: str
    created_at: datetime


class TagPublic(ResponseModel):
    """A tag and the number of tasks that have it."""

    name: str
    task_count: int
