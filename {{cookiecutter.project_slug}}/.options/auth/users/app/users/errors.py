"""The errors of signing in and of what callers may not do."""

from http import HTTPStatus
from math import ceil
from types import MappingProxyType

from app.kit.errors import AppError


class Unauthorized(AppError):
    """Nobody who is known is calling."""

    status = HTTPStatus.UNAUTHORIZED
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class Forbidden(AppError):
    """The caller is known, and may not do this."""

    status = HTTPStatus.FORBIDDEN


class TooManyRequests(AppError):
    """It was tried too often."""

    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, seconds: float) -> None:
        """Say in how many ``seconds`` it may be tried again."""
        super().__init__("Too many attempts: try again later.")
        self.headers = {"Retry-After": str(max(1, ceil(seconds)))}
