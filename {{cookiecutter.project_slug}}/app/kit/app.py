"""Create the app, and prepare a server process for it."""

import asyncio
import gc
import logging
import multiprocessing
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import FrameType
from typing import Final, cast

from fastapi import FastAPI

from app.kit import docs, errors, headers, health, metrics, openapi, project, routing
from app.kit.config import KitSettings
from app.kit.db.engine import Database
from app.kit.idempotency import session as idempotency

logger = logging.getLogger(__name__)

Handler = Callable[[int, FrameType | None], object]

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

HASTEN: Final[int | None] = getattr(signal, "SIGUSR1", None)
"""The signal by which a supervisor ends the ``SHUTDOWN_DELAY`` of its workers."""

CANCELLED_TIMEOUT: Final = 1.0
"""Seconds that requests cancelled by a shutdown have to send their response."""


def build_app(settings: KitSettings, mount: Callable[[FastAPI], None]) -> FastAPI:
    """Create an app whose routers ``mount`` adds. Its lifespan opens and closes the database.

    Raises:
        RuntimeError: a route is shadowed by another one, has its operation id, or can't be
            idempotent.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        database = app.state.database = Database(settings)
        await database.open(partial(health.unfit_schema, history=app.state.schema_history))
        try:
            async with idempotency.cleaning_up(database, settings.idempotency_lifetime):
                yield
            # Requests that were running when the time was up are cancelled and still respond.
            if cancelled := [task for task in asyncio.all_tasks() if task.cancelling()]:
                await asyncio.wait(cancelled, timeout=CANCELLED_TIMEOUT)
        finally:
            await database.close()

    app = FastAPI(
        title=project.TITLE,
        version=project.VERSION,
        description=project.DESCRIPTION,
        contact=project.CONTACT,
        license_info=project.LICENSE,
        servers=[{"url": "/"}],
        generate_unique_id_function=openapi.operation_id,
        lifespan=lifespan,
        openapi_url="/openapi.json" if settings.docs else None,
        docs_url=None,  # those of FastAPI load scripts from another host
        redoc_url=None,
        telemetry={"operation_spans": False},  # one span for a request is enough
        redirect_slashes=False,  # a redirect would contain the client's Host
    )
    app.state.settings = settings
    app.state.ending = False
    app.state.schema_history = health.schema_history()
    openapi.install(app)
    if settings.docs:
        docs.install(app)
    if settings.metrics_token is not None:
        metrics.install(app, settings.metrics_token)
    errors.install(app, max_body_size=settings.max_body_size)
    headers.install(app, settings)
    idempotency.install(app)
    mount(app)
    routing.mount(app, closed=(), public=[("", health.router)])  # last: routes are tried in order
    routing.check_routes(app)
    return app


def prepare_process(app: FastAPI) -> None:
    """Prepare a process that only serves ``app``. Call it in the server's loop."""
    settings: KitSettings = app.state.settings
    if settings.shutdown_delay:
        _delay_shutdown(app, settings.shutdown_delay)
    # Freeze start-up objects: collecting them again costs about 10 % per request.
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 20)


def _delay_shutdown(app: FastAPI, seconds: float) -> None:
    """Keep serving for a while after a stop signal, until a load balancer has noticed.

    A second stop signal stops the server at once. A worker reacts only to its supervisor: a signal
    to the whole process group reaches both, and would count twice.
    """
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []
    is_worker = multiprocessing.parent_process() is not None and HASTEN is not None
    stops: dict[int, Handler] = {
        each: cast("Handler", signal.getsignal(each)) for each in STOP_SIGNALS
    }

    def later(signum: int, _frame: FrameType | None) -> None:
        def wait() -> None:
            logger.info("No longer ready: shutting down in %g s", seconds)
            timers.append(loop.call_later(seconds, stops[signum], signum, None))

        if not app.state.ending:
            app.state.ending = True
            loop.call_soon_threadsafe(wait)
        elif not is_worker:
            at_once(signum, None)

    def at_once(signum: int, frame: FrameType | None) -> None:
        for timer in timers:
            timer.cancel()
        stops.get(signum, stops[signal.SIGTERM])(signum, frame)

    for number in STOP_SIGNALS:
        signal.signal(number, later)
    if is_worker and HASTEN is not None:
        signal.signal(HASTEN, at_once)
