"""Notes: a feature that a user has added to a rendered project."""
