"""The generic tests of a render find faults in another API, too."""

import re
import shutil
from pathlib import Path

import pytest

from testing.baking import installed, succeeded
from tests.conftest import Bake

GENERIC = Path(__file__).parent / "generic"


@pytest.mark.slow
def test_the_generic_tests_work_on_another_api(bake: Bake) -> None:
    with installed(bake(database="sqlite", auth="users")) as project:
        kit = project.path / "tests" / "kit"
        copies = [str(shutil.copy(path, kit)) for path in sorted(GENERIC.glob("*.py"))]

        succeeded(project.run("uv", "run", "just", "lint"))
        printed = succeeded(project.run("uv", "run", "pytest", "-n", "2", "-m", "", *copies))

    assert int(re.findall(r"\b(\d+) passed", printed)[-1]) > 100
    assert "skipped" not in printed
