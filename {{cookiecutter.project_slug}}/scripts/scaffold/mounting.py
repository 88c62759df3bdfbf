"""Mounts and unmounts routers in ``app/api.py``, whatever else it holds."""

from typing import Final

import libcst as cst

from scripts.scaffold.errors import Refused

API: Final = "app/api.py"


def import_of(package: str) -> str:
    """Return the line that imports the router of a feature."""
    return f"from app.{package}.router import router as {package}"


def mounted(text: str, package: str) -> str | None:
    """Return ``app/api.py`` with the router of a feature; None if it has no list ``CLOSED``."""
    module = _parsed(text)
    change = _Mount(package)
    changed = module.visit(change)
    if not change.is_done:
        return None
    return changed.with_changes(body=_with_import(changed.body, import_of(package))).code


def unmounted(text: str, package: str) -> str:
    """Return ``app/api.py`` without the routers of a feature.

    Raises:
        Refused: it uses them for something else than mounting.
    """
    module = _parsed(text)
    names = set[str]()
    kept = []
    for statement in module.body:
        if _imports(statement, package):
            names |= _bound(statement)
        else:
            kept.append(statement)
    if not names:
        return text
    changed = module.with_changes(body=kept).visit(_Unmount(names))
    left = _Uses(names)
    changed.visit(left)
    if left.found:
        raise Refused(
            f"{API} uses {', '.join(sorted(left.found))} for more than mounting: remove that first."
        )
    return changed.code


def _parsed(text: str) -> cst.Module:
    try:
        return cst.parse_module(text)
    except cst.ParserSyntaxError as error:
        raise Refused(f"{API} can't be read, line {error.raw_line}.") from None


def _imports(statement: cst.CSTNode, package: str) -> bool:
    """Return whether a statement imports from a feature."""
    for node in _import_nodes(statement):
        module = cst.Module([]).code_for_node(node.module) if node.module else ""
        if module == f"app.{package}" or module.startswith(f"app.{package}."):
            return True
        if module == "app" and not isinstance(node.names, cst.ImportStar):
            return any(alias.evaluated_name == package for alias in node.names)
    return False


def _import_nodes(statement: cst.CSTNode) -> list[cst.ImportFrom]:
    if not isinstance(statement, cst.SimpleStatementLine):
        return []
    return [part for part in statement.body if isinstance(part, cst.ImportFrom)]


def _bound(statement: cst.CSTNode) -> set[str]:
    return {
        alias.evaluated_alias or alias.evaluated_name
        for node in _import_nodes(statement)
        if not isinstance(node.names, cst.ImportStar)
        for alias in node.names
    }


def _with_import(
    body: "tuple[cst.BaseStatement | cst.SimpleStatementLine, ...] | object", line: str
) -> list[cst.CSTNode]:
    """Insert an import after the last of the service's own that sorts before it."""
    statements = list(body) if isinstance(body, (list, tuple)) else []
    position = 0
    for number, statement in enumerate(statements):
        if nodes := _import_nodes(statement):
            code = cst.Module([]).code_for_node(nodes[0])
            if not code.startswith("from app") or code < line:
                position = number + 1
    statements.insert(position, cst.parse_statement(f"{line}\n"))
    return statements


class _Mount(cst.CSTTransformer):
    """Adds a router to ``CLOSED``, before what is unpacked there."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.is_done = False

    def leave_AnnAssign(  # noqa: N802 - named by libcst
        self, original_node: cst.AnnAssign, updated_node: cst.AnnAssign
    ) -> cst.AnnAssign:
        if _is_name(original_node.target, "CLOSED") and isinstance(updated_node.value, cst.List):
            return updated_node.with_changes(value=self._added(updated_node.value))
        return updated_node

    def leave_Assign(  # noqa: N802 - named by libcst
        self, original_node: cst.Assign, updated_node: cst.Assign
    ) -> cst.Assign:
        is_list = _is_name(original_node.targets[0].target, "CLOSED")
        if is_list and isinstance(updated_node.value, cst.List):
            return updated_node.with_changes(value=self._added(updated_node.value))
        return updated_node

    def _added(self, mounts: cst.List) -> cst.List:
        elements = list(mounts.elements)
        plain = [each for each in elements if isinstance(each, cst.Element)]
        prefix = '"/v1"'
        if plain and isinstance(plain[0].value, cst.Tuple):
            prefix = cst.Module([]).code_for_node(plain[0].value.elements[0].value)
        comma = next((each.comma for each in elements if isinstance(each.comma, cst.Comma)), None)
        element = cst.Element(
            cst.parse_expression(f"({prefix}, {self.package})"),
            comma=comma or cst.Comma(whitespace_after=cst.SimpleWhitespace(" ")),
        )
        unpacked = [isinstance(each, cst.StarredElement) for each in elements]
        position = unpacked.index(True) if True in unpacked else len(elements)
        if position and not isinstance(elements[position - 1].comma, cst.Comma):
            elements[position - 1] = elements[position - 1].with_changes(comma=element.comma)
        elements.insert(position, element)
        self.is_done = True
        return mounts.with_changes(elements=elements)


class _Unmount(cst.CSTTransformer):
    """Removes the elements of lists that are a router, or a tuple with one."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def leave_List(  # noqa: N802 - named by libcst
        self, original_node: cst.List, updated_node: cst.List
    ) -> cst.List:
        elements = list(updated_node.elements)
        kept = [each for each in elements if not self._is_mount(each)]
        if kept and len(kept) < len(elements):
            kept[-1] = kept[-1].with_changes(comma=elements[-1].comma)
        return updated_node.with_changes(elements=kept)

    def _is_mount(self, element: cst.BaseElement) -> bool:
        if not isinstance(element, cst.Element):
            return False
        value = element.value
        parts = [each.value for each in value.elements] if isinstance(value, cst.Tuple) else [value]
        return any(isinstance(part, cst.Name) and part.value in self.names for part in parts)


class _Uses(cst.CSTVisitor):
    """Finds the uses of names."""

    def __init__(self, names: set[str]) -> None:
        self.names = names
        self.found = set[str]()

    def visit_Name(self, node: cst.Name) -> None:  # noqa: N802 - named by libcst
        if node.value in self.names:
            self.found.add(node.value)


def _is_name(node: cst.CSTNode, name: str) -> bool:
    return isinstance(node, cst.Name) and node.value == name
