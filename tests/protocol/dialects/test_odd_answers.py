"""Answers with anything in the place of anything: read, refused or skipped, never more.

Each sample has every member that its format's readers know; what is drawn puts other
values in their places, takes members away and says things twice.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.dialects.checking import LIMIT, decoded
from tests.protocol.dialects.eventstreams import event as framed
from tests.protocol.dialects.strategies import changed
from tz_protocol.dialects.anthropic import ANTHROPIC
from tz_protocol.dialects.bedrock import BEDROCK
from tz_protocol.dialects.bedrock_embeddings import BEDROCK_EMBEDDINGS
from tz_protocol.dialects.cohere import COHERE_CHAT
from tz_protocol.dialects.cohere_embeddings import COHERE_EMBEDDINGS
from tz_protocol.dialects.gemini import GEMINI
from tz_protocol.dialects.gemini_embeddings import GEMINI_EMBEDDINGS, VERTEX_EMBEDDINGS
from tz_protocol.dialects.mistral_moderations import MISTRAL_MODERATIONS
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.dialects.openai_embeddings import OPENAI_EMBEDDINGS
from tz_protocol.dialects.openai_moderations import OPENAI_MODERATIONS
from tz_protocol.errors import UpstreamError
from tz_protocol.types.chat import ChatRequest
from tz_protocol.types.conversation import TextDelta
from tz_protocol.types.http import ResponseHead
from tz_protocol.types.request import Identity
from tz_protocol.types.stream import StreamDone, StreamFailed, StreamPart
from tz_protocol.types.usage import MOST_TOKENS

IDENTITY = Identity(id="ours", episode_id="e", model="public", created=5)
REQUEST = ChatRequest(model="public", is_stream=True, include_usage=True, fields={})
HEAD = ResponseHead(200)

# -- samples --------------------------------------------------------------------

GEMINI_ANSWER: dict[str, Any] = {
    "candidates": [
        {
            "content": {
                "role": "model",
                "parts": [
                    {"text": "a"},
                    {"text": "t", "thought": True, "thoughtSignature": "s"},
                    {"functionCall": {"name": "f", "args": {"a": 1}, "id": "x"}},
                    {"executableCode": {"code": "1"}},
                ],
            },
            "index": 0,
            "finishReason": "STOP",
            "groundingMetadata": {
                "groundingChunks": [{"web": {"uri": "http://a", "title": "t"}}],
                "groundingSupports": [
                    {
                        "segment": {"startIndex": 0, "endIndex": 1, "text": "a"},
                        "groundingChunkIndices": [0],
                    }
                ],
            },
            "citationMetadata": {
                "citationSources": [{"startIndex": 0, "endIndex": 1, "uri": "http://b"}]
            },
            "logprobsResult": {
                "chosenCandidates": [{"token": "a", "logProbability": -0.5}],
                "topCandidates": [
                    {"candidates": [{"token": "a", "logProbability": -0.5}]}
                ],
            },
        }
    ],
    "usageMetadata": {
        "promptTokenCount": 1,
        "candidatesTokenCount": 2,
        "thoughtsTokenCount": 1,
        "toolUsePromptTokenCount": 1,
        "totalTokenCount": 4,
        "cachedContentTokenCount": 1,
        "serviceTier": "standard",
    },
    "modelVersion": "g",
    "responseId": "r",
}

OPENAI_CALLS = [
    {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    {"id": "d", "type": "custom", "custom": {"name": "g", "input": "x"}},
]
OPENAI_USAGE = {
    "prompt_tokens": 1,
    "completion_tokens": 2,
    "total_tokens": 3,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 1},
}

WHOLE: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "anthropic": (
        ANTHROPIC,
        OPENAI_CHAT,
        {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "model": "c",
            "content": [
                {
                    "type": "text",
                    "text": "a",
                    "citations": [{"url": "http://a", "title": "t", "cited_text": "x"}],
                },
                {"type": "thinking", "thinking": "t", "signature": "s"},
                {"type": "redacted_thinking", "data": "d"},
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
                {"type": "server_tool_use", "id": "b", "name": "w", "input": {}},
            ],
            "stop_reason": "tool_use",
            "stop_details": {"explanation": "x"},
            "usage": {
                "input_tokens": 1,
                "output_tokens": 2,
                "cache_read_input_tokens": 3,
                "cache_creation_input_tokens": 3,
                "output_tokens_details": {"thinking_tokens": 1},
                "service_tier": "standard",
            },
        },
    ),
    "bedrock": (
        BEDROCK,
        OPENAI_CHAT,
        {
            "output": {
                "message": {
                    "role": "assistant",
                    "content": [
                        {"text": "a"},
                        {"toolUse": {"toolUseId": "t", "name": "f", "input": {"a": 1}}},
                        {
                            "reasoningContent": {
                                "reasoningText": {"text": "x", "signature": "s"}
                            }
                        },
                        {"reasoningContent": {"redactedContent": "YQ=="}},
                        {
                            "citationsContent": {
                                "content": [{"text": "q"}],
                                "citations": [
                                    {
                                        "title": "t",
                                        "location": {"web": {"url": "http://a"}},
                                        "sourceContent": [{"text": "z"}],
                                    }
                                ],
                            }
                        },
                    ],
                }
            },
            "stopReason": "tool_use",
            "usage": {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3},
            "serviceTier": {"type": "default"},
        },
    ),
    "cohere": (
        COHERE_CHAT,
        OPENAI_CHAT,
        {
            "id": "i",
            "finish_reason": "COMPLETE",
            "message": {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "thinking", "thinking": "t"},
                ],
                "tool_plan": "p",
                "tool_calls": [OPENAI_CALLS[0]],
                "citations": [
                    {
                        "start": 0,
                        "end": 1,
                        "text": "a",
                        "type": "TEXT_CONTENT",
                        "content_index": 0,
                        "sources": [{"document": {"url": "http://a", "title": "t"}}],
                    }
                ],
            },
            "usage": {
                "billed_units": {"input_tokens": 1, "output_tokens": 2},
                "tokens": {
                    "input_tokens": 1,
                    "output_tokens": 2,
                    "reasoning_tokens": 1,
                },
                "cached_tokens": 0,
            },
        },
    ),
    "gemini": (GEMINI, OPENAI_CHAT, GEMINI_ANSWER),
    "openai": (
        OPENAI_CHAT,
        OPENAI_CHAT,
        {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "service_tier": "default",
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": "a",
                        "refusal": None,
                        "annotations": [],
                        "tool_calls": OPENAI_CALLS,
                        "reasoning_content": "r",
                    },
                    "logprobs": {
                        "content": [
                            {
                                "token": "a",
                                "logprob": -0.1,
                                "bytes": [97],
                                "top_logprobs": [],
                            }
                        ]
                    },
                    "finish_reason": "stop",
                }
            ],
            "usage": OPENAI_USAGE,
        },
    ),
    "openai embeddings": (
        OPENAI_EMBEDDINGS,
        OPENAI_EMBEDDINGS,
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": 0, "embedding": [1.0]},
                {"object": "embedding", "index": 1, "embedding": "AACAPw=="},
            ],
            "model": "m",
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        },
    ),
    "cohere embeddings": (
        COHERE_EMBEDDINGS,
        OPENAI_EMBEDDINGS,
        {
            "embeddings": {"float": [[1.0], [2.0]]},
            "meta": {"billed_units": {"input_tokens": 3, "image_tokens": 1}},
        },
    ),
    "gemini embeddings": (
        GEMINI_EMBEDDINGS,
        OPENAI_EMBEDDINGS,
        {
            "embeddings": [{"values": [1.0, 2.0]}],
            "usageMetadata": {"promptTokenCount": 3},
        },
    ),
    "vertex embeddings": (
        VERTEX_EMBEDDINGS,
        OPENAI_EMBEDDINGS,
        {
            "predictions": [
                {"embeddings": {"values": [1.0], "statistics": {"token_count": 3}}}
            ]
        },
    ),
    "bedrock embeddings": (
        BEDROCK_EMBEDDINGS,
        OPENAI_EMBEDDINGS,
        {"embedding": [1.0], "inputTextTokenCount": 3},
    ),
    "mistral moderations": (
        MISTRAL_MODERATIONS,
        OPENAI_MODERATIONS,
        {
            "id": "x",
            "model": "m",
            "results": [
                {"categories": {"sexual": False}, "category_scores": {"sexual": 0.1}}
            ],
            "usage": {"prompt_tokens": 1, "completion_tokens": 0, "total_tokens": 1},
        },
    ),
}


def anthropic_block(index, start, *deltas):
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *(
            {"type": "content_block_delta", "index": index, "delta": delta}
            for delta in deltas
        ),
        {"type": "content_block_stop", "index": index},
    ]


def openai_chunk(*choices, **members):
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": list(choices), **members}


STREAMS: dict[str, tuple[Any, list[Any]]] = {
    "anthropic": (
        ANTHROPIC,
        [
            {
                "type": "message_start",
                "message": {
                    "id": "m",
                    "model": "c",
                    "usage": {"input_tokens": 1, "output_tokens": 1},
                },
            },
            *anthropic_block(
                0,
                {"type": "text", "text": ""},
                {"type": "text_delta", "text": "a"},
                {"type": "citations_delta", "citation": {"url": "http://a"}},
            ),
            *anthropic_block(
                1,
                {"type": "tool_use", "id": "a", "name": "f", "input": {}},
                {"type": "input_json_delta", "partial_json": "{}"},
            ),
            *anthropic_block(
                2,
                {"type": "thinking", "thinking": "", "signature": ""},
                {"type": "thinking_delta", "thinking": "t"},
                {"type": "signature_delta", "signature": "s"},
            ),
            *anthropic_block(
                3,
                {"type": "server_tool_use", "id": "a", "name": "f", "input": {}},
                {"type": "input_json_delta", "partial_json": "{}"},
                {"type": "new", "x": "y"},
            ),
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_details": None},
                "usage": {"output_tokens": 3},
            },
            {"type": "message_stop"},
        ],
    ),
    "cohere": (
        COHERE_CHAT,
        [
            {"type": "message-start", "id": "i"},
            {
                "type": "content-start",
                "index": 0,
                "delta": {"message": {"content": {"type": "text", "text": ""}}},
            },
            {
                "type": "content-delta",
                "index": 0,
                "delta": {"message": {"content": {"text": "a"}}},
            },
            {
                "type": "citation-start",
                "index": 0,
                "delta": {
                    "message": {
                        "citations": {
                            "start": 0,
                            "end": 1,
                            "sources": [{"document": {"url": "http://a"}}],
                        }
                    }
                },
            },
            {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "p"}}},
            {
                "type": "tool-call-start",
                "index": 0,
                "delta": {"message": {"tool_calls": OPENAI_CALLS[0]}},
            },
            {
                "type": "tool-call-delta",
                "index": 0,
                "delta": {"message": {"tool_calls": {"function": {"arguments": " "}}}},
            },
            {"type": "tool-call-end", "index": 0},
            {
                "type": "message-end",
                "delta": {
                    "finish_reason": "COMPLETE",
                    "usage": {"tokens": {"input_tokens": 1, "output_tokens": 2}},
                },
            },
        ],
    ),
    "gemini": (
        GEMINI,
        [
            GEMINI_ANSWER,
            {
                "candidates": [
                    {
                        "content": {
                            "parts": [
                                {
                                    "functionCall": {
                                        "name": "g",
                                        "partialArgs": [
                                            {"jsonPath": "$.a", "stringValue": "x"}
                                        ],
                                        "willContinue": True,
                                    }
                                },
                                {
                                    "functionCall": {
                                        "partialArgs": [
                                            {"jsonPath": "$.b[0].c", "numberValue": 1}
                                        ]
                                    }
                                },
                            ]
                        },
                        "finishReason": "STOP",
                    }
                ],
                "promptFeedback": {"blockReason": "OTHER"},
            },
        ],
    ),
    "openai": (
        OPENAI_CHAT,
        [
            openai_chunk(
                {
                    "index": 0,
                    "delta": {
                        "role": "assistant",
                        "content": "a",
                        "reasoning_content": "r",
                    },
                    "logprobs": None,
                    "finish_reason": None,
                },
                service_tier="default",
                usage=None,
            ),
            openai_chunk(
                {
                    "index": 0,
                    "delta": {
                        "tool_calls": [
                            {"index": place, **call}
                            for place, call in enumerate(OPENAI_CALLS)
                        ]
                    },
                }
            ),
            openai_chunk({"index": 0, "delta": {}, "finish_reason": "tool_calls"}),
            openai_chunk(usage=OPENAI_USAGE, x_groq={"usage": OPENAI_USAGE}),
        ],
    ),
}

BEDROCK_EVENTS: list[list[Any]] = [
    ["messageStart", {"role": "assistant"}],
    ["contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "a"}}],
    [
        "contentBlockDelta",
        {
            "contentBlockIndex": 0,
            "delta": {
                "citation": {"title": "t", "location": {"web": {"url": "http://a"}}}
            },
        },
    ],
    ["contentBlockStop", {"contentBlockIndex": 0}],
    [
        "contentBlockStart",
        {
            "contentBlockIndex": 1,
            "start": {"toolUse": {"toolUseId": "t", "name": "f"}},
        },
    ],
    [
        "contentBlockDelta",
        {"contentBlockIndex": 1, "delta": {"toolUse": {"input": "{}"}}},
    ],
    ["contentBlockStop", {"contentBlockIndex": 1}],
    [
        "contentBlockDelta",
        {
            "contentBlockIndex": 2,
            "delta": {
                "reasoningContent": {
                    "text": "x",
                    "signature": "s",
                    "redactedContent": "YQ==",
                }
            },
        },
    ],
    [
        "contentBlockStart",
        {"contentBlockIndex": 3, "start": {"toolResult": {"toolUseId": "t"}}},
    ],
    [
        "contentBlockDelta",
        {"contentBlockIndex": 3, "delta": {"toolResult": [{"text": "x"}]}},
    ],
    ["contentBlockStop", {"contentBlockIndex": 3}],
    ["messageStop", {"stopReason": "end_turn"}],
    ["metadata", {"usage": {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}}],
]

# -- what takes their places ----------------------------------------------------

ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, False, 0, -1, 1.5, -0.5, 1e300, 10**30, -(10**30), 2**64),
        *("", "x", "NaN", "\ud83d", "é", [], {}, [None], [[]], [{}], {"a": None}),
    ]
)


def check_usage(usage):
    if usage is None:
        return
    for name in (
        *("input_tokens", "output_tokens", "cache_read_tokens"),
        *("cache_write_tokens", "reasoning_tokens"),
    ):
        count = getattr(usage, name)
        assert count is None or (type(count) is int and 0 <= count <= 4 * MOST_TOKENS)


def dumped(value):
    return json.dumps(value).encode()


@pytest.mark.parametrize("name", WHOLE)
@given(st.data())
def test_whole_answer_with_anything_in_it_is_read_or_refused(name, data):
    inner, outer, sample = WHOLE[name]
    body = dumped(data.draw(changed(sample, ODD)))
    try:
        response = inner.parse_response(HEAD, body)
    except UpstreamError:
        return
    _, rendered = outer.render_response(REQUEST, response, IDENTITY)
    assert isinstance(json.loads(rendered), dict)
    check_usage(response.usage)


def relay(dialect, data):
    """Decode a stream and encode it for our client; return the events."""
    events = decoded(dialect.stream_decoder(HEAD, LIMIT), [data])
    assert isinstance(events[-1], StreamDone | StreamFailed)
    encoder = OPENAI_CHAT.stream_encoder
    assert encoder is not None
    client = encoder(REQUEST, IDENTITY)
    out, usage = b"", None
    for event in events:
        if isinstance(event, StreamPart):
            out += client.encode(event)
            usage = event.usage or usage
    out += client.finish(usage)
    for block in out.split(b"\n\n"):
        if block and block != b"data: [DONE]":
            assert isinstance(json.loads(block.removeprefix(b"data: ")), dict)
    check_usage(usage)
    return events


def sse(values):
    return b"".join(b"data: " + dumped(value) + b"\n\n" for value in values)


@pytest.mark.parametrize("name", STREAMS)
@given(st.data())
def test_stream_with_anything_in_it_ends_and_can_be_relayed(name, data):
    dialect, sample = STREAMS[name]
    relay(dialect, sse(data.draw(changed(sample, ODD))))


@given(changed([value for _, value in BEDROCK_EVENTS], ODD))
def test_stream_of_bedrock_with_anything_in_it_ends_and_can_be_relayed(values):
    names = [name for name, _ in BEDROCK_EVENTS]
    pairs = zip(names, values, strict=False)
    relay(BEDROCK, b"".join(framed(name, dumped(value)) for name, value in pairs))


# -- what is said around an answer ----------------------------------------------

AROUND = [
    ("anthropic", ("usage",)),
    ("anthropic", ("usage", "input_tokens")),
    ("anthropic", ("stop_details",)),
    ("bedrock", ("usage", "outputTokens")),
    ("bedrock", ("serviceTier",)),
    ("cohere", ("usage", "tokens")),
    ("gemini", ("usageMetadata", "promptTokenCount")),
    ("gemini", ("candidates", 0, "citationMetadata", "citationSources")),
    ("gemini", ("candidates", 0, "logprobsResult")),
    ("openai", ("usage", "prompt_tokens")),
]


def odd(value, path, change):
    made = copy.deepcopy(value)
    place = made
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = change
    return made


@pytest.mark.parametrize("change", ["many", [], -5, 1.5, 10**30], ids=repr)
@pytest.mark.parametrize(("name", "path"), AROUND, ids=lambda value: str(value))
def test_answer_whose_usage_is_none_is_an_answer_all_the_same(name, path, change):
    inner, outer, sample = WHOLE[name]
    response = inner.parse_response(HEAD, dumped(odd(sample, path, change)))
    _, rendered = outer.render_response(REQUEST, response, IDENTITY)
    message = json.loads(rendered)["choices"][0]["message"]
    assert message["content"].startswith("a")
    assert message["tool_calls"]


@pytest.mark.parametrize("change", ["many", [], {"output_tokens": "x"}], ids=repr)
def test_end_of_a_stream_whose_usage_is_none_is_its_end(change):
    dialect, sample = STREAMS["anthropic"]
    values = [
        {**value, "usage": change} if value["type"] == "message_delta" else value
        for value in sample
    ]
    events = relay(dialect, sse(values))
    assert isinstance(events[-1], StreamDone)
    framing: list[Any] = copy.deepcopy(BEDROCK_EVENTS)
    framing[-1][1]["usage"] = change
    events = relay(BEDROCK, b"".join(framed(name, value) for name, value in framing))
    assert isinstance(events[-1], StreamDone)
    dialect, sample = STREAMS["cohere"]
    values = odd(sample, (-1, "delta", "usage"), change)
    events = relay(dialect, sse(values))
    assert isinstance(events[-1], StreamDone)
    said = [one.value for one in events if isinstance(one, StreamPart)]
    assert TextDelta("a") in said
