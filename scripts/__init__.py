"""Tools for whoever works on the template."""
