"""Every endpoint with every provider that has its capability: rows, not names.

A new row is tested here without being mentioned. A new *format* needs a sample below,
and every pair it occurs in fails until it has one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

import msgspec
import pytest
from msgspec import Raw

from tests.protocol.dialects.eventstreams import event
from tests.protocol.flows.serving import Served, header
from tz_protocol.endpoints import ENDPOINTS, routes
from tz_protocol.errors import UpstreamRefused
from tz_protocol.providers import ROWS
from tz_protocol.testing import reply
from tz_protocol.types.http import RequestHead, ResponseHead
from tz_protocol.types.request import Target
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import (
    Credential,
    Model,
    ProviderSettings,
    Snapshot,
    Url,
)
from tz_protocol.wire.multipart import boundary_of, parse_multipart

KEY = "sk-registry-canary"
MODEL = "m"
"""The public name in every sample of a request."""
UPSTREAM_MODEL = "good"
"""The name at the provider; the dummy answers to it."""
UPSTREAM_MODELS = {("aws_bedrock", "embedding"): "amazon.titan-embed-text-v2:0"}
"""The name at providers that take none but their own, by type and capability."""

JSON = "application/json"
EVENTS = "text/event-stream"
FRAMES = "application/vnd.amazon.eventstream"

# -- samples --------------------------------------------------------------------


@dataclass(frozen=True)
class Body:
    """One body and what it is."""

    content_type: str
    data: bytes
    status: int = 200


@dataclass(frozen=True)
class Stream:
    """One streamed answer, complete."""

    content_type: str
    events: tuple[bytes, ...]
    begun: int
    """How many of the events have content in them and do not complete it."""

    def body(self, count=None):
        """Return the stream, or its first *count* events."""
        return Body(self.content_type, b"".join(self.events[:count]))


@dataclass(frozen=True)
class Sample:
    """The least that one format can say. Requests name the model ``m``."""

    request: Body | None = None
    """None for a format that no client speaks."""
    stream_request: Body | None = None
    """None if it has no streams, or if every answer is one."""
    answer: Body = field(kw_only=True)
    stream: Stream | None = None
    """None if it has no streams."""
    error: Body = field(kw_only=True)
    """A refusal, with the message ``No way.``"""


def as_json(value, status=200):
    return Body(JSON, json.dumps(value).encode(), status)


def as_events(*values, begun=1, named=False):
    pieces = []
    for value in values:
        name = f"event: {value['type']}\n" if named else ""
        data = value if isinstance(value, str) else json.dumps(value)
        pieces.append(f"{name}data: {data}\n\n".encode())
    return Stream(EVENTS, tuple(pieces), begun)


def as_frames(*pairs, begun=1):
    """Return a stream in AWS's framing; each pair is an event's name and payload."""
    return Stream(FRAMES, tuple(event(*pair) for pair in pairs), begun)


def as_form(**fields):
    pieces = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    file = (
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        "\r\nRIFF\r\n--b--\r\n"
    )
    return Body("multipart/form-data; boundary=b", "".join((*pieces, file)).encode())


OPENAI_ERROR = as_json({"error": {"message": "No way.", "type": "t"}}, 400)
GOOGLE_ERROR = as_json(
    {"error": {"code": 400, "message": "No way.", "status": "INVALID_ARGUMENT"}}, 400
)
AWS_ERROR = as_json({"message": "No way."}, 400)

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "Hello"}}
CHUNK = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "x"}
SPEECH = {"model": MODEL, "input": "Hi", "voice": "alloy"}
CLAUDE = {"id": "1", "type": "message", "role": "assistant", "model": "x"}
GEMINI_PART = {"role": "model", "parts": [{"text": "Hello"}]}
GEMINI = {
    "candidates": [{"index": 0, "content": GEMINI_PART, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 1, "totalTokenCount": 1},
}

OPENAI_SAMPLES = {
    "openai_chat": Sample(
        request=as_json(CHAT),
        stream_request=as_json({**CHAT, "stream": True}),
        answer=as_json(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": "x",
                "choices": [{**CHOICE, "finish_reason": "stop"}],
            }
        ),
        stream=as_events(
            {**CHUNK, "choices": [{"index": 0, "delta": {"content": "Hello"}}]},
            {**CHUNK, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            "[DONE]",
        ),
        error=OPENAI_ERROR,
    ),
    "openai_embeddings": Sample(
        request=as_json({"model": MODEL, "input": "Hi"}),
        answer=as_json(
            {
                "object": "list",
                "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
                "model": "x",
            }
        ),
        error=OPENAI_ERROR,
    ),
    "openai_moderations": Sample(
        request=as_json({"model": MODEL, "input": "Hi"}),
        answer=as_json({"id": "1", "model": "x", "results": [{"flagged": False}]}),
        error=OPENAI_ERROR,
    ),
    "openai_transcription": Sample(
        request=as_form(model=MODEL),
        stream_request=as_form(model=MODEL, stream="true"),
        answer=as_json({"text": "Hi"}),
        stream=as_events(
            {"type": "transcript.text.delta", "delta": "Hi"},
            {"type": "transcript.text.done", "text": "Hi"},
        ),
        error=OPENAI_ERROR,
    ),
    "openai_speech": Sample(
        request=as_json(SPEECH),
        stream_request=as_json({**SPEECH, "stream_format": "sse"}),
        answer=Body("audio/mpeg", b"ID3"),
        stream=as_events(
            {"type": "speech.audio.delta", "audio": "AAAA"},
            {"type": "speech.audio.done"},
        ),
        error=OPENAI_ERROR,
    ),
}

OTHER_SAMPLES = {
    "anthropic": Sample(
        answer=as_json(
            {
                **CLAUDE,
                "content": [{"type": "text", "text": "Hello"}],
                "stop_reason": "end_turn",
                "usage": {"input_tokens": 1, "output_tokens": 1},
            }
        ),
        stream=as_events(
            {
                "type": "message_start",
                "message": {
                    **CLAUDE,
                    "content": [],
                    "usage": {"input_tokens": 1, "output_tokens": 1},
                },
            },
            {
                "type": "content_block_start",
                "index": 0,
                "content_block": {"type": "text", "text": ""},
            },
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": "Hello"},
            },
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn"},
                "usage": {"output_tokens": 1},
            },
            {"type": "message_stop"},
            begun=3,
            named=True,
        ),
        error=as_json(
            {
                "type": "error",
                "error": {"type": "invalid_request_error", "message": "No way."},
            },
            400,
        ),
    ),
    "mistral_moderations": Sample(
        answer=as_json(
            {
                "id": "1",
                "model": "x",
                "results": [
                    {"categories": {"pii": True}, "category_scores": {"pii": 0.9}}
                ],
            }
        ),
        error=OPENAI_ERROR,
    ),
    "cohere": Sample(
        answer=as_json(
            {
                "id": "1",
                "message": {"content": [{"type": "text", "text": "Hello"}]},
                "finish_reason": "COMPLETE",
            }
        ),
        stream=as_events(
            {"type": "message-start", "id": "1"},
            {
                "type": "content-delta",
                "index": 0,
                "delta": {"message": {"content": {"text": "Hello"}}},
            },
            {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}},
            begun=2,
            named=True,
        ),
        error=as_json({"message": "No way."}, 400),
    ),
    "cohere_embeddings": Sample(
        answer=as_json({"id": "1", "embeddings": {"float": [[0.5]]}}),
        error=as_json({"message": "No way."}, 400),
    ),
    "gemini": Sample(
        answer=as_json(GEMINI),
        stream=as_events(
            {"candidates": [{"index": 0, "content": GEMINI_PART}]},
            {"candidates": [{"index": 0, "finishReason": "STOP"}]},
        ),
        error=GOOGLE_ERROR,
    ),
    "gemini_embeddings": Sample(
        answer=as_json({"embeddings": [{"values": [0.5]}]}), error=GOOGLE_ERROR
    ),
    "vertex_embeddings": Sample(
        answer=as_json({"predictions": [{"embeddings": {"values": [0.5]}}]}),
        error=GOOGLE_ERROR,
    ),
    "bedrock": Sample(
        answer=as_json(
            {
                "output": {
                    "message": {"role": "assistant", "content": [{"text": "Hello"}]}
                },
                "stopReason": "end_turn",
                "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2},
            }
        ),
        stream=as_frames(
            ("messageStart", {"role": "assistant"}),
            ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hi"}}),
            ("contentBlockStop", {"contentBlockIndex": 0}),
            ("messageStop", {"stopReason": "end_turn"}),
            ("metadata", {"usage": {"inputTokens": 1, "outputTokens": 1}}),
            begun=2,
        ),
        error=AWS_ERROR,
    ),
    "bedrock_embeddings": Sample(
        answer=as_json({"embedding": [0.5], "inputTextTokenCount": 1}),
        error=AWS_ERROR,
    ),
}


def in_frames(stream):
    """Return *stream* as SageMaker sends it, a piece of the container's an event."""
    return as_frames(*(("PayloadPart", piece) for piece in stream.events))


SAMPLES = {
    **OPENAI_SAMPLES,
    **OTHER_SAMPLES,
    # formats within another one's envelope, or at another one's address
    "vertex_gemini": OTHER_SAMPLES["gemini"],
    "vertex_anthropic": OTHER_SAMPLES["anthropic"],
    "aws_sagemaker": Sample(
        answer=OPENAI_SAMPLES["openai_chat"].answer,
        stream=in_frames(OPENAI_SAMPLES["openai_chat"].stream),
        error=AWS_ERROR,
    ),
}
"""By the dialect's name."""


def sample(dialect):
    """Return the sample of a format; a format without one fails."""
    found = SAMPLES.get(dialect.name)
    assert found is not None, f"add a sample of the format {dialect.name!r}"
    return found


def client_request(endpoint, *, stream=False):
    """Return the least request of a client."""
    found = sample(endpoint.dialect)
    body = found.stream_request if stream else found.request
    what = "streamed request" if stream else "request"
    assert body is not None, f"add a {what} in the format {endpoint.dialect.name!r}"
    return body


# -- pairs ----------------------------------------------------------------------

PAIRS = [
    (endpoint, row)
    for endpoint in ENDPOINTS
    for row in ROWS
    if endpoint.capability in row.dialects
]


def is_streaming(endpoint, row):
    """Return whether both sides have streams."""
    dialects = endpoint.dialect, row.dialects[endpoint.capability]
    return dialects[0].stream_encoder is not None and (
        dialects[1].stream_decoder is not None
    )


def pairs(condition=lambda endpoint, row: True):
    return pytest.mark.parametrize(
        ("endpoint", "row"),
        [
            pytest.param(endpoint, row, id=f"{endpoint.route}-{row.name}")
            for endpoint, row in PAIRS
            if condition(endpoint, row)
        ],
    )


def is_remote(endpoint, row):
    """Return whether the provider is asked over a connection."""
    return row.responder is None


def is_streaming_remote(endpoint, row):
    return is_remote(endpoint, row) and is_streaming(endpoint, row)


def options_of(row):
    """Return something for each key that the provider's table must have."""
    wanted = {key: f"the-{key}" for key in row.required if key not in PLACED}
    return {**wanted, **{key: WORDS[key] for key in WORDS.keys() & wanted.keys()}}


def model_of(endpoint, row):
    """Return a name of a model that the provider takes."""
    return UPSTREAM_MODELS.get((row.name, endpoint.capability), UPSTREAM_MODEL)


PLACED = ("model_name", "api_base")
"""Keys that have fields of their own in the settings."""

WORDS = {"hosted_provider": "openai"}
"""Options of which not every word is taken."""

EXTRA = {"x_extra": Raw(b'"given"')}


def ask(endpoint, row, answer=None, *, stream=False):
    """Return (what a client gets, the run) of a gateway with one provider of *row*."""
    settings = ProviderSettings(
        name="only",
        type=row.name,
        model=model_of(endpoint, row),
        url=Url("http", "a.test", 80, "/b/") if row.responder is None else None,
        credential=Credential("static", Secret(KEY)),
        options=options_of(row),
        extra_body=EXTRA,
    )
    model = Model(
        name=MODEL,
        capabilities=frozenset({endpoint.capability}),
        routing=("only",),
        providers={"only": settings},
    )
    answer = answer or Body(JSON, b"{}")
    served = Served(
        [reply(answer.status, (("content-type", answer.content_type),), answer.data)],
        config=Snapshot(models={MODEL: model}),
        repeat=True,
    )
    body = client_request(endpoint, stream=stream)
    method, _, path = endpoint.route.partition(" ")
    outcome = served.ask(
        body.data,
        path=path,
        method=method,
        headers=(("content-type", body.content_type),),
    )
    if outcome.error is not None:
        raise outcome.error
    return outcome, served


# -- the tables -----------------------------------------------------------------


def test_route_is_a_method_and_a_path_and_unique():
    found = [endpoint.route for endpoint in ENDPOINTS]
    assert len(found) == len(set(found))
    assert all(re.fullmatch(r"[A-Z]+ /v1(/[a-z_]+)+", route) for route in found)
    table = routes(ENDPOINTS)
    assert sum(len(methods) for methods in table.values()) == 2 * len(found)


def test_route_twice_is_refused():
    with pytest.raises(ValueError, match="two endpoints have the route"):
        routes((*ENDPOINTS, ENDPOINTS[0]))


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.route)
def test_capability_has_a_provider_besides_the_dummy(endpoint):
    names = [row.name for each, row in PAIRS if each is endpoint]
    assert set(names) - {"dummy"}, f"nobody can do {endpoint.capability}"
    assert "dummy" in names, f"the dummy cannot do {endpoint.capability}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_capability_has_an_endpoint(row):
    unreachable = set(row.dialects) - {endpoint.capability for endpoint in ENDPOINTS}
    assert not unreachable


def test_dialects_with_the_same_name_are_the_same():
    every = [endpoint.dialect for endpoint in ENDPOINTS]
    every += [dialect for row in ROWS for dialect in row.dialects.values()]
    named = {dialect.name: dialect for dialect in every}
    assert all(named[dialect.name] is dialect for dialect in every)
    assert named.keys() <= SAMPLES.keys()


@pairs()
def test_dialect_has_both_halves_of_a_stream_or_none(endpoint, row):
    dialect = endpoint.dialect
    assert (dialect.stream_encoder is None) is (dialect.stream_decoder is None)
    found = sample(row.dialects[endpoint.capability])
    has_decoder = row.dialects[endpoint.capability].stream_decoder is not None
    assert (found.stream is not None) is has_decoder


# -- to a provider --------------------------------------------------------------


@pairs()
def test_request_is_rendered_for_the_provider(endpoint, row):
    body = client_request(endpoint)
    head = RequestHead(
        method="POST", path="/", headers=(("content-type", body.content_type),)
    )
    parsed = endpoint.dialect.parse_request(body.data, head)
    assert parsed.model == MODEL
    target = Target(
        provider=row.name,
        model=model_of(endpoint, row),
        options=options_of(row),
        renames=dict(row.deviations.renames),
        unsupported=row.deviations.unsupported,
        implied=dict(row.deviations.implied),
    )
    dialect = row.dialects[endpoint.capability]
    request, losses = dialect.render_request(parsed, target)
    assert losses == ()
    assert request.body
    assert re.fullmatch(r"[\w.:%~-]+(/[\w.:%~-]+)*(\?\S+)?", request.path)
    names = [name for name, _ in request.headers]
    authorization = row.authorize(request, Secret(KEY), 1_750_000_000.0)
    names += [name for name, _ in authorization]
    assert names.count("content-type") == 1
    assert len(names) == len(set(names))
    assert all(name == name.lower() for name in names)


@pairs(is_remote)
def test_request_reaches_the_provider_once_with_its_key(endpoint, row):
    answer = sample(row.dialects[endpoint.capability]).answer
    _, served = ask(endpoint, row, answer)
    ((_, _, message),) = served.sim.requests
    assert message.method == "POST"
    assert message.target.startswith("/b/")
    assert not re.search(r"//|\.\.|[{}]", message.target)
    names = [name for name, _ in message.headers]
    assert len(names) == len(set(names))
    values = " ".join(value for _, value in message.headers)
    assert values.count(KEY) == 1
    assert KEY not in message.target
    assert message.body
    assert KEY.encode() not in message.body
    assert b"tensorzero" not in message.body


@pairs(is_remote)
def test_request_has_what_the_config_adds(endpoint, row):
    answer = sample(row.dialects[endpoint.capability]).answer
    _, served = ask(endpoint, row, answer)
    ((_, _, message),) = served.sim.requests
    content_type = message.get("content-type") or ""
    if content_type.startswith("multipart/"):
        parts = parse_multipart(message.body, boundary_of(content_type))
        added = {part.name: bytes(part.data).decode() for part in parts}
    else:
        added = msgspec.json.decode(message.body)
    assert added["x_extra"] == "given"


# -- to a client ----------------------------------------------------------------


@pairs()
def test_answer_reaches_the_client(endpoint, row):
    answer = sample(row.dialects[endpoint.capability]).answer
    outcome, served = ask(endpoint, row, answer)
    assert outcome.response.head.status == 200, outcome.response.body
    assert outcome.response.body
    assert header(outcome, "x-tz-provider") == "only"
    content_type = header(outcome, "content-type") or ""
    if content_type.startswith(JSON):
        value = msgspec.json.decode(outcome.response.body)
        assert value.get("model", MODEL) == MODEL
        assert "error" not in value
    else:
        assert content_type.startswith(("audio/", "text/"))
    assert served.record.outcome == "ok"
    assert served.record.attempts[0].error is None


@pairs(is_streaming)
def test_stream_reaches_the_client(endpoint, row):
    stream = sample(row.dialects[endpoint.capability]).stream
    outcome, served = ask(endpoint, row, stream.body(), stream=True)
    assert outcome.response.head.status == 200, outcome.response.body
    assert (header(outcome, "content-type") or "").startswith(EVENTS)
    assert not outcome.response.is_aborted
    assert outcome.response.body.endswith(b"\n\n")
    assert b'"error"' not in outcome.response.body
    assert served.record.is_stream
    assert served.record.outcome == "ok"
    assert served.record.skipped_events == 0


@pairs(is_streaming_remote)
def test_stream_that_was_cut_is_not_complete(endpoint, row):
    stream = sample(row.dialects[endpoint.capability]).stream
    outcome, served = ask(endpoint, row, stream.body(stream.begun), stream=True)
    assert outcome.response.head.status == 200
    assert served.record.outcome == "partial"
    assert outcome.response.is_aborted or b'"error"' in outcome.response.body
    assert b"[DONE]" not in outcome.response.body


@pairs(is_streaming_remote)
def test_stream_without_content_is_a_failure(endpoint, row):
    outcome, served = ask(endpoint, row, Body(EVENTS, b""), stream=True)
    assert outcome.response.head.status == 502
    assert served.record.outcome == "error"


@pairs()
def test_error_is_what_the_provider_said(endpoint, row):
    dialect = row.dialects[endpoint.capability]
    error = sample(dialect).error
    head = ResponseHead(error.status, (("content-type", error.content_type),))
    parsed = dialect.parse_error(head, error.data)
    assert isinstance(parsed, UpstreamRefused)
    assert (parsed.status, parsed.message) == (400, "No way.")


@pairs(is_remote)
def test_error_reaches_the_client_in_its_format(endpoint, row):
    check_error(endpoint, row, stream=False)


@pairs(is_streaming_remote)
def test_error_instead_of_a_stream_reaches_the_client_in_its_format(endpoint, row):
    check_error(endpoint, row, stream=True)


def check_error(endpoint, row, *, stream):
    error = sample(row.dialects[endpoint.capability]).error
    outcome, served = ask(endpoint, row, error, stream=stream)
    assert outcome.response.head.status == 400
    assert (header(outcome, "content-type") or "").startswith(JSON)
    told = msgspec.json.decode(outcome.response.body)["error"]
    assert told.keys() >= {"message", "type", "param", "code"}
    assert "No way." in told["message"]
    assert served.record.outcome == "error"
    assert KEY.encode() not in outcome.response.body
