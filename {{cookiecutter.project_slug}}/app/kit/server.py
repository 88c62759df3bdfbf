"""Uvicorn with limits on connections, and a shutdown that loses no request."""

import argparse
import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sized
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from secrets import token_hex
from typing import Any, Final, NoReturn

import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.supervisors import ChangeReload, Multiprocess

from app.kit.app import HASTEN, STOP_SIGNALS
from app.kit.config import KitSettings
from app.kit.errors import MEDIA_TYPE, Problem
from app.kit.headers import ALWAYS, NO_CONTENT, NO_STORE
from app.kit.logs import REQUEST_ID, log_config

MAX_HEAD = 64 * 1024
"""Bytes of a request line, headers or trailers; uvicorn itself has no limit."""

MAX_PIPELINED: Final = 16
"""Requests of a connection that wait until earlier ones have their responses."""

LINGER = 0.5
"""Seconds for which an idle connection stays open at a shutdown: a request may be on its way."""

CLEANUP: Final = 3
"""Seconds of ``SHUTDOWN_TIMEOUT`` that are reserved for closing connections."""

_HEADERS: Final = b"".join(b"%b: %b\r\n" % each for each in (NO_STORE, NO_CONTENT, *ALWAYS))


@dataclass
class ConnectionLimits:
    """The limits of a server's connections, and those that wait for their client."""

    head_timeout: float = 20
    """Seconds for the URL and the headers, from the connection or the first byte."""
    body_timeout: float = 60
    """Seconds for the body, and for a client that does not read its response."""
    connections: int = 900
    """Maximum open connections; beyond, the one that waits longest is closed."""
    bodies: int = 64 * 2**20
    """Bytes of all incomplete bodies; beyond, the connection that waits longest is closed."""
    waiting: dict["Protocol", None] = field(default_factory=dict)
    """Connections that wait for their client, the longest waiting first."""
    buffered: int = 0
    """Bytes of incomplete bodies."""


class _Flow(FlowControl):
    """Resumes reading once no pipelined request waits: they have a bound."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class Protocol(HttpToolsProtocol):
    """Limits time, memory and headers of a request, and closes connections without losing one."""

    ending = False
    refused = False
    unread = 0
    in_message = False
    in_body = False
    buffered = 0
    timer: asyncio.TimerHandle | None = None
    abort_timer: asyncio.TimerHandle | None = None
    running: RequestResponseCycle | None = None
    """The request whose response is next; ``cycle`` is the latest one."""

    def __init__(
        self, *arguments: Any, limits: ConnectionLimits | None = None, **options: Any
    ) -> None:
        """Accept what uvicorn passes, and the limits that all connections share."""
        super().__init__(*arguments, **options)
        self.limits = ConnectionLimits() if limits is None else limits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request. Beyond the limit, close the connection that waits longest."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        if len(self.connections) > self.limits.connections:
            if self.limits.waiting:
                next(iter(self.limits.waiting)).evict()
            else:
                self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "There are too many connections.")
                return
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._cancel_abort()
        if self.running is not None:
            self.running.disconnected = True
            self.running.message_event.set()
        self._stop_waiting()
        self._end_body()

    def data_received(self, data: bytes) -> None:
        """Parse received bytes; reject headers or trailers without an end."""
        if self.refused:
            return  # drain and discard: closing a socket with unread data sends RST
        self.unread += len(data)
        super().data_received(data)  # resets `unread` on progress
        if self.transport.is_closing():
            return
        if self.unread > MAX_HEAD:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self._refuse(status, "The URL and the headers are too large.")
        elif self.in_message or self._is_idle():
            self._wait()
        elif self.flow.write_paused:
            self._cancel_timer()
        else:
            self._stop_waiting()

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.in_message = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Start the request. At a shutdown, or with ``Upgrade``, it is the connection's last."""
        self.unread = 0
        self._cancel_timer()
        upgrades = self.parser.should_upgrade() and not self._should_upgrade()
        if upgrades and self._has_body():
            self._reject("A request with Upgrade can't have a body.")
        if len(self.pipeline) >= MAX_PIPELINED:
            self._reject("There are too many pipelined requests.")
        super().on_headers_complete()
        if not self._should_upgrade():  # uvicorn reads them again for a WebSocket
            self.headers = []  # for trailers: among the headers, they could replace a proxy's
        self.in_body = True
        if self.ending or upgrades:
            self.cycle.keep_alive = False
        if upgrades:
            self.refused = True  # the parser takes what follows for a request

    def _has_body(self) -> bool:
        sizes = [value for name, value in self.headers if name == b"content-length"]
        chunked = any(name == b"transfer-encoding" for name, _ in self.headers)
        return chunked or any(value.strip(b"0") for value in sizes)

    def _reject(self, detail: str) -> NoReturn:
        self._refuse(HTTPStatus.BAD_REQUEST, detail)
        raise ValueError(detail)  # ends parsing

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: the request is served without an upgrade."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.running = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """Pass on a part of the body. Beyond the limit, close the one that waits longest."""
        self.unread = 0
        super().on_body(body)
        if self.cycle.response_complete:
            return  # discarded
        self.buffered += len(body)
        self.limits.buffered += len(body)
        while self.limits.buffered > self.limits.bodies:
            next((each for each in self.limits.waiting if each.buffered), self).evict()

    def on_message_complete(self) -> None:
        """Wait for the next request."""
        self.unread = 0
        self.in_message = self.in_body = False
        self._end_body()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request: uvicorn limits the time."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._abort_later()
        elif self._is_idle():
            self.limits.waiting[self] = None

    def pause_writing(self) -> None:
        """Wait for the client to read; after a while, or for another connection, abort."""
        super().pause_writing()
        self.limits.waiting.setdefault(self)
        self._abort_later()

    def resume_writing(self) -> None:
        """Go on: the client reads."""
        super().resume_writing()
        if self.transport.is_closing():
            return
        self._cancel_abort()
        if not (self.in_message or self._is_idle()):
            self.limits.waiting.pop(self, None)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, which was idle for too long."""
        self._close()

    def evict(self) -> None:
        """Close the connection in favour of another one."""
        self.refused = True
        self._stop_waiting()
        self._end_body()
        self.transport.abort()

    def _is_idle(self) -> bool:
        return getattr(self.cycle, "response_complete", True)  # None before the first request

    def _wait(self) -> None:
        if self.refused:
            return
        self.limits.waiting.setdefault(self)  # progress does not change the order
        if self.timer is None:
            seconds = self.limits.body_timeout if self.in_body else self.limits.head_timeout
            self.timer = self.loop.call_later(seconds, self._time_out)

    def _stop_waiting(self) -> None:
        self.limits.waiting.pop(self, None)
        if self.timer is not None:
            self._cancel_timer()

    def _close(self) -> None:
        self.transport.close()  # once the client has read what was sent
        self._abort_later()

    def _abort_later(self) -> None:
        if self.abort_timer is None and self in self.connections:
            self.abort_timer = self.loop.call_later(self.limits.body_timeout, self.evict)

    def _cancel_abort(self) -> None:
        if self.abort_timer is not None:
            self.abort_timer.cancel()
            self.abort_timer = None

    def _cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _end_body(self) -> None:
        self.limits.buffered -= self.buffered
        self.buffered = 0

    def _time_out(self) -> None:
        self.timer = None
        if self.flow.read_paused or not (self.in_body or self._is_idle()):
            self._wait()  # the app is slow, not the client
        elif self.in_message and (self._is_idle() is not self.in_body):
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "The request took too long to arrive.")
        else:
            self._close()

    def shutdown(self) -> None:
        """Close the connection after its response, or after ``LINGER`` if it is idle.

        uvicorn closes an idle connection at once, which can lose a request.
        """
        self.ending = True
        if self._is_idle():
            self.loop.call_later(LINGER, super().shutdown)
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Reject what is not HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        if self.refused:
            return
        self.refused = True
        self._stop_waiting()
        self._end_body()
        if earlier := self._earlier():
            self.cycle = earlier
            earlier.keep_alive = False  # a response now would be taken for that of another request
            return
        request_id = str((self.in_body and self.scope.get(REQUEST_ID)) or token_hex(16))
        problem = Problem(
            title=status.phrase, status=status, detail=detail, instance="/", request_id=request_id
        )
        content = problem.model_dump_json(exclude_none=True).encode()
        head = b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n%b"
        head %= MEDIA_TYPE.encode(), len(content), _HEADERS
        head += b"x-request-id: %b\r\n\r\n" % request_id.encode()
        started = self.in_body and self.cycle.response_started
        if not started:
            self.transport.write(STATUS_LINE[status] + head + content)
        if cycle := vars(self).get("cycle"):  # its client is disconnected
            cycle.disconnected = True
            cycle.message_event.set()
        self.loop.call_later(LINGER, self._close)

    def _earlier(self) -> RequestResponseCycle | None:
        """Return the latest complete request that still gets a response."""
        if not self.in_body:
            return None if self._is_idle() else self.cycle
        if not self.pipeline:
            return None
        self.pipeline.popleft()  # incomplete
        return self.pipeline[0][0] if self.pipeline else self.running


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
    parser.add_argument("--reload", action="store_true", help="restart on every change")
    reload: bool = parser.parse_args().reload
    # Read before the workers start: a supervisor would restart failing workers forever.
    settings = load_settings()
    options: dict[str, Any] = {
        "factory": True,
        "host": settings.host,
        "port": settings.port,
        "http": partial(Protocol, limits=limits_of(settings)),
        "timeout_keep_alive": settings.keep_alive_timeout,
        "timeout_graceful_shutdown": settings.shutdown_timeout - CLEANUP,
        "log_config": log_config(settings.log_level, settings.log_format),
        "access_log": False,  # the app writes a line with its route
        "server_header": False,
        "reset_contextvars": True,  # a pipelined request would inherit those of the one before
    }
    _check_port(settings.host, settings.port)
    if reload:
        os.environ["SHUTDOWN_DELAY"] = "0"  # there is no load balancer to wait for
        if "docs" not in settings.model_fields_set:
            os.environ["DOCS"] = "true"
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


def limits_of(settings: KitSettings) -> ConnectionLimits:
    """Return the limits of the connections of a worker."""
    return ConnectionLimits(
        head_timeout=settings.request_head_timeout,
        body_timeout=settings.request_body_timeout,
        connections=settings.max_connections,
        bodies=max(settings.max_bodies_size, settings.max_body_size),
    )


def _check_port(host: str, port: int) -> None:
    """Exit with one sentence if the port can't be used; uvicorn's message does not name it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        if sys.platform != "win32":  # there, it would allow a port that is in use
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            _refuse_port(host, port, error)


def _listen(config: uvicorn.Config) -> socket.socket:
    """Return a listening socket: without listen(), several processes could bind one port."""
    bound = config.bind_socket()
    try:
        bound.listen(config.backlog)
    except OSError as error:
        _refuse_port(config.host, config.port, error)
    return bound


def _refuse_port(host: str, port: int, error: OSError) -> NoReturn:
    sys.exit(f"PORT: {port} on {host} can't be used: {error.strerror}. Choose another port.")
