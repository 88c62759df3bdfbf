"""Tests of the code that every generated service shares."""
