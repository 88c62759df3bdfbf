"""The command line of ``just new``, ``just rename`` and ``just remove``."""

import argparse
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from app.kit import project
from scripts.scaffold import building, changes, mounting, writing
from scripts.scaffold.errors import Refused
from scripts.scaffold.features import KIT, Feature, Project
from scripts.scaffold.fields import TYPES, Field, fields_of
from scripts.scaffold.names import Names, names_of, snake
from scripts.scaffold.renaming import Renaming

README: Final = "README.md"

_EXAMPLE: Final = re.compile(r"^## Remove the example\r?\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)

DESCRIPTIONS: Final = {
    "new": f"""Add a feature: models, schemas, repository, router, tests and migration.

A field is NAME:TYPE, with ? at its end if it may be null and ! if its value is unique. The types
are {", ".join(TYPES)}. An enum names its values, enum(open,paid), and
a reference its feature, ref(customers).

Lists can be sorted by unique fields, dates and times, and filtered by unique fields, references,
enums and booleans.""",
    "rename": "Rename a feature: its folders, its names in every form, its routes and its tables.",
    "remove": "Remove a feature, its tests and its tables: the next migration drops their rows.",
}


def new(root: Path, arguments: argparse.Namespace) -> None:
    """Add a feature.

    Raises:
        Refused: it can't be added; nothing has changed.
    """
    found = Project(root)
    names = names_of(arguments.name, arguments.plural)
    if names.plural in KIT:
        raise Refused(f"{names.plural} comes from the template: choose another name.")
    fields = [_resolved(found, names, field) for field in fields_of(arguments.fields)]
    if not fields:
        raise Refused("Name at least one field, such as title:str.")
    plan = _plan(found, names, fields, arguments)
    files = writing.files(plan)
    package = f"app/{names.plural}"
    is_there = any((root / package).glob("*.py"))
    with building.copied(root) as copy:
        if not is_there:
            _check_free(found, names)
        copy.write(files)
        copy.format(list(files))
        if is_there:
            _check_same(root, copy, list(files), names)
            print(f"{names.plural} is already there: nothing was changed.")
            return
        api = _mount(root, copy, names.plural)
        copy.lint(list(files))
        revision = copy.migrate(f"add {names.words}")
        paths = [*files, *([mounting.API] if api else []), revision]
        contents = {path: copy.content(path) for path in paths}
    _finish(root, contents, arguments)
    if not api:
        print(
            f"\n{mounting.API} has no list CLOSED. Add this import and mount the router by hand:\n"
            f'    {mounting.import_of(names.plural)}\n    ("/v1", {names.plural}),'
        )
    if not arguments.dry_run:
        _print_next(plan)


def _resolved(found: Project, names: Names, field: Field) -> Field:
    """Return the field; a reference may name its feature by the singular."""
    if snake(field.target) in {names.singular, names.plural}:
        return replace(field, target=names.plural)
    return replace(field, target=found.package(field.target))


def _plan(
    found: Project, names: Names, fields: list[Field], arguments: argparse.Namespace
) -> writing.Plan:
    targets = {}
    for field in fields:
        if field.kind == "ref" and field.target == names.plural:
            if not field.nullable:
                raise Refused(
                    f"{field.name}: the first row could refer to none: write "
                    f"{field.name}:ref({field.target})? instead."
                )
            targets[field.target] = _itself(found, names, arguments)
        elif field.kind == "ref":
            targets[field.target] = _target(found, field.target, names)
    parent = None
    if arguments.belongs_to:
        parent = _target(found, found.package(arguments.belongs_to), names)
        if parent.names.plural in KIT:
            raise Refused("Rows belong to users without --belongs-to: leave it out.")
        if f"{parent.names.singular}_id" in {field.column for field in fields}:
            raise Refused(f"{parent.names.singular}_id comes from --belongs-to: leave it out.")
        if arguments.public and parent.is_owned:
            raise Refused(
                f"{parent.names.plural} belong to their owners: leave out --public, or everybody "
                f"would see the {names.words} of everyone's {parent.names.words}."
            )
        targets[parent.names.plural] = parent
    return writing.Plan(
        names,
        tuple(fields),
        targets,
        parent,
        is_owned=found.has_users and not arguments.public,
        is_shared=found.has_users and arguments.public,
    )


def _itself(found: Project, names: Names, arguments: argparse.Namespace) -> Feature:
    is_owned = found.has_users and not arguments.public
    repository = f"{names.model}Repository"
    tables = frozenset({names.plural})
    return Feature(names, repository, tables, is_owned, keeps_deleted=False, factory="")


def _target(found: Project, package: str, names: Names) -> Feature:
    feature = found.feature(package)
    if not feature.factory:
        raise Refused(
            f"tests/{package}/factory.py has no function create_{feature.names.singular}(client), "
            f"by which the tests of {names.words} create what they refer to: write it first."
        )
    return feature


def _check_free(found: Project, names: Names) -> None:
    tables = found.tables()
    if names.plural in tables:
        raise Refused(f"The table {names.plural} is there already, in {tables[names.plural]}.")
    modules = (f"app/{names.plural}.py", f"tests/{names.plural}.py")
    for path in (*modules, f"tests/{names.plural}/__init__.py"):
        if (found.root / path).exists():
            raise Refused(f"{path} is there already: choose another name.")


def _check_same(root: Path, copy: building.Copy, paths: list[str], names: Names) -> None:
    is_same = all(
        (root / path).is_file() and (root / path).read_bytes() == copy.content(path)
        for path in paths
    )
    if not is_same:
        raise Refused(
            f"app/{names.plural} is there already and differs: choose another name, "
            f"or remove it by `uv run just remove {names.plural}`."
        )


def _text(path: Path) -> str:
    """Return the text of a file with its own line ends."""
    return path.read_bytes().decode()


def _mount(root: Path, copy: building.Copy, package: str) -> bool:
    """Mount the router in the copy; return whether there was a place for it."""
    former = _text(root / mounting.API)
    text = mounting.mounted(former, package)
    if text is None:
        return False
    _rewrite_api(copy, text)
    return True


def _rewrite_api(copy: building.Copy, text: str) -> None:
    was_formatted = copy.is_formatted(mounting.API)
    copy.write({mounting.API: text})
    if was_formatted:
        copy.format([mounting.API])


def _print_next(plan: writing.Plan) -> None:
    address = f"http://127.0.0.1:8000/v1{plan.list_path}".replace(
        f"{{{plan.parent_key}}}", "ID" if plan.parent else ""
    )
    has_users = plan.is_owned or plan.is_shared
    key = ' -H "X-API-Key: $KEY"' if has_users else ""
    where = " (docs/security.md tells how to get a key)" if has_users else ""
    print(
        f"\n`uv run just migrate` creates its table, as `uv run just dev` does when it starts. "
        f"Then try it{where}:\n    curl{key} {address}\n"
        f"`uv run just test tests/{plan.names.plural}` runs its tests."
    )
    if plan.is_shared:
        print(
            "Every user who has signed in may see and change the rows; "
            "docs/recipes.md (A list for everyone) opens it to others."
        )


def remove(root: Path, arguments: argparse.Namespace) -> None:
    """Remove a feature.

    Raises:
        Refused: something needs it; nothing has changed.
    """
    found = Project(root)
    package = _package(found, arguments.name)
    if users := found.users_of(package):
        raise Refused(f"{package} can't be removed, since it is used: {', '.join(users)}.")
    api = _text(root / mounting.API)
    unmounted = mounting.unmounted(api, package)
    contents: dict[str, bytes | None] = dict.fromkeys(found.files_of(package))
    with building.copied(root) as copy:
        for folder in ("app", "tests"):
            shutil.rmtree(copy.root / folder / package, ignore_errors=True)
        if unmounted != api:
            _rewrite_api(copy, unmounted)
            contents[mounting.API] = copy.content(mounting.API)
        revision = copy.migrate(f"remove {package.replace('_', ' ')}")
        contents[revision] = copy.content(revision)
    readme = root / README
    text = _text(readme) if readme.is_file() else ""
    section = _EXAMPLE.search(text)
    if section and f"just remove {package}" in section[0]:
        contents[README] = _EXAMPLE.sub("", text).encode()
    _finish(root, contents, arguments)


def rename(root: Path, arguments: argparse.Namespace) -> None:
    """Rename a feature.

    Raises:
        Refused: it can't be renamed; nothing has changed.
    """
    found = Project(root)
    package = _package(found, arguments.name)
    old = found.names(package)
    new = names_of(arguments.new_name, arguments.plural)
    if new.plural in KIT:
        raise Refused(f"{new.plural} comes from the template: choose another name.")
    if new.plural in found.packages():
        raise Refused(f"app/{new.plural} is there already: choose another name.")
    _check_free(found, new)
    renaming = Renaming(old, new)
    contents: dict[str, bytes | None] = {}
    changed = {}
    for path in found.files_of(package):
        contents[path] = None
        changed[renaming.text(path)] = path
    changed |= {path: path for path in found.referring(package)}
    with building.copied(root) as copy:
        for folder in ("app", "tests"):
            shutil.rmtree(copy.root / folder / package, ignore_errors=True)
        copy.write({path: renaming.text(_text(root / former)) for path, former in changed.items()})
        modules = [path for path in changed if path.endswith(".py")]
        copy.format(modules)
        copy.lint(modules)
        names = [json.dumps(asdict(each)) for each in (old, new)]
        revision = copy.migrate(f"rename {old.words} to {new.words}", *names)
        copy.test(f"tests/{new.plural}")
        for path in [*changed, revision]:
            content = copy.content(path)
            if changed.get(path) != path or content != (root / path).read_bytes():
                contents[path] = content
    _finish(root, contents, arguments)


def _package(found: Project, name: str) -> str:
    package = found.package(name)
    if package in KIT:
        raise Refused(f"{package} comes from the template and stays as it is.")
    if package not in found.packages():
        known = ", ".join(found.packages()) or "none"
        raise Refused(f"There is no feature {name!r}; there are: {known}.")
    return package


def _finish(
    root: Path, contents: dict[str, bytes | None] | dict[str, bytes], arguments: argparse.Namespace
) -> None:
    """Move what was built into the project, and print what has changed."""
    for path, content in contents.items():
        verb = "change" if (root / path).exists() else "create"
        verb = "delete" if content is None else verb
        print(f"{verb}  {path}")
    if arguments.dry_run:
        print("This was a dry run: nothing was changed.")
        return
    _warn_of_dirt(root)
    changes.apply(root, contents)


def _warn_of_dirt(root: Path) -> None:
    git = shutil.which("git")
    if git is None:
        return
    done = subprocess.run(
        [git, "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode == 0 and done.stdout.strip():
        print("Git has uncommitted changes, to which these are added.", file=sys.stderr)


def parser(verb: str) -> argparse.ArgumentParser:
    """Return the parser of a verb."""
    made = argparse.ArgumentParser(
        prog=f"just {verb}",
        description=DESCRIPTIONS[verb],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if verb == "new":
        made.add_argument("name", metavar="NAME", help="its singular: invoice, or order_item")
        made.add_argument("fields", metavar="FIELD", nargs="*", help="number:str! due:date?")
        made.add_argument(
            "--belongs-to", metavar="FEATURE", help="nest its routes in those of this feature"
        )
        made.add_argument(
            "--public", action="store_true", help="let every user see and change the rows of all"
        )
    else:
        name = "OLD" if verb == "rename" else "NAME"
        made.add_argument("name", metavar=name, help="the feature: its folder or its singular")
    if verb == "rename":
        made.add_argument("new_name", metavar="NEW", help="its new singular")
    if verb in {"new", "rename"}:
        made.add_argument("--plural", help="the plural, where the English one is not wanted")
    made.add_argument("--dry-run", action="store_true", help="only print what would change")
    return made


def main() -> None:
    """Read the command line and do it; exit with one sentence if it can't be done."""
    verb = sys.argv[1]
    arguments = parser(verb).parse_intermixed_args(sys.argv[2:])
    try:
        if changes.undo(project.ROOT):
            print("Changes that were interrupted have been undone.", file=sys.stderr)
        {"new": new, "remove": remove, "rename": rename}[verb](project.ROOT, arguments)
    except Refused as error:
        sys.exit(f"Nothing was changed. {error}")
    except KeyboardInterrupt:
        sys.exit("Nothing was changed.")


if __name__ == "__main__":
    main()
