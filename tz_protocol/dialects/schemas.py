"""JSON Schemas made to fit what a vendor takes.

The one rule: a schema is changed only where the vendor would refuse it, and never so
that it would let through what the caller's did not, unless the words of the constraint
go to the model instead.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

__all__ = ["EMPTY_OBJECT", "as_object", "closed"]

EMPTY_OBJECT = Raw(b'{"type":"object","properties":{}}')
"""The schema of a function without parameters."""

_MEMBERS = msgspec.json.Decoder(dict[str, Raw])

_LISTS = ("anyOf", "allOf")
_MAPS = ("properties", "$defs", "definitions")

_UNENFORCED = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "maxItems",
    "uniqueItems",
)
"""Constraints that Anthropic's structured outputs refuse; its own SDKs move them into
the description. Source: https://platform.claude.com/docs/en/build-with-claude/
structured-outputs, "JSON Schema limitations"."""


def as_object(schema: Raw | UnsetType) -> Raw:
    """Return *schema* with ``"type": "object"``, which some callers leave out.

    Raises:
        ValueError: It is not a JSON object.
    """
    if schema is UNSET:
        return EMPTY_OBJECT
    try:
        members = _MEMBERS.decode(schema)
    except msgspec.DecodeError:
        message = "must be a JSON Schema: an object"
        raise ValueError(message) from None
    if "type" in members:
        return schema
    return Raw(msgspec.json.encode({"type": "object", **members}))


def closed(schema: Raw) -> Raw | None:
    """Return *schema* as a grammar can enforce it, None if that is impossible.

    Every object is closed (``additionalProperties: false``); numeric and length
    constraints become words in the description. A schema with open objects, with a
    recursion or with ``oneOf`` cannot be had this way.
    """
    try:
        tree = msgspec.json.decode(schema)
    except msgspec.DecodeError:
        return None
    if type(tree) is not dict or _is_recursive(tree):
        return None
    made = _closed(tree)
    return None if made is None else Raw(msgspec.json.encode(made))


def _closed(node: Any) -> Any | None:
    if type(node) is not dict:
        return node
    if "oneOf" in node or "patternProperties" in node or "not" in node:
        return None
    out = dict(node)
    if node.get("type") == "object" or "properties" in node:
        if node.get("additionalProperties", False) is not False:
            return None
        out["additionalProperties"] = False
    if node.get("minItems", 0) not in (0, 1):
        out["description"] = _described(node, ("minItems",))
        del out["minItems"]
    words = [name for name in _UNENFORCED if name in node]
    if words:
        out["description"] = _described({**node, **out}, tuple(words))
        for name in words:
            del out[name]
    if not _close_children(out):
        return None
    return out


def _close_children(out: dict[str, Any]) -> bool:
    for name in _MAPS:
        if type(children := out.get(name)) is dict:
            made = {key: _closed(child) for key, child in children.items()}
            if any(child is None for child in made.values()):
                return False
            out[name] = made
    for name in _LISTS:
        if type(branches := out.get(name)) is list:
            listed = [_closed(child) for child in branches]
            if any(child is None for child in listed):
                return False
            out[name] = listed
    items = out.get("items")
    if type(items) is dict:
        out["items"] = _closed(items)
        return out["items"] is not None
    return True


def _described(node: dict[str, Any], names: tuple[str, ...]) -> str:
    words = ", ".join(
        f"{name}: {msgspec.json.encode(node[name]).decode()}" for name in names
    )
    text = node.get("description")
    return f"{text} ({words})" if isinstance(text, str) and text else f"({words})"


def _is_recursive(tree: dict[str, Any]) -> bool:
    """Return whether following the references of *tree* would never end."""
    definitions: dict[str, Any] = {
        f"#/{name}/{key}": child
        for name in ("$defs", "definitions")
        if type(tree.get(name)) is dict
        for key, child in tree[name].items()
    }
    edges = {name: _references(child) for name, child in definitions.items()}
    edges["#"] = _references({k: v for k, v in tree.items() if k not in _MAPS[1:]})

    def leads_to(start: str, goal: str, seen: set[str]) -> bool:
        for name in edges.get(start, ()):
            if name == goal:
                return True
            if name not in seen:
                seen.add(name)
                if leads_to(name, goal, seen):
                    return True
        return False

    return any(leads_to(name, name, set()) for name in edges)


def _references(node: Any) -> set[str]:
    if type(node) is list:
        return set().union(*map(_references, node)) if node else set()
    if type(node) is not dict:
        return set()
    found = set().union(*map(_references, node.values())) if node else set()
    if type(reference := node.get("$ref")) is str:
        found.add(reference)
    return found
