"""Which routers are mounted, under which prefix, closed or public."""

from fastapi import FastAPI

from app.kit import routing
from app.kit.routing import Mount
from app.tasks.router import router as tasks
from app.users import option as users

# Routes of a closed router require a caller, if the service has authentication.
CLOSED: list[Mount] = [
    ("/v1", tasks),
    *users.CLOSED,
]
PUBLIC: list[Mount] = [
    *users.PUBLIC,
]


def mount(app: FastAPI) -> None:
    """Mount every router."""
    routing.mount(app, closed=CLOSED, public=PUBLIC, guard=users.GUARD)
