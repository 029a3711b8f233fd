"""Whatever a request says is in the vendor's body, or named as lost: read from outside.

Every text and every number of a request is its own, so that it can be looked for in
what goes out. What is not there must lie under a path that the report names.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.protocol.dialects.strategies import changed, optional, parsed
from tz_protocol.dialects.anthropic import ANTHROPIC
from tz_protocol.dialects.bedrock import BEDROCK
from tz_protocol.dialects.cohere import COHERE_CHAT
from tz_protocol.dialects.gemini import GEMINI, VERTEX_GEMINI
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.dialects.openai_chat_messages import CLOSED_MESSAGES, SHORT_IDS
from tz_protocol.dialects.vertex_anthropic import VERTEX_ANTHROPIC
from tz_protocol.errors import InvalidRequest
from tz_protocol.types.chat import ChatRequest
from tz_protocol.types.http import RequestHead
from tz_protocol.types.request import Target

assert OPENAI_CHAT.adapted is not None

VENDORS: dict[str, tuple[Any, str]] = {
    "anthropic, budgets": (ANTHROPIC, "claude-sonnet-4-5"),
    "anthropic, adaptive": (ANTHROPIC, "claude-opus-4-6"),
    "anthropic, old": (ANTHROPIC, "claude-3-5-haiku-20241022"),
    "vertex anthropic": (VERTEX_ANTHROPIC, "claude-sonnet-4-5"),
    "bedrock, budgets": (BEDROCK, "anthropic.claude-sonnet-4-5-v1:0"),
    "bedrock, adaptive": (BEDROCK, "anthropic.claude-opus-4-6-v1"),
    "bedrock, nova": (BEDROCK, "amazon.nova-2-lite-v1:0"),
    "bedrock, unknown": (BEDROCK, "arn:aws:bedrock:x"),
    "gemini 2.5": (GEMINI, "gemini-2.5-flash"),
    "gemini 3": (GEMINI, "gemini-3-pro-preview"),
    "vertex gemini": (VERTEX_GEMINI, "gemini-2.5-flash"),
    "cohere, thinks": (COHERE_CHAT, "command-a-reasoning"),
    "cohere, old": (COHERE_CHAT, "command-r"),
    "mistral": (
        OPENAI_CHAT.adapted(frozenset({CLOSED_MESSAGES, SHORT_IDS})),
        "mistral-large",
    ),
}
PLACE = {"project_id": "p", "location": "l"}
OPTIONS = {**PLACE, "on_unsupported_param": "warn"}

# -- requests -------------------------------------------------------------------

TEXT = object()
"""Stands for a text of its own."""
BYTES = object()
"""Stands for base64 of its own."""
WHOLE = object()
"""Stands for a whole number of its own."""
PART = object()
"""Stands for a number between 0.9 and 1 of its own."""


def told_apart(value, counter):
    """Return *value* with something of its own for all that stands for it."""
    if isinstance(value, dict):
        return {name: told_apart(one, counter) for name, one in value.items()}
    if isinstance(value, list):
        return [told_apart(one, counter) for one in value]
    if isinstance(value, str) and "{}" in value:
        data = b64encode(f"%PDF{next(counter):04}".encode()).decode()
        return value.replace("{}", data)
    if value is TEXT:
        return f"w{next(counter):04}w"
    if value is BYTES:
        return b64encode(f"byte{next(counter):05}".encode()).decode()
    if value is WHOLE:
        return 30_000 + next(counter)
    if value is PART:
        return round(0.9 + next(counter) / 10_000, 4)
    return value


def objects(required, *members):
    return st.tuples(*members).map(
        lambda found: {**required, **{k: v for one in found for k, v in one.items()}}
    )


def just(name, value):
    return optional(name, st.just(value))


CACHE = just("cache_control", {"type": "ephemeral"})
TEXT_PART = objects({"type": "text", "text": TEXT}, CACHE)
IMAGE = st.sampled_from(
    ["https://e.org/{}.png", "data:image/png;base64,{}", "data:image/tiff;base64,{}"]
).flatmap(
    lambda url: objects(
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}}, CACHE
    )
)
FILE = st.sampled_from(
    ["data:application/pdf;base64,{}", "data:image/png;base64,{}", "https://e.org/{}"]
).map(
    lambda data: {"type": "file", "file": {"filename": TEXT, "file_data": data}}
) | st.just({"type": "file", "file": {"file_id": TEXT}})
AUDIO = st.just(
    {"type": "input_audio", "input_audio": {"format": "wav", "data": BYTES}}
)
UNKNOWN = st.just({"type": "video_url", "video_url": {"url": TEXT}})
PARTS = st.lists(TEXT_PART | IMAGE | FILE | AUDIO | UNKNOWN, min_size=1, max_size=3)

SYSTEM = objects(
    {}, st.sampled_from([{"role": "system"}, {"role": "developer"}]), just("name", TEXT)
).flatmap(
    lambda head: st.sampled_from([TEXT, [{"type": "text", "text": TEXT}]]).map(
        lambda content: {**head, "content": content}
    )
)
USER = objects(
    {"role": "user"},
    (st.just(TEXT) | PARTS).map(lambda content: {"content": content}),
    just("name", TEXT),
)
SEALS = st.sampled_from(
    [
        {"type": "reasoning.text", "text": TEXT, "signature": BYTES, "format": name}
        for name in ("anthropic-claude-v1", "google-gemini-v1", "other-v1")
    ]
    + [{"type": "reasoning.encrypted", "data": BYTES, "format": "anthropic-claude-v1"}]
)
SAID = (
    just("name", TEXT),
    just("refusal", TEXT),
    just("annotations", [{"type": "file", "file": {"name": TEXT}}]),
    just("audio", {"id": TEXT}),
    just(
        "provider_content",
        [{"dialect": "other", "type": "x", "value": {"type": "x", "y": TEXT}}],
    ),
    just("reasoning_content", TEXT)
    | optional("reasoning_details", st.lists(SEALS, min_size=1, max_size=2)),
    just("something", TEXT),
)
ASSISTANT = objects({"role": "assistant", "content": TEXT}, *SAID)


@st.composite
def loops(draw):
    """Parallel calls and their results."""
    numbers = draw(st.lists(st.integers(0, 99), min_size=1, max_size=2, unique=True))
    calls, results = [], []
    for number in numbers:
        call_id = f"call_{number}"
        calls.append(
            {
                "id": call_id,
                "type": "function",
                "function": {"name": TEXT, "arguments": '{"a":"{}"}'},
            }
        )
        content = draw(st.just(TEXT) | st.lists(TEXT_PART | IMAGE, min_size=1))
        result = {"role": "tool", "tool_call_id": call_id, "content": content}
        results.append({**result, **draw(just("something", TEXT))})
    head = draw(objects({"role": "assistant", "content": None}, *SAID))
    return [{**head, "tool_calls": calls}, *results]


SCHEMA = {"type": "object", "properties": {"a": {"description": TEXT}}}
PARAMETERS = objects(
    {},
    just("temperature", PART),
    just("top_p", PART),
    just("top_k", WHOLE),
    just("max_tokens", WHOLE),
    just("max_completion_tokens", WHOLE),
    just("stop", [TEXT, TEXT]),
    just("seed", WHOLE),
    just("frequency_penalty", PART),
    just("presence_penalty", PART),
    just("logit_bias", {"1": WHOLE}),
    just("top_logprobs", WHOLE),
    just("user", TEXT),
    just("safety_identifier", TEXT),
    just("metadata", {"a": TEXT}),
    just("prediction", {"type": "content", "content": TEXT}),
    just("prompt_cache_key", TEXT),
    just("something", {"a": TEXT}),
    just("reasoning", {"max_tokens": WHOLE, "exclude": TEXT})
    | just("reasoning", {"effort": "low", "max_tokens": WHOLE})
    | just("thinking", {"type": "enabled", "budget_tokens": WHOLE, "display": TEXT}),
    just("reasoning_effort", "low"),
    just(
        "response_format",
        {
            "type": "json_schema",
            "json_schema": {"name": "a", "description": TEXT, "schema": SCHEMA},
        },
    ),
    just(
        "tools",
        [
            {
                "type": "function",
                "function": {"name": TEXT, "description": TEXT, "parameters": SCHEMA},
                "something": TEXT,
            },
            {"type": "custom", "custom": {"name": TEXT}},
            {"type": "web_search_20250305", "name": TEXT},
        ],
    ),
)


@st.composite
def requests(draw):
    groups = draw(
        st.lists(
            (USER | ASSISTANT | SYSTEM).map(lambda message: [message]) | loops(),
            max_size=3,
        )
    )
    messages = [draw(USER), *itertools.chain.from_iterable(groups)]
    template = {"messages": messages, **draw(PARAMETERS)}
    return told_apart(template, itertools.count(1))


# -- what went out ---------------------------------------------------------------

_OWN = re.compile(r"w\d{4}w")


def leaves(value, path=""):
    """Return (path, what can be looked for) of every text and number of its own."""
    if isinstance(value, dict):
        for name, child in value.items():
            yield from leaves(child, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from leaves(child, f"{path}[{index}]")
    elif isinstance(value, str):
        for part in re.split(r"[,/.\"{}:]", value):
            if _OWN.fullmatch(part) or (len(part) >= 12 and part.isalnum()):
                yield path, part
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, str(value)


def is_said(mark, out):
    """Return whether *out* holds *mark*; Bedrock puts seals into base64 once more."""
    return mark in out or b64encode(mark.encode()).decode() in out


_THOUGHT = re.compile(r"^(messages\[\d+\])\.reasoning\w*.*")


def is_named(path, losses):
    """Return whether one of *losses* is about what is at *path*."""
    thought = _THOUGHT.sub(r"\1.reasoning_content", path)
    for loss in losses:
        for one in (path, thought):
            if one == loss or one.startswith((f"{loss}.", f"{loss}[")):
                return True
            # The only text of a message is its only part.
            if loss.startswith(f"{one}["):
                return True
    return False


@pytest.mark.parametrize("vendor", VENDORS)
@given(body=requests())
def test_what_a_request_says_is_said_or_named(vendor, body):
    dialect, model = VENDORS[vendor]
    target = Target(provider="acme", model=model, options=OPTIONS)
    request: Any = parsed(body)
    if vendor == "mistral":
        request = ChatRequest(model="m", fields=request.fields)
    try:
        rendered, losses = dialect.render_request(request, target)
    except InvalidRequest as error:
        # Nothing but what the vendor has no word for.
        assume(error.param != "messages")
        raise
    out = json.dumps(json.loads(rendered.body))
    missing = [
        (path, mark)
        for path, mark in leaves(body)
        if not is_said(mark, out) and not is_named(path, losses)
    ]
    assert not missing, losses


# -- requests that are not what they should be ----------------------------------

ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, 0, -1, 1.5, 1e300, 10**30, "", "x", " ", "\0", [], {}, [None]),
        *([[]], [{}], {"type": "text"}, {"a": None}, "none", "auto", "enabled"),
        *("data:image/png;base64,!!", "data:,x", "http://", "s3://b/k.png", "gs://x"),
        *("assistant", "developer", "function", "tool", {"type": "ephemeral"}),
        [{"type": "text", "text": ""}],
        [{"type": "text", "text": " "}],
        [{"type": "image_url", "image_url": {"url": ""}}],
    ]
)
HEAD = RequestHead(method="POST", path="/v1/chat/completions")


@pytest.mark.parametrize("vendor", VENDORS)
@given(
    body=requests().flatmap(lambda body: changed(body, ODD)),
    policy=st.sampled_from(["error", "warn", "drop", None]),
)
def test_request_with_anything_in_it_is_said_or_refused(vendor, body, policy):
    dialect, model = VENDORS[vendor]
    options = {**OPTIONS, "on_unsupported_param": policy} if policy else PLACE
    target = Target(provider="acme", model=model, options=options)
    data = json.dumps({"model": "m", **body}).encode()
    with contextlib.suppress(InvalidRequest):
        request = OPENAI_CHAT.parse_request(data, HEAD)
        rendered, losses = dialect.render_request(request, target)
        assert isinstance(json.loads(rendered.body), dict)
        assert losses == tuple(sorted(set(losses)))
        assert not losses or policy not in ("drop", "error")
