"""Lay the chosen options over the project, remove the rest, say what to do next.

`.options/<question>/<answer>/` mirrors the project root and holds the files which that answer
brings; an answer that brings none needs no folder. So this hook knows the name of no question,
of no answer and of no file, and it never edits one. It runs in the rendered project, after
Cookiecutter has rendered it with Jinja; see pre_gen_project.py for how the answers arrive.
"""

import json
import shutil
from pathlib import Path
from typing import Final

ANSWERS: Final[dict[str, str]] = json.loads(r'{{ cookiecutter | tojson }}')  # fmt: skip

# ASCII only: a console that cannot encode a character must not fail a render.
NEXT_STEPS: Final = """\
{project_slug} is ready. What to do next:

  cd {project_slug}
  uv run just dev      # serve it: http://127.0.0.1:8000/docs
  uv run just test     # run its tests
  uv run just check    # format, lint, types and tests: what its CI runs
  git init             # and commit, so that you see your own changes

README.md says the rest. No uv yet? pip install uv"""


def lay_options(project: Path) -> None:
    """Copy the chosen folder of each question over the project, then drop all of them."""
    options = project / ".options"
    for question in filter(Path.is_dir, sorted(options.iterdir())):
        chosen = question / ANSWERS[question.name]
        if chosen.is_dir():
            shutil.copytree(chosen, project, dirs_exist_ok=True)
    shutil.rmtree(options)


if __name__ == "__main__":
    lay_options(Path.cwd())
    print(NEXT_STEPS.format(**ANSWERS), flush=True)  # noqa: T201 - it speaks to a person
