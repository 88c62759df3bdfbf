"""The names of a feature, all derived from its singular and its plural."""

import builtins
import keyword
import re
from dataclasses import dataclass
from typing import Final

import inflection

from scripts.scaffold.errors import Refused

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[_-][A-Za-z0-9]+)*")
_WORDS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[_-]")

LONGEST: Final = 40
"""Characters of a name. PostgreSQL cuts the names of indexes, which contain it, at 63."""

_MODULES: Final = frozenset({"api", "caller", "conftest", "database", "kit", "main", "settings"})

_IMPORTED: Final = frozenset(
    [
        "Amount",
        "Any",
        "AsyncClient",
        "Base",
        "Database",
        "Date",
        "Enum",
        "ForeignKey",
        "Index",
        "Json",
        "JsonObject",
        "KeysetList",
        "Literal",
        "Mapped",
        "Numeric",
        "OwnerMixin",
        "Page",
        "PageQuery",
        "Query",
        "Repository",
        "RequestModel",
        "ResponseModel",
        "Router",
        "String",
        "Text",
        "TimestampMixin",
        "UTCTime",
        "UUIDPrimaryKey",
        "Example",
        "Examples",
        "Field",
        "Final",
    ]
)
"""Classes that the modules of a feature import, or may import later."""


@dataclass(frozen=True)
class Names:
    """A feature in every form in which code names it."""

    singular: str
    """Such as ``order_item``."""
    plural: str
    """Such as ``order_items``: the package, the table and the module of tests."""
    model: str
    """Such as ``OrderItem``."""

    @property
    def models(self) -> str:
        """Return the plural as a class: ``OrderItems``."""
        head, one = _last_word(self.singular)
        if not self.plural.startswith(head):
            return camel(self.plural)
        return self.model.removesuffix(camel(one)) + camel(self.plural.removeprefix(head))

    @property
    def constant(self) -> str:
        """Return the plural as a constant: ``ORDER_ITEMS``."""
        return self.plural.upper()

    @property
    def path(self) -> str:
        """Return the last part of URLs: ``order-items``."""
        return self.plural.replace("_", "-")

    @property
    def words(self) -> str:
        """Return the plural in prose: ``order items``."""
        return self.plural.replace("_", " ")

    @property
    def word(self) -> str:
        """Return the singular in prose: ``order item``."""
        return self.singular.replace("_", " ")

    @property
    def a_word(self) -> str:
        """Return the singular with its article: ``an order item``."""
        return f"{_article(self.word)} {self.word}"


def names_of(text: str, plural: str | None = None) -> Names:
    """Return the names of a feature.

    Args:
        text: its singular, such as ``order_item``, ``order-item`` or ``OrderItem``.
        plural: its plural, where English has another one than is wanted.

    Raises:
        Refused: it can't be a name.
    """
    singular = _checked(text)
    if plural is None:
        head, last = _last_word(singular)
        if (one := _singular_of(last)) is not None:
            raise Refused(f"{text} looks like a plural: name one of them, such as {head}{one}.")
        many = head + inflection.pluralize(last)
    else:
        many = _checked(plural)
    if many == singular:
        raise Refused(f"{text} is its own plural: add --plural with another word.")
    words = [part for part in _WORDS.split(text) if part]
    model = "".join(part[0].upper() + part[1:] for part in words)
    names = Names(singular, many, model)
    if keyword.iskeyword(names.model):
        raise Refused(f"{names.model} is a word of Python itself: choose another name.")
    if {names.model, names.models} & _IMPORTED:
        raise Refused(
            f"{names.model} is a name that the code of a feature imports: choose another."
        )
    if many in _MODULES or singular in _MODULES:
        raise Refused(f"{text} is the name of a module of the service: choose another.")
    return names


def snake(text: str) -> str:
    """Return ``order_item`` for ``OrderItem`` and ``order-item``."""
    return "_".join(part.lower() for part in _WORDS.split(text) if part)


def _checked(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise Refused(f"{text!r} is no name: use letters, digits and _, and begin with a letter.")
    name = snake(text)
    if keyword.iskeyword(name) or hasattr(builtins, name):
        raise Refused(f"{text} is a word of Python itself: choose another name.")
    if len(name) > LONGEST:
        raise Refused(f"{text[:LONGEST]}... is too long: a name has at most {LONGEST} characters.")
    return name


def _last_word(name: str) -> tuple[str, str]:
    head, separator, last = name.rpartition("_")
    return head + separator, last


def _singular_of(word: str) -> str | None:
    """Return the singular of a plural; None for a singular."""
    found = inflection.singularize(word)
    return found if found != word and inflection.pluralize(found) == word else None


def _article(word: str) -> str:
    if word.startswith(("eu", "one", "uni", "use", "usa", "uti")):
        return "a"
    return "an" if word.startswith(("a", "e", "i", "o", "u", "hour", "heir", "hono")) else "a"


def camel(name: str) -> str:
    """Return ``OrderItem`` for ``order_item``."""
    return "".join(part[0].upper() + part[1:] for part in name.split("_"))
