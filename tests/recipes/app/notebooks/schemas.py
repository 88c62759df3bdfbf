"""The request and response bodies of notebooks and pages."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from app.kit.pagination import OffsetQuery, PageQuery
from app.kit.schemas import RequestModel, ResponseModel, Text

Name = Annotated[Text, Field(min_length=1, max_length=100)]
PageText = Annotated[Text, Field(min_length=1, max_length=1000)]


class NotebookCreate(RequestModel):
    """A new notebook."""

    name: Name


class NotebookPublic(ResponseModel):
    """A notebook."""

    id: UUID
    name: str
    created_at: datetime


class NotebookQuery(OffsetQuery):
    """Filters and order of the list of notebooks."""

    name: Name | None = None
    sort: Literal["created_at", "-created_at"] = "created_at"


class NotePageCreate(RequestModel):
    """A new page of a notebook."""

    notebook_id: UUID
    text: PageText


class NotePagePublic(ResponseModel):
    """A page of a notebook."""

    id: UUID
    notebook_id: UUID
    author_id: UUID
    text: str
    created_at: datetime


class NotePageQuery(PageQuery):
    """Search in the pages of a notebook."""

    q: PageText | None = None
