"""What the code of the project says about its features, read without importing it."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.scaffold.errors import Refused
from scripts.scaffold.names import Names, snake

KIT = frozenset({"kit", "users"})
"""Packages of `app/` that come from the template."""


@dataclass(frozen=True)
class Feature:
    """A feature that the project has."""

    names: Names
    repository: str
    """The class of its repository."""
    tables: frozenset[str]
    is_owned: bool
    keeps_deleted: bool
    """Whether its rows are marked as deleted instead of removed."""
    factory: str
    """The function of `tests/<feature>/factory.py` that creates a row; "" if there is none."""

    @property
    def is_hidden(self) -> bool:
        """Return whether a row that exists may be invisible to the caller."""
        return self.is_owned or self.keeps_deleted


@dataclass(frozen=True)
class Project:
    """The project below a folder."""

    root: Path

    @property
    def has_users(self) -> bool:
        """Return whether rows can have owners."""
        return (self.root / "app" / "users" / "models.py").is_file()

    def packages(self) -> list[str]:
        """Return the names of the features."""
        found = (path.parent.name for path in (self.root / "app").glob("*/models.py"))
        return sorted(set(found) - KIT)

    def referable(self) -> list[str]:
        """Return the names of the packages that rows can refer to."""
        return [*self.packages(), *(["users"] if self.has_users else [])]

    def package(self, name: str) -> str:
        """Return the package that a name means, such as ``customers`` for ``Customer``."""
        wanted = snake(name)
        for package in self.referable():
            model = _model(package, _parsed(self.root / "app" / package / "models.py"))
            if wanted == package or (model and wanted == snake(model.name)):
                return package
        return wanted

    def tables(self) -> dict[str, str]:
        """Return every table, with the package that has it: ``app.kit``, for example."""
        found = dict[str, str]()
        for path in sorted((self.root / "app").glob("**/models.py")):
            package = path.relative_to(self.root / "app").parts[0]
            found |= dict.fromkeys(_tables(_parsed(path)), f"app/{package}")
        return found

    def feature(self, package: str) -> Feature:
        """Return a feature, or raise ``Refused``."""
        if package not in self.referable():
            known = ", ".join(self.referable()) or "none yet"
            raise Refused(f"There is no feature {package!r} to refer to; there are: {known}.")
        folder = self.root / "app" / package
        tree = _parsed(folder / "models.py")
        model = _model(package, tree)
        classes = _parsed(folder / "repository.py").body
        for each in classes:
            if model is None or not isinstance(each, ast.ClassDef):
                continue
            if any(ast.unparse(base) == f"Repository[{model.name}]" for base in each.bases):
                return self._feature(package, tree, model, each.name)
        raise Refused(
            f"app/{package} has no model of the table {package} with a repository: "
            "refer to it by hand (docs/recipes.md)."
        )

    def _feature(
        self, package: str, tree: ast.Module, model: ast.ClassDef, repository: str
    ) -> Feature:
        bases = {ast.unparse(base) for base in model.bases}
        file = self.root / "tests" / package / "factory.py"
        singular = snake(model.name)
        factory = f"create_{singular}"
        functions = {
            each.name for each in _parsed(file).body if isinstance(each, ast.AsyncFunctionDef)
        }
        return Feature(
            Names(singular, package, model.name),
            repository,
            frozenset(_tables(tree)),
            is_owned="OwnerMixin" in bases and self.has_users,
            keeps_deleted="SoftDeleteMixin" in bases,
            factory=factory if factory in functions else "",
        )

    def modules(self) -> Iterator[Path]:
        """Return every module that may name a feature; revisions stand for themselves."""
        for folder in ("app", "scripts", "tests"):
            yield from sorted((self.root / folder).rglob("*.py"))

    def users_of(self, package: str) -> list[str]:
        """Return what uses a feature outside it and `app/api.py`, as ``file:line``."""
        lines = self._lines_that_use(package)
        return [f"{path}:{line}" for path, line in lines.items() if path != "app/api.py"]

    def referring(self, package: str) -> list[str]:
        """Return the modules outside a feature that use it, and those of features that do."""
        modules = set(self._lines_that_use(package))
        for other in set(self.packages()) - {package}:
            own = self.files_of(other)
            if modules & set(own):
                modules |= {path for path in own if path.endswith(".py")}
        return sorted(modules)

    def _lines_that_use(self, package: str) -> dict[str, int]:
        own = {self.root / "app" / package, self.root / "tests" / package}
        tables = _tables(_parsed(self.root / "app" / package / "models.py"))
        found = {}
        for path in self.modules():
            if own & set(path.parents):
                continue
            name = path.relative_to(self.root).as_posix()
            keys = tables if name.startswith("app/") else set()
            if lines := sorted(_uses(_parsed(path), package, keys)):
                found[name] = lines[0]
        return found

    def files_of(self, package: str) -> list[str]:
        """Return the files of a feature and of its tests, but for what Python compiles."""
        return sorted(
            path.relative_to(self.root).as_posix()
            for folder in ("app", "tests")
            for path in (self.root / folder / package).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        )

    def names(self, package: str) -> Names:
        """Return the names of a feature, or raise ``Refused``."""
        model = _model(package, _parsed(self.root / "app" / package / "models.py"))
        if model is None:
            raise Refused(f"app/{package} has no model of the table {package}.")
        return Names(snake(model.name), package, model.name)


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ast.Module(body=[], type_ignores=[])
    except SyntaxError as error:
        raise Refused(f"{path} can't be read, line {error.lineno}: {error.msg}.") from None


def _model(package: str, tree: ast.Module) -> ast.ClassDef | None:
    """Return the model whose table has the name of its package."""
    models = (each for each in tree.body if isinstance(each, ast.ClassDef))
    return next((each for each in models if package in _tables(each)), None)


def _tables(tree: ast.AST) -> set[str]:
    found = set[str]()
    for node in ast.walk(tree):
        match node:
            case ast.Assign(
                targets=[ast.Name(id="__tablename__")], value=ast.Constant(value=str() as name)
            ):
                found.add(name)
            case ast.Call(func=ast.Name(id="Table"), args=[ast.Constant(value=str() as name), *_]):
                found.add(name)
            case _:
                pass
    return found


def _uses(tree: ast.Module, package: str, tables: set[str]) -> Iterator[int]:
    prefixes = tuple(f"{folder}.{package}" for folder in ("app", "tests"))
    keys = {f"{table}." for table in tables}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                names = [alias.name for alias in aliases]
            case ast.ImportFrom(module=str() as module, names=aliases):
                names = [module, *(f"{module}.{alias.name}" for alias in aliases)]
            case ast.Call(func=ast.Name(id="ForeignKey"), args=[ast.Constant(value=str() as key)]):
                names = []
                if any(key.startswith(each) for each in keys):
                    yield node.lineno
            case _:
                continue
        if any(name == each or name.startswith(f"{each}.") for name in names for each in prefixes):
            yield node.lineno
