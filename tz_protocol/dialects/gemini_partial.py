"""The arguments of a Gemini call that come piece by piece.

The one rule: each piece says by a JSON path where its value belongs; the whole is JSON
once the call is complete, and numbers are as the vendor wrote them.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/
function-calling, "Streaming function call arguments".
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

__all__ = ["Arguments", "PartialArgument"]

MAX_DEPTH = 100
"""Levels of nesting; deeper paths are taken for nonsense."""

_STEP = re.compile(
    r"\.([^.\[\]]+)"
    r"|\[(\d{1,6})\]"
    r"|\['((?:[^'\\]|\\.)*)'\]"
    r'|\["((?:[^"\\]|\\.)*)"\]'
)
_ESCAPED = re.compile(r"\\(.)")


class PartialArgument(msgspec.Struct):
    """One of the vendor's ``partialArgs``; at most one value is set."""

    jsonPath: str = ""  # noqa: N815  # the vendor's spelling
    stringValue: str | UnsetType = UNSET  # noqa: N815
    """Continues the text that is at this path already."""
    numberValue: Raw | UnsetType = UNSET  # noqa: N815
    boolValue: bool | UnsetType = UNSET  # noqa: N815
    nullValue: Any = UNSET  # noqa: N815


class Arguments:
    """Puts the arguments of one call together."""

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root: dict[str, Any] = {}

    def add(self, piece: PartialArgument) -> bool:
        """Take one piece; False if its path leads nowhere."""
        steps = _steps(piece.jsonPath)
        if not steps or type(steps[0]) is not str:
            return False
        node: Any = self._root
        for step, following in itertools.pairwise(steps):
            default: Any = {} if type(following) is str else []
            node = _child(node, step, default)
            if type(node) is not type(default):
                return False
        return _put(node, steps[-1], piece)

    def text(self) -> str:
        """Return the arguments as JSON."""
        return msgspec.json.encode(self._root).decode()


def _steps(path: str) -> list[str | int]:
    """Return the members and places that *path* names; empty if it cannot be read."""
    if not path.startswith("$"):
        return []
    steps: list[str | int] = []
    place = 1
    while place < len(path):
        found = _STEP.match(path, place)
        if found is None or len(steps) == MAX_DEPTH:
            return []
        plain, index, single, double = found.groups()
        if index is not None:
            steps.append(int(index))
        elif plain is not None:
            steps.append(plain)
        else:
            steps.append(_ESCAPED.sub(r"\1", double if single is None else single))
        place = found.end()
    return steps


def _child(node: Any, step: str | int, default: Any) -> Any:
    """Return what is at *step*, made if it is new; None if that is impossible."""
    if type(node) is dict:
        return node.setdefault(step, default)
    if type(node) is list and type(step) is int and step <= len(node):
        if step == len(node):
            node.append(default)
        return node[step]
    return None


def _put(node: Any, step: str | int, piece: PartialArgument) -> bool:
    value: Any = None
    if piece.stringValue is not UNSET:
        old = _child(node, step, "")
        if type(old) is not str:
            return False
        value = old + piece.stringValue
    elif piece.numberValue is not UNSET:
        value = piece.numberValue.copy()
    elif piece.boolValue is not UNSET:
        value = piece.boolValue
    if type(node) is dict or (type(step) is int and step < len(node)):
        node[step] = value
    elif type(step) is int and step == len(node):
        node.append(value)
    else:
        return False
    return True
