"""Tests of the service's guarantees when its environment fails, with real processes."""
