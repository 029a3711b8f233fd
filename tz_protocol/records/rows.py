"""Entries -> rows: what goes into which table, as ClickHouse's JSONEachRow.

The one rule: a row is a pure function of its entry, so that an entry that is replayed
gives the same rows. Columns and what is in them are TensorZero's where the table is;
an exchange has one row in ``Exchange`` whatever became of it, and rows in
``ChatInference`` and ``ModelInference`` if a chat was answered whole.
"""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from typing import Any

import msgspec

from tz_protocol import __version__
from tz_protocol.dialects.openai_chat_fold import fold_chunks
from tz_protocol.records.blocks import input_of, output_of
from tz_protocol.records.entry import Content, Entry
from tz_protocol.records.record import AttemptRecord, Outcome, Record
from tz_protocol.types.prices import Price
from tz_protocol.wire.json import value_of

__all__ = ["CHAT_ROUTE", "FUNCTION", "TABLES", "price_id", "rows_of"]

FUNCTION = "tensorzero::default"
"""TensorZero's name of the function that a plain model's name stands for."""

CHAT_ROUTE = "POST /v1/chat/completions"

TABLES = ("ModelInference", "ChatInference", "Exchange")
"""In the order in which a batch is written: what says that there was an exchange
comes last."""

_encode = msgspec.json.Encoder().encode
_encode_text = msgspec.json.Encoder(enc_hook=str).encode

_PARAMETERS = (
    "temperature",
    "max_tokens",
    "max_completion_tokens",
    "seed",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "stop",
    "reasoning_effort",
    "service_tier",
    "verbosity",
)

_LARGEST = 4_294_967_295
"""Of UInt32."""

_LEAST_COST = Decimal("0.000000001")


@lru_cache(maxsize=4_096)
def price_id(prices: tuple[Price, ...]) -> str:
    """Return twelve hexadecimal digits that tell these prices from any others."""
    text = ";".join(f"{p.meter}={p.per_token.normalize()}" for p in prices)
    return sha256(text.encode()).hexdigest()[:12]


def rows_of(entry: Entry) -> list[tuple[str, bytes]]:
    """Return (table, row) pairs; a row is one JSON object without its line's end."""
    rows = [("Exchange", _encode(_exchange(entry.record)))]
    if entry.inference_id and entry.record.outcome is Outcome.OK:
        model, chat = _inference(entry)
        rows.append(("ModelInference", _encode(model)))
        rows.append(("ChatInference", _encode(chat)))
    return rows


# -- Exchange -------------------------------------------------------------------


def _exchange(record: Record) -> dict[str, Any]:
    usage = record.usage
    row: dict[str, Any] = {
        "id": record.id,
        "started_at": f"{record.started_at:.3f}",
        "request_id": record.request_id,
        "episode_id": record.episode_id,
        "endpoint": record.endpoint,
        "asked_model": (record.asked_model or "")[:200],
        "model": record.model or "",
        "provider": record.provider or "",
        "is_stream": record.is_stream,
        "outcome": record.outcome or Outcome.CANCELLED,
        "stage": record.stage,
        "status": record.status,
        "error": record.error or "",
        "cache": record.cache,
        "key_id": record.key_id or "",
        "project_id": record.project_id or "",
        "endpoint_id": record.endpoint_id or "",
        "model_id": record.model_id or "",
        "usage": "unknown" if usage is None else usage.quality,
        "cost": _cost(record.cost),
        "price_id": record.price_id or "",
        "duration_ms": _ms(record.duration) or 0.0,
        "first_content_ms": _ms(record.first_content),
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "dropped": record.dropped,
        "skipped_events": record.skipped_events,
        "tags": record.tags,
        "config_id": record.config_id,
        "gateway": __version__,
        **_attempts(record),
    }
    if record.trace is not None:
        row["trace_id"] = record.trace.trace_id
        row["parent_span_id"] = record.trace.span_id
        row["trace_flags"] = record.trace.flags
    if usage is not None:
        row["input_tokens"] = _count(usage.input_tokens)
        row["output_tokens"] = _count(usage.output_tokens)
        row["cache_read_tokens"] = _count(usage.cache_read_tokens)
        row["cache_write_tokens"] = _count(usage.cache_write_tokens)
        row["reasoning_tokens"] = _count(usage.reasoning_tokens)
    return row


def _attempts(record: Record) -> dict[str, list[Any]]:
    """Return the nested columns: one list each, an attempt in each place."""
    attempts, answered = record.attempts, _answered(record)
    usages = [record.usage if a is answered else a.spent for a in attempts]
    return {
        "attempts.provider": [a.provider for a in attempts],
        "attempts.provider_type": [a.provider_type for a in attempts],
        "attempts.model": [a.model for a in attempts],
        "attempts.upstream_model": [a.upstream_model for a in attempts],
        "attempts.status": [a.status for a in attempts],
        "attempts.error": [a.error or "" for a in attempts],
        "attempts.started_ms": [_ms(a.started) or 0.0 for a in attempts],
        "attempts.connect_ms": [_since(a.connected, a) for a in attempts],
        "attempts.head_ms": [_since(a.head, a) for a in attempts],
        "attempts.first_content_ms": [_since(a.first_content, a) for a in attempts],
        "attempts.total_ms": [_since(a.ended, a) for a in attempts],
        "attempts.is_reused": [a.is_reused for a in attempts],
        "attempts.is_hedge": [a.is_hedge for a in attempts],
        "attempts.calls": [len(a.calls) or 1 for a in attempts],
        "attempts.request_id": [a.request_id or "" for a in attempts],
        "attempts.input_tokens": [
            _count(u.input_tokens) if u else None for u in usages
        ],
        "attempts.output_tokens": [
            _count(u.output_tokens) if u else None for u in usages
        ],
    }


def _since(moment: float | None, attempt: AttemptRecord) -> float | None:
    return None if moment is None else _ms(moment - attempt.started)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _whole_ms(seconds: float | None) -> int | None:
    return None if seconds is None else min(max(0, round(seconds * 1000)), _LARGEST)


def _count(tokens: int | None) -> int | None:
    return None if tokens is None else min(tokens, _LARGEST)


def _cost(cost: Decimal | None) -> str | None:
    """Return a cost in the column's places; what is less than one is rounded."""
    return None if cost is None else f"{cost.quantize(_LEAST_COST):f}"


# -- TensorZero's ---------------------------------------------------------------


def _inference(entry: Entry) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the rows of ModelInference and ChatInference."""
    content = entry.content or Content()
    members: Any = value_of(content.members) if content.members else None
    members = members if isinstance(members, dict) else {}
    system, messages = input_of(members.get("messages"))
    output, finish = "[]", None
    if entry.content is not None:
        blocks, finish = output_of(_choices(content))
        output = _text(blocks)
    model = _model_row(entry, content)
    model["system"], model["input_messages"] = system, _text(messages)
    model["output"], model["finish_reason"] = output, finish
    whole: dict[str, Any] = {"messages": messages}
    if system is not None:
        whole = {"system": system, **whole}
    chat = _chat_row(entry.record, content, members)
    chat["input"], chat["output"] = _text(whole), output
    return model, chat


def _model_row(entry: Entry, content: Content) -> dict[str, Any]:
    record, usage = entry.record, entry.record.usage
    answered = _answered(record)
    started = 0.0 if answered is None else answered.started
    ended = None if answered is None else answered.ended
    first = None if answered is None else answered.first_content
    is_cached = record.cache == "hit"
    row: dict[str, Any] = {
        "id": entry.inference_id,
        "inference_id": record.id,
        "raw_request": content.sent.decode("utf-8", "replace"),
        "raw_response": content.received.decode("utf-8", "replace"),
        "model_name": record.model or "",
        "model_provider_name": record.provider or "",
        "function_name": FUNCTION,
        "variant_name": _variant(record),
        "response_time_ms": 0 if is_cached else _between(started, ended),
        "ttft_ms": _between(started, first) if record.is_stream else None,
        "cached": is_cached,
        "cost": _cost(record.cost),
    }
    if usage is not None:
        row["input_tokens"] = _count(usage.input_tokens)
        row["output_tokens"] = _count(usage.output_tokens)
        row["provider_cache_read_input_tokens"] = _count(usage.cache_read_tokens)
        row["provider_cache_write_input_tokens"] = _count(usage.cache_write_tokens)
    return row


def _chat_row(
    record: Record, content: Content, members: dict[str, Any]
) -> dict[str, Any]:
    tags = dict(record.tags)
    if record.key_id is not None:
        tags.setdefault("tensorzero::api_key_public_id", record.key_id)
    if content.cut:
        tags["tz::content_cut"] = ",".join(content.cut)
    tools = members.get("tools")
    given = {name: members[name] for name in _PARAMETERS if name in members}
    choice = members.get("tool_choice")
    parallel = members.get("parallel_tool_calls")
    return {
        "id": record.id,
        "function_name": FUNCTION,
        "variant_name": _variant(record),
        "episode_id": record.episode_id or record.id,
        "tool_params": "",
        "inference_params": _text({"chat_completion": given}),
        "processing_time_ms": _whole_ms(record.duration),
        "tags": tags,
        "ttft_ms": _whole_ms(record.first_content) if record.is_stream else None,
        "dynamic_tools": [_text(t) for t in tools] if isinstance(tools, list) else [],
        "tool_choice": None if choice is None else _text(choice),
        "parallel_tool_calls": parallel if isinstance(parallel, bool) else None,
    }


def _variant(record: Record) -> str:
    return record.asked_model or record.model or ""


def _answered(record: Record) -> AttemptRecord | None:
    """Return the attempt that answered; a slower one beside it may have come later."""
    for attempt in reversed(record.attempts):
        if attempt.error is None and attempt.provider == record.provider:
            return attempt
    return None


def _choices(content: Content) -> Any:
    """Return the decoded ``choices`` of the answer."""
    if content.answer:
        answer = value_of(content.answer)
    elif content.is_stream:
        return value_of(fold_chunks(content.received.split(b"\n"))["choices"])
    else:
        answer = value_of(content.received) if content.received else None
    return answer.get("choices") if isinstance(answer, dict) else None


def _between(start: float, end: float | None) -> int | None:
    return None if end is None else _whole_ms(end - start)


def _text(value: Any) -> str:
    return _encode_text(value).decode()
