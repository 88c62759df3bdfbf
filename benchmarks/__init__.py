"""Compare the rendered service with a raw ASGI app on a raw driver: ``python -m benchmarks``."""
