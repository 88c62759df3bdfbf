"""The application factory."""

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
