"""How uvicorn serves: what a connection takes, and how it ends."""

import socket
import time
from contextlib import suppress
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

from app.kit.errors import MEDIA_TYPE, Problem

MAX_HEAD = 64 * 1024
"""Bytes that may come before a body, or behind it: the server would keep any number of them."""

LINGER = 0.5
"""Seconds for which a connection is still listened to before the server ends it."""


class Protocol(HttpToolsProtocol):
    """Bounds what comes before a body, and ends a connection without losing a request."""

    ending = False
    refused = False
    unread = 0

    def data_received(self, data: bytes) -> None:
        """Parse what came; refuse what goes on and on and is neither a request nor a body."""
        if self.refused:
            return  # forgotten: closed with something unread, the connection would be reset
        self.unread += len(data)
        super().data_received(data)  # sets it back for all that leads on
        if self.unread > MAX_HEAD and not self.transport.is_closing():
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self._refuse(status, "The URL and the headers are too large.")

    def on_headers_complete(self) -> None:
        """Start the request; if the server is about to end, it is this connection's last."""
        self.unread = 0
        super().on_headers_complete()
        if self.ending:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Pass on a part of the body."""
        self.unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Await the next request."""
        self.unread = 0
        super().on_message_complete()

    def shutdown(self) -> None:
        """End the connection: after the answer that is due, or once none can be due any more.

        uvicorn would close an idle one at once, and with it a request that is on its way.
        """
        self.ending = True
        if getattr(self.cycle, "response_complete", True):  # there is none before the first
            self.loop.call_later(LINGER, super().shutdown)
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        problem = Problem(title=status.phrase, status=status, detail=detail, instance="/")
        content = problem.model_dump_json(exclude_none=True).encode()
        head = b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        head %= MEDIA_TYPE.encode(), len(content)
        self.transport.write(STATUS_LINE[status] + head + content)
        self.refused = True
        if cycle := vars(self).get("cycle"):  # what still runs has nobody to answer any more
            cycle.disconnected = True
            cycle.message_event.set()
        self.loop.call_later(LINGER, self.transport.close)


class Supervisor(Multiprocess):
    """Runs the workers, and ends them as one."""

    delay = 0.0
    """Seconds for which the workers still serve when they are told to end."""

    def terminate_all(self) -> None:
        """Let the workers end, and take no new connection.

        With the socket still open, clients would wait in its queue, for nobody.
        """
        super().terminate_all()
        until = time.monotonic() + self.delay
        while time.monotonic() < until and not self.signal_queue:
            time.sleep(0.1)
        if self.signal_queue:  # told once more
            super().terminate_all()
        for each in self.sockets:
            with suppress(OSError):  # not every system can
                each.shutdown(socket.SHUT_RDWR)  # for all who share it
            each.close()
