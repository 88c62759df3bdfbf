"""The application factory: ``uvicorn app.main:create_app --factory``, or ``python -m app``."""

import asyncio
import gc
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType
from typing import cast

from fastapi import FastAPI

from app import api, errors, health, project
from app.db.engine import Database
from app.idempotency import session as idempotency
from app.settings import Settings, load_settings

logger = logging.getLogger(__name__)

Handler = Callable[[int, FrameType | None], object]

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
        _delay_end(app, settings.shutdown_delay)
    # What is loaded by now stays: looked through for garbage again and again, it would cost a tenth
    # of the time of each request.
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 20)
    return app


def _delay_end(app: FastAPI, seconds: float) -> None:
    """Let the server go on for a while when it is told to end, as one that is not ready.

    Who gives it requests has that long to find out that it will be gone: a request that comes on a
    new connection in the moment in which the server stops listening is lost. Told once more, by the
    same signal, it ends at once. To be called in the server's loop, when it has its handlers.
    """
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        end = cast("Handler", signal.getsignal(number))

        def later(signum: int, _frame: FrameType | None, end: Handler = end) -> None:
            def at_once(signum: int, frame: FrameType | None) -> None:
                for timer in timers:
                    timer.cancel()
                end(signum, frame)

            def wait() -> None:
                logger.info("Not ready any more: shutting down in %g s", seconds)
                timers.append(loop.call_later(seconds, end, signum, None))

            app.state.ending = True
            signal.signal(signum, at_once)
            loop.call_soon_threadsafe(wait)

        signal.signal(number, later)
