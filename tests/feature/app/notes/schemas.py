"""What clients send and get."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from app.kit.schemas import Body, Public, Text


class NoteCreate(Body):
    """A new note."""

    body: Annotated[Text, Field(min_length=1, max_length=1000)]


class NotePublic(Public):
    """A note."""

    id: UUID
    body: str
    created_at: datetime
