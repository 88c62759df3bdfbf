"""The HTTP face of notes."""

from typing import Annotated

from fastapi import Query

from app.kit.db.session import ReadSessionDep, SessionDep
from app.kit.pagination import Page
from app.kit.routing import Router
from app.kit.schemas import PageQuery
from app.notes.models import Note
from app.notes.repository import NoteReader, NoteRepository
from app.notes.schemas import NoteCreate, NotePublic

router = Router(tags=["notes"])


@router.post("/notes", status_code=201, response_model=NotePublic)
async def create_note(body: NoteCreate, session: SessionDep) -> Note:
    """Write a note."""
    return await NoteRepository(session).create(body)


@router.get("/notes", response_model=Page[NotePublic])
async def list_notes(query: Annotated[PageQuery, Query()], session: ReadSessionDep) -> object:
    """List notes, page by page."""
    return await NoteReader(session).page(query)
