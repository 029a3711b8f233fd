from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.dialects.openai_chat_converted import AnyChatEncoder
from tz_protocol.dialects.openai_replay import chunks_of, parts_of
from tz_protocol.types.chat import ChatChunk, ChatRequest
from tz_protocol.types.request import Identity

IDENTITY = Identity(id="ours", episode_id="e", model="public", created=5)

HEADS = st.sampled_from(
    [
        {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"},
        {"id": "x", "created": 2, "model": "m"},
        {"model": "m", "created": 0},
        {},
    ]
)
CHUNKS = st.builds(
    lambda head, text, tail: {
        **head,
        "choices": [{"index": 0, "delta": {"content": text}}],
        **tail,
    },
    HEADS,
    st.text(max_size=5),
    st.sampled_from([{}, {"usage": None}, {"obfuscation": "ab"}, {"id": "y"}]),
)


@given(
    st.lists(CHUNKS, min_size=1, max_size=6),
    st.booleans(),
    st.booleans(),
)
def test_kept_chunks_are_encoded_at_once_as_one_by_one(values, shows, continuous):
    chunks = chunks_of(
        ChatChunk(
            json.dumps(value, separators=(",", ":")).encode(),
            states_usage=False if "usage" in value else None,
        )
        for value in values
    )
    assert len(chunks) == len(values)
    request = ChatRequest(
        model="m", include_usage=shows, is_usage_continuous=continuous
    )
    one_by_one, at_once = (AnyChatEncoder(request, IDENTITY) for _ in range(2))
    *parts, _usage = parts_of(b"", chunks)
    expected = b"".join(one_by_one.encode(part) for part in parts)
    assert at_once.encode_kept(chunks) == expected
    assert at_once.finish(None) == one_by_one.finish(None)
