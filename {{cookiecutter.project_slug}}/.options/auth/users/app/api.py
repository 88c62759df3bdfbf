"""Which routers are mounted, under which path, and who may pass."""

from fastapi import APIRouter, Depends, FastAPI

from app.kit import health
from app.kit.errors import COMMON, problems
from app.tasks.router import router as tasks
from app.users.caller import authorise
from app.users.router import admin, auth, keys, me, registration

PREFIX = "/v1"

# A router stands in one of these, so that no route can forget to ask who is calling.
PUBLIC: tuple[APIRouter, ...] = (auth, registration)
CLOSED: tuple[APIRouter, ...] = (tasks, me, keys, admin)


def mount(app: FastAPI) -> None:
    """Mount every router: each feature is one name above."""
    # Straight on the app: each level of nested routers costs every request.
    for router in PUBLIC:
        app.include_router(router, prefix=PREFIX, responses=problems(*COMMON))
    for router in CLOSED:
        app.include_router(
            router,
            prefix=PREFIX,
            dependencies=[Depends(authorise, scope="function")],
            responses=problems(401, 403, *COMMON),
        )
    app.include_router(health.router)  # last, for they are asked in turn
