"""JSON of providers and callers -> its shape, without what was said.

The one rule: what is not known to belong to a format is taken for content. Only members
of the formats are looked into; any other object or list (arguments of a tool, a schema,
metadata, tokens by number) is replaced whole, and of the rest the texts, so that
neither a name, a number nor a code in them says what nobody wanted kept.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from tz_protocol.wire.json import value_of

__all__ = ["shape_of"]

_OPENED = frozenset(
    {
        # requests and answers of chats, in the words of OpenAI
        *("messages", "content", "choices", "message", "delta", "tools", "tool_calls"),
        *("function", "function_call", "tool_choice", "stream_options", "usage"),
        *("prompt_tokens_details", "completion_tokens_details", "image_url", "file"),
        *("input_audio", "audio", "reasoning", "response_format"),
        # of Anthropic and Cohere
        *("system", "thinking", "source", "cache_control", "tokens", "billed_units"),
        # of Gemini
        *("contents", "parts", "candidates", "systemInstruction", "generationConfig"),
        *("functionDeclarations", "functionCall", "functionResponse", "usageMetadata"),
        *("toolConfig", "functionCallingConfig", "inlineData", "fileData"),
        *("thinkingConfig",),
        # of Bedrock
        *("output", "toolUse", "toolResult", "toolConfig", "toolSpec", "metrics"),
        *("inferenceConfig", "reasoningContent", "reasoningText", "image", "document"),
    }
)
"""Members whose objects and lists are made of the format's own members."""

_KEPT = frozenset(
    {
        *("role", "type", "object", "model", "service_tier", "reasoning_effort"),
        *("finish_reason", "native_finish_reason", "stop_reason", "finishReason"),
        *("stopReason", "tool_choice", "encoding_format"),
    }
)
"""Members whose strings are words of the format, not of the people who use it."""

_COMMON = _OPENED | _KEPT | {"id", "index", "created", "text", "name", "refusal", "url"}
"""Names that need not be looked at."""

_WITH_TEXTS = frozenset({str, dict, list})

_WORD = re.compile(r"[A-Za-z0-9_.:/@+-]{1,128}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:]{0,63}")

_encode = msgspec.json.Encoder().encode


def shape_of(part: bytes) -> bytes:
    """Return the shape of a body; what is no JSON is replaced whole."""
    if not part:
        return part
    value = value_of(part)
    if isinstance(value, dict):
        return _encode(_shape(value, ""))
    if isinstance(value, list):
        return _encode(_shapes(value, ""))
    return _encode(_mark(len(part), "bytes"))


def _shape(value: Any, name: str) -> Any:
    """Return the shape of what is in the member *name* of a format's object."""
    kind = type(value)
    if kind is str:
        is_kept = name in _KEPT and _WORD.fullmatch(value)
        return value if is_kept else _mark(len(value), "characters")
    if kind not in _WITH_TEXTS:
        return value
    if name and name not in _OPENED:
        return _mark(len(_encode(value)), "bytes")
    if kind is list:
        return _shapes(value, name)
    shape: dict[str, Any] = {}
    for key, item in value.items():
        # Most members have no text in them: a call for each would be most of the time.
        if type(item) in _WITH_TEXTS:
            item = _shape(item, key)
        if key not in _COMMON and not _NAME.fullmatch(key):
            key = f"[redacted {len(shape)}]"
        shape[key] = item
    return shape


def _shapes(values: list[Any], name: str) -> list[Any]:
    """Return the shapes of a list's items; numbers in it may be tokens or bytes."""
    return [
        _shape(item, name)
        if item is None or isinstance(item, str | dict)
        else _mark(len(_encode(item)), "bytes")
        for item in values
    ]


def _mark(count: int, unit: str) -> str:
    return f"[redacted: {count} {unit}]"
