"""Entity tags: the ``version`` of a row, so that no client overwrites what it has not seen."""

import re
from collections.abc import Collection
from typing import Annotated

from fastapi import Depends, Header

_STRONG_TAG = re.compile(r'(?<!W/)"(0|[1-9]\d{0,8})"')


def etag(version: int) -> str:
    """Give the ``ETag`` header of a row at this version."""
    return f'"{version}"'


async def _versions(
    if_match: Annotated[
        list[str] | None,
        Header(description="The `ETag` last seen: the write is refused if it is stale."),
    ] = None,
) -> Collection[int] | None:
    tags = ", ".join(if_match or ["*"])
    if tags.strip() == "*":
        return None
    return frozenset(int(tag) for tag in _STRONG_TAG.findall(tags))


IfMatch = Annotated[Collection[int] | None, Depends(_versions)]
"""The versions that ``If-Match`` allows, or None where any will do.

A weak tag, or one that this service never gave, allows nothing (RFC 9110, 13.1.1).
"""
