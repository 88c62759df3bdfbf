"""The session dependencies: one transaction for each request that writes."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, Request, Response

from app.kit.caller import current_caller
from app.kit.db.engine import Database, ReadSession, WriteSession
from app.kit.db.repository import Repository

T = TypeVar("T")

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

_READ_SESSION: Final = "app.read_session"
_WRITE_SESSION: Final = "app.write_session"
_TRANSACTION: Final = "app.transaction"
_HOOKS: Final = "app.before_response"
_COMMITTED: Final = "app.after_commit"
_WRITES: Final = "__opens_transaction__"

Hook = Callable[[Response], Awaitable[None]]
Transaction = Callable[[], AbstractAsyncContextManager[WriteSession]]


def get_database(request: Request) -> Database:
    """Return the database that the lifespan opened for this app."""
    database: Database = request.app.state.database
    return database


async def enter_request_context(request: Request, context: AbstractAsyncContextManager[T]) -> T:
    """Enter ``context``; it exits after the response is built and before it is sent."""
    # A dependency that yields with scope="function" does the same, but costs 14 % per request.
    stack: AsyncExitStack = request.scope["fastapi_function_astack"]
    return await stack.enter_async_context(context)


def use_transaction(request: Request, transaction: Transaction) -> None:
    """Let ``write_session`` enter ``transaction`` in this request, instead of a plain one."""
    request.scope[_TRANSACTION] = transaction


async def write_session(request: Request) -> WriteSession:
    """Return the session of this request's transaction, which the first call opens."""
    if _WRITE_SESSION not in request.scope:
        transaction = request.scope.get(_TRANSACTION) or get_database(request).transaction
        stack: AsyncExitStack = request.scope["fastapi_function_astack"]
        stack.push(partial(_call_committed, request))
        request.scope[_WRITE_SESSION] = await enter_request_context(request, transaction())
    session: WriteSession = request.scope[_WRITE_SESSION]
    return session


async def read_session(request: Request) -> ReadSession:
    """Return the read session of this request; ``no-cache`` makes it read from the primary."""
    if _READ_SESSION not in request.scope:
        primary = "no-cache" in request.headers.get("cache-control", "")
        request.scope[_READ_SESSION] = get_database(request).read_session(primary=primary)
    session: ReadSession = request.scope[_READ_SESSION]
    return session


SessionDep = Annotated[WriteSession, Depends(write_session)]
"""The request's transaction: committed before the response is sent, or rolled back."""

ReadSessionDep = Annotated[ReadSession, Depends(read_session)]
"""A session that can't write, in autocommit."""


Provider = Callable[[Request], Awaitable[Repository[Any]]]

_PROVIDERS: Final[dict[type[Repository[Any]], Provider]] = {}


def provider(kind: type[Repository[Any]]) -> Provider:
    """Return the dependency function of a repository; tests override it with a fake."""
    if kind in _PROVIDERS:
        return _PROVIDERS[kind]

    async def get_repository(request: Request) -> Repository[Any]:
        open_session = read_session if request.method in SAFE_METHODS else write_session
        return kind(await open_session(request), await current_caller(request))

    setattr(get_repository, _WRITES, True)
    _PROVIDERS[kind] = get_repository
    return get_repository


def repository(kind: type[Repository[Any]]) -> Any:
    """Return the dependency that injects a repository for the caller of the request.

    It has a read session in GET and HEAD requests, and the request's transaction in others.
    """
    return Depends(provider(kind))


def opens_transaction(dependency: object) -> bool:
    """Return whether a dependency opens the transaction of a request that writes."""
    return dependency is write_session or hasattr(dependency, _WRITES)


def is_session_open(request: Request) -> bool:
    """Return whether this request has a session already."""
    return _READ_SESSION in request.scope or _WRITE_SESSION in request.scope


def add_hook(request: Request, hook: Hook) -> None:
    """Call ``hook`` with the response when it is built, before the transaction commits."""
    request.scope.setdefault(_HOOKS, []).append(hook)


def after_commit(request: Request, function: Callable[[], None]) -> None:
    """Call ``function`` after the request's transaction commits; now, if none is open."""
    if _WRITE_SESSION in request.scope:
        request.scope.setdefault(_COMMITTED, []).append(function)
    else:
        function()


def _call_committed(request: Request, error: type[BaseException] | None, *_: object) -> None:
    if error is None:
        for function in request.scope.get(_COMMITTED, ()):
            function()


async def before_response(request: Request, response: Response) -> None:
    """Close the read session, then call the hooks."""
    session: ReadSession | None = request.scope.get(_READ_SESSION)
    if session is not None:
        session.close()
    for hook in request.scope.get(_HOOKS, ()):
        await hook(response)
