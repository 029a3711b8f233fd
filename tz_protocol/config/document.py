"""TOML files -> one tree of values that still knows where each came from.

The one rule: files merge and never override. A table may be spread over files; a key
that two of them set is a problem that names both places.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Sequence
from typing import Any

from tz_protocol.config.locate import Path, dotted, key_lines
from tz_protocol.errors import ConfigError, ConfigProblem

__all__ = ["DEPTH_LIMIT", "SIZE_LIMIT", "Document", "merge_files"]

SIZE_LIMIT = 67_108_864
"""Characters in all files together: five times what 100,000 models take."""

DEPTH_LIMIT = 64
"""Tables and arrays within each other; the schema itself needs seven."""

_SECRET_TABLES = ("api_keys",)

_TWICE = re.compile(
    r"(?:Cannot (?:declare|mutate immutable namespace|redefine namespace)"
    r"|Duplicate inline table key) .*",
    re.DOTALL,
)
"""Messages of ``tomllib`` that repeat a key, which may be a secret."""

_PLACE = re.compile(
    r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", re.DOTALL
)


class Document:
    """The merged values of all files, before any of them was interpreted."""

    __slots__ = ("_lines", "config_id", "data", "files")

    def __init__(self, files: Sequence[tuple[str, str]], data: dict[str, Any]) -> None:
        self.files = tuple(files)
        self.data = data
        self.config_id = _digest(self.files)
        """Twelve hexadecimal digits over the files' text; ``default`` without one."""
        self._lines: list[dict[Path, int]] | None = None

    def place(self, path: Path) -> tuple[str, int | None]:
        """Return (file, line) of *path* or of what encloses it most closely."""
        if self._lines is None:
            self._lines = [key_lines(text) for _file, text in self.files]
        for length in range(len(path), 0, -1):
            for (file, _text), lines in zip(self.files, self._lines, strict=True):
                line = lines.get(path[:length])
                if line is not None:
                    return file, line
        return (self.files[0][0] if len(self.files) == 1 else ""), None

    def problem(self, path: Path, message: str) -> ConfigProblem:
        """Return the problem that *message* describes, placed at *path*."""
        file, line = self.place(path)
        return ConfigProblem(file, line, _shown(path), message)


def _shown(path: Path) -> str:
    """Return *path* as text; what a table of secrets calls its keys is not shown."""
    return dotted(path[:1] if path[0] in _SECRET_TABLES else path)


def merge_files(files: Sequence[tuple[str, str]]) -> Document:
    """Parse and merge (path, text) pairs.

    Raises:
        ConfigError: For every file that is not TOML, is too large or too deeply
            nested, and for every key that two files set.
    """
    _limit_size(files)
    problems: list[ConfigProblem] = []
    trees: list[dict[str, Any]] = []
    for file, text in files:
        try:
            tree = tomllib.loads(text)
        except RecursionError:
            problems.append(_too_deep(file))
        except tomllib.TOMLDecodeError as error:
            problems.append(_syntax_problem(file, text, str(error)))
        except ValueError:
            # int refuses to read it: the only one that tomllib lets out
            message = "not valid TOML: a number has thousands of digits"
            problems.append(ConfigProblem(file, None, "", message))
        else:
            if _is_too_deep(tree):
                problems.append(_too_deep(file))
            trees.append(tree)
    if problems:
        raise ConfigError(problems)
    merged = trees[0] if len(trees) == 1 else {}
    document = Document(files, merged)
    if len(trees) > 1:
        for (file, text), tree in zip(files, trees, strict=True):
            clashes: list[Path] = []
            _merge(merged, tree, (), clashes)
            problems += _clash_problems(document, file, text, clashes)
    if problems:
        raise ConfigError(problems)
    return document


def _limit_size(files: Sequence[tuple[str, str]]) -> None:
    total = 0
    for file, text in files:
        total += len(text)
        if total > SIZE_LIMIT:
            message = f"the files are too large: more than {SIZE_LIMIT} characters"
            raise ConfigError([ConfigProblem(file, None, "", message)])


def _too_deep(file: str) -> ConfigProblem:
    message = f"tables and arrays are nested more than {DEPTH_LIMIT} levels deep"
    return ConfigProblem(file, None, "", message)


def _is_too_deep(tree: dict[str, Any]) -> bool:
    """Return whether *tree* is nested past the limit; iterative on purpose."""
    level: list[Any] = [tree]
    for _depth in range(DEPTH_LIMIT):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True


def _syntax_problem(file: str, text: str, message: str) -> ConfigProblem:
    match = _PLACE.match(message)
    what, line, column = match.groups() if match else (message, None, None)
    what = _TWICE.sub("a table or key is defined twice", what)
    if line is None:
        last = text.count("\n") + 1
        return ConfigProblem(
            file, last, "", f"not valid TOML: {what} at the end of the file"
        )
    return ConfigProblem(
        file, int(line), "", f"not valid TOML: {what} (column {column})"
    )


def _merge(
    target: dict[str, Any], tree: dict[str, Any], path: Path, clashes: list[Path]
) -> None:
    """Merge *tree* into *target*; what both set goes to *clashes*."""
    for key, value in tree.items():
        if key not in target:
            # copied, so that a later file cannot change the tree of an earlier one
            target[key] = value
        elif isinstance(target[key], dict) and isinstance(value, dict):
            target[key] = dict(target[key])
            _merge(target[key], value, (*path, key), clashes)
        else:
            clashes.append((*path, key))


def _clash_problems(
    document: Document, file: str, text: str, clashes: list[Path]
) -> list[ConfigProblem]:
    if not clashes:
        return []
    lines = key_lines(text)
    problems = []
    for path in clashes:
        first, first_line = document.place(path)
        place = first if first_line is None else f"{first}:{first_line}"
        message = f"set twice: {place} sets it too, and files merge, never override"
        problems.append(ConfigProblem(file, lines.get(path), _shown(path), message))
    return problems


def _digest(files: tuple[tuple[str, str], ...]) -> str:
    if not files:
        return "default"
    digest = hashlib.sha256()
    for _file, text in files:
        digest.update(text.encode(errors="surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()[:12]
