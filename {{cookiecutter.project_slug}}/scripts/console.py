"""An asynchronous Python prompt on the database: ``just console``."""

import argparse
import ast
import asyncio
import code
import importlib
import inspect
import rlcompleter
import traceback
from contextlib import suppress
from types import CodeType, FunctionType
from typing import Any, Final

from sqlalchemy import func, select, text

from app.kit.caller import SYSTEM
from app.kit.db.engine import Database
from app.kit.db.models import Base
from app.kit.db.repository import Repository
from app.settings import load_settings

BANNER: Final = """\
`session` reads; `async with database.transaction() as writing:` writes, and commits at its end.
Both need `await`. Repositories take a session and a caller: SYSTEM sees the rows of every owner.
Here are {names}."""


class Console(code.InteractiveConsole):
    """A prompt with ``await`` at its top level."""

    def __init__(self, names: dict[str, Any], runner: asyncio.Runner) -> None:
        """Run what is typed in the loop of ``runner``."""
        super().__init__(names)
        self.runner = runner
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT  # as `python -m asyncio`

    def runcode(self, code: CodeType) -> None:
        """Run a statement, and print the exception that it raises."""
        try:
            self.runner.run(self._run(code))
        except SystemExit:
            raise
        except BaseException as error:  # noqa: BLE001 - also KeyboardInterrupt, which ends it
            trace = error.__traceback__
            while trace and trace.tb_frame.f_code is not code:
                trace = trace.tb_next
            traceback.print_exception(error.with_traceback(trace))

    async def _run(self, code: CodeType) -> None:
        result = FunctionType(code, self.locals)()
        if inspect.iscoroutine(result):
            await result


def names_for(database: Database) -> dict[str, Any]:
    """Return what the prompt knows: a session, every model and every repository."""
    importlib.import_module("app.api")  # which imports them
    classes = [mapper.class_ for mapper in Base.registry.mappers] + Repository.__subclasses__()
    return {
        "database": database,
        "session": database.read_session(primary=True, timeout=None),
        "select": select,
        "func": func,
        "text": text,
        "SYSTEM": SYSTEM,
        **{each.__name__: each for each in sorted(classes, key=lambda each: each.__name__)},
    }


def main() -> None:
    """Open the prompt; the database is closed at its end."""
    argparse.ArgumentParser(
        prog="just console",
        description="Open a Python prompt with `await`, the database and the models.",
    ).parse_args()
    with asyncio.Runner() as runner:
        database = Database(load_settings())
        names = names_for(database)
        with suppress(ImportError):  # Windows has no readline
            readline = importlib.import_module("readline")
            readline.set_completer(rlcompleter.Completer(names).complete)
            readline.parse_and_bind("tab: complete")
        try:
            Console(names, runner).interact(BANNER.format(names=", ".join(names)), exitmsg="")
        finally:
            runner.run(database.close())


if __name__ == "__main__":
    main()
