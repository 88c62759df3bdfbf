"""The application factory: ``uvicorn app.main:create_app --factory``, or ``python -m app``."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import api, errors, health, project, server
from app.db.engine import Database
from app.idempotency import session as idempotency
from app.settings import Settings, load_settings

LAST_ANSWERS = 1.0
"""Seconds that cancelled requests have to say so."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Make an app of its own: two with different settings can live in one process.

    Nothing connects here; the lifespan opens the database and closes it.

    Raises:
        SystemExit: no settings are given and those of the environment can't be read.
    """
    settings = settings or load_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = app.state.database = Database(settings)
        await database.open()
        try:
            async with idempotency.sweeping(database, settings.idempotency_lifetime):
                yield
            # What still ran when the time was up has been cancelled, and has an answer to give.
            if cancelled := [task for task in asyncio.all_tasks() if task.cancelling()]:
                await asyncio.wait(cancelled, timeout=LAST_ANSWERS)
        finally:
            await database.close()

    app = FastAPI(
        title=project.TITLE,
        version=project.VERSION,
        description=project.DESCRIPTION,
        lifespan=lifespan,
    )
    app.state.settings = settings
    app.state.ending = False
    app.state.schema_history = health.schema_history()
    errors.install(app, max_body_size=settings.max_body_size)
    idempotency.install(app)
    api.mount(app)
    return app


def create_process_app() -> FastAPI:
    """Make the app of a process that does nothing else: what ``python -m app`` serves."""
    app = create_app()
    settings: Settings = app.state.settings
    if settings.shutdown_delay:
        server.delay_end(settings.shutdown_delay, lambda: setattr(app.state, "ending", True))
    # What is loaded by now stays: looked through for garbage again and again, it would cost a tenth
    # of the time of each request.
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 20)
    return app
