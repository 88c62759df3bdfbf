"""Permissions: what roles and API keys may do. ``docs/security.md`` has the table of routes."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal, get_args

Scope = Literal["read", "write", "admin"]


class Permission(StrEnum):
    """What a route may require."""

    READ = "read"
    """Call routes with GET and HEAD."""
    WRITE = "write"
    """Call routes with other methods."""
    MANAGE_ACCOUNT = "account:manage"
    """Change or delete one's own account, and manage its sessions and API keys."""
    ALL_ROWS = "rows:all"
    """See and change the rows of every owner."""
    READ_USERS = "users:read"
    """List users and their sessions."""
    MANAGE_USERS = "users:manage"
    """Change users and their roles, and end their sessions."""


MEMBER: Final = frozenset({Permission.READ, Permission.WRITE, Permission.MANAGE_ACCOUNT})
SUPERUSER: Final = frozenset(Permission)
SCOPES: Final[Mapping[str, frozenset[Permission]]] = MappingProxyType(
    {
        "read": frozenset({Permission.READ}),
        "write": frozenset({Permission.WRITE}),
        "admin": frozenset({Permission.ALL_ROWS, Permission.READ_USERS}),
    }
)
"""What the scopes of an API key allow, within the role of its user."""
ALL_SCOPES: Final[frozenset[Scope]] = frozenset(get_args(Scope))


def permissions_of_user(*, is_superuser: bool) -> frozenset[Permission]:
    """Return the permissions of a user who has signed in."""
    return SUPERUSER if is_superuser else MEMBER


def permissions_of_key(scopes: Iterable[str], *, is_superuser: bool) -> frozenset[Permission]:
    """Return the permissions of an API key: never more than its user has."""
    allowed = frozenset[Permission]().union(*(SCOPES[scope] for scope in scopes))
    return allowed & permissions_of_user(is_superuser=is_superuser)
