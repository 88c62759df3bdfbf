"""Notebooks and their pages."""
