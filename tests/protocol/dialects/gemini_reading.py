"""A Gemini request read by hand, and checked against the vendor's own description."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import pytest

from tests.protocol.dialects.recordings import SPECS


@cache
def discovery() -> dict[str, Any]:
    """Return the schemas of the discovery document; skips where it is absent."""
    path = SPECS / "gemini-discovery.json"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    schemas: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["schemas"]
    return schemas


def strange(value: Any, name: str, path: str = "") -> list[str]:
    """Return what in *value* the schema *name* does not know.

    The description has the names of members, the types and the words of enumerations.
    """
    return list(_object(value, discovery()[name], path or name))


def _object(value, schema, path):
    if not isinstance(value, dict):
        yield f"{path}: not an object"
        return
    known = schema.get("properties", {})
    for member, inner in value.items():
        # Proto JSON takes the names in both spellings.
        name = re.sub(r"_([a-z])", lambda found: found[1].upper(), member)
        if name not in known:
            yield f"{path}.{member}: unknown"
        else:
            yield from _value(inner, known[name], f"{path}.{member}")


def _value(value, schema, path):
    kind = schema.get("type")
    if "$ref" in schema:
        yield from _object(value, discovery()[schema["$ref"]], path)
    elif kind == "array":
        if not isinstance(value, list):
            yield f"{path}: not a list"
            return
        for index, item in enumerate(value):
            yield from _value(item, schema["items"], f"{path}[{index}]")
    elif kind in TYPES and (
        not isinstance(value, TYPES[kind])
        or (kind != "boolean" and isinstance(value, bool))
    ):
        yield f"{path}: not of the type {kind}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{path}: not one of {schema['enum']}"


TYPES: dict[str, Any] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "object": dict,
}


# -- what a request says --------------------------------------------------------


def said(body: dict[str, Any]) -> dict[str, Any]:
    """Return what the messages of a rendered request say, piece by piece."""
    system = [part["text"] for part in body.get("systemInstruction", EMPTY)["parts"]]
    turns = [
        (content["role"], [_piece(part) for part in content["parts"]])
        for content in body["contents"]
    ]
    return {"system": system, "turns": turns}


EMPTY: dict[str, Any] = {"parts": []}


def _piece(part: dict[str, Any]) -> tuple[Any, ...]:
    if "functionCall" in part:
        call = part["functionCall"]
        return ("call", call.get("id"), call["name"], call["args"])
    if "functionResponse" in part:
        result = part["functionResponse"]
        return ("result", result.get("id"), result["name"], result["response"])
    if "inlineData" in part:
        return ("data", part["inlineData"]["mimeType"], part["inlineData"]["data"])
    if "fileData" in part:
        return ("file", part["fileData"]["fileUri"])
    kind = "thought" if part.get("thought") else "text"
    return (kind, part["text"], part.get("thoughtSignature"))
