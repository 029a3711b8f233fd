"""OpenAI's messages and answers -> TensorZero's content blocks, for its tables.

The one rule: this is for people and dashboards that read rows; nothing is ever sent
from here, so that what has no word among TensorZero's blocks is kept as ``unknown``
with its own JSON in it, and nothing is refused.

Source: https://www.tensorzero.com/docs/gateway/api-reference/inference, "Content
Block", and .../gateway/data-model.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["FINISH_REASONS", "input_of", "output_of"]

_decode = msgspec.json.Decoder().decode

FINISH_REASONS = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_call",
    "function_call": "tool_call",
    "content_filter": "content_filter",
}
"""OpenAI's word -> TensorZero's; anything else is ``unknown``."""

_Block = dict[str, Any]


def input_of(messages: Any) -> tuple[str | None, list[_Block]]:
    """Return the system's text, None if there is none, and the other messages.

    Args:
        messages: The decoded member ``messages`` of a request, whatever it is.
    """
    system: list[str] = []
    found: list[_Block] = []
    names: dict[str, str] = {}
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            continue
        role, content = message.get("role"), message.get("content")
        if role in ("system", "developer"):
            system.append(_text_of(content))
        elif role == "tool":
            call = str(message.get("tool_call_id", ""))
            block = {
                "type": "tool_result",
                "id": call,
                "name": names.get(call, ""),
                "result": _text_of(content),
            }
            found.append({"role": "user", "content": [block]})
        else:
            blocks = _blocks(content) + _calls(message, names)
            role = "assistant" if role == "assistant" else "user"
            found.append({"role": role, "content": blocks})
    return ("\n".join(system) if system else None), found


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else ()
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _blocks(content: Any) -> list[_Block]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    parts = content if isinstance(content, list) else ()
    return [_block(part) for part in parts]


def _block(part: Any) -> _Block:
    if isinstance(part, dict):
        kind = part.get("type")
        if kind == "text" and isinstance(part.get("text"), str):
            return {"type": "text", "text": part["text"]}
        if kind == "image_url" and isinstance(part.get("image_url"), dict):
            url = str(part["image_url"].get("url", ""))
            return {"type": "file", "file": _file(url)}
    return {"type": "unknown", "data": part}


def _file(url: str) -> _Block:
    """Return a link as it is; content that is inline by its type and size."""
    if not url.startswith("data:"):
        return {"url": url}
    head, _, data = url.partition(",")
    media_type = head.removeprefix("data:").partition(";")[0]
    return {"mime_type": media_type, "base64_bytes": len(data)}


def _calls(message: _Block, names: dict[str, str]) -> list[_Block]:
    calls = message.get("tool_calls")
    found = []
    for call in calls if isinstance(calls, list) else ():
        block = _call(call)
        if block is not None:
            names[block["id"]] = block["raw_name"]
            found.append(block)
    return found


def _call(call: Any) -> _Block | None:
    if not isinstance(call, dict):
        return None
    function = call.get("function")
    if not isinstance(function, dict):
        function = call.get("custom")
    if not isinstance(function, dict):
        return None
    name = str(function.get("name", ""))
    raw = function.get("arguments", function.get("input", ""))
    raw = raw if isinstance(raw, str) else ""
    try:
        arguments = _decode(raw)
    except (msgspec.DecodeError, RecursionError):
        arguments = None
    return {
        "type": "tool_call",
        "id": str(call.get("id", "")),
        "raw_name": name,
        "raw_arguments": raw,
        "name": name,
        "arguments": arguments if isinstance(arguments, dict) else None,
    }


def output_of(choices: Any) -> tuple[list[_Block], str]:
    """Return the blocks of the first choice, and why it ended in TensorZero's words.

    Args:
        choices: The decoded member ``choices`` of an answer, whatever it is.
    """
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return [], "unknown"
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    blocks: list[_Block] = []
    for name in ("reasoning_content", "reasoning"):
        thought = message.get(name)
        if isinstance(thought, str) and thought:
            blocks.append({"type": "thought", "text": thought, "signature": None})
            break
    content = message.get("content")
    if isinstance(content, list) or content:
        blocks += _blocks(content)
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        blocks.append({"type": "text", "text": refusal})
    blocks += _calls(message, {})
    finish = choice.get("finish_reason")
    return blocks, FINISH_REASONS.get(str(finish), "unknown")
