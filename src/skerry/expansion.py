"""Variables and quotes in a word of a Dockerfile, by the rules of its reference ("Environment replacement"). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from skerry.errors import InvalidRequest

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]|[@*#?$!-]")
_DEPTH_MAX = 20
WORD_MAX = 131_072
"""Characters of a word, before and after."""


def expand(word: str, variables: Mapping[str, str]) -> str:
    """The word without its quotes and with its variables' values; what is not set is empty.

    Understood: `$name`, `${name}`, `${name:-word}`, `${name-word}`, `${name:+word}`, `${name+word}`, `${name:?word}`,
    `${name?word}`, '…', "…" and `\\`.

    Raises:
        InvalidRequest: an open quote or brace, another modifier, a variable that must be set, or more than WORD_MAX.
    """
    return _Reader(word, variables).read()


class _Reader:
    def __init__(self, text: str, variables: Mapping[str, str], depth: int = 0) -> None:
        self._text, self._variables, self._depth = text, variables, depth
        self._at = 0
        if depth > _DEPTH_MAX:
            raise self._wrong("it is nested too deeply")
        self._room(len(text))

    def read(self) -> str:
        out: list[str] = []
        size = 0
        while self._at < len(self._text):
            size += len(out[-1]) if out else 0
            self._room(size)
            char = self._take()
            if char == "'":
                out.append(self._until("'"))
            elif char == '"':
                out.append(self._quoted())
            elif char == "\\":
                out.append(self._take() if self._at < len(self._text) else "\\")
            elif char == "$":
                out.append(self._variable())
            else:
                out.append(char)
        return self._joined(out)

    def _joined(self, pieces: list[str]) -> str:
        text = "".join(pieces)
        self._room(len(text))
        return text

    def _room(self, size: int) -> None:
        if size > WORD_MAX:
            raise self._wrong(f"it would be longer than {WORD_MAX} characters")

    def _take(self) -> str:
        char = self._text[self._at]
        self._at += 1
        return char

    def _until(self, end: str) -> str:
        there = self._text.find(end, self._at)
        if there < 0:
            raise self._wrong(f"a {end} is missing")
        found, self._at = self._text[self._at : there], there + 1
        return found

    def _quoted(self) -> str:
        out: list[str] = []
        size = 0
        while self._at < len(self._text):
            size += len(out[-1]) if out else 0
            self._room(size)
            char = self._take()
            if char == '"':
                return self._joined(out)
            if char == "\\" and self._text[self._at : self._at + 1] in ('"', "$", "\\"):
                out.append(self._take())
            elif char == "$":
                out.append(self._variable())
            else:
                out.append(char)
        raise self._wrong('a " is missing')

    def _variable(self) -> str:
        braced = self._text[self._at : self._at + 1] == "{"
        found = _NAME.match(self._text, self._at + braced)
        if found is None:
            if braced:
                raise self._wrong("a name is missing in ${…}")
            return "$"
        name, self._at = found[0], found.end()
        value = self._variables.get(name)
        return self._modified(name, value, self._braces()) if braced else value or ""

    def _braces(self) -> str:
        """What stands between a name and its closing brace."""
        begin, open_ = self._at, 1
        while self._at < len(self._text):
            char = self._take()
            open_ += (char == "{") - (char == "}")
            if not open_:
                return self._text[begin : self._at - 1]
        raise self._wrong("a } is missing")

    def _modified(self, name: str, value: str | None, rest: str) -> str:
        if not rest:
            return value or ""
        is_set = bool(value) if rest[0] == ":" else value is not None
        modifier, word = rest.removeprefix(":")[:1], rest.removeprefix(":")[1:]
        if modifier not in ("-", "+", "?"):
            raise self._wrong(f"${{{name}{rest}}} is not understood: the modifiers are :- :+ :? - + ?")
        if modifier == "+":
            return self._word(word) if is_set else ""
        if is_set:
            return value or ""
        if modifier == "?":
            raise self._wrong(f"{name} is not set: {self._word(word) or 'it must be'}")
        return self._word(word)

    def _word(self, word: str) -> str:
        return _Reader(word, self._variables, self._depth + 1).read()

    def _wrong(self, why: str) -> InvalidRequest:
        return InvalidRequest(f"cannot understand {self._text[:200]!r}: {why}")
