"""The tools that tests need besides Python and uv."""

import os
import shutil
import sys
from typing import Final

import pytest

COMPLETE: Final = "CI" in os.environ and sys.platform == "linux"
"""Whether every tool has to be there: `.ci/run` installs them on Linux."""

# Debian has some of them in folders that are in the PATH of root only.
_PATH: Final = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])


def require(tool: str, *, found: bool | None = None) -> str:
    """Skip the test where a tool is missing; on CI, fail it.

    Args:
        tool: a program, or a name for anything else that is needed.
        found: whether it is there; by default the program is looked for on PATH.

    Returns:
        The path of the program; the name of anything else.

    """
    path = shutil.which(tool, path=_PATH) if found is None else tool * found
    if path:
        return path
    message = f"{tool} is not available"
    if COMPLETE:
        pytest.fail(f"{message}: on CI every test has to run", pytrace=False)
    pytest.skip(message)
