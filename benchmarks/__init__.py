"""The rendered service beside what its database allows, in one run: ``python -m benchmarks``."""
