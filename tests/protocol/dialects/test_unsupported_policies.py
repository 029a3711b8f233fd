"""``on_unsupported_param`` everywhere: what is lost is refused, named or silent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from tests.protocol.dialects.saying import HELLO
from tz_protocol.dialects.anthropic import ANTHROPIC
from tz_protocol.dialects.bedrock import BEDROCK
from tz_protocol.dialects.bedrock_embeddings import BEDROCK_EMBEDDINGS
from tz_protocol.dialects.cohere import COHERE_CHAT
from tz_protocol.dialects.cohere_embeddings import COHERE_EMBEDDINGS
from tz_protocol.dialects.gemini import GEMINI, VERTEX_GEMINI
from tz_protocol.dialects.gemini_embeddings import GEMINI_EMBEDDINGS, VERTEX_EMBEDDINGS
from tz_protocol.dialects.mistral_moderations import MISTRAL_MODERATIONS
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.dialects.openai_embeddings import OPENAI_EMBEDDINGS
from tz_protocol.dialects.openai_moderations import OPENAI_MODERATIONS
from tz_protocol.dialects.sagemaker import SAGEMAKER
from tz_protocol.dialects.vertex_anthropic import VERTEX_ANTHROPIC
from tz_protocol.errors import InvalidRequest
from tz_protocol.types.chat import ChatRequest
from tz_protocol.types.request import ParsedRequest, Target

CHAT = {"messages": HELLO}
INPUT = {"input": "a"}

HINTS: dict[str, tuple[Any, str, dict[str, Any], str]] = {
    "anthropic": (ANTHROPIC, "claude-sonnet-4-5", CHAT, "store"),
    "vertex anthropic": (VERTEX_ANTHROPIC, "claude-sonnet-4-5", CHAT, "store"),
    "bedrock": (BEDROCK, "anthropic.claude-sonnet-4-5-v1:0", CHAT, "store"),
    "gemini": (GEMINI, "gemini-2.5-flash", CHAT, "store"),
    "vertex gemini": (VERTEX_GEMINI, "gemini-2.5-flash", CHAT, "store"),
    "cohere": (COHERE_CHAT, "command-a-reasoning", CHAT, "store"),
    "openai": (OPENAI_CHAT, "m", CHAT, "hint"),
    "sagemaker": (SAGEMAKER, "m", CHAT, "hint"),
    "openai embeddings": (OPENAI_EMBEDDINGS, "m", INPUT, "hint"),
    "cohere embeddings": (COHERE_EMBEDDINGS, "embed-v4.0", INPUT, "user"),
    "gemini embeddings": (GEMINI_EMBEDDINGS, "gemini-embedding-001", INPUT, "user"),
    "vertex embeddings": (VERTEX_EMBEDDINGS, "gemini-embedding-001", INPUT, "user"),
    "titan embeddings": (
        BEDROCK_EMBEDDINGS,
        "amazon.titan-embed-text-v2:0",
        INPUT,
        "user",
    ),
    "bedrock cohere embeddings": (BEDROCK_EMBEDDINGS, "cohere.embed-v4", INPUT, "user"),
    "openai moderations": (OPENAI_MODERATIONS, "m", INPUT, "hint"),
    "mistral moderations": (MISTRAL_MODERATIONS, "m", INPUT, "hint"),
}
"""Dialect, model, what to ask, and a hint that goes unsaid there."""

MEANINGS: dict[str, tuple[Any, str, dict[str, Any], str]] = {
    "anthropic": (ANTHROPIC, "claude-sonnet-4-5", CHAT, "seed"),
    "vertex anthropic": (VERTEX_ANTHROPIC, "claude-sonnet-4-5", CHAT, "seed"),
    "bedrock": (BEDROCK, "anthropic.claude-sonnet-4-5-v1:0", CHAT, "seed"),
    "gemini": (GEMINI, "gemini-2.5-flash", CHAT, "logit_bias"),
    "vertex gemini": (VERTEX_GEMINI, "gemini-2.5-flash", CHAT, "logit_bias"),
    "cohere": (COHERE_CHAT, "command-a-reasoning", CHAT, "logit_bias"),
    "old titan": (BEDROCK_EMBEDDINGS, "amazon.titan-embed-g1", INPUT, "dimensions"),
    "old cohere": (
        BEDROCK_EMBEDDINGS,
        "cohere.embed-english-v3",
        INPUT,
        "dimensions",
    ),
}
"""The same of something that changes what the answer means."""


def render(row, policy):
    dialect, model, members, name = row
    fields = {
        key: Raw(msgspec.json.encode(value))
        for key, value in {**members, name: 7 if name != "store" else True}.items()
    }
    options = {
        "project_id": "p",
        "location": "l",
        "endpoint_name": "e",
        "hosted_provider": "openai",
    }
    if policy is not None:
        options["on_unsupported_param"] = policy
    target = Target(
        provider="acme", model=model, options=options, unsupported=frozenset({"hint"})
    )
    request: ParsedRequest = ParsedRequest(model="public", fields=fields)
    if members is CHAT:
        request = ChatRequest(model="public", fields=fields)
    rendered, losses = dialect.render_request(request, target)
    assert name.encode() not in rendered.body
    return losses


def refused(row, policy):
    with pytest.raises(InvalidRequest) as caught:
        render(row, policy)
    error = caught.value
    assert "acme" in error.message
    assert row[3] in error.message
    return (error.param, error.code)


@pytest.mark.parametrize("row", HINTS.values(), ids=HINTS)
def test_hint_is_named_unless_the_operator_says_otherwise(row):
    name = row[3]
    assert render(row, None) == (name,)
    assert render(row, "warn") == (name,)
    assert render(row, "drop") == ()
    assert refused(row, "error") == (name, "unsupported_parameter")


@pytest.mark.parametrize("row", MEANINGS.values(), ids=MEANINGS)
def test_what_means_something_is_refused_unless_the_operator_says_otherwise(row):
    name = row[3]
    assert refused(row, None) == (name, "unsupported_parameter")
    assert refused(row, "error") == (name, "unsupported_parameter")
    assert render(row, "warn") == (name,)
    assert render(row, "drop") == ()
