"""The application factory."""

import logging

from fastapi import FastAPI

from app.api import mount
from app.kit.app import build_app, prepare_process
from app.settings import Settings, load_settings


def create_app(settings: Settings | None = None) -> FastAPI:
    """Create the app, with settings from the environment unless some are given."""
    return build_app(settings or load_settings(), mount)


def create_process_app() -> FastAPI:
    """Create the app of a server process: what ``python -m app`` serves."""
    app = create_app()
    prepare_process(app)
    return app


def create_asgi_app() -> FastAPI:
    """Create the app for a server other than ``python -m app``, with a warning."""
    logging.getLogger(__name__).warning(
        "Served without `python -m app`: no SHUTDOWN_DELAY and no limits on connections. "
        "docs/deployment.md says what each server lacks."
    )
    return create_app()


def __getattr__(name: str) -> FastAPI:
    """Create ``app`` when a server asks for it: importing this module reads no settings."""
    if name == "app":
        app = globals()["app"] = create_asgi_app()
        return app
    raise AttributeError(name)
