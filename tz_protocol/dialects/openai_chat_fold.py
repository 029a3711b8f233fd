"""The chunks of a stream in OpenAI's format -> the whole answer that they add up to.

The one rule: everything that a chunk says is in the answer, known or not: texts that
come in pieces are joined, lists grow, and of everything else the last word counts.
This is the way back from ``openai_chat_whole``; records and the cache take it, the
request path never does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw

__all__ = ["fold_chunks"]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode

_JOINED = frozenset(
    {
        "content",
        "refusal",
        "reasoning_content",
        "reasoning",
        "arguments",
        "input",
        "text",
        "data",
        "transcript",
        "summary",
    }
)
"""Members whose strings come in pieces."""

_IDENTITY = frozenset({"id", "object", "created", "model", "choices"})


def fold_chunks(chunks: Iterable[bytes]) -> dict[str, Raw]:
    """Return the members of the whole answer; what is not JSON is passed over.

    The result has ``choices``, ``usage`` if a chunk states it, and what else the chunks
    have beside their identity, such as ``service_tier``.
    """
    members: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for data in chunks:
        try:
            chunk = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        members |= {
            name: value
            for name, value in chunk.items()
            if value is not None and name not in _IDENTITY
        }
        found = chunk.get("choices")
        for choice in found if isinstance(found, list) else ():
            if isinstance(choice, dict):
                _add(choices, choice)
    whole = [choices[index] for index in sorted(choices)]
    for choice in whole:
        _tidy(choice)
    return {name: Raw(_encode(value)) for name, value in members.items()} | {
        "choices": Raw(_encode(whole))
    }


def _add(choices: dict[int, dict[str, Any]], choice: dict[str, Any]) -> None:
    index = choice.get("index")
    if type(index) is not int:
        index = 0
    whole = choices.get(index)
    if whole is None:
        whole = choices[index] = {
            "index": index,
            "message": {"role": "assistant", "content": None},
            "logprobs": None,
            "finish_reason": None,
        }
    for name, value in choice.items():
        if name == "delta":
            if isinstance(value, dict):
                _merge(whole["message"], value)
        elif name == "logprobs" and isinstance(value, dict):
            if whole["logprobs"] is None:
                whole["logprobs"] = {}
            _merge(whole["logprobs"], value)
        elif name != "index" and value is not None:
            whole[name] = value


def _merge(whole: dict[str, Any], piece: dict[str, Any]) -> None:
    for name, value in piece.items():
        old = whole.get(name)
        if value is None:
            whole.setdefault(name, None)
        elif isinstance(value, dict) and isinstance(old, dict):
            _merge(old, value)
        elif isinstance(value, list):
            if not isinstance(old, list):
                old = whole[name] = []
            for item in value:
                _grow(old, item)
        elif isinstance(value, str) and isinstance(old, str):
            # A name or an id is repeated, if at all; a text goes on.
            whole[name] = old + value if name in _JOINED else value or old
        else:
            whole[name] = value


def _grow(items: list[Any], item: Any) -> None:
    """Add *item*, to the one of its number if that is there."""
    index = item.get("index") if isinstance(item, dict) else None
    if type(index) is int:
        for other in items:
            if isinstance(other, dict) and other.get("index") == index:
                _merge(other, item)
                return
        item = _merged({}, item)
    items.append(item)


def _merged(whole: dict[str, Any], piece: dict[str, Any]) -> dict[str, Any]:
    _merge(whole, piece)
    return whole


def _tidy(choice: dict[str, Any]) -> None:
    """Make a message of what was a sum of deltas: its calls carry no numbers."""
    message = choice["message"]
    for call in message.get("tool_calls") or ():
        if isinstance(call, dict):
            call.pop("index", None)
            call.setdefault("type", "function")
    if choice["finish_reason"] is None:
        choice["finish_reason"] = "stop"
