"""A neutral answer -> OpenAI's JSON, whole and piece by piece.

The one rule: here is what the provider said and nothing around it; who stamps ``id``,
``model`` and the rest on it is ``openai_chat``, on converted answers as on those that
pass through.

What OpenAI's format has no word for is said in the words that others have given it:
``reasoning_content`` (DeepSeek) for thoughts, ``reasoning_details`` (OpenRouter) for
thoughts with their seal, ``native_finish_reason`` (OpenRouter), and
``extra_content.google.thought_signature`` (Google). Ours are ``citations`` (those that
have no URL, in the vendor's words) and ``provider_content`` (whole blocks that only
their vendor knows). All of these are read again by ``openai_messages``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from tz_protocol.types.chat import ChatChunk
from tz_protocol.types.conversation import (
    ArgumentsDelta,
    Choice,
    Citation,
    CitationDelta,
    Completion,
    CompletionDelta,
    Finished,
    Opaque,
    OpaqueDelta,
    ReasoningDelta,
    ReasoningSealed,
    Refusal,
    RefusalDelta,
    Started,
    Text,
    TextDelta,
    Thinking,
    ToolCall,
    ToolCallStarted,
)
from tz_protocol.types.usage import Usage

__all__ = [
    "chunk_of",
    "completion_members",
    "render_choices",
    "render_delta",
    "render_usage",
    "usage_chunk",
]

_encode = msgspec.json.Encoder().encode


# -- whole ----------------------------------------------------------------------


def completion_members(completion: Completion) -> dict[str, Raw]:
    """Return the members of a whole answer that are not the gateway's own."""
    members = {"choices": Raw(_encode(render_choices(completion)))}
    if completion.usage is not None:
        members["usage"] = Raw(_encode(render_usage(completion.usage)))
    if completion.service_tier is not UNSET:
        members["service_tier"] = Raw(_encode(completion.service_tier))
    return members


def render_choices(completion: Completion) -> list[dict[str, Any]]:
    """Return the member ``choices`` of a whole answer."""
    return [_choice(choice) for choice in completion.choices]


def render_usage(usage: Usage) -> dict[str, Any]:
    """Return the member ``usage``: only what is known is said."""
    fields: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
    details: dict[str, Any] = {}
    if usage.cache_read_tokens is not None:
        details["cached_tokens"] = usage.cache_read_tokens
    if usage.cache_write_tokens is not None:
        details["cache_write_tokens"] = usage.cache_write_tokens
    if details:
        fields["prompt_tokens_details"] = details
    if usage.reasoning_tokens is not None:
        fields["completion_tokens_details"] = {
            "reasoning_tokens": usage.reasoning_tokens
        }
    return fields


def _choice(choice: Choice) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "index": choice.index,
        "message": _message(choice),
        "logprobs": None if choice.logprobs is UNSET else choice.logprobs,
        "finish_reason": choice.finish,
    }
    if choice.native_finish is not UNSET:
        fields["native_finish_reason"] = choice.native_finish
    return fields


def _message(choice: Choice) -> dict[str, Any]:
    texts: list[str] = []
    refusals: list[str] = []
    thoughts: list[str] = []
    extra: dict[str, list[Any]] = {}
    index = 0
    for block in choice.content:
        if isinstance(block, Text):
            texts.append(block.text)
            for citation in block.citations:
                name, value = _citation(citation)
                extra.setdefault(name, []).append(value)
        elif isinstance(block, ToolCall):
            extra.setdefault("tool_calls", []).append(_tool_call(block))
        elif isinstance(block, Thinking):
            thoughts.append(block.text)
            if block.signature is not UNSET or block.data is not UNSET:
                seal = _seal(block, index)
                extra.setdefault("reasoning_details", []).append(seal)
            index += 1
        elif isinstance(block, Refusal):
            refusals.append(block.text)
        elif isinstance(block, Opaque):
            extra.setdefault("provider_content", []).append(_opaque(block))
        else:
            message = f"an answer cannot hold a block of {type(block).__name__}"
            raise TypeError(message)
    is_silent = not texts and (refusals or "tool_calls" in extra)
    fields: dict[str, Any] = {
        "role": "assistant",
        "content": None if is_silent else "".join(texts),
        "refusal": "".join(refusals) if refusals else None,
    }
    if thought := "".join(thoughts):
        fields["reasoning_content"] = thought
    return {**fields, **extra}


def _tool_call(call: ToolCall | ToolCallStarted) -> dict[str, Any]:
    if call.is_custom:
        fields: dict[str, Any] = {
            "id": call.id,
            "type": "custom",
            "custom": {"name": call.name, "input": call.arguments},
        }
    else:
        fields = {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
    if call.signature is not UNSET:
        fields["extra_content"] = {"google": {"thought_signature": call.signature}}
    return fields


def _seal(thought: Thinking | ReasoningSealed, index: int) -> dict[str, Any]:
    is_text = thought.data is UNSET
    fields: dict[str, Any] = {
        "type": "reasoning.text" if is_text else "reasoning.encrypted"
    }
    if is_text:
        fields["text"] = thought.text
    for name in ("signature", "data", "format", "id"):
        value = getattr(thought, name)
        if value is not UNSET:
            fields[name] = value
    fields["index"] = index
    return fields


def _citation(citation: Citation) -> tuple[str, dict[str, Any]]:
    """Return in which member a citation goes, and what it is there."""
    if citation.url is not UNSET:
        return "annotations", {
            "type": "url_citation",
            "url_citation": {
                "start_index": citation.start,
                "end_index": citation.end,
                "url": citation.url,
                "title": "" if citation.title is UNSET else citation.title,
            },
        }
    fields: dict[str, Any] = {
        "start_index": citation.start,
        "end_index": citation.end,
    }
    if citation.title is not UNSET:
        fields["title"] = citation.title
    if citation.quote is not UNSET:
        fields["quote"] = citation.quote
    if citation.native is not UNSET:
        fields["source"] = citation.native
    return "citations", fields


def _opaque(block: Opaque) -> dict[str, Any]:
    return {"dialect": block.dialect, "type": block.kind, "value": block.value}


# -- piece by piece -------------------------------------------------------------


_HEAD = b'{"id":"","object":"chat.completion.chunk","created":0,"model":"","choices":'
"""With a place for everything that is stamped, so that it is worked out once only."""


def chunk_of(delta: CompletionDelta) -> ChatChunk:
    """Return the chunk that says *delta*."""
    data = b"%b%b}" % (_HEAD, _DELTAS[type(delta)](delta))
    if b"\n" in data or b"\r" in data:
        # A block that only its vendor knows, from an answer in several lines: a line
        # break in JSON that is valid is white space between two tokens.
        data = data.replace(b"\n", b" ").replace(b"\r", b" ")
    return ChatChunk(data)


def usage_chunk(usage: Usage) -> ChatChunk:
    """Return the chunk that says *usage* and holds no choice."""
    data = b'%b[],"usage":%b}' % (_HEAD, _encode(render_usage(usage)))
    return ChatChunk(data, False, True)


def render_delta(delta: CompletionDelta) -> bytes:
    """Return the member ``choices`` of one chunk, as JSON."""
    return _DELTAS[type(delta)](delta)


def _around(choice: int, delta: bytes) -> bytes:
    return b'[{"index":%d,"delta":%b,"finish_reason":null}]' % (choice, delta)


def _started(delta: Started) -> bytes:
    return _around(delta.choice, b'{"role":"assistant","content":""}')


def _text(delta: TextDelta) -> bytes:
    if delta.logprobs is not UNSET:
        return b'[{"index":%d,"delta":{"content":%b},"logprobs":%b,%b}]' % (
            delta.choice,
            _encode(delta.text),
            delta.logprobs,
            b'"finish_reason":null',
        )
    return b'[{"index":%d,"delta":{"content":%b},"finish_reason":null}]' % (
        delta.choice,
        _encode(delta.text),
    )


def _reasoning(delta: ReasoningDelta) -> bytes:
    return _around(delta.choice, b'{"reasoning_content":%b}' % _encode(delta.text))


def _sealed(delta: ReasoningSealed) -> bytes:
    details = [_seal(delta, delta.index)]
    return _around(delta.choice, _encode({"reasoning_details": details}))


def _call(delta: ToolCallStarted) -> bytes:
    call = {"index": delta.index, **_tool_call(delta)}
    return _around(delta.choice, _encode({"tool_calls": [call]}))


def _arguments(delta: ArgumentsDelta) -> bytes:
    return _around(
        delta.choice,
        b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}'
        % (delta.index, _encode(delta.arguments)),
    )


def _refusal(delta: RefusalDelta) -> bytes:
    return _around(delta.choice, b'{"refusal":%b}' % _encode(delta.text))


def _cited(delta: CitationDelta) -> bytes:
    name, value = _citation(delta.citation)
    return _around(delta.choice, _encode({name: [value]}))


def _native(delta: OpaqueDelta) -> bytes:
    return _around(delta.choice, _encode({"provider_content": [_opaque(delta.block)]}))


def _finished(delta: Finished) -> bytes:
    fields: dict[str, Any] = {
        "index": delta.choice,
        "delta": {},
        "finish_reason": delta.finish,
    }
    if delta.native_finish is not UNSET:
        fields["native_finish_reason"] = delta.native_finish
    return _encode([fields])


_DELTAS: dict[type[Any], Callable[[Any], bytes]] = {
    Started: _started,
    TextDelta: _text,
    ReasoningDelta: _reasoning,
    ReasoningSealed: _sealed,
    ToolCallStarted: _call,
    ArgumentsDelta: _arguments,
    RefusalDelta: _refusal,
    CitationDelta: _cited,
    OpaqueDelta: _native,
    Finished: _finished,
}
