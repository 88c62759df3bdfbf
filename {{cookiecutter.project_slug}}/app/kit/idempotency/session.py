"""The session of a request that a client may send again (``Idempotency-Key``).

After the IETF's draft-ietf-httpapi-idempotency-key-header: the key, a fingerprint of the request
and its answer are kept in the request's own transaction. A client that got no answer, or 503, can't
know what became of its request, but can send it again: it is carried out once, answered alike.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType
from typing import Annotated

from fastapi import Depends, FastAPI, Header, Request, Response
from sqlalchemy.exc import SQLAlchemyError

from app.kit.db.engine import Database, WriteSession
from app.kit.db.session import entered, get_database, write_session
from app.kit.errors import AppError, Conflict, FieldError, Unprocessable
from app.kit.idempotency.models import IdempotencyKey
from app.kit.idempotency.repository import IdempotencyRepository, sweep
from app.kit.routing import before_commit

logger = logging.getLogger(__name__)

FIRST_SWEEP = 60.0
"""Seconds until old answers are first looked for."""
SWEEP_INTERVAL = 3600.0
"""Seconds between two looks."""

_NAME = "Idempotency-Key"
_FIELD = f"header.{_NAME}"

# A string of RFC 9651, or its bare content, as many clients send it.
_KEY = r'^("[ !#-~]{1,255}"|[ !#-~]{1,255})$'


class StillRunning(Conflict):
    """The first request of this key has not been answered yet."""

    headers = MappingProxyType({"Retry-After": "1"})


class _Replayed(Exception):
    # No error: the answer was given before.
    def __init__(self, kept: IdempotencyKey) -> None:
        super().__init__(kept.key)
        headers = {**kept.headers, "Idempotent-Replayed": "true"}
        self.response = Response(kept.body, status_code=kept.status, headers=headers)


def install(app: FastAPI) -> None:
    """Let this app give its kept answers."""
    app.state.running_keys = set()
    app.exception_handler(_Replayed)(_replay)


@asynccontextmanager
async def sweeping(database: Database, lifetime: float) -> AsyncIterator[None]:
    """Remove answers older than ``lifetime`` seconds, now and then, as long as the app runs."""

    async def repeat() -> None:
        await asyncio.sleep(min(FIRST_SWEEP, lifetime))
        while True:
            try:
                await sweep(database, lifetime)
            except (AppError, SQLAlchemyError) as error:
                logger.warning("Old idempotency keys could not be removed: %s", error)
            await asyncio.sleep(min(SWEEP_INTERVAL, lifetime))

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def idempotent_session(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias=_NAME,
            pattern=_KEY,
            description="Any text that is new for each request, as a UUID: sent again with the "
            "same key, the request is carried out once, and gets the first answer again.",
        ),
    ] = None,
) -> WriteSession:
    """Open the one transaction of a request, with its answer kept if it carries a key.

    Raises:
        StillRunning: a request of this key has not been answered yet.
        Unprocessable: the key was used for another request.
    """
    if idempotency_key is None:
        return await write_session(request)
    return await entered(request, _once(request, idempotency_key.strip('"')))


IdempotentSessionDep = Annotated[WriteSession, Depends(idempotent_session)]
"""A ``SessionDep`` for POST routes that may be repeated. Not where the answer holds a secret."""


@asynccontextmanager
async def _once(request: Request, key: str) -> AsyncIterator[WriteSession]:
    if len(request.headers.getlist(_NAME)) > 1:
        raise Unprocessable(
            "There is more than one Idempotency-Key.",
            errors=[FieldError(field=_FIELD, message="Sent more than once")],
        )
    caller: str = getattr(request.state, "caller", "")
    running: set[tuple[str, str]] = request.app.state.running_keys
    # Asked here first, so that those who knock again hold no connection meanwhile.
    if (caller, key) in running:
        raise StillRunning("A request with this Idempotency-Key is still running.")
    running.add((caller, key))
    try:
        async with get_database(request).transaction() as session:
            kept = IdempotencyRepository(session)
            if not await kept.claim(caller, key):
                raise StillRunning("A request with this Idempotency-Key is still running.")
            fingerprint = await _fingerprint(request)
            if (found := await kept.find(caller, key)) is not None:
                if found.fingerprint != fingerprint:
                    raise Unprocessable(
                        "This Idempotency-Key was used for another request.",
                        errors=[FieldError(field=_FIELD, message="Used for another request")],
                    )
                raise _Replayed(found)

            async def keep(response: Response) -> None:
                if getattr(request.state, "caller", "") != caller:
                    raise RuntimeError("Ask who is calling before the session: on the router")
                if not hasattr(response, "body"):
                    raise RuntimeError("An answer that is streamed can't be kept")
                await kept.keep(
                    caller=caller,
                    key=key,
                    fingerprint=fingerprint,
                    status=response.status_code,
                    headers={
                        name: value
                        for name, value in response.headers.items()
                        if name != "set-cookie"  # a secret
                    },
                    body=bytes(response.body),
                )

            before_commit(request, keep)
            yield session
    finally:
        running.discard((caller, key))


async def _fingerprint(request: Request) -> bytes:
    parts = (
        request.method.encode(),
        request.scope["path"].encode(),
        request.scope["query_string"],
        await request.body(),
    )
    return hashlib.sha256(b"\0".join(parts)).digest()


async def _replay(_: Request, replayed: _Replayed) -> Response:
    return replayed.response
