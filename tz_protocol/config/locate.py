"""Where each key of a TOML text stands: dotted path -> line.

The one rule: it trusts. The text has passed ``tomllib``, so this scanner checks no
grammar; where it loses its way it stops, and a path without a line of its own gets the
line of the nearest enclosing key. It runs only once a problem has been found.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

__all__ = ["Path", "dotted", "key_lines"]

Path = tuple[str | int, ...]
"""Keys and array indices from the root."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_TOKEN = re.compile(
    r'''
      (?P<string> """ (?:[^\\"]|\\.|"{1,2}(?!"))* "{3,5}
                | \'\'\' (?:[^']|'{1,2}(?!'))* '{3,5}
                | " (?:[^"\\\n]|\\.)* "
                | ' [^'\n]* ')
    | (?P<comment> \#[^\n]*)
    | (?P<newline> \n)
    | (?P<mark> [\[\]{}=,.])
    | (?P<space> [ \t\r]+)
    | (?P<bare> [^\s\[\]{}=,."'\#]+)
    ''',
    re.VERBOSE | re.DOTALL,
)

_Token = tuple[str, str, int]
"""(kind, text, line); the kind of a mark is the mark itself."""


def dotted(path: Path) -> str:
    """Return *path* as one writes it in TOML, with array indices in brackets."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        # repr would quote as Python does; TOML's basic strings escape as JSON does
        name = part if _BARE.fullmatch(part) else _quoted(part)
        text += f".{name}" if text else name
    return text


def _quoted(key: str) -> str:
    """Return *key* as a basic string with control characters escaped."""
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(_escape(char) for char in escaped) + '"'


def _escape(char: str) -> str:
    return char if char.isprintable() else f"\\u{ord(char):04x}"


def key_lines(text: str) -> dict[Path, int]:
    """Return the line, counted from 1, of every table header and key of *text*.

    Where a path occurs more than once, the line is that of the first time it is named
    whole; a table that never is, as one that only its subtables open, has the line of
    the first thing in it.
    """
    scanner = _Scanner(text)
    try:
        scanner.run()
    except (_Lost, RecursionError):
        pass  # lost: what was found so far still serves
    lines = scanner.lines
    for path, line in list(lines.items()):
        for length in range(len(path) - 1, 0, -1):
            if path[:length] in lines:
                break
            lines[path[:length]] = line
    return lines


def _tokens(text: str) -> Iterator[_Token]:
    line = 1
    position = 0
    while True:
        match = _TOKEN.match(text, position)
        if match is None:
            return
        position = match.end()
        kind = match.lastgroup or ""
        found = match.group()
        if kind == "mark":
            yield found, found, line
        elif kind not in ("space", "comment"):
            yield kind, found, line
        line += found.count("\n")


class _Lost(Exception):
    """The scanner met what it does not expect; the rest has no lines."""


class _Scanner:
    """Walks the tokens of one file once."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._tokens = _tokens(text)
        self._token: _Token = next(self._tokens, ("end", "", 1))
        self._counts: dict[Path, int] = {}

    def run(self) -> None:
        """Read statements until the end; _Lost if the text is cut."""
        table: Path = ()
        while self._token[0] != "end":
            if self._token[0] == "newline":
                self._advance()
            elif self._token[0] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _advance(self) -> _Token:
        token = self._token
        if token[0] == "end":
            raise _Lost
        self._token = next(self._tokens, ("end", "", token[2]))
        return token

    def _skip_newlines(self) -> None:
        while self._token[0] == "newline":
            self._advance()

    def _header(self) -> Path:
        """Read ``[key]`` or ``[[key]]`` and return the table's path."""
        line = self._advance()[2]
        is_array = self._token[0] == "["
        if is_array:
            self._advance()
        path = self._resolve(self._key())
        self._advance()
        if is_array:
            self._advance()
            index = self._counts.get(path, -1) + 1
            self._counts[path] = index
            self.lines.setdefault(path, line)
            path = (*path, index)
        self.lines.setdefault(path, line)
        return path

    def _resolve(self, path: Path) -> Path:
        """Insert the latest index of each array of tables on the way, but not last."""
        if not self._counts:
            return path
        resolved: Path = ()
        for part in path[:-1]:
            resolved = (*resolved, part)
            index = self._counts.get(resolved)
            if index is not None:
                resolved = (*resolved, index)
        return (*resolved, *path[-1:])

    def _key(self) -> Path:
        parts: list[str] = []
        while True:
            parts.append(_unquote(self._advance()))
            if self._token[0] != ".":
                return tuple(parts)
            self._advance()

    def _pair(self, table: Path) -> None:
        line = self._token[2]
        path = (*table, *self._key())
        self.lines.setdefault(path, line)
        if self._advance()[0] != "=":
            raise _Lost
        self._value(path)

    def _value(self, path: Path) -> None:
        kind = self._token[0]
        if kind == "[":
            self._array(path)
        elif kind == "{":
            self._inline_table(path)
        elif kind not in ("string", "bare", "."):
            raise _Lost
        else:
            # numbers and dates may hold dots, and one blank between date and time
            while self._token[0] in ("string", "bare", "."):
                self._advance()

    def _array(self, path: Path) -> None:
        self._advance()
        index = 0
        while True:
            self._skip_newlines()
            if self._token[0] == "]":
                self._advance()
                return
            if self._token[0] == ",":
                self._advance()
                index += 1
                continue
            item = (*path, index)
            self.lines.setdefault(item, self._token[2])
            self._value(item)

    def _inline_table(self, path: Path) -> None:
        self._advance()
        while True:
            self._skip_newlines()
            if self._token[0] == "}":
                self._advance()
                return
            if self._token[0] == ",":
                self._advance()
                continue
            self._pair(path)


def _unquote(token: _Token) -> str:
    """Return the key that a bare or quoted token stands for."""
    kind, text, _line = token
    if kind == "bare":
        return text
    if kind != "string":
        raise _Lost
    if text.startswith("'"):
        return text[1:-1]
    if "\\" not in text:
        return text[1:-1]
    try:
        value = tomllib.loads(f"key = {text}")["key"]
    except ValueError:
        raise _Lost
    return str(value)
