"""Values held against the shapes of an AWS service description.

The one rule: every member must be one that the description knows, of its type, within
its bounds; a union has one member.
"""

from __future__ import annotations

import base64
import json
import re
from functools import cache
from typing import Any

import pytest

from tests.protocol.dialects.recordings import SPECS


@cache
def _shapes(file):
    path = SPECS / file
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    return json.loads(path.read_text(encoding="utf-8"))["shapes"]


def shape_faults(file, name, value):
    """Return what is wrong with the body *value* as the shape *name* of *file*."""
    found: list[str] = []
    _check(_shapes(file), name, value, name, found)
    return found


def _check(shapes, name, value, path, found):
    shape = shapes[name]
    if shape.get("document"):
        return
    kind = shape["type"]
    expected = _TYPES[kind]
    is_boolean = isinstance(value, bool)
    if not isinstance(value, expected) or is_boolean is not (kind == "boolean"):
        found.append(f"{path}: {kind} expected")
    else:
        _CHECKS.get(kind, _bounds)(shapes, shape, value, path, found)


def _structure(shapes, shape, value, path, found):
    members = shape["members"]
    located = {name for name, member in members.items() if "location" in member}
    for name in value:
        if name not in members:
            found.append(f"{path}.{name}: unknown member")
        else:
            _check(shapes, members[name]["shape"], value[name], f"{path}.{name}", found)
    for name in shape.get("required", ()):
        if name not in value and name not in located:
            found.append(f"{path}.{name}: missing")
    if shape.get("union") and len(value) != 1:
        found.append(f"{path}: a union of {len(value)} members")


def _list(shapes, shape, value, path, found):
    _bounds(shapes, shape, value, path, found)
    for index, item in enumerate(value):
        _check(shapes, shape["member"]["shape"], item, f"{path}[{index}]", found)


def _map(shapes, shape, value, path, found):
    _bounds(shapes, shape, value, path, found)
    for key, item in value.items():
        _check(shapes, shape["key"]["shape"], key, f"{path} key", found)
        _check(shapes, shape["value"]["shape"], item, f"{path}.{key}", found)


def _string(shapes, shape, value, path, found):
    _bounds(shapes, shape, value, path, found)
    if "enum" in shape and value not in shape["enum"]:
        found.append(f"{path}: {value!r} is not one of {shape['enum']}")
    if "pattern" in shape and not re.fullmatch(shape["pattern"], value):
        found.append(f"{path}: {value!r} does not match {shape['pattern'][:60]}")


def _blob(shapes, shape, value, path, found):
    try:
        base64.b64decode(value, validate=True)
    except ValueError:
        found.append(f"{path}: not base64")


def _bounds(shapes, shape, value, path, found):
    size = value if isinstance(value, (int, float)) else len(value)
    if not shape.get("min", size) <= size <= shape.get("max", size):
        found.append(f"{path}: {size} is out of bounds")


_TYPES: dict[str, Any] = {
    "structure": dict,
    "map": dict,
    "list": list,
    "string": str,
    "blob": str,
    "boolean": bool,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
}
_CHECKS = {
    "structure": _structure,
    "list": _list,
    "map": _map,
    "string": _string,
    "blob": _blob,
}
