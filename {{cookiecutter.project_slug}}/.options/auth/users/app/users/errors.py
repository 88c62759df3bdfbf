"""The errors of authentication and authorization."""

from http import HTTPStatus
from math import ceil
from types import MappingProxyType

from app.kit.errors import AppError


class Unauthorized(AppError):
    """The request has no valid credential."""

    status = HTTPStatus.UNAUTHORIZED
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class Forbidden(AppError):
    """The caller may not do this."""

    status = HTTPStatus.FORBIDDEN


class TooManyRequests(AppError):
    """There were too many attempts."""

    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, seconds: float) -> None:
        """Set ``Retry-After`` to ``seconds``."""
        super().__init__("Too many attempts: try again later.")
        self.headers = {"Retry-After": str(max(1, ceil(seconds)))}
