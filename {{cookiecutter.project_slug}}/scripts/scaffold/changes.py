"""Changes to the files of the project: all of them or none, also if the process is killed.

The journal is a folder in the project. It holds the former files and, once they are all there, the
list of what changes. While that list exists, the changes are not done: the next run undoes them.
"""

import json
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

JOURNAL: Final = ".scaffold"
_LIST: Final = "changes.json"


def apply(root: Path, changes: Mapping[str, bytes | None]) -> None:
    """Write the files of ``changes``, by their paths, and delete those that are None.

    An error while it is under way undoes all of it, and is raised.
    """
    with _uninterrupted():
        try:
            _record(root, changes)
            for path, content in changes.items():
                _put(root / path, content)
            for path, content in changes.items():
                if content is None:
                    _remove_empty(root, root / path)
            _forget(root)
        except BaseException:
            undo(root)
            raise


def undo(root: Path) -> bool:
    """Undo changes that were interrupted; return whether there were any."""
    journal = root / JOURNAL
    if not (journal / _LIST).is_file():
        shutil.rmtree(journal, ignore_errors=True)
        return False
    for path, is_there in json.loads((journal / _LIST).read_text(encoding="utf-8")).items():
        _partial(root / path).unlink(missing_ok=True)
        if is_there:
            _put(root / path, (journal / "files" / path).read_bytes())
        else:
            _put(root / path, None)
            _remove_empty(root, root / path)
    _forget(root)
    return True


def _record(root: Path, changes: Mapping[str, bytes | None]) -> None:
    journal = root / JOURNAL
    journal.mkdir()
    former = {}
    for path in changes:
        former[path] = (root / path).is_file()
        if former[path]:
            copy = journal / "files" / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / path, copy)
    _put(journal / _LIST, json.dumps(former).encode())


def _forget(root: Path) -> None:
    (root / JOURNAL / _LIST).unlink(missing_ok=True)
    shutil.rmtree(root / JOURNAL, ignore_errors=True)


def _put(path: Path, content: bytes | None) -> None:
    """Write a file at once, or delete it."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        partial.write_bytes(content)
        if path.exists():
            shutil.copymode(path, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _remove_empty(root: Path, path: Path) -> None:
    """Remove the folders of a deleted file that hold nothing but caches."""
    for folder in path.parents:
        if folder == root or not folder.is_dir():
            return
        shutil.rmtree(folder / "__pycache__", ignore_errors=True)
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore signals while the changes are made, which takes milliseconds; then all is done."""
    signals = (signal.SIGINT, signal.SIGTERM)
    former = {each: signal.signal(each, signal.SIG_IGN) for each in signals}
    try:
        yield
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)
