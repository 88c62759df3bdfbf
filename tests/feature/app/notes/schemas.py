"""The request and response bodies of notes."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from app.kit.schemas import RequestModel, ResponseModel, Text


class NoteCreate(RequestModel):
    """A new note."""

    body: Annotated[Text, Field(min_length=1, max_length=1000)]


class NotePublic(ResponseModel):
    """A note."""

    id: UUID
    body: str
    created_at: datetime
