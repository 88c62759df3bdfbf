"""Notes: what a user has added to a rendered project."""
