"""Lists the routes of the service: ``just routes``."""

import argparse
from collections.abc import Iterator
from typing import Final

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts

from app.kit.caller import REQUIREMENT
from app.main import create_app
from app.settings import Settings

ANYONE: Final = "anyone"


def routes(app: FastAPI) -> list[tuple[str, str, str]]:
    """Return the method, the path and the callers of each route, sorted by path."""
    found = list[tuple[str, str, str]]()
    for route in iter_route_contexts(app.routes):
        methods = set(route.methods or {"*"})  # a mounted app decides itself
        if "GET" in methods:
            methods.discard("HEAD")
        callers = ", ".join(dict.fromkeys(_requirements(route)))
        path = route.path_format or route.path or "/"
        found += [(path, method, callers or ANYONE) for method in methods]
    return [(method, path, callers) for path, method, callers in sorted(found)]


def _requirements(route: RouteContext) -> Iterator[str]:
    guard = getattr(route.original_route, "guard", None)
    if guard is not None:
        yield from _requirements_of(guard.check)
    dependant = getattr(route, "dependant", None)
    if dependant is not None:
        yield from _requirements_below(dependant)


def _requirements_below(dependant: Dependant) -> Iterator[str]:
    for each in dependant.dependencies:
        yield from _requirements_of(each.call)
        yield from _requirements_below(each)


def _requirements_of(function: object) -> Iterator[str]:
    if requirement := getattr(function, REQUIREMENT, ""):
        yield requirement


def main() -> None:
    """Print a line for each route."""
    argparse.ArgumentParser(
        prog="just routes", description="List each route: its method, its path and who may call it."
    ).parse_args()
    # The defaults: routes need neither a database nor a secret.
    found = routes(create_app(Settings.model_construct()))
    width = max(len(path) for _, path, _ in found)
    for method, path, callers in found:
        print(f"{method:7} {path:{width}}  {callers}")


if __name__ == "__main__":
    main()
