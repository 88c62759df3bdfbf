"""Tools for working on the template."""
