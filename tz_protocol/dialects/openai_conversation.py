"""A chat request in OpenAI's format -> the neutral conversation, parsed once.

The one rule: whatever a caller can write is understood, kept unread, or recorded as
unread; the same value never means two things. Besides OpenAI's own members these are
understood, because clients of other gateways and servers send them: ``cache_control``
(Anthropic's, on parts, messages and tools), ``reasoning_content``, ``reasoning`` and
``reasoning_details`` (DeepSeek, OpenRouter), ``thinking_blocks`` (LiteLLM),
``extra_content.google.thought_signature`` (Google's own OpenAI format), ``thinking``
(Anthropic, DeepSeek). The way back is in ``openai_rendering.py``, the blocks of
messages in ``openai_messages.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw

from tz_protocol.dialects.openai_calls import paired
from tz_protocol.dialects.openai_messages import ORIGIN, MessagesReader
from tz_protocol.dialects.openai_parts import Unreadable
from tz_protocol.errors import InvalidRequest
from tz_protocol.types.conversation import (
    CacheHint,
    Conversation,
    CustomTool,
    FunctionTool,
    ProviderTool,
    Reasoning,
    ResponseFormat,
    Tool,
    ToolChoice,
)
from tz_protocol.types.request import ParsedRequest
from tz_protocol.wire.json import (
    NULL,
    kind_of_value,
    read_boolean,
    read_integer,
    read_object,
    read_string,
    shortened,
)

__all__ = ["conversation_of", "read_conversation"]

_T = TypeVar("_T")

_NOT_PARAMETERS = frozenset({"messages", "model", "stream", "stream_options"})
"""Read elsewhere or settled between the gateway and the client."""

_STOP = msgspec.json.Decoder(str | list[str])
_OBJECTS = msgspec.json.Decoder(list[dict[str, Raw]])
_MESSAGES = msgspec.json.Decoder(list[dict[str, Any]])
_CHOICE = msgspec.json.Decoder(str | dict[str, Any])

_FALSE = Raw(b"false")
_REASONING_MEMBERS = frozenset({"effort", "max_tokens", "enabled"})
_THINKING_MEMBERS = frozenset({"type", "budget_tokens"})
_TOOL_MEMBERS = frozenset({"type", "function", "cache_control"})
_FUNCTION_MEMBERS = frozenset(
    {"name", "description", "parameters", "strict", "cache_control"}
)


def conversation_of(parsed: ParsedRequest) -> Conversation:
    """Return the neutral conversation of a request for chat, whoever parsed it.

    The first candidate that needs it pays for it, further ones do not.

    Raises:
        InvalidRequest: As for :func:`read_conversation`.
    """
    conversation: Conversation | None = parsed.neutral
    if conversation is None:
        conversation = parsed.neutral = read_conversation(parsed)
    return conversation


def read_conversation(parsed: ParsedRequest) -> Conversation:
    """Return what *parsed*, a request in OpenAI's format, says.

    Raises:
        InvalidRequest: A member has a type or a value that OpenAI's format does not
            allow; the message names it.
    """
    fields = parsed.fields
    reader = _Reader(fields)
    raw = fields.get("messages")
    if raw is None:
        raise _wrong("messages", "is missing; it must be a list of messages")
    messages = MessagesReader(_decode(_MESSAGES, raw, "messages", "a list of messages"))
    try:
        turns = paired(messages.read())
    except Unreadable as error:
        raise _wrong(error.path, error.message) from None
    reader.read()
    return Conversation(
        messages=turns,
        tools=tuple(reader.tools),
        tool_choice=reader.tool_choice,
        is_parallel=reader.is_parallel,
        response_format=reader.response_format,
        reasoning=reader.reasoning,
        max_tokens=reader.max_tokens,
        stop=reader.stop,
        parameters=reader.parameters,
        given=frozenset(reader.given),
        is_stream=parsed.is_stream,
        origin=ORIGIN,
        unread=(*messages.unread, *reader.unread),
    )


def _wrong(path: str, message: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid {path!r}: it {message}.", param=path, code="invalid_value"
    )


def _decode(
    decoder: msgspec.json.Decoder[_T], raw: Raw, path: str, expected: str
) -> _T:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = (
            f"Invalid type for {path!r}: expected {expected}, "
            f"but got {kind_of_value(raw)} that is not one."
        )
        raise InvalidRequest(message, param=path, code="invalid_type") from None


class _Reader:
    """Reads the top-level members; each method is one member's."""

    def __init__(self, fields: dict[str, Raw]) -> None:
        self._fields = fields
        self.tools: list[Tool] = []
        self.tool_choice: Any = UNSET
        self.is_parallel: Any = UNSET
        self.response_format: Any = UNSET
        self.reasoning: Any = UNSET
        self.max_tokens: Any = UNSET
        self.stop: tuple[str, ...] = ()
        self.parameters: dict[str, Raw] = {}
        self.given: set[str] = set()
        self.unread: list[str] = []
        self._limit_name = ""
        """Which member the limit is from."""
        self._sources: dict[str, str] = {}
        """What is known of the reasoning -> the member that said it."""

    def read(self) -> None:
        readers, given, parameters = _READERS, self.given, self.parameters
        for name, raw in self._fields.items():
            if raw == NULL or name in _NOT_PARAMETERS:
                continue
            reader = readers.get(name)
            if reader is None:
                given.add(name)
                parameters[name] = raw
            else:
                reader(self, raw)
        choice = self.tool_choice
        if choice is not UNSET:
            self._check_choice(choice)

    def _check_choice(self, choice: ToolChoice) -> None:
        """Refuse a choice of what is not there: every vendor would, or take it for no
        choice at all."""
        if choice.mode in {"required", "named"} and not self.tools:
            raise _wrong("tool_choice", "is only allowed when 'tools' are specified")
        names = (choice.name,) if choice.mode == "named" else choice.allowed
        if not names:
            return
        known = {tool.name for tool in self.tools if not isinstance(tool, ProviderTool)}
        for name in names:
            if name not in known:
                message = f"names {shortened(name)!r}, which 'tools' do not have"
                raise _wrong("tool_choice", message)

    # -- sizes and stops ----------------------------------------------------------

    def read_max_tokens(self, raw: Raw) -> None:
        self._limit("max_tokens", raw)

    def read_max_completion_tokens(self, raw: Raw) -> None:
        self._limit("max_completion_tokens", raw)

    def _limit(self, name: str, raw: Raw) -> None:
        limit = read_integer(raw, name, 0)
        self.given.add(name)
        # Two names of one thing: the stricter holds.
        before = self.max_tokens
        if before is UNSET or limit < before:
            self.max_tokens = limit
            name, self._limit_name = self._limit_name, name
        if before is not UNSET and limit != before:
            self.unread.append(name)

    def read_stop(self, raw: Raw) -> None:
        stop = _decode(_STOP, raw, "stop", "a string or a list of strings")
        self.stop = (stop,) if isinstance(stop, str) else tuple(stop)
        if self.stop:
            self.given.add("stop")

    # -- reasoning ----------------------------------------------------------------

    def read_reasoning_effort(self, raw: Raw) -> None:
        self.given.add("reasoning_effort")
        self._effort("reasoning_effort", raw)

    def read_reasoning(self, raw: Raw) -> None:
        """OpenRouter's object: ``effort``, ``max_tokens``, ``enabled``."""
        self._keep("reasoning", raw)
        value = read_object(raw, "reasoning")
        self._effort("reasoning.effort", value.get("effort", NULL))
        self._budget("reasoning.max_tokens", value.get("max_tokens", NULL))
        enabled = value.get("enabled", NULL)
        if enabled != NULL:
            if read_boolean(enabled, "reasoning.enabled"):
                self._reason()
            else:
                self._reason("reasoning.enabled", budget_tokens=0)
        # Whether thoughts are shown is left to the vendor; false is what it does.
        said = {k: v for k, v in value.items() if v not in (NULL, _FALSE)}
        self._unread("reasoning", said, _REASONING_MEMBERS)

    def read_thinking(self, raw: Raw) -> None:
        """Anthropic's object, of which DeepSeek has ``type``."""
        self._keep("thinking", raw)
        value = read_object(raw, "thinking")
        kind = value.get("type")
        word = "" if kind is None else read_string(kind, "thinking.type")
        if word == "disabled":
            self._reason("thinking", budget_tokens=0)
        elif word == "adaptive":
            self._reason(is_adaptive=True)
        elif (budget := value.get("budget_tokens")) is not None:
            self._budget("thinking.budget_tokens", budget)
        else:
            self._reason()
        self._unread("thinking", value, _THINKING_MEMBERS)

    def _effort(self, path: str, raw: Raw) -> None:
        if raw != NULL:
            self._reason(path, effort=read_string(raw, path))

    def _budget(self, path: str, raw: Raw) -> None:
        if raw != NULL:
            self._reason(path, budget_tokens=read_integer(raw, path, 0))

    def _reason(self, path: str = "", **changes: Any) -> None:
        """Take what the member at *path* says; of two that differ the last counts."""
        base = Reasoning() if self.reasoning is UNSET else self.reasoning
        for name, value in changes.items():
            old = getattr(base, name)
            if old is not UNSET and old is not False and old != value:
                self.unread.append(self._sources[name])
            self._sources[name] = path
        self.reasoning = msgspec.structs.replace(base, **changes)

    def _keep(self, name: str, raw: Raw) -> None:
        self.given.add(name)
        self.parameters[name] = raw

    # -- the shape of the answer --------------------------------------------------

    def read_response_format(self, raw: Raw) -> None:
        value = read_object(raw, "response_format")
        kind = read_string(value.get("type", NULL), "response_format.type")
        if kind == "text":
            return
        if kind == "json_object":
            self.response_format = ResponseFormat(kind="json_object")
        elif kind == "json_schema":
            self.response_format = _json_schema(value.get("json_schema", NULL))
        else:
            message = "must be text, json_object or json_schema"
            raise _wrong("response_format.type", message)
        self.given.add(f"response_format.{kind}")

    # -- tools --------------------------------------------------------------------

    def read_tools(self, raw: Raw) -> None:
        entries = _decode(_OBJECTS, raw, "tools", "a list of tools")
        for index, entry in enumerate(entries):
            self._tool(index, entry)
        if self.tools:
            self.given.add("tools")

    def _tool(self, index: int, entry: dict[str, Raw]) -> None:
        path = f"tools[{index}]"
        kind = read_string(entry.get("type", NULL), f"{path}.type")
        if kind == "function":
            function = read_object(entry.get("function", NULL), f"{path}.function")
            if not entry.keys() <= _TOOL_MEMBERS:
                self._unread(path, entry, _TOOL_MEMBERS)
            cache = entry.get("cache_control")
            self.tools.append(self._function(f"{path}.function", function, cache))
        elif kind == "custom" and "custom" in entry:
            custom = entry["custom"]
            name = _name(read_object(custom, f"{path}.custom"), path)
            self.tools.append(CustomTool(name=name, value=custom))
        else:
            value = Raw(msgspec.json.encode(entry))
            self.tools.append(ProviderTool(kind=kind, value=value))

    def _function(
        self, path: str, value: dict[str, Raw], cache: Raw | None = None
    ) -> FunctionTool:
        if not value.keys() <= _FUNCTION_MEMBERS:
            self._unread(path, value, _FUNCTION_MEMBERS)
        description = value.get("description", NULL)
        parameters = value.get("parameters", NULL)
        strict = value.get("strict", NULL)
        hint = cache or value.get("cache_control")
        return FunctionTool(
            name=_name(value, path),
            description=UNSET
            if description == NULL
            else read_string(description, f"{path}.description"),
            parameters=UNSET if parameters == NULL else parameters,
            is_strict=UNSET
            if strict == NULL
            else read_boolean(strict, f"{path}.strict"),
            cache=UNSET if hint is None else self._cache(f"{path}.cache_control", hint),
        )

    def _cache(self, path: str, raw: Raw) -> Any:
        if raw == NULL:
            return UNSET
        value = read_object(raw, path)
        ttl = value.get("ttl")
        return CacheHint(UNSET if ttl is None else read_string(ttl, path))

    def _unread(self, path: str, value: dict[str, Raw], known: frozenset[str]) -> None:
        self.unread.extend(f"{path}.{name}" for name in value if name not in known)

    def read_functions(self, raw: Raw) -> None:
        """What ``tools`` was before it had that name."""
        values = _decode(_OBJECTS, raw, "functions", "a list of functions")
        for index, value in enumerate(values):
            self.tools.append(self._function(f"functions[{index}]", value))
            self.given.add("functions")

    def read_function_call(self, raw: Raw) -> None:
        """What ``tool_choice`` was before it had that name."""
        value = _decode(_CHOICE, raw, "function_call", "a string or an object")
        if isinstance(value, dict):
            self._named({"function": value}, "function_call")
        elif value in {"none", "auto"}:
            self.tool_choice = ToolChoice("none" if value == "none" else "auto")
        else:
            raise _wrong("function_call", "must be none, auto or an object with name")
        self.given.add("function_call")

    def read_tool_choice(self, raw: Raw) -> None:
        value = _decode(_CHOICE, raw, "tool_choice", "a string or an object")
        if isinstance(value, dict):
            if value.get("type") == "allowed_tools":
                self._allowed(value)
            else:
                self._named(value, "tool_choice")
            return
        choice = _CHOICES.get(value)
        if choice is None:
            message = "must be none, auto, required or an object that names a tool"
            raise _wrong("tool_choice", message)
        self.tool_choice = choice
        self.given.add("tool_choice.none" if value == "none" else "tool_choice")

    def _named(self, value: dict[str, Any], path: str) -> None:
        entry = value.get("function", value.get("custom"))
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise _wrong(path, "must name the tool in function.name")
        self.tool_choice = ToolChoice("named", name)
        self.given.add("tool_choice.named")

    def _allowed(self, value: dict[str, Any]) -> None:
        path = "tool_choice.allowed_tools"
        allowed = value.get("allowed_tools")
        if not isinstance(allowed, dict) or allowed.get("mode") not in _CHOICES:
            raise _wrong(path, "must have a mode, auto or required, and tools")
        names: list[str] = []
        for tool in allowed.get("tools") or ():
            entry = tool.get("function", tool) if isinstance(tool, dict) else None
            name = entry.get("name") if isinstance(entry, dict) else None
            if not isinstance(name, str):
                raise _wrong(f"{path}.tools", "must name each tool in function.name")
            names.append(name)
        mode = _CHOICES[allowed["mode"]].mode
        self.tool_choice = ToolChoice(mode, allowed=tuple(names))
        self.given.add("tool_choice.allowed_tools")

    def read_parallel_tool_calls(self, raw: Raw) -> None:
        path = "parallel_tool_calls"
        self.is_parallel = read_boolean(raw, path)
        if not self.is_parallel:
            self.given.add(path)


def _name(value: dict[str, Raw], path: str) -> str:
    return read_string(value.get("name", NULL), f"{path}.name")


def _json_schema(raw: Raw) -> ResponseFormat:
    path = "response_format.json_schema"
    value = read_object(raw, path)
    schema = value.get("schema", NULL)
    description = value.get("description", NULL)
    strict = value.get("strict", NULL)
    return ResponseFormat(
        kind="json_schema",
        name=_name(value, path),
        schema=UNSET if schema == NULL else schema,
        description=UNSET
        if description == NULL
        else read_string(description, f"{path}.description"),
        is_strict=UNSET if strict == NULL else read_boolean(strict, f"{path}.strict"),
    )


_CHOICES: dict[str, ToolChoice] = {
    "none": ToolChoice("none"),
    "auto": ToolChoice("auto"),
    "required": ToolChoice("required"),
    "any": ToolChoice("required"),  # Mistral's word
}

_READERS: dict[str, Callable[[_Reader, Raw], None]] = {
    "max_tokens": _Reader.read_max_tokens,
    "max_completion_tokens": _Reader.read_max_completion_tokens,
    "stop": _Reader.read_stop,
    "reasoning_effort": _Reader.read_reasoning_effort,
    "reasoning": _Reader.read_reasoning,
    "thinking": _Reader.read_thinking,
    "response_format": _Reader.read_response_format,
    "tools": _Reader.read_tools,
    "functions": _Reader.read_functions,
    "function_call": _Reader.read_function_call,
    "tool_choice": _Reader.read_tool_choice,
    "parallel_tool_calls": _Reader.read_parallel_tool_calls,
}
