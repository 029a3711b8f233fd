"""The body of an Anthropic Messages request -> the neutral conversation.

The one rule: this is the way back of ``anthropic_request``: what was rendered there is
read here as it was meant, but for what was named as lost and for what has two forms
that say the same (a lone text and a string, neighbouring messages and one turn).
Members and blocks that only this vendor knows are kept unread.

Source: https://platform.claude.com/docs/en/api/messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from tz_protocol.dialects.anthropic_messages import FORMAT, ORIGIN
from tz_protocol.dialects.anthropic_request import ANSWER_TOOL
from tz_protocol.errors import InvalidRequest
from tz_protocol.types.conversation import (
    Block,
    CacheHint,
    Conversation,
    Document,
    FunctionTool,
    Image,
    Inline,
    Message,
    Opaque,
    PlainText,
    ProviderTool,
    Reasoning,
    ResponseFormat,
    Role,
    Source,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Url,
)

__all__ = ["read_conversation"]


_NULL = Raw(b"null")


class _Cache(msgspec.Struct):
    ttl: str | msgspec.UnsetType = UNSET


class _Source(msgspec.Struct):
    type: str
    url: str = ""
    media_type: str = ""
    data: str = ""


class _Block(msgspec.Struct):
    """Any block of the request; which members count is a matter of its type."""

    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: Raw = Raw(b"{}")
    tool_use_id: str = ""
    content: Raw = _NULL
    is_error: bool | msgspec.UnsetType = UNSET
    thinking: str = ""
    signature: str = ""
    data: str = ""
    title: str | None = None
    source: Raw = _NULL
    cache_control: _Cache | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[Raw]


class _Tool(msgspec.Struct):
    name: str = ""
    type: str | None = None
    description: str | msgspec.UnsetType = UNSET
    input_schema: Raw | msgspec.UnsetType = UNSET
    strict: bool | msgspec.UnsetType = UNSET
    cache_control: _Cache | None = None


class _Choice(msgspec.Struct):
    type: str
    name: str = ""
    disable_parallel_tool_use: bool = False


class _Thinking(msgspec.Struct):
    type: str
    budget_tokens: int | msgspec.UnsetType = UNSET


class _Format(msgspec.Struct):
    schema: Raw | msgspec.UnsetType = UNSET


class _Config(msgspec.Struct):
    effort: str | None = None
    format: _Format | None = None


class _Metadata(msgspec.Struct):
    user_id: str | None = None


class _Body(msgspec.Struct):
    messages: list[_Message]
    system: str | list[_Block] = ""
    max_tokens: int | msgspec.UnsetType = UNSET
    stop_sequences: list[str] = []
    tools: list[Raw] = []
    tool_choice: _Choice | None = None
    thinking: _Thinking | None = None
    output_config: _Config | None = None
    metadata: _Metadata | None = None
    service_tier: str | None = None
    stream: bool = False


_READ = frozenset(_Body.__struct_fields__) - {"thinking"}
_BODY = msgspec.json.Decoder(_Body)
_BLOCK = msgspec.json.Decoder(_Block)
_TOOL = msgspec.json.Decoder(_Tool)
_SOURCE = msgspec.json.Decoder(_Source)
_CONTENT = msgspec.json.Decoder(str | list[Raw])

_MODES = {"auto": "auto", "any": "required", "none": "none", "tool": "named"}
_TIERS = {"auto": b'"auto"', "standard_only": b'"default"'}


def read_conversation(fields: Mapping[str, Raw]) -> Conversation:
    """Return what a request says.

    Args:
        fields: The members of its body; ``model`` does not matter here.

    Raises:
        InvalidRequest: A member has a type that the format does not allow.
    """
    try:
        body = _BODY.decode(msgspec.json.encode(fields))
        return _conversation(fields, body)
    except msgspec.DecodeError as error:
        message = f"The request is not one of Anthropic's Messages API: {error}."
        raise InvalidRequest(message, code="invalid_value") from None


def _conversation(fields: Mapping[str, Raw], body: _Body) -> Conversation:
    messages: list[Message] = []
    if system := _system(body.system):
        messages.append(Message("system", system))
    for message in body.messages:
        messages.extend(_messages(message))
    tools = [_tool(raw) for raw in body.tools]
    choice, shape = _choice(body.tool_choice), _shape(body, tools)
    if shape is not None and any(_is_answer(tool) for tool in tools):
        # The emulation forced a tool; the client had left the choice open.
        tools = [tool for tool in tools if not _is_answer(tool)]
        choice = None
    parameters = {
        name: raw
        for name, raw in fields.items()
        if name not in _READ and name != "model"
    }
    if body.metadata is not None and body.metadata.user_id is not None:
        parameters["user"] = Raw(msgspec.json.encode(body.metadata.user_id))
    if body.service_tier in _TIERS:
        parameters["service_tier"] = Raw(_TIERS[body.service_tier])
    is_serial = body.tool_choice is not None and (
        body.tool_choice.disable_parallel_tool_use
    )
    return Conversation(
        messages=tuple(messages),
        tools=tuple(tools),
        tool_choice=UNSET if choice is None else choice,
        is_parallel=False if is_serial else UNSET,
        response_format=UNSET if shape is None else shape,
        reasoning=_reasoning(body),
        max_tokens=body.max_tokens,
        stop=tuple(body.stop_sequences),
        parameters=parameters,
        given=_given(body, parameters, shape),
        is_stream=body.stream,
        origin=ORIGIN,
    )


def _given(
    body: _Body, parameters: Mapping[str, Raw], shape: ResponseFormat | None
) -> frozenset[str]:
    """Return OpenAI's names of what the client set."""
    given = set(parameters)
    if body.max_tokens is not UNSET:
        given.add("max_tokens")
    if body.stop_sequences:
        given.add("stop")
    if body.tools:
        given.add("tools")
    if body.tool_choice is not None:
        kind = _MODES.get(body.tool_choice.type)
        given.add(f"tool_choice.{kind}" if kind in {"none", "named"} else "tool_choice")
        if body.tool_choice.disable_parallel_tool_use:
            given.add("parallel_tool_calls")
    if shape is not None:
        given.add(f"response_format.{shape.kind}")
    if body.output_config is not None and body.output_config.effort is not None:
        given.add("reasoning_effort")
    return frozenset(given)


# -- messages -------------------------------------------------------------------


def _system(value: str | list[_Block]) -> tuple[Block, ...]:
    if isinstance(value, str):
        return (Text(value),) if value else ()
    return tuple(Text(block.text, _hint(block.cache_control)) for block in value)


def _messages(message: _Message) -> list[Message]:
    """Return one turn as messages: the results of tools are one of their own."""
    role: Role
    if message.role in {"user", "assistant", "system"}:
        role = message.role  # type: ignore[assignment]
    else:
        text = "The role of a message must be user, assistant or system."
        raise InvalidRequest(text, param="messages", code="invalid_value")
    if isinstance(message.content, str):
        return [Message(role, (Text(message.content),))]
    blocks = [_block(raw) for raw in message.content]
    results = [block for block in blocks if isinstance(block, ToolResult)]
    others = [block for block in blocks if not isinstance(block, ToolResult)]
    out = [Message("tool", (result,)) for result in results]
    if others or not out:
        out.append(Message(role, tuple(others)))
    return out


def _hint(cache: _Cache | None) -> Any:
    return UNSET if cache is None else CacheHint(cache.ttl)


def _block(raw: Raw) -> Block:
    try:
        block = _BLOCK.decode(raw)
    except msgspec.ValidationError:
        kind = msgspec.json.decode(raw, type=dict[str, Any]).get("type")
        return Opaque(ORIGIN, str(kind), raw.copy())
    reader = _BLOCKS.get(block.type)
    made = None if reader is None else reader(block)
    return Opaque(ORIGIN, block.type, raw.copy()) if made is None else made


def _text(block: _Block) -> Block:
    return Text(block.text, _hint(block.cache_control))


def _source(raw: Raw) -> Source | None:
    try:
        source = _SOURCE.decode(raw)
    except msgspec.ValidationError:
        return None
    if source.type == "url":
        return Url(source.url)
    if source.type == "base64":
        return Inline(source.media_type, source.data)
    return PlainText(source.data) if source.type == "text" else None


def _image(block: _Block) -> Block | None:
    source = _source(block.source)
    if source is None:
        return None
    return Image(source, cache=_hint(block.cache_control))


def _document(block: _Block) -> Block | None:
    source = _source(block.source)
    if source is None:
        return None
    name = UNSET if block.title is None else block.title
    return Document(source, name, _hint(block.cache_control))


def _call(block: _Block) -> Block:
    return ToolCall(
        id=block.id,
        name=block.name,
        arguments=bytes(block.input).decode(),
        cache=_hint(block.cache_control),
    )


def _result(block: _Block) -> Block:
    content: tuple[Block, ...] = ()
    if block.content != _NULL:
        value = _CONTENT.decode(block.content)
        if isinstance(value, str):
            content = (Text(value),)
        else:
            content = tuple(_block(raw) for raw in value)
    return ToolResult(
        call_id=block.tool_use_id,
        content=content,
        is_error=block.is_error,
        cache=_hint(block.cache_control),
    )


def _thinking(block: _Block) -> Block:
    signature = block.signature or UNSET
    return Thinking(text=block.thinking, signature=signature, format=FORMAT)


def _redacted(block: _Block) -> Block:
    return Thinking(data=block.data, format=FORMAT)


_BLOCKS: dict[str, Callable[[_Block], Block | None]] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "tool_use": _call,
    "tool_result": _result,
    "thinking": _thinking,
    "redacted_thinking": _redacted,
}


# -- tools, reasoning, the shape of the answer ----------------------------------


def _tool(raw: Raw) -> Tool:
    tool = _TOOL.decode(raw)
    if tool.type is not None and tool.type != "custom":
        return ProviderTool(tool.type, raw.copy())
    return FunctionTool(
        name=tool.name,
        description=tool.description,
        parameters=tool.input_schema,
        is_strict=tool.strict,
        cache=_hint(tool.cache_control),
    )


def _is_answer(tool: Tool) -> bool:
    return isinstance(tool, FunctionTool) and tool.name == ANSWER_TOOL


def _choice(choice: _Choice | None) -> ToolChoice | None:
    if choice is None:
        return None
    mode = _MODES.get(choice.type)
    if mode is None:
        message = "tool_choice.type must be auto, any, none or tool."
        raise InvalidRequest(message, param="tool_choice.type", code="invalid_value")
    return ToolChoice(mode, choice.name)  # type: ignore[arg-type]


def _shape(body: _Body, tools: list[Tool]) -> ResponseFormat | None:
    config = body.output_config
    if config is not None and config.format is not None:
        return ResponseFormat(kind="json_schema", schema=config.format.schema)
    for tool in tools:
        if isinstance(tool, FunctionTool) and tool.name == ANSWER_TOOL:
            return ResponseFormat(kind="json_schema", schema=tool.parameters)
    return None


def _reasoning(body: _Body) -> Any:
    thinking, config = body.thinking, body.output_config
    effort = UNSET if config is None or config.effort is None else config.effort
    if thinking is None:
        return UNSET if effort is UNSET else Reasoning(effort=effort)
    if thinking.type == "disabled":
        return Reasoning(effort=effort, budget_tokens=0)
    return Reasoning(
        effort=effort,
        budget_tokens=thinking.budget_tokens,
        is_adaptive=thinking.type == "adaptive",
    )
