"""What is published of every endpoint and provider is what a rendered request does."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import msgspec
import pytest

from tests.protocol.dialects.saying import (
    HELLO,
    contents_for,
    members_of,
    parameters_for,
)
from tests.protocol.flows.serving import answer
from tests.protocol.pairs import PAIRS, model_of, options_of
from tests.protocol.samples import MODEL
from tests.protocol.test_gateway import get
from tz_protocol.errors import InvalidRequest
from tz_protocol.types.http import RequestHead
from tz_protocol.types.request import Target
from tz_protocol.wire.multipart import boundary_of, parse_multipart

MODELS = {
    ("chat", "anthropic"): "claude-sonnet-4-5",
    ("chat", "gcp_vertex_anthropic"): "claude-sonnet-4-5",
    ("chat", "google_ai_studio_gemini"): "gemini-2.5-flash",
    ("chat", "gcp_vertex_gemini"): "gemini-2.5-flash",
    ("chat", "aws_bedrock"): "anthropic.claude-sonnet-4-5-20250929-v1:0",
    ("embedding", "aws_bedrock"): "cohere.embed-v4:0",
    ("chat", "cohere"): "command-a-reasoning-08-2025",
}
"""Models that have as much of each parameter as any."""

COLUMNS = {"vertex_gemini": "gemini", "vertex_anthropic": "anthropic"}
"""By format: whose column it shares."""

UNKNOWN = "x_unknown"

NATIVE: dict[str, Any] = {
    "context_management": {"edits": []},
    "mcp_servers": [],
    "generationConfig": {"topK": 3},
    "toolConfig": {"a": 1},
    "labels": {"a": "b"},
    "documents": ["a"],
}
"""Values of vendors' own members; any other word for the rest."""

LEAST: dict[str, dict[str, Any]] = {
    "embedding": {"input": "Hi"},
    "moderation": {"input": "Hi"},
    "audio_transcription": {"file": b"RIFF"},
    "audio_speech": {"input": "Hi", "voice": "alloy"},
    "chat": {"messages": HELLO},
}
OTHERS: dict[str, dict[str, Any]] = {
    "embedding": {
        "input": "Bye",
        "encoding_format": "base64",
        "dimensions": 64,
        "user": "u",
    },
    "moderation": {"input": "Bye"},
    "audio_transcription": {"language": "de", "prompt": "x", "temperature": "0.5"},
    "audio_speech": {"speed": 2, "instructions": "x", "response_format": "wav"},
}
"""By capability: what a request may say beyond the least."""

BY_THE_GATEWAY = ("n", "image_url", "file.url", "encoding_format", "stream_options")
"""Emulations that are not to be seen in the request: it is sent more than once, is made
from what was fetched, or the answer is changed."""


@cache
def published():
    return {row["id"]: row for row in answer(get("/v1/capabilities"))["data"]}


def entry(endpoint, row):
    return published()[row.name]["capabilities"][endpoint.capability]


def form(members):
    pieces = [
        b'--b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
        % (
            name.encode(),
            b'; filename="a.wav"' if name == "file" else b"",
            value if isinstance(value, bytes) else str(value).encode(),
        )
        for name, value in members.items()
    ]
    return b"".join((*pieces, b"--b--\r\n"))


def sent(endpoint, row, members):
    """Return (members that the provider gets, what was named as dropped, path)."""
    members = {"model": MODEL, **LEAST[endpoint.capability], **members}
    is_form = "file" in members
    kind = "multipart/form-data; boundary=b" if is_form else "application/json"
    body = form(members) if is_form else json.dumps(members).encode()
    head = RequestHead(method="POST", path="/", headers=(("content-type", kind),))
    parsed = endpoint.dialect.parse_request(body, head)
    target = Target(
        provider=row.name,
        model=(
            model_of(endpoint, row)
            if "normalize" in members  # Titan's, and no other model's
            else MODELS.get((endpoint.capability, row.name), model_of(endpoint, row))
        ),
        options=options_of(row),
        renames=dict(row.deviations.renames),
        unsupported=row.deviations.unsupported,
        implied=dict(row.deviations.implied),
    )
    dialect = row.dialect_of(endpoint.capability, {})
    request, losses = dialect.render_request(parsed, target)
    kind = dict(request.headers)["content-type"]
    if kind.startswith("multipart/"):
        parts = parse_multipart(request.body, boundary_of(kind))
        found = {part.name: bytes(part.data).decode("latin-1") for part in parts}
        return found, losses, request.path
    return msgspec.json.decode(request.body), losses, request.path


def sample_of(endpoint, row, name):
    """Return (members that set the parameter, those that do not)."""
    capability = endpoint.capability
    if capability != "chat":
        value = OTHERS[capability].get(name, "own")
        return {name: value}, {}
    format_name = row.dialects["chat"].name
    column = COLUMNS.get(format_name, format_name)
    parameters, contents = parameters_for(column), contents_for(column)
    if name in parameters:
        members = members_of(name, parameters[name])
        if name == "top_logprobs" and column == "gemini":
            # The vendor has both or neither.
            members["logprobs"] = True
        top = name.partition(".")[0]
        return members, {key: one for key, one in members.items() if key != top}
    if name in contents:
        said = contents[name]
        message = said if "role" in said else {"role": "user", "content": [said]}
        # An answer at the end is one to be gone on with, which is another matter.
        return {"messages": [*HELLO, message, *HELLO]}, {"messages": [*HELLO, *HELLO]}
    special = {
        "messages": [{"role": "user", "content": "Bye"}],
        "stream": True,
    }
    if name == "stream_options":
        return {"stream": True, name: {"x": 1}}, {"stream": True}
    return {name: special.get(name, NATIVE.get(name, "own"))}, {}


CASES = [
    pytest.param(
        endpoint, row, name, how, id=f"{endpoint.capability}-{row.name}-{name}"
    )
    for endpoint, row in PAIRS
    for table in [entry(endpoint, row)]
    for name, how in [
        *table["parameters"].items(),
        (UNKNOWN, table["other_parameters"]),
    ]
]


@pytest.mark.parametrize(("endpoint", "row", "name", "how"), CASES)
def test_published_is_what_a_request_does(endpoint, row, name, how):
    if name == "model":
        body, losses, path = sent(endpoint, row, {})
        assert MODEL not in body.values()
        assert losses == ()
        return
    members, without = sample_of(endpoint, row, name)
    top = name.partition(".")[0]
    if how == "refused":
        with pytest.raises(InvalidRequest) as caught:
            sent(endpoint, row, members)
        assert caught.value.status == 400
        assert row.name in caught.value.message
        assert caught.value.param
        assert top in caught.value.param or caught.value.param.startswith("messages[1]")
        return
    if how == "emulated" and name in BY_THE_GATEWAY:
        return
    body, losses, path = sent(endpoint, row, members)
    before, _, path_before = sent(endpoint, row, without)
    if how == "dropped":
        (loss,) = losses
        assert loss.startswith((top, "messages[1]"))
        if "." not in name and not loss.startswith("messages"):
            assert body == before
    elif how == "passed" and "." not in name and name != "image_url":
        assert losses == ()
        assert body[name] == as_sent(endpoint, members[name])
    else:
        assert losses == ()
        assert (body, path) != (before, path_before)


def as_sent(endpoint, value):
    """Return *value* as the provider gets it if it passes; forms are of texts."""
    return str(value) if "file" in LEAST[endpoint.capability] else value


@pytest.mark.parametrize(
    ("endpoint", "row"),
    [pytest.param(*pair, id=f"{pair[0].capability}-{pair[1].name}") for pair in PAIRS],
)
def test_parameter_that_is_not_published_is_one_of_the_others(endpoint, row):
    table = entry(endpoint, row)
    names = OTHERS.get(endpoint.capability) or parameters_for("anthropic")
    for name in names:
        if name in table["parameters"] or "." in name:
            continue
        members, _ = sample_of(endpoint, row, name)
        body, losses, _ = sent(endpoint, row, members)
        if table["other_parameters"] == "passed":
            assert losses == ()
            assert body[name] == as_sent(endpoint, members[name])
        else:
            assert losses == (name,)
            assert name not in body
