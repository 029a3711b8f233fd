"""Answers that are OpenAI's in all but a detail, made so in that detail.

The one rule: what is as OpenAI has it is not touched, and of what is not, only the
member that is wrong is written anew; all else stays the bytes that the vendor wrote.
What can only be wrong is told by its type and repaired whoever sent it. What could be
meant is a quirk, and a vendor's row must say that it has it.

Repairs of streams are next door, in ``openai_chat_stream_repairs``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Raw

from tz_protocol.dialects.ids import minted_id
from tz_protocol.dialects.openai_chat_around import (
    Logprobs,
    regular_created,
    regular_logprobs,
    regular_usage,
)
from tz_protocol.dialects.openai_errors import refusal
from tz_protocol.dialects.thinking import ThinkSplitter
from tz_protocol.wire.json import NULL, encode_object, kind_of_value, value_of

__all__ = [
    "QUIRKS",
    "REASONING",
    "THINK_BLOCKS",
    "WEAK_IDS",
    "Fields",
    "FinishReason",
    "ServiceTier",
    "ended_with_error",
    "name_of",
    "regular_call",
    "regular_choice",
    "regular_content",
    "regular_tier",
    "regular_whole",
    "rename_reasoning",
    "split_thoughts",
]

THINK_BLOCKS = "think_blocks"
REASONING = "reasoning"
WEAK_IDS = "weak_ids"

QUIRKS: Mapping[str, str] = MappingProxyType(
    {
        THINK_BLOCKS: "The content begins with what the model thought, in <think>.",
        REASONING: "Thoughts are in reasoning instead of reasoning_content.",
        WEAK_IDS: "Ids of tool calls are the same in every answer.",
    }
)
"""What a vendor's row may say of its answers."""

FinishReason = Literal[
    "stop", "length", "tool_calls", "content_filter", "function_call"
]
ServiceTier = Literal["auto", "default", "flex", "scale", "priority"]

_FINISH_REASONS = frozenset(get_args(FinishReason))
_SERVICE_TIERS = frozenset(get_args(ServiceTier))

Fields = dict[str, Raw | bytes]

_encode = msgspec.json.Encoder().encode
_read_objects = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_read_object = msgspec.json.Decoder(dict[str, Raw]).decode


# -- words ----------------------------------------------------------------------

_FINISHES: Mapping[str, bytes] = MappingProxyType(
    {
        "eos": b'"stop"',  # Together
        "eos_token": b'"stop"',  # TGI
        "stop_sequence": b'"stop"',  # TGI
        "end_turn": b'"stop"',  # servers in front of Claude
        "abort": b'"stop"',  # vLLM, SGLang
        "tool_use": b'"tool_calls"',
        "tool_call": b'"tool_calls"',
        "max_tokens": b'"length"',
        "model_length": b'"length"',  # Mistral
        "model_context_window_exceeded": b'"length"',  # Z.ai, servers of Claude
        "insufficient_system_resource": b'"length"',  # DeepSeek
        "safety": b'"content_filter"',
        "recitation": b'"content_filter"',
        "prohibited_content": b'"content_filter"',
        "sensitive": b'"content_filter"',  # Z.ai
        "refusal": b'"content_filter"',  # servers in front of Claude
        "content_filtered": b'"content_filter"',  # servers in front of Bedrock
        "guardrail_intervened": b'"content_filter"',
        "": b"null",  # SGLang's old releases, Snowflake
    }
)
"""Vendors' words for why an answer ended, in small letters -> OpenAI's. Any other is an
end like any other."""

_ERRORS = frozenset({"error", "network_error"})
"""The words of Mistral and OpenRouter, and of Z.ai, for an answer that is none."""

_TIERS: Mapping[str, bytes] = MappingProxyType(
    {
        "on_demand": b'"default"',  # Groq
        "standard": b'"default"',
        "performance": b'"priority"',  # Groq
        "batch": b'"flex"',
    }
)
"""Vendors' words for the class of service -> OpenAI's. Any other is left out."""


def _is_error(value: Any) -> bool:
    return isinstance(value, str) and value.lower() in _ERRORS


def ended_with_error(choices: list[dict[str, Raw]]) -> bool:
    """Return whether one of *choices* ended with an error."""
    return any(_is_error(value_of(one.get("finish_reason", NULL))) for one in choices)


def regular_tier(fields: Fields) -> None:
    """Say the class of service of an answer or a chunk in OpenAI's word."""
    value = value_of(fields.get("service_tier", NULL))
    text = value if isinstance(value, str) else ""
    if value is None or text in _SERVICE_TIERS:
        return
    word = _TIERS.get(text.lower())
    if word is None:
        del fields["service_tier"]
    else:
        fields["service_tier"] = word


def regular_choice(choice: Fields, place: int) -> None:
    """Give a choice a number, and say why it ended in OpenAI's word.

    Args:
        choice: The choice or the part of it that a chunk has.
        place: Its number if it has none.
    """
    index = value_of(choice.get("index", NULL))
    if type(index) is not int:
        choice["index"] = b"%d" % (int(index) if type(index) is float else place)
    regular_logprobs(choice)
    reason = value_of(choice.get("finish_reason", NULL))
    text = reason if isinstance(reason, str) else ""
    if reason is None or text in _FINISH_REASONS:
        return
    choice["finish_reason"] = _FINISHES.get(text.lower(), b'"stop"')
    if text:
        choice.setdefault("native_finish_reason", _encode(text))


# -- content --------------------------------------------------------------------


def regular_content(message: Fields) -> None:
    """Make the content of a message or a delta a string.

    Mistral's reasoning models answer with a list of parts, thoughts among them;
    Cloudflare's JSON mode answers with the JSON itself.
    """
    raw = message.get("content", NULL)
    kind = kind_of_value(Raw(raw))
    if kind in ("a string", "null"):
        return
    if kind != "an array":
        message["content"] = _encode(bytes(raw).decode())
        return
    texts: list[str] = []
    thoughts: list[str] = []
    others: list[bytes] = []
    for part in value_of(raw) or ():
        name = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, str):
            texts.append(part)
        elif name == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif name == "thinking":
            thoughts.append(_thought(part.get("thinking")))
        else:
            value = {"dialect": "openai_chat", "type": str(name or ""), "value": part}
            others.append(_encode(value))
    message["content"] = _encode("".join(texts)) if texts else NULL
    if any(thoughts):
        _add_thought(message, "".join(thoughts))
    if others:
        message["provider_content"] = b"[%b]" % b",".join(others)


def _thought(value: Any) -> str:
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else ()
    return "".join(
        part["text"]
        for part in parts
        if isinstance(part, dict) and isinstance(part.get("text"), str)
    )


def _add_thought(message: Fields, text: str) -> None:
    old = value_of(message.get("reasoning_content", NULL))
    message["reasoning_content"] = _encode((old or "") + text)


def split_thoughts(message: Fields, splitter: ThinkSplitter, *, is_end: bool) -> None:
    """Move what is in a think block out of the content.

    Args:
        message: A message or a delta, its content a string.
        splitter: Of this choice.
        is_end: True if no more content follows.
    """
    raw = message.get("content", NULL)
    text = value_of(raw)
    thought, said = splitter.split(text or "")
    if is_end:
        last_thought, last_said = splitter.rest()
        thought, said = thought + last_thought, said + last_said
    if thought:
        _add_thought(message, thought)
    if said != (text or ""):
        if said or "role" in message:
            message["content"] = _encode(said)
        else:
            message.pop("content", None)


def rename_reasoning(message: Fields) -> None:
    """Put thoughts where OpenAI's dialects with thoughts have them."""
    thought = message.get("reasoning", NULL)
    if thought != NULL and message.get("reasoning_content", NULL) == NULL:
        message["reasoning_content"] = thought
        del message["reasoning"]


# -- tool calls -----------------------------------------------------------------


def regular_call(call: Fields) -> None:
    """Make the arguments of a call a string of JSON; Ollama's are the JSON itself."""
    if kind_of_value(Raw(call.get("function", NULL))) != "an object":
        return
    function: Fields = dict(_read_object(call["function"]))
    arguments = Raw(function.get("arguments", NULL))
    if kind_of_value(arguments) not in ("a string", "null"):
        function["arguments"] = _encode(bytes(arguments).decode())
        call["function"] = encode_object(function)


def _add_arguments(call: Fields) -> None:
    """Give a whole call arguments, if it calls a function and has none."""
    function = value_of(call.get("function", NULL))
    if isinstance(function, dict) and function.get("arguments") is None:
        members: Fields = dict(_read_object(call["function"]))
        members["arguments"] = b'"{}"'
        call["function"] = encode_object(members)


def name_of(call: Mapping[str, Raw | bytes]) -> str:
    """Return the name of the function or the custom tool that is called."""
    for kind in ("function", "custom"):
        called = value_of(call.get(kind, NULL))
        if isinstance(called, dict):
            return str(called.get("name") or "")
    return ""


def _whole_calls(message: Fields, *parts: object, is_weak: bool) -> None:
    calls: list[bytes] = []
    ids: set[str] = set()
    for number, value in enumerate(_read_objects(message["tool_calls"])):
        call: Fields = dict(value)
        regular_call(call)
        _add_arguments(call)
        call_id = value_of(call.get("id", NULL))
        if type(call_id) is not str or not call_id or is_weak or call_id in ids:
            call_id = minted_id(*parts, number, name_of(call))
            call["id"] = _encode(call_id)
        if call.get("type", NULL) == NULL:
            call["type"] = b'"custom"' if "custom" in call else b'"function"'
        ids.add(call_id)
        calls.append(encode_object(call))
    message["tool_calls"] = b"[%b]" % b",".join(calls)


# -- whole answers --------------------------------------------------------------


class _Function(msgspec.Struct):
    arguments: str


class _Call(msgspec.Struct):
    id: Annotated[str, Meta(min_length=1)]
    type: Literal["function", "custom"]
    function: _Function | None = None


class _Message(msgspec.Struct):
    role: Literal["assistant"]
    content: str | None = None
    tool_calls: list[_Call] | None = None
    reasoning: Any = None


class _Choice(msgspec.Struct):
    index: int
    message: _Message
    finish_reason: FinishReason
    logprobs: Logprobs | None = None


_CHOICES = msgspec.json.Decoder(list[_Choice])
"""Reads the choices of a whole answer that needs no repair."""

_TIER_VALUES = (NULL, *(Raw(_encode(word)) for word in get_args(ServiceTier)))


def regular_whole(fields: dict[str, Raw], quirks: frozenset[str]) -> dict[str, Raw]:
    """Return the members of a whole answer as OpenAI has them.

    Args:
        fields: The members as the vendor wrote them; ``choices`` is an array.
        quirks: What else the vendor says otherwise (``QUIRKS``).

    Raises:
        UpstreamRefused: The answer ended with an error.
    """
    regular_created(fields)
    regular_usage(fields)
    tier = fields.get("service_tier")
    try:
        choices = _CHOICES.decode(fields["choices"])
    except (msgspec.DecodeError, RecursionError):
        return _repaired(fields, quirks)
    if tier is not None and tier not in _TIER_VALUES:
        return _repaired(fields, quirks)
    if len(choices) > 1 and len({one.index for one in choices}) < len(choices):
        return _repaired(fields, quirks)
    for choice in choices:
        calls = choice.message.tool_calls
        if calls and (
            WEAK_IDS in quirks or len({call.id for call in calls}) < len(calls)
        ):
            return _repaired(fields, quirks)
        if quirks and (
            (THINK_BLOCKS in quirks and choice.message.content)
            or (REASONING in quirks and choice.message.reasoning)
        ):
            return _repaired(fields, quirks)
    return fields


def _repaired(fields: dict[str, Raw], quirks: frozenset[str]) -> dict[str, Raw]:
    made: Fields = dict(fields)
    regular_tier(made)
    try:
        choices = _read_objects(fields["choices"])
        if ended_with_error(choices):
            error = refusal({"error": {"message": "The answer ended with an error."}})
            if error is not None:
                raise error
        _number(choices)
        parts = [value_of(fields.get(name, NULL)) for name in ("id", "created")]
        pieces = [
            _repaired_choice(choice, place, parts, quirks)
            for place, choice in enumerate(choices)
        ]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        # Not even nearly an answer: the client gets what there is.
        return {name: Raw(value) for name, value in made.items()}
    made["choices"] = b"[%b]" % b",".join(pieces)
    return {name: Raw(value) for name, value in made.items()}


def _number(choices: list[dict[str, Raw]]) -> None:
    """Number the choices through if two of them have one number."""
    stated = [bytes(choice.get("index", NULL)) for choice in choices]
    if len(set(stated)) < len(stated):
        for place, choice in enumerate(choices):
            choice["index"] = Raw(b"%d" % place)


def _repaired_choice(
    choice: dict[str, Raw], place: int, parts: list[Any], quirks: frozenset[str]
) -> bytes:
    made: Fields = dict(choice)
    regular_choice(made, place)
    stated = choice.get("message", NULL)
    if stated == NULL and value_of(made["finish_reason"]) == "content_filter":
        # Azure leaves out what it filtered.
        stated = Raw(b"{}")
    message: Fields = dict(_read_object(stated))
    message.setdefault("content", NULL)
    if value_of(message.get("role", NULL)) != "assistant":
        message["role"] = b'"assistant"'
    has_calls = kind_of_value(Raw(message.get("tool_calls", NULL))) == "an array"
    if has_calls:
        _whole_calls(message, *parts, place, is_weak=WEAK_IDS in quirks)
    regular_content(message)
    if REASONING in quirks:
        rename_reasoning(message)
    if THINK_BLOCKS in quirks:
        split_thoughts(message, ThinkSplitter(), is_end=True)
    made["message"] = encode_object(message)
    if value_of(made.get("finish_reason", NULL)) is None:
        # An answer that is whole has ended.
        called = has_calls and Raw(message["tool_calls"]) != _NO_CALLS
        made["finish_reason"] = b'"tool_calls"' if called else b'"stop"'
    return encode_object(made)


_NO_CALLS = Raw(b"[]")
