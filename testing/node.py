"""Packages for Node.js, which some tests run."""

import subprocess
from pathlib import Path
from typing import Final

from filelock import FileLock

from testing.baking import clean_environment
from testing.requirements import require

PACKAGES: Final = (
    "@hey-api/openapi-ts@0.95.0",
    "@redocly/cli@2.77.0",
    "@stoplight/spectral-cli@6.16.3",
    "openapi-fetch@0.17.0",
    "openapi-typescript@7.13.0",
    "typescript@5.9.3",
    "@types/node@20.19.0",
)


def node_packages(shared: Path) -> Path:
    """Install the packages once for a test run; return the folder of their programs.

    Args:
        shared: a folder that all processes of the run share.

    """
    npm = require("npm")
    folder = shared / "node"
    done = folder / "node_modules" / ".done"
    with FileLock(shared / "node.lock"):
        if not done.exists():
            command = [npm, "install", "--silent", "--no-fund", "--no-audit", "--prefix"]
            subprocess.run([*command, str(folder), *PACKAGES], check=True, capture_output=True)
            done.touch()
    return folder / "node_modules" / ".bin"


def run_node(program: Path, *arguments: str, folder: Path) -> str:
    """Run a program in a folder; return what it prints, or fail with it."""
    done = subprocess.run(
        [str(program), *arguments],
        cwd=folder,
        env=clean_environment(REDOCLY_TELEMETRY="off", REDOCLY_SUPPRESS_UPDATE_NOTICE="true"),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    return printed
