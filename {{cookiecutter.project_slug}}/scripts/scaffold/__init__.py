"""Adds and removes features: ``just new`` and ``just remove``."""
