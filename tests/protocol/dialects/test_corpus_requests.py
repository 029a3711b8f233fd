"""Every recorded request, in every native dialect.

Requests in OpenAI's format are rendered for each vendor: what comes out is legal by the
vendor's description and by its own client's types, says what went in, and lacks nothing
that the loss report does not name. Requests in a vendor's own format are put into
OpenAI's first, and must come out as they were.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.protocol.dialects import request_opinions as opinions
from tests.protocol.dialects import request_readings as readings
from tests.protocol.dialects.aws_shapes import shape_faults
from tests.protocol.dialects.checking import faults, schema
from tests.protocol.dialects.gemini_reading import strange
from tests.protocol.dialects.recordings import (
    absent,
    every_recording,
    recordings,
    replay,
    without_chat,
)
from tests.protocol.dialects.strategies import parsed
from tests.protocol.dialects.test_cohere_requests import request_schema
from tz_protocol.dialects.anthropic import ANTHROPIC
from tz_protocol.dialects.bedrock import BEDROCK
from tz_protocol.dialects.cohere import COHERE_CHAT
from tz_protocol.dialects.gemini import GEMINI, VERTEX_GEMINI
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.dialects.openai_conversation import conversation_of
from tz_protocol.dialects.parameters import DEFAULTS
from tz_protocol.dialects.sagemaker import SAGEMAKER
from tz_protocol.dialects.vertex_anthropic import VERTEX_ANTHROPIC
from tz_protocol.errors import InvalidRequest
from tz_protocol.types.http import HttpRequest, RequestHead
from tz_protocol.types.request import Target

PLACE = {"project_id": "p", "location": "l"}

# -- the vendors ----------------------------------------------------------------


@dataclass(frozen=True)
class Vendor:
    """How requests to one vendor are made, read and judged."""

    dialect: Any
    model: str
    read: Callable[[dict[str, Any]], readings.Said]
    judges: tuple[Callable[[dict[str, Any]], list[str]], ...]
    options: dict[str, str] = field(default_factory=dict)

    def render(self, body: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return (the body that is sent, what is lost); nothing is refused for that."""
        rendered, losses = self.request(body)
        made = json.loads(rendered.body)
        if made.pop("anthropic_version", None) is not None:
            made["model"] = self.model  # Vertex has it in the address
        return made, losses

    def request(self, body: dict[str, Any]) -> tuple[HttpRequest, tuple[str, ...]]:
        options = {"on_unsupported_param": "warn", **self.options}
        target = Target(provider="vendor", model=self.model, options=options)
        found: tuple[HttpRequest, tuple[str, ...]]
        found = self.dialect.render_request(parsed(body), target)
        return found


def by_anthropic(body: dict[str, Any]) -> list[str]:
    return faults(schema("anthropic.yml", "CreateMessageParams"), body)


def by_aws(body: dict[str, Any]) -> list[str]:
    found = shape_faults("bedrock-runtime.json", "ConverseRequest", body)
    return [fault for fault in found if not fault.endswith(".modelId: missing")]


def by_cohere(body: dict[str, Any]) -> list[str]:
    return faults(request_schema(), body)


def by_google(body: dict[str, Any]) -> list[str]:
    return strange(body, "GenerateContentRequest")


CLAUDE = (by_anthropic, opinions.of_anthropic)
GOOGLE = (by_google, opinions.of_google)
VENDORS = {
    "anthropic": Vendor(
        ANTHROPIC, "claude-sonnet-4-5", readings.said_to_anthropic, CLAUDE
    ),
    "gcp_vertex_anthropic": Vendor(
        VERTEX_ANTHROPIC,
        "claude-sonnet-4-5@20250929",
        readings.said_to_anthropic,
        CLAUDE,
        PLACE,
    ),
    "google_ai_studio_gemini": Vendor(
        GEMINI, "gemini-2.5-flash", readings.said_to_gemini, GOOGLE
    ),
    "gcp_vertex_gemini": Vendor(
        VERTEX_GEMINI, "gemini-3-flash-preview", readings.said_to_gemini, GOOGLE, PLACE
    ),
    "aws_bedrock": Vendor(
        BEDROCK,
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        readings.said_to_bedrock,
        (by_aws, opinions.of_botocore),
    ),
    "cohere": Vendor(
        COHERE_CHAT,
        "command-a-reasoning-08-2025",
        readings.said_to_cohere,
        (by_cohere, opinions.of_cohere),
    ),
}


def judged(vendor: Vendor, made: dict[str, Any]) -> list[str]:
    return [fault for judge in vendor.judges for fault in judge(made)]


def is_wrong(body: dict[str, Any]) -> bool:
    """Return whether a request asks for what no vendor but its own has.

    Tools of a vendor's own are handed on, and so is what OpenAI refuses itself, such as
    a limit of no tokens: the vendor says that it has no such thing.
    """
    tools = body.get("tools") or ()
    kinds = {tool.get("type") for tool in tools}
    names = [str((tool.get("function") or {}).get("name", "a")) for tool in tools]
    limits = (body.get("max_tokens"), body.get("max_completion_tokens"))
    return (
        bool(kinds - {"function", "custom"})
        or not all(NAME.fullmatch(name) for name in names)
        or 0 in limits
        or not 0 <= (body.get("temperature") or 0) <= 2
    )


NAME = re.compile("[a-zA-Z0-9_-]{1,64}")
"""What OpenAI takes for the name of a function."""


# -- requests in OpenAI's format ------------------------------------------------


def spoken() -> list[Any]:
    """Return the requests for chats of whoever speaks OpenAI's format."""
    found = [
        pytest.param(recording, id=f"{provider}-{recording.id}")
        for provider, recording in every_recording()
        if recording.endpoint == "chat.completions"
    ]
    return found or absent("there are no recordings of OpenAI's format")


SILENT = {
    "stream": (False, True),  # said by the address, or by who asks for the answer
    "stream_options": ({"include_usage": True}, {"include_usage": False}),
    "stop": ([],),
    "response_format": ({"type": "text"},),
    "tool_choice": ("auto",),
    "function_call": ("auto",),
    "temperature": (1,),
    "top_p": (1,),
    "reasoning_effort": ("none",),
    "thinking": ({"type": "disabled"},),
    "service_tier": ("default",),
}
"""Values besides the table's that mean what their absence means, for some vendors."""


ABOUT_TOOLS = ("tools", "functions", "tool_choice", "parallel_tool_calls")


@replay(spoken(), without_chat)
def test_corpus_request_says_the_same_to_every_vendor_but_for_named_losses(recording):
    body = {k: v for k, v in recording.request.items() if k != "model"}
    expected = conversation_or_refusal(body)
    refused: dict[str, str | None] = {}
    for name, vendor in VENDORS.items():
        try:
            made, losses = vendor.render(body)
        except InvalidRequest as refusal:
            refused[name] = refusal.param
            continue
        assert expected is not None
        assert is_wrong(body) or not judged(vendor, made), name
        assert vendor.read(made) == readings.said_by(expected.messages, losses), name
        assert not unnamed(vendor, body, made, losses), name
    assert all(refused.values()), "a refusal does not name what it refuses"


def conversation_or_refusal(body: dict[str, Any]) -> Any:
    try:
        return conversation_of(parsed(body))
    except InvalidRequest:
        return None


def unnamed(
    vendor: Vendor, body: dict[str, Any], made: dict[str, Any], losses: tuple[str, ...]
) -> list[str]:
    """Return the members that might as well not have been said, and are not named."""
    found = []
    for name, value in body.items():
        if name == "messages" or value is None or value in SILENT.get(name, ()):
            continue
        encoded = json.dumps(value, separators=(",", ":")).encode()
        if encoded in DEFAULTS.get(name, ()):
            continue
        if any(loss.partition(".")[0].partition("[")[0] == name for loss in losses):
            continue
        choices = (body.get("tool_choice"), body.get("function_call"))
        if name in ABOUT_TOOLS and ("none" in choices or not body.get("tools")):
            continue  # what may not be called need not be declared
        if choices[0] == "required" and "response_format" in body:
            continue  # the format may be a tool that is required anyhow
        if isinstance(choices[0], dict) and name == "response_format":
            continue  # the answer is the call of the tool that is chosen
        if name == "max_completion_tokens" and body.get("max_tokens") is not None:
            continue  # OpenAI takes only one of them
        if name == "top_logprobs" and not body.get("logprobs"):
            continue  # without which OpenAI does not take it
        if name == "thinking" and "reasoning_effort" in body:
            continue  # which says how much
        if name == "reasoning_effort" and "thinking" in body:
            continue
        rest = {key: one for key, one in body.items() if key != name}
        try:
            without, _ = vendor.render(rest)
            # Several answers may take several requests, which are alike.
            others = [len(vendor.request(one)[0].others) for one in (rest, body)]
        except InvalidRequest:
            continue
        if without == made and others[0] == others[1]:
            found.append(name)
    return found


def without_messages(recording: Any) -> str | None:
    """Say why a recording has no request that a container could be sent."""
    if (reason := without_chat(recording)) is not None:
        return reason
    return None if recording.request["messages"] else "a request without a message"


@replay(spoken(), without_messages)
def test_corpus_request_reaches_a_container_at_sagemaker_as_it_was_said(recording):
    body = {**recording.request, "model": "m"}
    head = RequestHead(method="POST", path="/v1/chat/completions")
    try:
        request = OPENAI_CHAT.parse_request(json.dumps(body).encode(), head)
    except InvalidRequest as refusal:
        request, param = None, refusal.param
    if request is None:
        assert param, "a refusal does not name what it refuses"
        return
    options = {"endpoint_name": "e", "hosted_provider": "tgi"}
    target = Target(provider="aws_sagemaker", model="m", options=options)
    rendered, losses = SAGEMAKER.render_request(request, target)
    made = json.loads(rendered.body)
    assert losses == ()
    judge = schema("tgi.json", "ChatRequest")
    assert not faults(judge, made) or faults(judge, body)
    # The limit of tokens has two names, and usage is asked for with every stream.
    loose = {"max_tokens", "max_completion_tokens", "stream_options"}
    assert {k: v for k, v in made.items() if k not in loose} == {
        k: v for k, v in body.items() if k not in loose
    }
    assert limit_of(made) == limit_of(body)


def limit_of(body: dict[str, Any]) -> set[Any]:
    return {body.get("max_tokens"), body.get("max_completion_tokens")} - {None}


# -- requests in a vendor's own format ------------------------------------------

NATIVE = {
    "anthropic": ("messages",),
    "gcp_vertex_anthropic": ("rawPredict", "streamRawPredict"),
    "google_ai_studio_gemini": ("generateContent", "streamGenerateContent"),
    "gcp_vertex_gemini": ("generateContent", "streamGenerateContent"),
    "aws_bedrock": ("converse", "converse-stream"),
    "cohere": ("cohere.chat.v2",),
}
KINDS = {
    "iVBORw0KGgo": "image/png",
    "/9j/": "image/jpeg",
    "R0lGOD": "image/gif",
    "UklGR": "image/webp",
}
"""Beginnings of pictures in base64."""


def translated(recording: Any, vendor: Vendor) -> list[dict[str, Any]] | None:
    """Return a vendor's request as messages in OpenAI's format, None if it is none."""
    try:
        system, turns = vendor.read(recording.request)
    except (LookupError, TypeError, ValueError, InvalidRequest, StopIteration):
        return None
    made: list[dict[str, Any]] = []
    made += [{"role": "system", "content": text} for text in system]
    number = 0
    for role, pieces in turns:
        message: dict[str, Any] = {"role": role, "content": []}
        for piece in pieces:
            if piece[0] == "result":
                if not isinstance(piece[1], int):
                    return None  # of a call that is not there
                call_id = f"call_{piece[1]}"
                result = {"tool_call_id": call_id, "content": piece[2]}
                made.append({"role": "tool", **result})
            elif piece[0] == "call":
                function = {"name": piece[1], "arguments": json.dumps(piece[2])}
                call = {"id": f"call_{number}", "type": "function"}
                calls = message.setdefault("tool_calls", [])
                calls.append({**call, "function": function})
                number += 1
            elif (part := part_of(piece)) is not None and role == "user":
                message["content"].append(part)
            elif piece[0] == "text":
                message["content"].append({"type": "text", "text": piece[1]})
            else:
                return None
        if not message["content"]:
            message["content"] = None
        if message["content"] or "tool_calls" in message:
            made.append(message)
    return made


def part_of(piece: tuple[Any, ...]) -> dict[str, Any] | None:
    if piece[0] == "text":
        return {"type": "text", "text": piece[1]}
    if piece[0] == "data":
        for start, kind in KINDS.items():
            if piece[1].startswith(start):
                url = f"data:{kind};base64,{piece[1]}"
                return {"type": "image_url", "image_url": {"url": url}}
        if piece[1].startswith("JVBERi0"):
            data = f"data:application/pdf;base64,{piece[1]}"
            return {"type": "file", "file": {"file_data": data}}
    if piece[0] == "link" and piece[1].endswith((".png", ".jpg", ".jpeg")):
        return {"type": "image_url", "image_url": {"url": piece[1]}}
    return None


def natives(provider: str) -> Callable[[Any], str | None]:
    """Return what says why a request of *provider* is none for OpenAI's format."""

    def unless(recording: Any) -> str | None:
        if not isinstance(recording.request, dict):
            return "no request was recorded"
        if recording.head.status != 200:
            return "no request that the vendor accepted"
        if translated(recording, VENDORS[provider]) is None:
            return "the request holds what only this vendor can say"
        return None

    return unless


def native_test(provider: str) -> Any:
    """Return the test of the requests that *provider* itself was sent."""
    vendor = VENDORS[provider]

    def test(recording):
        messages = translated(recording, vendor)
        made, losses = vendor.render({"messages": messages})
        assert [loss for loss in losses if not loss.endswith(".role")] == []
        assert not judged(vendor, made)
        assert vendor.read(made) == vendor.read(recording.request)

    return replay(recordings(provider, *NATIVE[provider]), natives(provider))(test)


test_corpus_anthropic_request_comes_back = native_test("anthropic")
test_corpus_vertex_anthropic_request_comes_back = native_test("gcp_vertex_anthropic")
test_corpus_gemini_request_comes_back = native_test("google_ai_studio_gemini")
test_corpus_vertex_gemini_request_comes_back = native_test("gcp_vertex_gemini")
test_corpus_bedrock_request_comes_back = native_test("aws_bedrock")
test_corpus_cohere_request_comes_back = native_test("cohere")
