"""The neutral conversation -> a chat request in OpenAI's format.

The one rule: this is the way back of ``openai_conversation``: reading what is rendered
here gives the same conversation, but for what is named as lost. Requests of OpenAI's
own format never come by here, they pass through; those of other formats do.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from tz_protocol.dialects.base import Losses
from tz_protocol.dialects.openai_messages import ORIGIN
from tz_protocol.types.conversation import (
    Audio,
    Block,
    CacheHint,
    Conversation,
    CustomTool,
    Document,
    FileId,
    FunctionTool,
    Image,
    Inline,
    Message,
    Opaque,
    PlainText,
    Refusal,
    ResponseFormat,
    Source,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Url,
)

__all__ = ["render_fields"]


def render_fields(conversation: Conversation) -> tuple[dict[str, Any], Losses]:
    """Return the members of the request's body, without ``model``, and what is lost.

    ``cache_control`` is not OpenAI's and is lost, like blocks of other vendors.
    """
    losses: set[str] = set(conversation.unread)
    fields: dict[str, Any] = {"messages": _messages(conversation.messages, losses)}
    if conversation.is_stream:
        fields["stream"] = True
    if conversation.tools:
        fields["tools"] = [_tool(tool, losses) for tool in conversation.tools]
    if conversation.tool_choice is not UNSET:
        fields["tool_choice"] = _tool_choice(conversation.tool_choice)
    if conversation.is_parallel is not UNSET:
        fields["parallel_tool_calls"] = conversation.is_parallel
    if conversation.response_format is not UNSET:
        fields["response_format"] = _format(conversation.response_format)
    if conversation.max_tokens is not UNSET:
        fields["max_completion_tokens"] = conversation.max_tokens
    if conversation.stop:
        fields["stop"] = list(conversation.stop)
    reasoning = conversation.reasoning
    if reasoning is not UNSET:
        if reasoning.effort is not UNSET:
            fields["reasoning_effort"] = reasoning.effort
        elif not conversation.parameters.keys() & {"thinking", "reasoning"}:
            losses.add("reasoning")
    fields.update(conversation.parameters)
    return fields, tuple(sorted(losses))


# -- messages -------------------------------------------------------------------


def _messages(messages: tuple[Message, ...], losses: set[str]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        if message.role == "tool":
            out.extend(_results(message, path, losses))
        elif message.role == "assistant":
            out.append(_assistant(message, path, losses))
        else:
            out.append(_named(message, {"content": _content(message, path, losses)}))
    return out


def _named(message: Message, fields: dict[str, Any]) -> dict[str, Any]:
    head: dict[str, Any] = {"role": message.role}
    if message.name is not UNSET:
        head["name"] = message.name
    return {**head, **fields}


def _content(
    message: Message, path: str, losses: set[str]
) -> str | list[dict[str, Any]]:
    return _parts(message.content, f"{path}.content", losses)


def _parts(
    blocks: tuple[Block, ...], path: str, losses: set[str]
) -> str | list[dict[str, Any]]:
    if not blocks:
        return ""
    if len(blocks) == 1 and type(blocks[0]) is Text:
        _cache(blocks[0].cache, f"{path}[0]", losses)
        return blocks[0].text
    parts: list[dict[str, Any]] = []
    for place, block in enumerate(blocks):
        renderer = _PARTS.get(type(block))
        part = None if renderer is None else renderer(block)
        if part is None:
            losses.add(f"{path}[{place}]")
            continue
        cache = getattr(block, "cache", UNSET)
        _cache(cache, f"{path}[{place}]", losses)
        parts.append(part)
    return parts


def _cache(hint: Any, path: str, losses: set[str]) -> None:
    if isinstance(hint, CacheHint):
        losses.add(f"{path}.cache_control")


def _results(message: Message, path: str, losses: set[str]) -> list[dict[str, Any]]:
    out = []
    for block in message.content:
        if type(block) is not ToolResult:
            losses.add(path)
            continue
        fields: dict[str, Any] = {
            "role": "tool",
            "tool_call_id": block.call_id,
            "content": _parts(block.content, f"{path}.content", losses),
        }
        if block.is_error is not UNSET:
            fields["is_error"] = block.is_error
        _cache(block.cache, path, losses)
        out.append(fields)
    return out


def _assistant(message: Message, path: str, losses: set[str]) -> dict[str, Any]:
    said: list[Block] = []
    fields: dict[str, Any] = {"content": None}
    for block in message.content:
        if isinstance(block, ToolCall):
            fields.setdefault("tool_calls", []).append(_call(block))
            _cache(block.cache, path, losses)
        elif isinstance(block, Thinking):
            fields.setdefault("reasoning_details", []).append(_thought(block))
        elif isinstance(block, Opaque) and block.dialect != ORIGIN:
            value = {"dialect": block.dialect, "type": block.kind, "value": block.value}
            fields.setdefault("provider_content", []).append(value)
        else:
            said.append(block)
    if len(said) == 1 and type(said[0]) is Refusal:
        fields["refusal"] = said[0].text
    elif said:
        fields["content"] = _parts(tuple(said), f"{path}.content", losses)
    elif "tool_calls" not in fields:
        fields["content"] = ""
    return _named(message, fields)


def _call(call: ToolCall) -> dict[str, Any]:
    if call.is_custom:
        custom = {"name": call.name, "input": call.arguments}
        return {"id": call.id, "type": "custom", "custom": custom}
    fields: dict[str, Any] = {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }
    if call.signature is not UNSET:
        fields["extra_content"] = {"google": {"thought_signature": call.signature}}
    return fields


def _thought(thought: Thinking) -> dict[str, Any]:
    is_text = thought.data is UNSET
    fields: dict[str, Any] = {
        "type": "reasoning.text" if is_text else "reasoning.encrypted"
    }
    if thought.text or is_text:
        fields["text"] = thought.text
    for name in ("signature", "data", "format", "id"):
        value = getattr(thought, name)
        if value is not UNSET:
            fields[name] = value
    return fields


# -- parts ----------------------------------------------------------------------


def _text(block: Text) -> dict[str, Any]:
    return {"type": "text", "text": block.text}


def _image(block: Image) -> dict[str, Any] | None:
    url = _url(block.source)
    if url is None:
        return None
    value = {"url": url}
    if block.detail is not UNSET:
        value["detail"] = block.detail
    return {"type": "image_url", "image_url": value}


def _url(source: Source) -> str | None:
    if isinstance(source, Url):
        return source.url
    if isinstance(source, Inline):
        return f"data:{source.media_type};base64,{source.data}"
    return None


def _document(block: Document) -> dict[str, Any] | None:
    source = block.source
    value: dict[str, Any] = {}
    if block.name is not UNSET:
        value["filename"] = block.name
    if isinstance(source, FileId):
        value["file_id"] = source.id
    elif isinstance(source, PlainText):
        data = b64encode(source.text.encode()).decode()
        value["file_data"] = f"data:text/plain;base64,{data}"
    else:
        value["file_data"] = _url(source)
    return {"type": "file", "file": value}


def _audio(block: Audio) -> dict[str, Any]:
    value = {"data": block.data, "format": block.format}
    return {"type": "input_audio", "input_audio": value}


def _refusal(block: Refusal) -> dict[str, Any]:
    return {"type": "refusal", "refusal": block.text}


def _opaque(block: Opaque) -> dict[str, Any] | None:
    if block.dialect != ORIGIN:
        return None
    value: dict[str, Any] = msgspec.json.decode(block.value)
    return value


_PARTS: dict[type[Any], Callable[[Any], dict[str, Any] | None]] = {
    Text: _text,
    Image: _image,
    Document: _document,
    Audio: _audio,
    Refusal: _refusal,
    Opaque: _opaque,
}


# -- tools and the shape of the answer ------------------------------------------


def _tool(tool: Tool, losses: set[str]) -> dict[str, Any] | Raw:
    if isinstance(tool, FunctionTool):
        fields: dict[str, Any] = {"name": tool.name}
        if tool.description is not UNSET:
            fields["description"] = tool.description
        if tool.parameters is not UNSET:
            fields["parameters"] = tool.parameters
        if tool.is_strict is not UNSET:
            fields["strict"] = tool.is_strict
        _cache(tool.cache, "tools", losses)
        return {"type": "function", "function": fields}
    if isinstance(tool, CustomTool):
        return {"type": "custom", "custom": tool.value}
    return tool.value


def _tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.allowed:
        tools = [
            {"type": "function", "function": {"name": name}} for name in choice.allowed
        ]
        allowed = {"mode": choice.mode, "tools": tools}
        return {"type": "allowed_tools", "allowed_tools": allowed}
    if choice.mode == "named":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode


def _format(shape: ResponseFormat) -> dict[str, Any]:
    if shape.kind == "json_object":
        return {"type": "json_object"}
    # msgspec leaves out what is unset only in its Structs.
    optional = {
        "description": shape.description,
        "schema": shape.schema,
        "strict": shape.is_strict,
    }
    given = {name: value for name, value in optional.items() if value is not UNSET}
    return {"type": "json_schema", "json_schema": {"name": shape.name, **given}}
