"""Chat requests that say one thing each: every row of the parameter table."""

from __future__ import annotations

from typing import Any

from tests.protocol.dialects.strategies import PDF, PNG

HELLO = [{"role": "user", "content": "Hello"}]


def function(name="f", **members):
    return {"type": "function", "function": {"name": name, **members}}


def call(call_id="c", name="f", arguments="{}"):
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def answered(message):
    """Return an assistant's message and a result for each of its calls."""
    results = [
        {"role": "tool", "tool_call_id": one["id"], "content": "ok"}
        for one in message["tool_calls"]
    ]
    return [message, *results]


OBJECT = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}


def json_schema(value):
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": value, "strict": True},
    }


PARAMETERS: dict[str, Any] = {
    "max_completion_tokens": 5,
    "max_tokens": 5,
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "stop": ["x"],
    "n": 2,
    "seed": 1,
    "frequency_penalty": 1.5,
    "presence_penalty": 1.5,
    "logit_bias": {"1": 2},
    "logprobs": True,
    "top_logprobs": 3,
    "response_format.json_object": {"type": "json_object"},
    "response_format.json_schema": json_schema(OBJECT),
    "tools": [function()],
    "tools.strict": [function(strict=True)],
    "tools.custom": [{"type": "custom", "custom": {"name": "g"}}],
    "tools.provider": [{"type": "web_search_20250305", "name": "web_search"}],
    "tool_choice": "required",
    "tool_choice.none": "none",
    "tool_choice.named": {"type": "function", "function": {"name": "f"}},
    "tool_choice.allowed_tools": {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [function()]},
    },
    "parallel_tool_calls": False,
    "functions": [{"name": "f"}],
    "function_call": {"name": "f"},
    "reasoning_effort": "high",
    "reasoning": {"max_tokens": 2_000},
    "thinking": {"type": "enabled", "budget_tokens": 2_000},
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy", "format": "wav"},
    "prediction": {"type": "content", "content": "x"},
    "verbosity": "low",
    "web_search_options": {},
    "moderation": {"model": "m"},
    "user": "u",
    "safety_identifier": "s",
    "metadata": {"a": "b"},
    "service_tier": "default",
    "store": True,
    "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
    "prompt_cache_options": {"mode": "implicit"},
    "cache_control": {"type": "ephemeral"},
}
"""By row: the value of the parameter before the dot."""

CONTENTS: dict[str, Any] = {
    "messages.name": {"role": "user", "content": "a", "name": "n"},
    "image_url": {"type": "image_url", "image_url": {"url": "https://e.org/a"}},
    "image_url.data": {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{PNG}"},
    },
    "image_url.detail": {
        "type": "image_url",
        "image_url": {"url": "https://e.org/a", "detail": "high"},
    },
    "file.data": {
        "type": "file",
        "file": {"file_data": f"data:application/pdf;base64,{PDF}"},
    },
    "file.url": {"type": "file", "file": {"file_data": "https://e.org/a.pdf"}},
    "file.id": {"type": "file", "file": {"file_id": "file-1"}},
    "input_audio": {
        "type": "input_audio",
        "input_audio": {"format": "wav", "data": "AA=="},
    },
    "refusal": {"role": "assistant", "content": None, "refusal": "no"},
    "reasoning_details": {
        "role": "assistant",
        "content": "a",
        "reasoning_details": [
            {"type": "reasoning.text", "text": "t", "signature": "s"}
        ],
    },
}
"""By row: a message, or a part of the user's."""

_S3_IMAGE = {"url": "s3://bucket/a.png"}
_SEALED = {"type": "reasoning.text", "text": "t", "signature": "s"}

_OWN: dict[str, dict[str, Any]] = {
    "gemini": {
        "tools.provider": [{"type": "google_search"}],
        "modalities": ["text", "image"],
        "service_tier": "flex",
        "reasoning_details": {
            **CONTENTS["reasoning_details"],
            "reasoning_details": [{**_SEALED, "format": "google-gemini-v1"}],
        },
    },
    "bedrock": {
        "tools.provider": [{"type": "systemTool", "systemTool": {"name": "n"}}],
        "service_tier": "flex",
        "image_url": {"type": "image_url", "image_url": _S3_IMAGE},
        "image_url.detail": {
            "type": "image_url",
            "image_url": {**_S3_IMAGE, "detail": "high"},
        },
    },
    "cohere": {"frequency_penalty": 0.5, "presence_penalty": 0.5},
    # Mistral wants the schema that others do without.
    "openai_chat": {"tools": [function(parameters=OBJECT)]},
}
"""By format and row: what only that vendor takes."""


def parameters_for(column):
    """Return PARAMETERS as the vendor of a column of the table takes them."""
    own = _OWN.get(column, {})
    return {row: own.get(row, value) for row, value in PARAMETERS.items()}


def contents_for(column):
    """Return CONTENTS as the vendor of a column of the table takes them."""
    own = _OWN.get(column, {})
    return {row: own.get(row, value) for row, value in CONTENTS.items()}


def members_of(row, value):
    """Return the members of a request that says *value* of a row of the table."""
    name = row.partition(".")[0]
    members = {name: value}
    if name in {"tool_choice", "parallel_tool_calls"}:
        members["tools"] = [function(), function("g")]
    if name == "function_call":
        members["functions"] = [{"name": "f"}]
    return members
