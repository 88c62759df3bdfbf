"""Who a request or a script acts for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

from fastapi import Depends, Request


@dataclass(frozen=True)
class Caller:
    """Who sent a request: a user, or nobody if ``id`` is None."""

    id: UUID | None = None
    name: str = ""
    is_superuser: bool = False


ANONYMOUS: Final = Caller()
SYSTEM: Final = Caller(is_superuser=True)
"""The caller of scripts and jobs, which sees the rows of every owner."""

REQUIREMENT: Final = "__requirement__"

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def requirement(text: str) -> Callable[[FunctionT], FunctionT]:
    """Name what a dependency requires of the caller; ``just routes`` prints it."""

    def mark(function: FunctionT) -> FunctionT:
        setattr(function, REQUIREMENT, text)
        return function

    return mark


async def current_caller(request: Request) -> Caller:
    """Return the authenticated caller, or ``ANONYMOUS``."""
    caller: Caller = getattr(request.state, "caller", ANONYMOUS)
    return caller


CallerDep = Annotated[Caller, Depends(current_caller)]
"""The caller of a closed route, whose router requires a credential."""
