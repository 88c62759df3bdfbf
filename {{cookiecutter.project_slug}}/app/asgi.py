"""The app for servers other than ``python -m app``: ``uvicorn app.asgi:app``, ``fastapi run``."""

import logging

from app.main import create_app

app = create_app()

logging.getLogger(__name__).warning(
    "Served without `python -m app`: no SHUTDOWN_DELAY and no limits on connections. "
    "docs/deployment.md says what each server lacks."
)
