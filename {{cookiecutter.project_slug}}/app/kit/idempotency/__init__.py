"""Requests that a client may send again, and that are carried out once."""
