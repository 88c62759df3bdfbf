"""``python -m app``: serve, as in production; ``--reload`` as in development."""

import argparse
import os
from copy import deepcopy
from typing import Any

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from app.kit.server import Protocol, Supervisor
from app.settings import load_settings

APP = "app.main:create_process_app"

CLEANUP = 3
"""Seconds of the time to end that are left for closing what is open."""


def main() -> None:
    """Check the configuration, then serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m app", description=__doc__)
    parser.add_argument(
        "--reload", action="store_true", help="restart on every change, log each request"
    )
    reload: bool = parser.parse_args().reload
    # Read here first: one clear line and an end, where a supervisor would restart workers forever.
    settings = load_settings()
    options: dict[str, Any] = {
        "factory": True,
        "host": settings.host,
        "port": settings.port,
        "http": Protocol,
        "timeout_graceful_shutdown": settings.shutdown_timeout - CLEANUP,
        "log_config": _log_config(settings.log_level.upper()),
        "access_log": reload,  # in production the proxy in front writes it, for 4 to 7 % less work
        "server_header": False,
    }
    if reload:
        os.environ["SHUTDOWN_DELAY"] = "0"  # nobody has to find out: each change would wait for it
        uvicorn.run(APP, reload=True, reload_dirs=["app"], **options)
    elif settings.workers == 1:
        uvicorn.run(APP, **options)
    else:
        config = uvicorn.Config(APP, workers=settings.workers, **options)
        supervisor = Supervisor(config, sockets=[config.bind_socket()])
        supervisor.delay = settings.shutdown_delay
        supervisor.run()


def _log_config(level: str) -> dict[str, Any]:
    """Give uvicorn's logging, with the service's own loggers beside the server's."""
    config: dict[str, Any] = deepcopy(LOGGING_CONFIG)
    config["loggers"]["uvicorn"]["level"] = level
    config["loggers"]["app"] = {"handlers": ["default"], "level": level, "propagate": False}
    config["loggers"]["python_multipart"] = {"level": "ERROR"}  # it warns of each client's mistake
    return config


if __name__ == "__main__":
    main()
