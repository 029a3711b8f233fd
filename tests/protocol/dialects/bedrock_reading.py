"""A Converse request -> the neutral conversation: the way back of ``bedrock_request``.

The one rule: nobody speaks this format to the gateway, so the way back is a test's: it
shows that what was rendered still says what was meant. What has two forms that say the
same (neighbouring messages and one turn, a mark on a block and one after it) is read as
one of them.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from tz_protocol.types.conversation import (
    Audio,
    CacheHint,
    Conversation,
    Document,
    FunctionTool,
    Image,
    Inline,
    Message,
    ResponseFormat,
    Text,
    Thinking,
    ToolCall,
    ToolChoice,
    ToolResult,
)

ANSWER_TOOL = "tz_structured_answer"
MODES: dict[str, Any] = {"auto": "auto", "any": "required", "tool": "named"}
MEDIA_TYPES = {"pdf": "application/pdf", "txt": "text/plain"}


def read_conversation(body: bytes) -> Conversation:
    """Return what *body* says, without what the tests do not compare."""
    fields = msgspec.json.decode(body, type=dict[str, Raw])
    messages = []
    if "system" in fields:
        blocks = _blocks(msgspec.json.decode(fields["system"], type=list[Raw]))
        messages.append(Message("system", blocks))
    for raw in msgspec.json.decode(fields["messages"], type=list[dict[str, Raw]]):
        role = msgspec.json.decode(raw["role"])
        blocks = _blocks(msgspec.json.decode(raw["content"], type=list[Raw]))
        messages.append(Message(role, blocks))
    inference = _object(fields.get("inferenceConfig"))
    tools, choice, shape = _tools(_object(fields.get("toolConfig")))
    output = _object(fields.get("outputConfig"))
    if "textFormat" in output:
        definition = output["textFormat"]["structure"]["jsonSchema"]
        schema = Raw(definition["schema"].encode())
        shape = ResponseFormat(kind="json_schema", schema=schema)
    return Conversation(
        messages=tuple(messages),
        tools=tools,
        tool_choice=choice,
        response_format=shape,
        max_tokens=inference.get("maxTokens", UNSET),
        stop=tuple(inference.get("stopSequences", ())),
    )


def _object(raw):
    return {} if raw is None else msgspec.json.decode(raw)


def _blocks(raws):
    blocks: list[Any] = []
    for raw in raws:
        ((kind, value),) = msgspec.json.decode(raw, type=dict[str, Raw]).items()
        if kind == "cachePoint":
            point = msgspec.json.decode(value)
            hint = CacheHint(point.get("ttl", UNSET))
            blocks[-1] = msgspec.structs.replace(blocks[-1], cache=hint)
        else:
            blocks.append(_READERS[kind](value))
    return tuple(blocks)


def _text(value):
    return Text(msgspec.json.decode(value))


def _image(value):
    image = msgspec.json.decode(value)
    return Image(Inline(f"image/{image['format']}", image["source"]["bytes"]))


def _document(value):
    document = msgspec.json.decode(value)
    source = Inline(MEDIA_TYPES[document["format"]], document["source"]["bytes"])
    return Document(source, document["name"])


def _audio(value):
    audio = msgspec.json.decode(value)
    return Audio(audio["format"], audio["source"]["bytes"])


def _call(value):
    call = msgspec.json.decode(value, type=dict[str, Raw])
    return ToolCall(
        id=msgspec.json.decode(call["toolUseId"]),
        name=msgspec.json.decode(call["name"]),
        arguments=bytes(call["input"]).decode(),
    )


def _result(value):
    result = msgspec.json.decode(value, type=dict[str, Raw])
    status = _status(result.get("status"))
    return ToolResult(
        call_id=msgspec.json.decode(result["toolUseId"]),
        content=_blocks(msgspec.json.decode(result["content"], type=list[Raw])),
        is_error=status,
    )


def _status(raw):
    return UNSET if raw is None else raw == Raw(b'"error"')


def _thought(value):
    thought = msgspec.json.decode(value)
    if "redactedContent" in thought:
        data = base64.b64decode(thought["redactedContent"]).decode()
        return Thinking(data=data, format="anthropic-claude-v1")
    text = thought["reasoningText"]
    return Thinking(
        text=text["text"], signature=text["signature"], format="anthropic-claude-v1"
    )


_READERS = {
    "text": _text,
    "image": _image,
    "document": _document,
    "audio": _audio,
    "toolUse": _call,
    "toolResult": _result,
    "reasoningContent": _thought,
}


def _tools(config):
    shape: Any = UNSET
    choice: Any = UNSET
    tools = []
    for entry in config.get("tools", ()):
        if "cachePoint" in entry:
            continue
        spec = entry["toolSpec"]
        schema = Raw(msgspec.json.encode(spec["inputSchema"]["json"]))
        if spec["name"] == ANSWER_TOOL:
            shape = ResponseFormat(kind="json_schema", schema=schema)
            continue
        tools.append(
            FunctionTool(
                name=spec["name"],
                description=spec.get("description", UNSET),
                parameters=schema,
                is_strict=spec.get("strict", UNSET),
            )
        )
    stated = config.get("toolChoice")
    if stated is not None and shape is UNSET:
        ((kind, value),) = stated.items()
        choice = ToolChoice(MODES[kind], value.get("name", ""))
    return tuple(tools), choice, shape
