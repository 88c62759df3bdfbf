"""Tasks with tags and comments: the example feature."""
