"""The messages of an OpenAI chat request -> neutral messages.

The one rule: every member of a message and of its parts is either understood or
recorded in ``unread`` by its path; a part of an unknown type is kept whole as
``Opaque``. Paths are built only when something is wrong or unread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tz_protocol.dialects.openai_parts import (
    PARTS,
    Unreadable,
    read_cache,
    read_object,
    read_optional,
    read_string,
)
from tz_protocol.types.conversation import (
    Block,
    Message,
    Opaque,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)

__all__ = ["ORIGIN", "MessagesReader"]

ORIGIN = "openai_chat"
"""Name of the dialect, and of that in which unknown parts are kept."""

# -- what an assistant thought --------------------------------------------------


def _sealed_thoughts(details: list[Any]) -> list[Thinking]:
    """Return the thoughts in OpenRouter's ``reasoning_details``.

    Source: https://openrouter.ai/docs/use-cases/reasoning-tokens, "reasoning_details".
    """
    thoughts: list[Thinking] = []
    for index, entry in enumerate(details):
        path = f"reasoning_details[{index}]"
        if type(entry) is not dict:
            raise Unreadable(path, "must be an object")
        try:
            thoughts.append(
                Thinking(
                    text=read_optional(entry, "text")
                    or read_optional(entry, "summary")
                    or "",
                    signature=read_optional(entry, "signature"),
                    data=read_optional(entry, "data"),
                    format=read_optional(entry, "format"),
                    id=read_optional(entry, "id"),
                )
            )
        except Unreadable as error:
            raise Unreadable(f"{path}.{error.path}", error.message) from None
    return thoughts


def _thinking_blocks(blocks: list[Any]) -> list[Thinking]:
    """Return the thoughts in LiteLLM's ``thinking_blocks``: Anthropic's own blocks."""
    thoughts: list[Thinking] = []
    for index, entry in enumerate(blocks):
        path = f"thinking_blocks[{index}]"
        if type(entry) is not dict:
            raise Unreadable(path, "must be an object")
        try:
            thoughts.append(
                Thinking(
                    text=read_optional(entry, "thinking") or "",
                    signature=read_optional(entry, "signature"),
                    data=read_optional(entry, "data"),
                    format="anthropic-claude-v1",
                )
            )
        except Unreadable as error:
            raise Unreadable(f"{path}.{error.path}", error.message) from None
    return thoughts


def _thoughts(message: dict[str, Any]) -> list[Thinking]:
    for name, reader in (
        ("reasoning_details", _sealed_thoughts),
        ("thinking_blocks", _thinking_blocks),
    ):
        value = message.get(name)
        if value:
            if type(value) is not list:
                raise Unreadable(name, "must be a list")
            return reader(value)
    for name in ("reasoning_content", "reasoning"):
        if text := read_optional(message, name):
            return [Thinking(text=text)]
    return []


def _provider_content(entries: Any) -> list[Opaque]:
    """Return the blocks that only their vendor knows, which our answers carry."""
    path = "provider_content"
    if type(entries) is not list:
        raise Unreadable(path, "must be a list")
    blocks: list[Opaque] = []
    for index, entry in enumerate(entries):
        try:
            if type(entry) is not dict:
                raise Unreadable("", "must be an object")
            value = Raw(msgspec.json.encode(read_object(entry, "value")))
            dialect, kind = read_string(entry, "dialect"), read_string(entry, "type")
        except Unreadable as error:
            dot = "." if error.path else ""
            raise Unreadable(
                f"{path}[{index}]{dot}{error.path}", error.message
            ) from None
        blocks.append(Opaque(dialect, kind, value))
    return blocks


# -- messages -------------------------------------------------------------------

_PLAIN_MEMBERS = frozenset({"role", "content", "name"})
_TOOL_MEMBERS = frozenset({"role", "content", "name", "tool_call_id", "is_error"})
_ASSISTANT_MEMBERS = frozenset(
    {
        "role",
        "content",
        "name",
        "refusal",
        "tool_calls",
        "function_call",
        "reasoning_details",
        "thinking_blocks",
        "reasoning_content",
        "reasoning",
        "provider_content",
    }
)
_CALL_MEMBERS = frozenset(
    {"id", "type", "function", "custom", "index", "extra_content", "cache_control"}
)
_EMPTY_IN_ECHOES = ("annotations", "audio")
"""Members of an answer that callers send back with it, most of the time empty."""


class MessagesReader:
    """Reads a list of messages once.

    Args:
        messages: The decoded JSON.
    """

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self._messages = messages
        self._legacy_calls: dict[str, str] = {}
        self.unread: list[str] = []

    def read(self) -> tuple[Message, ...]:
        """Return the neutral messages.

        Raises:
            Unreadable: With the whole path.
        """
        readers, turns = _ROLES, []
        for index, message in enumerate(self._messages):
            try:
                role = message.get("role")
                reader = readers.get(role) if type(role) is str else None
                if reader is None:
                    expected = "must be system, developer, user, assistant or tool"
                    raise Unreadable("role", expected)
                turns.append(reader(self, message, index))
            except Unreadable as error:
                path = f"messages[{index}].{error.path}"
                raise Unreadable(path, error.message) from None
        return tuple(turns)

    def _plain(self, message: dict[str, Any], index: int) -> Message:
        content = message.get("content")
        if type(content) is str:
            blocks: tuple[Block, ...] = (Text(content),)
            if len(message) == 2:
                return Message(message["role"], blocks)
            if (hint := read_cache(message)) is not UNSET:
                blocks = (Text(content, hint),)
        else:
            blocks = self._parts(content, index)
        self._check(message, _PLAIN_MEMBERS, index)
        return Message(message["role"], blocks, read_optional(message, "name"))

    def _assistant(self, message: dict[str, Any], index: int) -> Message:
        content = message.get("content")
        if len(message) == 2 and type(content) is str:
            return Message("assistant", (Text(content),))
        blocks: list[Block] = [*_thoughts(message)]
        if native := message.get("provider_content"):
            blocks.extend(_provider_content(native))
        if type(content) is str:
            # With calls, "" says no more than null does.
            if content or not message.get("tool_calls"):
                blocks.append(Text(content, read_cache(message)))
        elif content is not None:
            blocks.extend(self._parts(content, index))
        if refusal := read_optional(message, "refusal"):
            blocks.append(Refusal(refusal))
        calls = message.get("tool_calls")
        if calls is not None:
            blocks.extend(_tool_calls(calls))
            for place, value in enumerate(calls):
                if not value.keys() <= _CALL_MEMBERS:
                    path = f"messages[{index}].tool_calls[{place}]"
                    self._note(path, value, _CALL_MEMBERS)
        if (call := message.get("function_call")) is not None:
            blocks.append(self._function_call(call, index))
        self._check(message, _ASSISTANT_MEMBERS, index)
        return Message("assistant", tuple(blocks), read_optional(message, "name"))

    def _tool(self, message: dict[str, Any], index: int) -> Message:
        call_id = read_string(message, "tool_call_id")
        is_error = message.get("is_error")
        if is_error is not None and type(is_error) is not bool:
            raise Unreadable("is_error", "must be true or false")
        self._check(message, _TOOL_MEMBERS, index)
        result = ToolResult(
            call_id=call_id,
            content=self._result(message, index),
            is_error=UNSET if is_error is None else is_error,
            cache=read_cache(message),
        )
        return Message("tool", (result,))

    def _function(self, message: dict[str, Any], index: int) -> Message:
        """A result of a ``function_call``, which had a name and no id."""
        name = read_string(message, "name")
        self._check(message, _PLAIN_MEMBERS, index)
        call_id = self._legacy_calls.get(name, name)
        result = ToolResult(call_id=call_id, content=self._result(message, index))
        return Message("tool", (result,))

    def _result(self, message: dict[str, Any], index: int) -> tuple[Block, ...]:
        content = message.get("content")
        if type(content) is str:
            return (Text(content),)
        return () if content is None else self._parts(content, index)

    def _function_call(self, call: Any, index: int) -> ToolCall:
        if type(call) is not dict:
            raise Unreadable("function_call", "must be an object")
        name = read_string(call, "name")
        call_id = self._legacy_calls[name] = f"call_{index}"
        return ToolCall(id=call_id, name=name, arguments=read_string(call, "arguments"))

    def _parts(self, content: Any, index: int) -> tuple[Block, ...]:
        if type(content) is not list:
            raise Unreadable("content", "must be a string or a list of parts")
        blocks: list[Block] = []
        for place, part in enumerate(content):
            try:
                blocks.append(self._part(part, index, place))
            except Unreadable as error:
                dot = "." if error.path else ""
                path = f"content[{place}]{dot}{error.path}"
                raise Unreadable(path, error.message) from None
        return tuple(blocks)

    def _part(self, part: Any, index: int, place: int) -> Block:
        if type(part) is not dict:
            raise Unreadable("", "must be an object")
        kind = part.get("type")
        if type(kind) is not str:
            raise Unreadable("type", "must be a string")
        found = PARTS.get(kind)
        if found is None:
            return Opaque(ORIGIN, kind, Raw(msgspec.json.encode(part)))
        reader, known, inner = found
        block = reader(part)
        if not part.keys() <= known:
            self._note(f"messages[{index}].content[{place}]", part, known)
        if inner and type(value := part[kind]) is dict and not value.keys() <= inner:
            self._note(f"messages[{index}].content[{place}].{kind}", value, inner)
        return block

    def _check(
        self, message: dict[str, Any], known: frozenset[str], index: int
    ) -> None:
        if message.keys() <= known:
            return
        for name, value in message.items():
            if name in known or name == "cache_control":
                continue
            if value or name not in _EMPTY_IN_ECHOES:
                self.unread.append(f"messages[{index}].{name}")

    def _note(self, path: str, value: dict[str, Any], known: frozenset[str]) -> None:
        self.unread.extend(f"{path}.{name}" for name in value if name not in known)


def _tool_calls(calls: Any) -> list[ToolCall]:
    if type(calls) is not list:
        raise Unreadable("tool_calls", "must be a list")
    found: list[ToolCall] = []
    for place, call in enumerate(calls):
        try:
            found.append(_tool_call(call))
        except Unreadable as error:
            dot = "." if error.path else ""
            path = f"tool_calls[{place}]{dot}{error.path}"
            raise Unreadable(path, error.message) from None
    return found


def _tool_call(call: Any) -> ToolCall:
    if type(call) is not dict:
        raise Unreadable("", "must be an object")
    if call.get("type") == "custom":
        custom = read_object(call, "custom")
        return ToolCall(
            id=read_string(call, "id"),
            name=read_string(custom, "name"),
            arguments=read_string(custom, "input"),
            is_custom=True,
        )
    function = read_object(call, "function")
    name, arguments = function.get("name"), function.get("arguments")
    if type(name) is not str:
        raise Unreadable("function.name", "must be a string")
    if type(arguments) is not str:
        raise Unreadable("function.arguments", "must be a string of JSON")
    call_id = read_string(call, "id")
    if len(call) <= 3:
        return ToolCall(id=call_id, name=name, arguments=arguments)
    return ToolCall(
        id=call_id,
        name=name,
        arguments=arguments,
        signature=_google_signature(call),
        cache=read_cache(call),
    )


def _google_signature(call: dict[str, Any]) -> str | UnsetType:
    """Return Gemini's seal, where Google's own OpenAI format puts it."""
    extra = call.get("extra_content")
    google = extra.get("google") if type(extra) is dict else None
    return read_optional(google, "thought_signature") if type(google) is dict else UNSET


_ROLES: dict[str, Callable[[MessagesReader, dict[str, Any], int], Message]] = {
    "system": MessagesReader._plain,
    "developer": MessagesReader._plain,
    "user": MessagesReader._plain,
    "assistant": MessagesReader._assistant,
    "tool": MessagesReader._tool,
    "function": MessagesReader._function,
}
