"""Which routers are mounted, and under which path."""

from fastapi import APIRouter, FastAPI

from app.kit import health
from app.kit.errors import COMMON, problems
from app.tasks.router import router as tasks

PREFIX = "/v1"

PUBLIC: tuple[APIRouter, ...] = (tasks,)


def mount(app: FastAPI) -> None:
    """Mount every router: each feature is one name above."""
    # Straight on the app: each level of nested routers costs every request.
    for router in PUBLIC:
        app.include_router(router, prefix=PREFIX, responses=problems(*COMMON))
    app.include_router(health.router)  # last, for they are asked in turn
