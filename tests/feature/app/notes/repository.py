"""All the SQL of notes."""

from sqlalchemy import select

from app.kit.db.repository import Repository
from app.kit.pagination import KeysetList
from app.notes.models import Note

NOTES = KeysetList(select(Note), sorts=[Note.created_at])


class NoteRepository(Repository[Note]):
    """Notes."""

    model = Note
