"""All the SQL of notes."""

from functools import cache

from sqlalchemy import Select, insert, select

from app.kit import pagination
from app.kit.db.engine import WriteSession
from app.kit.db.repository import Repository
from app.kit.pagination import Order, Slice, Start
from app.kit.schemas import PageQuery
from app.notes.models import Note
from app.notes.schemas import NoteCreate

ORDER = Order("created_at", Note.created_at, Note.id)


@cache
def _page(start: Start) -> Select[Note]:
    return pagination.keyset(select(Note), ORDER, start)


class NoteReader(Repository):
    """What can be asked about notes."""

    model = Note

    async def page(self, query: PageQuery) -> Slice[Note]:
        """List notes, the oldest first."""
        position = pagination.decode(ORDER, query.cursor)
        parameters = pagination.parameters(query.limit, position)
        return pagination.cut(await self.all(_page(position.start), parameters), query.limit, ORDER)


class NoteRepository(NoteReader):
    """What can be done to notes."""

    session: WriteSession

    def __init__(self, session: WriteSession) -> None:
        """Work in the transaction of ``session``."""
        super().__init__(session)

    async def create(self, note: NoteCreate) -> Note:
        """Write a new note."""
        return await self.one(insert(Note).values(note.model_dump()).returning(Note))
