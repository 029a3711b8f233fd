"""Vendors' bytes read by hand: one function for each format.

The one rule: as in ``corpus_said``: no dialect is imported, and what is read is what
the vendor's documentation says.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from typing import Any
from unittest.mock import ANY

from tests.protocol.dialects.corpus_said import (
    Choice,
    Said,
    arguments_of,
    called,
    events_of,
)
from tests.protocol.dialects.recordings import Recording

# -- OpenAI's format, as its vendors speak it -----------------------------------

FINISHES = {
    "": None,
    **dict.fromkeys(("stop", "length", "tool_calls", "content_filter"), ...),
    "function_call": ...,
    **dict.fromkeys(("max_tokens", "model_length"), "length"),
    "model_context_window_exceeded": "length",
    "insufficient_system_resource": "length",
    **dict.fromkeys(("tool_use", "tool_call"), "tool_calls"),
    **dict.fromkeys(("safety", "recitation", "prohibited_content"), "content_filter"),
    **dict.fromkeys(("sensitive", "refusal", "content_filtered"), "content_filter"),
    "guardrail_intervened": "content_filter",
}
"""In small letters; ``...`` says that it is OpenAI's own word. Others mean the end."""


def finish_said(reason: str | None) -> str | None:
    if reason is None:
        return None
    found = FINISHES.get(reason.lower(), "stop")
    return reason.lower() if found is ... else found


THOUGHT = re.compile(r"\s*<think>\s*(.*?)(?:</think>\s*|\Z)(.*)", re.DOTALL)


def read_openai(recording: Recording, *, has_think_blocks: bool = False) -> Said:
    """Read a chat completion or its chunks."""
    said = Said()
    text = recording.body.decode("utf-8", "replace").lstrip("\ufeff \r\n\t")
    is_whole = text.startswith("{")
    values = [json.loads(text)] if is_whole else list(_chunks(text, said))
    slots: dict[Any, list[Any]] = {}
    for value in values:
        if value.get("error") or value.get("object") == "error":
            said.error = str(value.get("error") or value)
            break
        _read_usage(value, said)
        for place, choice in enumerate(value.get("choices") or ()):
            index = int(choice.get("index") or (0 if "index" in choice else place))
            one = said.choices.setdefault(index, Choice())
            message = choice.get("message" if is_whole else "delta") or {}
            _read_message(message, one)
            for call in message.get("tool_calls") or ():
                _read_call(call, index, slots, one, is_whole=is_whole)
            reason = choice.get("finish_reason")
            if reason in ("error", "network_error"):
                said.error = str(choice.get("error") or reason)
            one.finish = finish_said(reason) or one.finish
    for one in said.choices.values():
        one.calls = [(name, arguments_of(text)) for name, text in one.calls]
        if is_whole and one.finish is None:
            one.finish = "tool_calls" if one.calls else "stop"
        if has_think_blocks:
            split_thought(one)
    return said


def object_in(data: str) -> dict[str, Any] | None:
    """Return the object in *data*; None for keep-alives in words, and for what was
    cut off, which lacks the end as well."""
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def split_thought(one: Choice) -> None:
    """Take the thoughts in a block at the beginning of the text out of it."""
    if found := THOUGHT.match(one.content):
        one.reasoning += found[1]
        one.content = found[2]


def _chunks(text: str, said: Said) -> Iterator[Any]:
    for name, data in events_of(text):
        if data.startswith("[DONE]"):
            said.is_ended = True
            return
        if (value := object_in(data)) is None:
            continue
        yield value
        if name == "error" and not value.get("error"):
            said.error = str(value)


def _read_usage(value: dict[str, Any], said: Said) -> None:
    usage = value.get("usage") or (value.get("x_groq") or {}).get("usage")
    if not usage or usage.get("prompt_tokens") is None:
        return
    prompt, made = usage["prompt_tokens"], usage.get("completion_tokens")
    if made is None:
        if usage.get("total_tokens") is None:
            return
        made = usage["total_tokens"] - prompt
    details = usage.get("completion_tokens_details") or {}
    thought = details.get("reasoning_tokens") or 0
    if thought and usage.get("total_tokens") == prompt + made + thought:
        made += thought  # xAI
    said.usage = prompt, made


def _read_message(message: dict[str, Any], one: Choice) -> None:
    content = message.get("content")
    if isinstance(content, dict):
        one.content += json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    elif isinstance(content, list):
        for part in content:
            if part["type"] == "text":
                one.content += part["text"]
            elif part["type"] == "thinking":
                one.reasoning += "".join(x["text"] for x in part["thinking"])
    else:
        one.content += content or ""
    one.reasoning += message.get("reasoning_content") or message.get("reasoning") or ""
    one.refusal += message.get("refusal") or ""


def _read_call(
    call: dict[str, Any],
    choice: int,
    slots: dict[Any, list[Any]],
    one: Choice,
    *,
    is_whole: bool,
) -> None:
    if is_whole:
        one.calls.append(called(call))
        return
    function = call.get("function") or {}
    key = choice, call.get("index")
    open_call = slots.get(key)
    call_id = call.get("id")
    if open_call is None or (call_id and call_id != open_call[0]):
        open_call = slots[key] = [call_id, len(one.calls)]
        one.calls.append((function.get("name") or "", ""))
    name, text = one.calls[open_call[1]]
    made = function.get("arguments") or ""
    made = made if isinstance(made, str) else json.dumps(made)
    one.calls[open_call[1]] = name or function.get("name") or "", text + made


def read_embedding(recording: Recording) -> Said:
    """Read the vectors of an answer, wherever its vendor puts them."""
    value = json.loads(recording.body)
    if value.get("error"):
        return Said(error=str(value["error"]))
    if "data" in value:
        return Said(vectors=[one["embedding"] for one in value["data"]])
    if "predictions" in value:
        found = [one["embeddings"]["values"] for one in value["predictions"]]
        return Said(vectors=found)
    found = value["embeddings"]
    if isinstance(found, dict):
        (found,) = filter(None, found.values())
    vectors = [one["values"] if isinstance(one, dict) else one for one in found]
    return Said(vectors=vectors)


def read_moderation(recording: Recording) -> Said:
    """Read judgements; some vendors judge by category only."""
    value = json.loads(recording.body)
    if value.get("error"):
        return Said(error=str(value["error"]))
    results = value["results"]
    found = [one.get("flagged", any(one["categories"].values())) for one in results]
    return Said(flagged=found)


# -- Anthropic ------------------------------------------------------------------

ANTHROPIC_FINISHES = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def read_anthropic(recording: Recording) -> Said:
    """Read a message or its events."""
    text = recording.body.decode()
    said = Said(choices={0: Choice()})
    blocks: dict[int, dict[str, Any]] = {}
    usage: dict[str, Any] = {}
    reason: str | None = None
    details: dict[str, Any] = {}
    if text.lstrip().startswith("{"):
        value = json.loads(text)
        if value.get("type") == "error":
            return Said(error=value["error"]["message"])
        blocks = dict(enumerate(value["content"]))
        usage, reason = value.get("usage") or {}, value["stop_reason"] or "end_turn"
        details = value.get("stop_details") or {}
    for _, data in [] if blocks or reason else events_of(text):
        if data.startswith("[DONE]"):
            break
        if (value := object_in(data)) is None:
            continue
        kind, delta = value["type"], value.get("delta") or {}
        if kind == "error":
            said.error = value["error"]["message"]
        elif kind == "message_start":
            if blocks:
                said.error = "a second message began within the answer"
                break
            usage.update(value["message"].get("usage") or {})
        elif kind == "content_block_start":
            blocks[value["index"]] = {**value["content_block"], "json": ""}
        elif kind == "content_block_delta":
            block = blocks[value["index"]]
            for name, key in (("text", "text"), ("thinking", "thinking")):
                block[name] = (block.get(name) or "") + (delta.get(key) or "")
            block["json"] += delta.get("partial_json", "")
        elif kind == "message_delta":
            counts = (value.get("usage") or {}).items()
            usage.update({k: v for k, v in counts if v is not None})
            reason = delta.get("stop_reason") or reason
            details = delta.get("stop_details") or details
    _anthropic_blocks(blocks, said.choices[0])
    said.choices[0].refusal = details.get("explanation") or ""
    if reason is not None:
        finish = ANTHROPIC_FINISHES.get(reason, "stop")
        if finish in ("stop", "tool_calls"):
            finish = "tool_calls" if said.choices[0].calls else "stop"
        said.choices[0].finish = finish
    if usage:
        counts = ("input", "cache_creation_input", "cache_read_input")
        prompt = sum(usage.get(f"{name}_tokens") or 0 for name in counts)
        said.usage = prompt, usage.get("output_tokens") or 0
    return said


def _anthropic_blocks(blocks: dict[int, dict[str, Any]], one: Choice) -> None:
    for index in sorted(blocks):
        block = blocks[index]
        if block["type"] == "text":
            one.content += block["text"] or ""
        elif block["type"] == "thinking":
            one.reasoning += block["thinking"] or ""
        elif block["type"] == "tool_use":
            text = block.get("json")
            made = arguments_of(text) if text else block["input"]
            one.calls.append((block["name"], made))


# -- Cohere ---------------------------------------------------------------------

COHERE_FINISHES = {
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_LIMIT": "length",
    "ERROR_TOXIC": "content_filter",
}


def read_cohere(recording: Recording) -> Said:
    """Read an answer of ``/v2/chat`` or its events."""
    text = recording.body.decode()
    said = Said(choices={0: Choice()})
    one = said.choices[0]
    end: dict[str, Any] = {}
    calls: list[list[str]] = []
    if text.lstrip().startswith("{"):
        end = json.loads(text)
        message = end["message"]
        for block in message.get("content") or ():
            one.content += block.get("text") or ""
            one.reasoning += block.get("thinking") or ""
        one.reasoning += message.get("tool_plan") or ""
        for call in message.get("tool_calls") or ():
            function = call["function"]
            calls.append([function["name"], function.get("arguments") or ""])
    for _, data in [] if end else events_of(text):
        if data.startswith("[DONE]"):
            break
        if (value := object_in(data)) is None:
            continue
        if "type" not in value:
            said.error = str(value)
            break
        delta = value.get("delta") or {}
        message = delta.get("message") or {}
        if value["type"].startswith("content-"):
            one.content += (message.get("content") or {}).get("text") or ""
            one.reasoning += (message.get("content") or {}).get("thinking") or ""
        elif value["type"] == "tool-plan-delta":
            one.reasoning += message["tool_plan"]
        elif value["type"] == "tool-call-start":
            function = message["tool_calls"]["function"]
            calls.append([function["name"], function["arguments"]])
        elif value["type"] == "tool-call-delta":
            calls[-1][1] += message["tool_calls"]["function"]["arguments"]
        elif value["type"] == "message-end":
            end = delta
    one.calls = [(name, arguments_of(made)) for name, made in calls]
    if end:
        reason = end["finish_reason"]
        if reason in ("ERROR", "TIMEOUT"):
            said.error = end.get("error") or reason
        one.finish = COHERE_FINISHES.get(reason, "stop")
        if one.finish in ("stop", "tool_calls"):
            one.finish = "tool_calls" if one.calls else "stop"
        usage = end.get("usage") or {}
        tokens = usage.get("tokens") or usage.get("billed_units") or {}
        if "input_tokens" in tokens:
            said.usage = tokens["input_tokens"], tokens.get("output_tokens") or 0
    return said


# -- Gemini ---------------------------------------------------------------------

GEMINI_FILTERS = {
    *("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"),
    *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "MODEL_ARMOR"),
}
GEMINI_NUMBERS = {1: "STOP", 2: "MAX_TOKENS", 3: "SAFETY"}


def read_gemini(recording: Recording) -> Said:
    """Read the essentials of generateContent; calls that come in pieces are left to
    the dialect's own tests."""
    text = recording.body.decode()
    if text.lstrip()[:1] in ("{", "["):
        value = json.loads(text)
        values = value if isinstance(value, list) else [value]
    else:
        found = (object_in(data) for _, data in events_of(text))
        values = [value for value in found if value is not None]
    said = Said(choices={0: Choice()})
    for value in values:
        if value.get("error"):
            said.error = str(value["error"])
            break
        for candidate in value.get("candidates") or ():
            one = said.choices.setdefault(candidate.get("index") or 0, Choice())
            for part in (candidate.get("content") or {}).get("parts") or ():
                if part.get("thought"):
                    one.reasoning += part.get("text") or ""
                else:
                    one.content += part.get("text") or ""
                call = part.get("functionCall") or {}
                if name := call.get("name"):
                    is_begun = call.get("partialArgs") or call.get("willContinue")
                    args = call.get("args") or {}
                    one.calls.append((name, ANY if is_begun else args))
            reason = candidate.get("finishReason")
            if reason:
                reason = GEMINI_NUMBERS.get(reason, reason)
                one.finish = "content_filter" if reason in GEMINI_FILTERS else "stop"
                one.finish = "length" if reason == "MAX_TOKENS" else one.finish
        if (value.get("promptFeedback") or {}).get("blockReason"):
            said.choices[0].finish = said.choices[0].finish or "content_filter"
        usage = value.get("usageMetadata") or {}
        if "promptTokenCount" in usage or "totalTokenCount" in usage:
            get = usage.get
            said.usage = (
                (get("promptTokenCount") or 0) + (get("toolUsePromptTokenCount") or 0),
                (get("candidatesTokenCount") or 0) + (get("thoughtsTokenCount") or 0),
            )
    for one in said.choices.values():
        if one.calls and one.finish == "stop":
            one.finish = "tool_calls"
    return said


# -- Bedrock's Converse ---------------------------------------------------------

BEDROCK_FINISHES = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}


def read_bedrock(recording: Recording) -> Said:
    """Read an answer of Converse or the messages of ConverseStream."""
    blocks: dict[int, dict[str, Any]] = {}
    reason, usage, error = None, None, None
    if recording.is_stream:
        for name, value in _aws_events(recording.body):
            block = blocks.setdefault(value.get("contentBlockIndex", 0), {})
            if name == "contentBlockStart":
                block.update(value["start"])
            elif name == "contentBlockDelta":
                bedrock_delta(block, value["delta"])
            elif name == "messageStop":
                reason = value["stopReason"]
            elif name == "metadata":
                usage = value["usage"]
            elif name == "":
                error = str(value)
    else:
        value = json.loads(recording.body)
        blocks = dict(enumerate(value["output"]["message"]["content"]))
        reason, usage = value["stopReason"], value["usage"]
    said = bedrock_said(blocks, reason, usage)
    said.error = error
    return said


def bedrock_said(blocks: dict[int, Any], reason: str | None, usage: Any) -> Said:
    """Return what the blocks of an answer of Converse say."""
    one = Choice()
    said = Said(choices={0: one})
    for index in sorted(blocks):
        block = blocks[index]
        one.content += block.get("text", "")
        for piece in block.get("citationsContent", {}).get("content") or ():
            one.content += piece["text"]
        thought = block.get("reasoningContent", {}).get("reasoningText") or {}
        one.reasoning += thought.get("text", "")
        use = block.get("toolUse")
        if use and use.get("type") != "server_tool_use":
            one.calls.append((use["name"], arguments_of(use.get("input") or "{}")))
    if reason is not None:
        one.finish = BEDROCK_FINISHES.get(reason, "stop")
        if one.finish in ("stop", "tool_calls"):
            one.finish = "tool_calls" if one.calls else "stop"
    if usage:
        names = ("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
        prompt = sum(usage.get(name) or 0 for name in names)
        said.usage = prompt, usage["outputTokens"]
    return said


def bedrock_delta(block: dict[str, Any], delta: dict[str, Any]) -> None:
    if "text" in delta:
        block["text"] = block.get("text", "") + delta["text"]
    elif "toolUse" in delta:
        use = block["toolUse"]
        use["input"] = use.get("input", "") + delta["toolUse"]["input"]
    elif text := delta.get("reasoningContent", {}).get("text"):
        thought = block.setdefault("reasoningContent", {})
        thought = thought.setdefault("reasoningText", {"text": ""})
        thought["text"] += text


def _aws_events(body: bytes) -> Iterator[tuple[str, Any]]:
    """Take the framing apart: lengths, headers of strings, payload, checksums."""
    if body.lstrip()[:1] == b"{":
        for line in body.splitlines():
            yield from json.loads(line).items()
        return
    while len(body) >= 4 and len(body) >= int.from_bytes(body[:4], "big"):
        total, size = struct.unpack(">II", body[:8])
        headers, place = {}, 12
        while place < 12 + size:
            length = body[place]
            name = body[place + 1 : place + 1 + length]
            place += 1 + length + 1
            (count,) = struct.unpack(">H", body[place : place + 2])
            headers[name] = body[place + 2 : place + 2 + count].decode()
            place += 2 + count
        payload = body[12 + size : total - 4]
        yield headers.get(b":event-type", ""), json.loads(payload or b"{}")
        body = body[total:]
