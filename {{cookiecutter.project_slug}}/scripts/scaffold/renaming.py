"""Renames a feature: in its code, and in the code and the tables that refer to it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from scripts.scaffold.names import Names

_OTHER: Final = r"asyncio\.\w+|\.create_task\b|\w+_by\b"
"""What has the name of a feature in it, such as ``order``, and means something else."""


@dataclass(frozen=True)
class Renaming:
    """The former names of a feature and its new ones."""

    old: Names
    new: Names

    def text(self, text: str) -> str:
        """Return a text with every name in all its forms replaced."""
        return self._pattern.sub(self._replaced, text)

    @cached_property
    def _forms(self) -> dict[str, str]:
        return dict(zip(_forms_of(self.old), _forms_of(self.new), strict=True))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._forms, key=len, reverse=True)
        forms = "|".join(
            re.escape(form) + ("(?![A-Z0-9])" if form.isupper() else "(?![a-z0-9])")
            for form in longest_first
        )
        article = r"(?:(?P<article>[Aa]n?)(?P<space>[ _]))?"
        return re.compile(rf"(?P<other>{_OTHER})|(?<![A-Za-z0-9]){article}(?P<form>{forms})")

    def _replaced(self, found: re.Match[str]) -> str:
        if found["other"]:
            return found[0]
        form = self._forms[found["form"]]
        if found["article"] is None:
            return form
        article = self.new.a_word.split()[0]
        if found["article"][0].isupper():
            article = article.capitalize()
        return f"{article}{found['space']}{form}"


def _forms_of(names: Names) -> Iterator[str]:
    yield from (names.models, names.model)
    yield from (names.constant, names.singular.upper())
    yield from (names.plural, names.singular)
    yield from (names.path, names.singular.replace("_", "-"))
    for words in (names.words, names.word):
        yield from (words, words[0].upper() + words[1:])
