"""Requests that a client may retry: the ``Idempotency-Key`` header.

The response is stored in the request's own transaction, with the key and a fingerprint of the
request (draft-ietf-httpapi-idempotency-key-header).
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeVar

from fastapi import FastAPI, Header, Request, Response
from sqlalchemy.exc import SQLAlchemyError

from app.kit.caller import current_caller
from app.kit.db.engine import Database, WriteSession
from app.kit.db.session import add_hook, get_database, use_transaction
from app.kit.errors import AppError, Conflict, FieldError, Unprocessable
from app.kit.idempotency.models import IdempotencyKey
from app.kit.idempotency.repository import IdempotencyRepository, delete_expired

logger = logging.getLogger(__name__)

EndpointT = TypeVar("EndpointT", bound=Callable[..., Any])

# In seconds.
FIRST_CLEANUP = 60.0
CLEANUP_INTERVAL = 3600.0

_NAME: Final = "Idempotency-Key"
_FIELD: Final = f"header.{_NAME}"
_MARK: Final = "__idempotent__"

# A string of RFC 9651, or its bare content, as many clients send it.
_KEY: Final = r'^("[ !#-~]{1,255}"|[ !#-~]{1,255})$'


class StillRunning(Conflict):
    """The first request with this key has no response yet."""

    headers = MappingProxyType({"Retry-After": "1"})


class _Replay(Exception):
    # Not an error: it ends the request with the stored response.
    def __init__(self, stored: IdempotencyKey) -> None:
        super().__init__(stored.key)
        headers = {**stored.headers, "Idempotent-Replayed": "true"}
        self.response = Response(stored.body, status_code=stored.status, headers=headers)


def idempotent(endpoint: EndpointT) -> EndpointT:
    """Let clients retry this route: it runs once for each ``Idempotency-Key``.

    The route needs the kit's ``Router`` and a ``SessionDep`` or a repository, or the app does not
    start. Don't use it where the response holds a secret.
    """
    setattr(endpoint, _MARK, True)
    return endpoint


def is_idempotent(endpoint: object) -> bool:
    """Return whether an endpoint is marked as ``idempotent``."""
    return hasattr(endpoint, _MARK)


def install(app: FastAPI) -> None:
    """Prepare an app to replay responses."""
    app.state.running_keys = set()
    app.exception_handler(_Replay)(_replay)


@asynccontextmanager
async def cleaning_up(database: Database, lifetime: float) -> AsyncGenerator[None]:
    """Delete responses older than ``lifetime`` seconds from time to time."""

    async def repeat() -> None:
        await asyncio.sleep(min(FIRST_CLEANUP, lifetime))
        while True:
            try:
                await delete_expired(database, lifetime)
            except (AppError, SQLAlchemyError) as error:
                logger.warning("Expired idempotency keys could not be deleted: %s", error)
            await asyncio.sleep(min(CLEANUP_INTERVAL, lifetime))

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def use_idempotency_key(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias=_NAME,
            pattern=_KEY,
            description="A text that is unique to the request, such as a UUID. Sent again with "
            "the same key, the request runs once and returns the first response.",
        ),
    ] = None,
) -> None:
    """Let the transaction of this request store its response."""
    if idempotency_key is not None:
        use_transaction(request, partial(_once, request, idempotency_key.strip('"')))


@asynccontextmanager
async def _once(request: Request, key: str) -> AsyncGenerator[WriteSession]:
    if len(request.headers.getlist(_NAME)) > 1:
        raise Unprocessable(
            "There is more than one Idempotency-Key.",
            errors=[FieldError(field=_FIELD, message="Sent more than once")],
        )
    caller = str((await current_caller(request)).id or "")
    running: set[tuple[str, str]] = request.app.state.running_keys
    # Reject in-process duplicates before taking a connection.
    if (caller, key) in running:
        raise StillRunning("A request with this Idempotency-Key is still running.")
    running.add((caller, key))
    try:
        async with get_database(request).transaction() as session:
            responses = IdempotencyRepository(session)
            if not await responses.try_lock(caller, key):
                raise StillRunning("A request with this Idempotency-Key is still running.")
            fingerprint = await _fingerprint(request)
            if (stored := await responses.find(caller, key)) is not None:
                if stored.fingerprint != fingerprint:
                    raise Unprocessable(
                        "This Idempotency-Key was used for another request.",
                        errors=[FieldError(field=_FIELD, message="Used for another request")],
                    )
                raise _Replay(stored)

            async def save(response: Response) -> None:
                if not hasattr(response, "body"):
                    raise RuntimeError("A streamed response can't be stored")
                await responses.save(
                    caller=caller,
                    key=key,
                    fingerprint=fingerprint,
                    status=response.status_code,
                    headers={
                        name: ", ".join(response.headers.getlist(name))
                        for name in response.headers
                        if name != "set-cookie"  # a secret
                    },
                    body=bytes(response.body),
                )

            add_hook(request, save)
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


async def _replay(_: Request, replay: _Replay) -> Response:
    return replay.response
