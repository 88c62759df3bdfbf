"""Copy the chosen options over the project, remove the others, print the next steps.

`.options/<question>/<answer>/` mirrors the project root and contains the files that the answer
adds; an answer that adds none needs no folder. This hook contains no name of a question, an answer
or a file, and edits no file. Cookiecutter renders it with Jinja and runs it in the rendered
project; see pre_gen_project.py for how the answers arrive.
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

See README.md. No uv yet? pipx install uv (or pip install uv)"""


def copy_options(project: Path) -> None:
    """Copy the chosen folder of each question over the project, then remove `.options`."""
    options = project / ".options"
    for question in sorted(options.iterdir()):
        # Tools create folders such as .ruff_cache in a clone, which are not questions.
        if question.name in ANSWERS and (chosen := question / ANSWERS[question.name]).is_dir():
            shutil.copytree(chosen, project, dirs_exist_ok=True)
    shutil.rmtree(options)


if __name__ == "__main__":
    copy_options(Path.cwd())
    print(NEXT_STEPS.format(**ANSWERS), flush=True)  # noqa: T201 - it speaks to a person
