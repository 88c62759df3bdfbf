"""How uvicorn serves: limits of a connection, and shutdown without a lost request."""

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from http import HTTPStatus
from typing import Any, Final, NoReturn

import uvicorn
from uvicorn.config import LOGGING_CONFIG
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.supervisors import ChangeReload, Multiprocess

from app.kit.app import HASTEN, STOP_SIGNALS
from app.kit.config import KitSettings
from app.kit.errors import MEDIA_TYPE, Problem

MAX_HEAD = 64 * 1024
"""Bytes of a request line, headers or trailers; uvicorn itself has no limit."""

LINGER = 0.5
"""Seconds for which an idle connection stays open at a shutdown, for a request on its way."""

CLEANUP: Final = 3
"""Seconds of ``SHUTDOWN_TIMEOUT`` that are reserved for closing connections."""


class Protocol(HttpToolsProtocol):
    """Limits the size of headers, and closes connections without losing a request."""

    ending = False
    refused = False
    unread = 0

    def data_received(self, data: bytes) -> None:
        """Parse received bytes; reject headers or trailers without an end."""
        if self.refused:
            return  # drain and discard: closing a socket with unread data sends RST
        self.unread += len(data)
        super().data_received(data)  # resets `unread` on progress
        if self.unread > MAX_HEAD and not self.transport.is_closing():
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self._refuse(status, "The URL and the headers are too large.")

    def on_headers_complete(self) -> None:
        """Start the request. At a shutdown it is the connection's last."""
        self.unread = 0
        super().on_headers_complete()
        if self.ending:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Pass on a part of the body."""
        self.unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the next request."""
        self.unread = 0
        super().on_message_complete()

    def shutdown(self) -> None:
        """Close the connection after its response, or after ``LINGER`` if it is idle.

        uvicorn closes an idle connection at once, which can lose a request.
        """
        self.ending = True
        if getattr(self.cycle, "response_complete", True):  # unset before the first request
            self.loop.call_later(LINGER, super().shutdown)
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Reject what is not HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        problem = Problem(title=status.phrase, status=status, detail=detail, instance="/")
        content = problem.model_dump_json(exclude_none=True).encode()
        head = b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        head %= MEDIA_TYPE.encode(), len(content)
        self.transport.write(STATUS_LINE[status] + head + content)
        self.refused = True
        if cycle := vars(self).get("cycle"):  # its request has no client any more
            cycle.disconnected = True
            cycle.message_event.set()
        self.loop.call_later(LINGER, self.transport.close)


class Supervisor(Multiprocess):
    """Runs several workers and stops them together."""

    delay = 0.0
    """Seconds for which the workers keep serving after a stop signal."""

    def terminate_all(self) -> None:
        """Stop the workers and close the socket, so that no client waits in its queue."""
        super().terminate_all()
        until = time.monotonic() + self.delay
        while time.monotonic() < until and not self._stopped_again():
            time.sleep(0.1)
        if self._stopped_again():
            self._hasten()
        for each in self.sockets:
            with suppress(OSError):  # not supported by every system
                each.shutdown(socket.SHUT_RDWR)  # in every process that shares it
            each.close()

    def _stopped_again(self) -> bool:
        return not {*STOP_SIGNALS, getattr(signal, "SIGBREAK", None)}.isdisjoint(self.signal_queue)

    def _hasten(self) -> None:
        if not self.delay or HASTEN is None:
            super().terminate_all()
            return
        for process in self.processes:
            if process.pid is not None and process.exitcode is None:
                os.kill(process.pid, HASTEN)


def main(app: str, load_settings: Callable[[], KitSettings]) -> None:
    """Read the command line and the settings, then serve until a stop signal."""
    parser = argparse.ArgumentParser(prog="python -m app", description="Serve the app.")
    parser.add_argument(
        "--reload", action="store_true", help="restart on every change, log each request"
    )
    reload: bool = parser.parse_args().reload
    # Read before the workers start: a supervisor would restart failing workers forever.
    settings = load_settings()
    options: dict[str, Any] = {
        "factory": True,
        "host": settings.host,
        "port": settings.port,
        "http": Protocol,
        "timeout_graceful_shutdown": settings.shutdown_timeout - CLEANUP,
        "log_config": _log_config(settings.log_level.upper()),
        "access_log": reload,  # the proxy in front writes it in production; it costs 4 to 7 %
        "server_header": False,
    }
    _check_port(settings.host, settings.port)
    if reload:
        os.environ["SHUTDOWN_DELAY"] = "0"  # there is no load balancer to wait for
        config = uvicorn.Config(app, reload=True, reload_dirs=["app"], **options)
        ChangeReload(config, uvicorn.Server(config).run, [_listen(config)]).run()
        sys.exit(128 + signal.SIGINT)  # after 0, `just dev` would print an error
    elif settings.workers == 1:
        uvicorn.run(app, **options)
    else:
        config = uvicorn.Config(app, workers=settings.workers, **options)
        supervisor = Supervisor(config, sockets=[config.bind_socket()])
        supervisor.delay = settings.shutdown_delay
        supervisor.run()


def _check_port(host: str, port: int) -> None:
    """Exit with one sentence if the port can't be used; uvicorn's own does not name it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        if sys.platform != "win32":  # there, it would allow a port that is in use
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            _refuse_port(host, port, error)


def _listen(config: uvicorn.Config) -> socket.socket:
    """Return a listening socket: while none listens, several processes can bind one port."""
    bound = config.bind_socket()
    try:
        bound.listen(config.backlog)
    except OSError as error:
        _refuse_port(config.host, config.port, error)
    return bound


def _refuse_port(host: str, port: int, error: OSError) -> NoReturn:
    sys.exit(f"PORT: {port} on {host} can't be used: {error.strerror}. Choose another port.")


def _log_config(level: str) -> dict[str, Any]:
    config: dict[str, Any] = deepcopy(LOGGING_CONFIG)
    config["loggers"]["uvicorn"]["level"] = level
    config["loggers"]["app"] = {"handlers": ["default"], "level": level, "propagate": False}
    config["loggers"]["python_multipart"] = {"level": "ERROR"}  # it logs clients' mistakes
    return config
