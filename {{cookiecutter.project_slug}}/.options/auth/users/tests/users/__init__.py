"""Tests of users, their tokens and API keys, and of access to routes."""
