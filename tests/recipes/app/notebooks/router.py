"""Notebook routes."""

from typing import Annotated
from uuid import UUID

from fastapi import Query

from app.kit.caller import CallerDep
from app.kit.db.session import repository
from app.kit.errors import error_responses
from app.kit.pagination import OffsetPage, Page
from app.kit.routing import Router
from app.notebooks.models import Notebook, NotePage
from app.notebooks.repository import (
    NOTEBOOKS,
    PAGES_OF_NOTEBOOK,
    NotebookRepository,
    NotePageRepository,
)
from app.notebooks.schemas import (
    NotebookCreate,
    NotebookPublic,
    NotebookQuery,
    NotePageCreate,
    NotePagePublic,
    NotePageQuery,
)

router = Router(tags=["notebooks"])

Notebooks = Annotated[NotebookRepository, repository(NotebookRepository)]
Pages = Annotated[NotePageRepository, repository(NotePageRepository)]


@router.post(
    "/notebooks", status_code=201, response_model=NotebookPublic, responses=error_responses(409)
)
async def create_notebook(body: NotebookCreate, notebooks: Notebooks) -> Notebook:
    """Create a notebook."""
    return await notebooks.create(body)


@router.put("/notebooks", response_model=NotebookPublic)
async def open_notebook(body: NotebookCreate, notebooks: Notebooks) -> Notebook:
    """Get the notebook with this name, or create it."""
    return await notebooks.get_or_create(body.name)


@router.get("/notebooks", response_model=OffsetPage[NotebookPublic])
async def list_notebooks(query: Annotated[NotebookQuery, Query()], notebooks: Notebooks) -> object:
    """List notebooks, page by page."""
    return await notebooks.page(NOTEBOOKS, query)


@router.get(
    "/notebooks/{notebook_id}/pages",
    response_model=Page[NotePagePublic],
    responses=error_responses(404),
)
async def list_pages_of_notebook(
    notebook_id: UUID,
    query: Annotated[NotePageQuery, Query()],
    pages: Pages,
    notebooks: Notebooks,
) -> object:
    """List the pages of a notebook, page by page."""
    await notebooks.get(notebook_id)
    return await pages.page(PAGES_OF_NOTEBOOK, query, notebook_id=notebook_id)


@router.post(
    "/note-pages",
    status_code=201,
    response_model=NotePagePublic,
    responses=error_responses(404, 409),
)
async def create_page(
    body: NotePageCreate, caller: CallerDep, pages: Pages, notebooks: Notebooks
) -> NotePage:
    """Create a page of a notebook."""
    await notebooks.get(body.notebook_id)
    return await pages.create({**body.model_dump(), "author_id": caller.id})


@router.get("/note-pages/{page_id}", response_model=NotePagePublic, responses=error_responses(404))
async def get_page(page_id: UUID, pages: Pages) -> NotePage:
    """Get a page."""
    return await pages.get(page_id)
