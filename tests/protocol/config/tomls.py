"""Strategies that make TOML texts and know on which line each key stands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tz_protocol.config.locate import Path

__all__ = ["Literal", "Text", "texts", "trees"]

BARE = st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True)
KEYS = st.one_of(BARE, st.text(st.characters(codec="utf-8"), max_size=5))
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.dates().map(lambda day: day.isoformat()).map(lambda text: Literal(text)),
    st.sampled_from(["1979-05-27 07:32:00", "07:32:00.5", "inf", "1_000", "0x1F"]).map(
        lambda text: Literal(text)
    ),
)


class Literal(str):
    """A value that is written as it is."""

    __slots__ = ()


def _values() -> st.SearchStrategy[Any]:
    return st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)
        ),
        max_leaves=6,
    )


def trees() -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy of tables within tables."""
    return st.dictionaries(
        KEYS, st.one_of(_values(), st.dictionaries(KEYS, _values())), max_size=4
    )


class Text:
    """Writes a tree, choosing among TOML's ways by *choose*."""

    def __init__(self, tree: dict[str, Any], choose: Callable[[int], int]) -> None:
        self._choose = choose
        self._lines: list[str] = [""]
        self.places: dict[Path, int] = {}
        """Line, from 1, of every path that is named whole."""
        self._table(tree, (), is_root=True)
        self.text = self._newline().join(self._lines)

    def _newline(self) -> str:
        return ("\n", "\r\n")[self._choose(2)]

    def _name(self, path: Path) -> None:
        self.places.setdefault(path, len(self._lines))

    def _write(self, text: str) -> None:
        first, *others = text.split("\n")
        self._lines[-1] += first
        self._lines += others

    def _end(self) -> None:
        self._write(("", " # a [b] = {c", "\n", "\n# 'x\n")[self._choose(4)] + "\n")

    def _table(self, tree: dict[str, Any], path: Path, *, is_root: bool) -> None:
        """Write what *tree* holds: pairs first, tables of their own after them."""
        later = []
        for key, value in tree.items():
            if isinstance(value, dict) and (is_root or self._choose(2)):
                later.append((key, value, False))
            elif _is_array_of_tables(value) and self._choose(2):
                later.append((key, value, True))
            else:
                self._pair((*path, key), key, value)
        for key, value, is_array in later:
            self._own(path, key, value, is_array=is_array)

    def _own(self, path: Path, key: str, value: Any, *, is_array: bool) -> None:
        names = [part for part in (*path, key) if isinstance(part, str)]
        blank = ("", " ")[self._choose(2)]
        header = f"{blank}.{blank}".join(map(self._key, names))
        whole = (*path, key)
        if not is_array:
            self._name(whole)
            self._write(f"{blank}[{blank}{header}{blank}]")
            self._end()
            self._table(value, whole, is_root=False)
            return
        for index, item in enumerate(value):
            self._name(whole)
            self._name((*whole, index))
            self._write(f"[[{blank}{header}{blank}]]")
            self._end()
            self._table(item, (*whole, index), is_root=False)

    def _pair(
        self, path: Path, key: str, value: Any, *, is_inline: bool = False
    ) -> None:
        can_split = isinstance(value, dict) and value and not is_inline
        if can_split and self._choose(2):
            for name, child in value.items():
                self._name((*path, name))
                self._write(f"{self._key(key)} . {self._key(name)} = ")
                self._value((*path, name), child)
                self._end()
            return
        self._name(path)
        self._write(f"{self._key(key)}{(' = ', '=')[self._choose(2)]}")
        self._value(path, value)
        if not is_inline:
            self._end()

    def _key(self, key: str) -> str:
        if re.fullmatch(r"[A-Za-z0-9_-]+", key) and self._choose(2):
            return key
        if "'" not in key and key.isprintable() and self._choose(2):
            return f"'{key}'"
        return _basic(key)

    def _value(self, path: Path, value: Any) -> None:
        if isinstance(value, dict):
            self._write("{ ")
            for index, (key, child) in enumerate(value.items()):
                self._write(", " if index else "")
                self._pair((*path, key), key, child, is_inline=True)
            self._write(" }")
        elif isinstance(value, list):
            self._write("[")
            for index, child in enumerate(value):
                self._write((" ", "\n", " # , ]\n")[self._choose(3)])
                self._name((*path, index))
                self._value((*path, index), child)
                self._write((",", " ,", "\n,")[self._choose(3)])
            self._write(("", "\n")[self._choose(2)] + "]")
        elif isinstance(value, str) and not isinstance(value, Literal):
            self._write(self._string(value))
        elif isinstance(value, bool):
            self._write("true" if value else "false")
        else:
            self._write(str(value))

    def _string(self, value: str) -> str:
        way = self._choose(3)
        if way == 1:
            return f'""{_basic(value).replace(chr(92) + "n", chr(10))}""'
        if way == 2 and "'" not in value and value.isprintable():
            return f"'''\n{value}'''" if self._choose(2) else f"'{value}'"
        return _basic(value)


def _is_array_of_tables(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) for item in value)
    )


def _basic(text: str) -> str:
    """Return *text* as a basic string: JSON's, with DEL escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


@st.composite
def texts(draw: st.DrawFn) -> Text:
    """Return a text with its places."""
    tree = draw(trees())
    random = draw(st.randoms(use_true_random=False))
    return Text(tree, random.randrange)
