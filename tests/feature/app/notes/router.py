"""Note routes."""

from typing import Annotated

from fastapi import Query

from app.kit.db.session import repository
from app.kit.pagination import Page, PageQuery
from app.kit.routing import Router
from app.notes.models import Note
from app.notes.repository import NOTES, NoteRepository
from app.notes.schemas import NoteCreate, NotePublic

router = Router(tags=["notes"])

Notes = Annotated[NoteRepository, repository(NoteRepository)]


@router.post("/notes", status_code=201, response_model=NotePublic)
async def create_note(body: NoteCreate, notes: Notes) -> Note:
    """Write a note."""
    return await notes.create(body)


@router.get("/notes", response_model=Page[NotePublic])
async def list_notes(query: Annotated[PageQuery, Query()], notes: Notes) -> object:
    """List notes, page by page."""
    return await notes.page(NOTES, query)
