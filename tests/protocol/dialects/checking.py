"""What every dialect's tests do: feed decoders, collect answers, check schemas."""

from __future__ import annotations

import itertools
import json
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st

from tests.protocol.dialects.recordings import SPECS
from tz_protocol.dialects.deltas import Collector
from tz_protocol.dialects.openai_completion import (
    chunk_of,
    completion_members,
    render_usage,
)
from tz_protocol.errors import UpstreamRefused
from tz_protocol.types.conversation import Completion
from tz_protocol.types.stream import StreamFailed, StreamPart

# -- streams --------------------------------------------------------------------

LIMIT = 1_048_576
"""Bytes of one event, where a test is not about them."""


def decoded(decoder, pieces):
    """Return every event of *decoder*, fed with *pieces* and the end."""
    events = []
    for piece in pieces:
        decoder.receive_data(piece)
        while (event := decoder.next_event()) is not None:
            events.append(event)
    decoder.receive_eof()
    while (event := decoder.next_event()) is not None:
        events.append(event)
    assert decoder.next_event() is None
    return events


def decoder_of(dialect, head, limit=LIMIT):
    """Return a fresh decoder of a dialect that has streams."""
    assert dialect.stream_decoder is not None
    return dialect.stream_decoder(head, limit)


def comparable(events):
    """Return *events* with errors as values, since exceptions compare by identity."""
    return [
        ("failed", type(event.error), str(event.error))
        if isinstance(event, StreamFailed)
        else event
        for event in events
    ]


def byte_by_byte(data):
    return [data[place : place + 1] for place in range(len(data))]


@st.composite
def splits(draw, data):
    """Cut *data* at random places."""
    size = len(data)
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=12)))
    edges = [0, *cuts, size]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def collected(events) -> Completion:
    """Return the answer that the parts among *events* add up to."""
    collector = Collector()
    for event in events:
        if isinstance(event, StreamPart):
            collector.add(event)
    return collector.completion()


# -- requests -------------------------------------------------------------------


def cut_pieces(turns, losses):
    """Return the pieces of each turn, the end of the last as *losses* say."""
    found = [(turn.role, list(turn.pieces)) for turn in turns]
    role, pieces = found[-1] if found else ("user", [])
    while role == "assistant" and pieces and pieces[-1].path() in losses:
        last = pieces.pop()
        text = last.block.text.rstrip()
        assert text != last.block.text, "named, and nothing was cut off"
        if text:
            block = msgspec.structs.replace(last.block, text=text)
            pieces.append(last._replace(block=block))
            break
    return [(role, pieces) for role, pieces in found if pieces]


# -- OpenAI's JSON --------------------------------------------------------------


def whole_object(completion: Completion) -> dict[str, Any]:
    """Return *completion* as a client would see it."""
    members = completion_members(completion)
    stamps = {"id": "0", "object": "chat.completion", "created": 1, "model": "m"}
    encoded = msgspec.json.encode({**stamps, **members})
    return msgspec.json.decode(encoded, type=dict[str, Any])


def chunk_objects(events) -> list[dict[str, Any]]:
    """Return the parts among *events* as a client would see them."""
    stamps = {"id": "0", "created": 1, "model": "m"}
    return [
        {**msgspec.json.decode(chunk_of(event.value).data), **stamps}
        for event in events
        if isinstance(event, StreamPart)
    ]


def message_of_chunks(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a client makes of the chunks of one choice, read independently."""
    content, reasoning, refusal = [], [], []
    calls: dict[int, dict[str, Any]] = {}
    lists: dict[str, list[Any]] = {}
    finish = None
    for chunk in chunks:
        for choice in chunk["choices"]:
            delta = choice["delta"]
            content.append(delta.get("content") or "")
            reasoning.append(delta.get("reasoning_content") or "")
            refusal.append(delta.get("refusal") or "")
            for call in delta.get("tool_calls", ()):
                place = call["index"]
                if place not in calls:
                    assert call["id"]
                    calls[place] = {
                        "id": call["id"],
                        "name": call["function"]["name"],
                        "arguments": call["function"]["arguments"],
                    }
                else:
                    assert "id" not in call
                    calls[place]["arguments"] += call["function"]["arguments"]
            for name in ("annotations", "citations", "reasoning_details"):
                lists.setdefault(name, []).extend(delta.get(name, ()))
            if choice["finish_reason"] is not None:
                assert finish is None, "two finish reasons"
                finish = choice["finish_reason"]
    assert sorted(calls) == list(range(len(calls)))
    return {
        "content": "".join(content),
        "reasoning": "".join(reasoning),
        "refusal": "".join(refusal),
        "tool_calls": [calls[place] for place in sorted(calls)],
        "finish": finish,
        **lists,
    }


def message_of_whole(value: dict[str, Any]) -> dict[str, Any]:
    """Return the same of a whole answer with one choice."""
    (choice,) = value["choices"]
    message = choice["message"]
    return {
        "content": message["content"] or "",
        "reasoning": message.get("reasoning_content", ""),
        "refusal": message["refusal"] or "",
        "tool_calls": [
            {"id": call["id"], **call["function"]}
            for call in message.get("tool_calls", ())
        ],
        "finish": choice["finish_reason"],
        "annotations": message.get("annotations", []),
        "citations": message.get("citations", []),
        "reasoning_details": message.get("reasoning_details", []),
    }


def usage_object(usage) -> dict[str, Any]:
    """Return the usage as a client would see it; there must be one."""
    assert usage is not None
    return render_usage(usage)


# -- the vendors' own specifications --------------------------------------------


@cache
def schema(file: str, name: str):
    """Return a validator of one schema of a vendor's specification.

    Skips the test where the specification or the library is absent.
    """
    library = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    path = SPECS / file
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    root = _nullable(json.loads(path.read_text(encoding="utf-8")))
    root["$ref"] = f"#/components/schemas/{name}"
    return library.Draft202012Validator(root)


def _nullable(node: Any) -> Any:
    """Return a description with ``nullable`` (OpenAPI 3.0) as JSON Schema has it."""
    if isinstance(node, list):
        return [_nullable(child) for child in node]
    if not isinstance(node, dict):
        return node
    made = {name: _nullable(child) for name, child in node.items()}
    if made.get("nullable") is True:
        return {"anyOf": [made, {"type": "null"}]}
    return made


def faults(validator, value) -> list[str]:
    """Return what *validator* finds wrong with *value*."""
    return [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}"
        for error in validator.iter_errors(value)
    ]


# -- errors ---------------------------------------------------------------------


def facts_of(error: UpstreamRefused) -> tuple[Any, ...]:
    return (error.status, error.message, error.kind, error.code, error.retry_after)
