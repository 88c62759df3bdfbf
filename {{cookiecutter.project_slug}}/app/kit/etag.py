"""Entity tags: the ``version`` of a row, for conditional reads and writes."""

import re
from collections.abc import Collection
from typing import Annotated, Final

from fastapi import Depends, Header, Request, Response
from fastapi.exceptions import RequestValidationError

_STRONG_TAG: Final = re.compile(r'(?<!W/)"(0|[1-9]\d{0,8})"')
_KEPT: Final = {"cache-control", "content-location", "date", "etag", "expires", "vary"}


async def _versions(
    request: Request,
    # Declared as one string, which generators of clients support; all lines are read.
    _: Annotated[
        str | None,
        Header(
            alias="If-Match",
            description="The `ETag` last seen: the write is refused if it is stale.",
        ),
    ] = None,
) -> Collection[int] | None:
    tags = ", ".join(request.headers.getlist("if-match") or ["*"])
    if tags.strip() == "*":
        return None
    return frozenset(int(tag) for tag in _STRONG_TAG.findall(tags))


IfMatch = Annotated[Collection[int] | None, Depends(_versions)]
"""The versions that ``If-Match`` allows; None allows any, a weak tag none (RFC 9110, 13.1.1)."""


def if_none_match(request: Request, response: Response) -> Response:
    """Return 304 in place of a response that the client has already (RFC 9110, 13.1.2)."""
    if request.method not in {"GET", "HEAD"} or response.status_code != 200:  # noqa: PLR2004
        return response
    known = ", ".join(request.headers.getlist("if-none-match"))
    tag = response.headers.get("etag")
    if not known or tag is None:
        return response
    if not (known.isascii() and known.isprintable()):
        error = {"loc": ("header", "If-None-Match"), "msg": "Not an entity tag", "type": "etag"}
        raise RequestValidationError([error])
    tags = [each.strip().removeprefix("W/") for each in known.split(",")]
    if "*" not in tags and tag.removeprefix("W/") not in tags:
        return response
    headers = {name: value for name, value in response.headers.items() if name in _KEPT}
    return Response(status_code=304, headers=headers)
