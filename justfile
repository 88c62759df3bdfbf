# The same verbs as in a rendered service: `uv run just <verb>`.

# Ruff would put a cache beside the pyproject.toml in the template tree, and be rendered with it.
export RUFF_CACHE_DIR := justfile_directory() / ".ruff_cache"

# So that uv takes the environment of the rendered service there, not this one.
unexport VIRTUAL_ENV

set windows-shell := ["powershell.exe", "-NoLogo", "-Command"]

# List the verbs
[private]
default:
    @just --list --unsorted

# Render a service (sqlite or postgresql) and serve it with reload
dev database="sqlite": (render database)
    uv run --directory .rendered/{{ database }}/my-service just dev

# Run the template's tests, with arguments for pytest such as `-k files`
test *arguments:
    uv run pytest {{ arguments }}

# Run the nightly tests, too, and everything with its full number of repetitions
prove: lint
    uv run pytest --full

# The faults of tests/reliability, many more times each: hours, not minutes
soak rounds="500":
    uv run pytest tests/reliability --timeout 0 --rounds {{ rounds }}

# Run the service's tests 50 times on both databases at once: `just flaky 20 -k "crowd or driver"`
[unix]
[positional-arguments]
flaky *arguments:
    uv run python -m scripts.flaky "$@"

# Run the service's tests 50 times on both databases at once: `just flaky 20 -k crowd`
[windows]
flaky *arguments:
    uv run python -m scripts.flaky {{ arguments }}

# Measure the service beside raw drivers, with arguments such as `--quick` or `--only resource=flat`
bench *arguments:
    uv run python -m benchmarks {{ arguments }}

# Everything that CI checks for each commit
check: lint test

# Format check, lint and types: the quick half of `check`
lint:
    uv run ruff format --check .
    uv run ruff check .
    uv run mypy

# Repair what can be repaired
fix:
    uv run ruff check --fix-only --quiet .
    uv run ruff format .
    uv run ruff check .

# Move exclude-newer to a week ago (or DAY) and run every check; `--package NAME` raises a lower bound
refresh *arguments:
    uv run python -m scripts.refresh {{ arguments }}

# Pin the base images of renders by the digests that their tags have today
pin-images:
    uv run python -m scripts.pin_images
    uv run just check

# Install a service with the oldest direct dependencies that its lower bounds allow, and test it
[env("UV_RESOLUTION", "lowest-direct")]
lowest database="sqlite": (render database)
    uv run --directory .rendered/{{ database }}/my-service just test

# Commit and tag a release locally: `just release 1.2.3`
release version:
    uv run python -m scripts.release {{ version }}

# Render a service into .rendered/<database>/, with answers such as license=Apache-2.0
render database="sqlite" *answers:
    uv run cookiecutter . --no-input --default-config --overwrite-if-exists --output-dir .rendered/{{ database }} database={{ database }} {{ answers }}
