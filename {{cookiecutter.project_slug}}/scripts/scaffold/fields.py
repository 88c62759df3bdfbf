"""The fields of a feature, read from the command line: ``number:str! due:date?``."""

import keyword
import re
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from scripts.scaffold.errors import Refused

TYPES: Final = (
    "bigint",
    "bool",
    "date",
    "datetime",
    "decimal",
    "enum",
    "float",
    "int",
    "json",
    "ref",
    "str",
    "text",
    "uuid",
)
SORTED: Final = frozenset({"date", "datetime"})
"""Types whose fields are indexed, so that lists can be sorted by them."""

_UNIQUE: Final = frozenset({"bigint", "date", "datetime", "decimal", "int", "ref", "str", "uuid"})
_TAKEN: Final = frozenset({"created_at", "id", "owner_id", "updated_at"})
_RESERVED: Final = frozenset(
    [
        "bool",
        "bytes",
        "client",
        "cls",
        "create",
        "cursor",
        "date",
        "datetime",
        "dict",
        "etag",
        "fields",
        "float",
        "int",
        "json",
        "limit",
        "list",
        "metadata",
        "mixins",
        "public",
        "query",
        "registry",
        "repository",
        "self",
        "set",
        "sort",
        "str",
        "update",
        "uuid",
        "version",
    ]
)
"""Names that mean something else in the code of a feature."""

_SPEC: Final = re.compile(
    r"(?P<name>[^:]*):(?P<kind>[a-z]+)(?:\((?P<inner>[^()]*)\))?(?P<marks>[?!]*)"
)
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_VALUE: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[_-][A-Za-z0-9]+)*")

LONGEST: Final = 40


@dataclass(frozen=True)
class Field:
    """A field of a feature."""

    name: str
    kind: str
    values: tuple[str, ...] = ()
    """The values of an enum."""
    target: str = ""
    """The feature that a reference names."""
    nullable: bool = False
    unique: bool = False

    @property
    def column(self) -> str:
        """Return the name of the column: a reference to a customer is ``customer_id``."""
        return f"{self.name}_id" if self.kind == "ref" else self.name

    @property
    def words(self) -> str:
        """Return the name in prose."""
        return self.name.replace("_", " ")


def fields_of(specs: list[str]) -> list[Field]:
    """Return the fields that the command line describes.

    Raises:
        Refused: one of them can't be a field.
    """
    fields = [field_of(spec) for spec in specs]
    columns = [field.column for field in fields]
    for column in columns:
        if columns.count(column) > 1:
            raise Refused(f"The field {column} is there twice.")
    return fields


def field_of(spec: str) -> Field:
    """Return the field that a part of the command line describes, such as ``due:date?``.

    Raises:
        Refused: it can't be a field.
    """
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise Refused(f"{spec!r} is no field: write NAME:TYPE, such as title:str or due:date?.")
    name, kind, inner, marks = found["name"], found["kind"], found["inner"], found["marks"]
    if kind not in TYPES:
        raise Refused(f"{kind} is no type of a field: use one of {', '.join(TYPES)}.")
    if len(set(marks)) < len(marks):
        raise Refused(f"{spec}: write ? (nullable) and ! (unique) at most once.")
    if (kind in {"enum", "ref"}) != (inner is not None):
        example = {"enum": "enum(open,paid)", "ref": "ref(customers)"}.get(kind, kind)
        raise Refused(f"{spec}: write the type as {example}.")
    field = Field(
        name,
        kind,
        values=_values(spec, inner) if kind == "enum" else (),
        target=inner.strip() if kind == "ref" else "",
        nullable="?" in marks,
        unique="!" in marks,
    )
    _check_name(field)
    if field.unique and kind not in _UNIQUE:
        raise Refused(f"{spec}: a field of type {kind} can't be unique.")
    return field


def _check_name(field: Field) -> None:
    if not _NAME.fullmatch(field.name):
        raise Refused(
            f"{field.name!r} is no name of a field: use small letters, digits and _, "
            "and begin with a letter."
        )
    if len(field.column) > LONGEST:
        raise Refused(f"The field {field.name[:LONGEST]} is longer than {LONGEST} characters.")
    if field.column in _TAKEN:
        raise Refused(f"{field.column} has a meaning of its own in every feature: leave it out.")
    reserved = {field.name, field.column} & _RESERVED
    known = hasattr(BaseModel, field.column) or field.column.startswith(("kit_", "model_"))
    if reserved or known or keyword.iskeyword(field.name):
        raise Refused(f"{field.name} can't be a field, since it means something else: rename it.")


def _values(spec: str, inner: str) -> tuple[str, ...]:
    values = tuple(value.strip() for value in inner.split(","))
    for value in values:
        if not _VALUE.fullmatch(value) or len(value) > LONGEST:
            raise Refused(f"{spec}: {value!r} can't be a value of an enum: use letters and digits.")
    members = {value.upper().replace("-", "_") for value in values}
    if len(members) < len(values):
        raise Refused(f"{spec}: two values of the enum have the same name.")
    if members & {"MRO"}:
        raise Refused(f"{spec}: mro can't be a value of an enum.")
    return values
