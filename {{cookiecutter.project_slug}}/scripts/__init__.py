"""Tools for development. None of them is part of the running service."""
