"""All the SQL of notebooks and pages."""

from sqlalchemy import func, select

from app.kit.db.repository import Repository
from app.kit.errors import Conflict
from app.kit.pagination import KeysetList
from app.notebooks.models import Notebook, NotePage

NOTEBOOKS = KeysetList(
    select(Notebook), sorts=[Notebook.created_at], filters={"name": Notebook.name}
)
PAGES_OF_NOTEBOOK = KeysetList(
    select(NotePage),
    sorts=[NotePage.created_at],
    filters={
        "notebook_id": NotePage.notebook_id,
        "q": lambda q: func.instr(func.lower(NotePage.text), func.lower(q)) > 0,
    },
)


class NotebookRepository(Repository[Notebook]):
    """Notebooks."""

    model = Notebook

    async def get_or_create(self, name: str) -> Notebook:
        """Return the notebook with this name; create it if there is none."""
        try:
            async with self.session.begin_nested():
                return await self.create({"name": name})
        except Conflict:
            return await self.one(self.select().where(Notebook.name == name))


class NotePageRepository(Repository[NotePage]):
    """Pages of notebooks."""

    model = NotePage
