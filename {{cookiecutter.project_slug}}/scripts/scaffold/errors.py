"""The error of this package."""


class Refused(Exception):
    """Why nothing was changed, in one sentence, and what to do."""
