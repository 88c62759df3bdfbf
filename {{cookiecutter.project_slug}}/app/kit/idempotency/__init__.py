"""Requests that run once, however often a client sends them."""
