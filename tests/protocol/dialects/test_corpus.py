"""Every recorded answer of every provider, replayed.

``TZ_CORPUS=DIR pytest -k corpus`` takes other recordings. For each: the answer is read
and rendered in OpenAI's format; what is rendered is legal there, says what the vendor's
own client makes of the same bytes (by hand where it cannot read them), whole and
streamed alike, and does not depend on where the bytes were cut. Errors included. The
table at the end counts by provider, and who read.
"""

from __future__ import annotations

import itertools
import json
import random
import zlib
from collections import Counter, defaultdict
from functools import cache
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.protocol.dialects.checking import (
    collected,
    comparable,
    decoded,
    decoder_of,
    faults,
    whole_object,
)
from tests.protocol.dialects.corpus_said import (
    Said,
    objects_of,
    said_streamed,
    said_whole,
)
from tests.protocol.dialects.corpus_table import EXCEPTIONS, Item, items
from tests.protocol.dialects.recordings import BESIDE, CORPUS, SPECS, absent
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.dialects.openai_embeddings import OPENAI_EMBEDDINGS
from tz_protocol.dialects.openai_moderations import OPENAI_MODERATIONS
from tz_protocol.errors import (
    GatewayError,
    UpstreamBroken,
    UpstreamError,
    UpstreamGarbled,
    UpstreamRefused,
)
from tz_protocol.types.chat import ChatRequest
from tz_protocol.types.request import Identity, ParsedRequest
from tz_protocol.types.stream import (
    StreamDone,
    StreamFailed,
    StreamPart,
)

IDENTITY = Identity(id="ours", episode_id="episode", model="public", created=5)
REQUEST = ChatRequest(model="public", is_stream=True, include_usage=True)
PLAIN = ParsedRequest(model="public")


# -- what is legal --------------------------------------------------------------

NEED_NOT_BE_THERE = frozenset(
    {
        # OpenAI's older answers have neither, and its chunks say no finish reason.
        "logprobs",
        "refusal",
        "finish_reason",
        # Null where there are tool calls; many vendors leave it out instead.
        "content",
        # Not said by every vendor, and never invented.
        "usage",
        # Of moderation: the first models did not judge what the newer ones do.
        "illicit",
        "illicit/violent",
        "category_applied_input_types",
    }
)
"""Members that OpenAI's specification demands and its own answers do not always have,
or that no answer can have that its vendor did not give."""


def allowing(node: Any) -> Any:
    """Return a description of answers as answers are: any member that need not be
    there may be null, as in OpenAI's own (``system_fingerprint``, ``usage``)."""
    if isinstance(node, list):
        return [allowing(child) for child in node]
    if not isinstance(node, dict):
        return node
    made = {name: allowing(child) for name, child in node.items()}
    if isinstance(node.get("required"), list):
        kept = [name for name in node["required"] if name not in NEED_NOT_BE_THERE]
        made["required"] = kept
    properties = node.get("properties")
    if isinstance(properties, dict):
        required = made.get("required", ())
        made["properties"] = {
            name: child if name in required else nullable(child)
            for name, child in made["properties"].items()
        }
    return nullable(made) if made.get("nullable") is True else made


def nullable(node: Any) -> Any:
    return {"anyOf": [node, {"type": "null"}]}


@cache
def validator_of(name: str) -> Any:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is missing")
    path = SPECS / "openai.json"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    root = json.loads(path.read_text(encoding="utf-8"))
    schemas = allowing(root["components"]["schemas"])
    # Base64 is what the SDK asks for, and the specification has numbers only.
    vector = schemas["Embedding"]["properties"]
    vector["embedding"] = {"anyOf": [vector["embedding"], {"type": "string"}]}
    return jsonschema.Draft202012Validator(
        {"components": {"schemas": schemas}, "$ref": f"#/components/schemas/{name}"}
    )


def assert_legal(name: str, *values: Any) -> None:
    validator = validator_of(name)
    assert not [fault for value in values for fault in faults(validator, value)]
    if (model := MODELS.get(name)) is not None:
        for value in values:
            # As clients do that check what OpenAI's SDK hands them.
            model.model_validate(value)


MODELS: dict[str, Any] = {
    "CreateChatCompletionResponse": ChatCompletion,
    "CreateChatCompletionStreamResponse": ChatCompletionChunk,
}
"""By schema: the type of the SDK that reads it."""


# -- the recordings -------------------------------------------------------------


def parameters() -> list[Any]:
    found = [
        pytest.param(item, id=f"{item.provider}-{item.recording.id}")
        for item in items()
    ]
    return found or absent(f"there are no recordings to replay in {CORPUS}")


OTHERWISE = "the client understands something else than the vendor's documentation"
"""Why an answer is held against the reading by hand after all."""


@pytest.mark.parametrize("item", parameters())
def test_corpus_answer_is_legal_and_says_what_the_vendor_said(item, record_property):
    dialect = item.row.dialect(item.provider)
    reason = EXCEPTIONS.get(item.recording.id)
    theirs, why = item.reading()
    record_property("provider", item.provider)
    try:
        try:
            check(item, dialect, theirs)
        except (AssertionError, UpstreamError):
            again = item.by_hand()
            if why or again == theirs:
                raise
            check(item, dialect, again)
            why = OTHERWISE
        record_property("by_hand", why)
    except (AssertionError, pytest.fail.Exception):
        if reason is None:
            raise
        pytest.xfail(reason)
    assert reason is None, "an exception that passes is none: take it off the table"


def test_corpus_answers_are_read_by_the_vendors_own_clients():
    """Should a client change its ways, the readings by hand must not hide it."""
    if CORPUS != BESIDE:
        pytest.skip(f"how many clients can read of {CORPUS} is not known")
    counts: dict[str, Counter[bool]] = defaultdict(Counter)
    for item in items()[::3]:
        client = getattr(item.row.client, "func", item.row.client)
        counts[client.__name__][not item.reading()[1]] += 1
    few = {
        name: count
        for name, count in counts.items()
        if count.total() >= 5 and count[True] <= 0.9 * count.total()
    }
    assert not few


def check(item: Item, dialect: Any, theirs: Said | None) -> None:
    recording = item.recording
    if not 200 <= recording.head.status < 300:
        check_error(item, dialect, theirs)
        return
    if item.row.kind == "chat" and item.is_stream:
        check_stream(item, dialect, theirs or Said())
    elif theirs is None:
        with pytest.raises(UpstreamError):
            dialect.parse_response(recording.head, recording.body)
    elif item.row.kind == "embedding":
        check_embedding(item, dialect, theirs)
    elif item.row.kind == "moderation":
        check_moderation(item, dialect, theirs)
    else:
        check_whole(item, dialect, theirs)


# -- chat -----------------------------------------------------------------------


def assert_same(ours: Said, theirs: Said) -> None:
    assert ours.choices == theirs.choices


def stream_of(item: Item, dialect: Any, pieces: list[bytes]) -> list[Any]:
    events: list[Any] = decoded(decoder_of(dialect, item.recording.head), pieces)
    return events


def client_chunks(events: list[Any]) -> list[dict[str, Any]]:
    """Return what our client gets of a stream, up to its end."""
    make = OPENAI_CHAT.stream_encoder
    assert make is not None
    encoder = make(REQUEST, IDENTITY)
    out, usage = [], None
    for event in events:
        if isinstance(event, StreamPart):
            usage = event.usage or usage
            out.append(encoder.encode(event))
        elif isinstance(event, StreamDone):
            out.append(encoder.finish(usage))
    return objects_of(b"".join(out))


def check_stream(item: Item, dialect: Any, theirs: Said) -> None:
    body = item.body
    events = stream_of(item, dialect, [body])
    chunks = client_chunks(events)
    assert_legal("CreateChatCompletionStreamResponse", *chunks)
    ours = said_streamed(chunks)
    end = events[-1]
    if theirs.error is not None:
        assert isinstance(end, StreamFailed)
    elif theirs.is_complete():
        assert isinstance(end, StreamDone)
        assert_same(ours, theirs)
        check_usage(events, ours, theirs)
        check_collected(events, ours)
    else:
        # Cut by whoever recorded it: nothing may look complete.
        assert isinstance(end, StreamFailed)
        assert isinstance(end.error, UpstreamBroken | UpstreamGarbled)
    for pieces in cuts(body, item.recording.id):
        again = stream_of(item, dialect, pieces)
        assert comparable(again) == comparable(events)


def check_usage(events: list[Any], ours: Said, theirs: Said) -> None:
    parts = [event for event in events if isinstance(event, StreamPart)]
    told = [part.usage for part in parts if part.usage is not None]
    if theirs.usage is None:
        assert not told
        return
    assert (told[-1].input_tokens, told[-1].output_tokens) == theirs.usage
    assert ours.usage is not None, "the client asked for usage and got none"
    assert ours.usage[0] == theirs.usage[0]


def check_collected(events: list[Any], ours: Said) -> None:
    """What a converted stream adds up to is what the whole answer would say."""
    values = [event.value for event in events if isinstance(event, StreamPart)]
    if any(type(value).__name__ == "ChatChunk" for value in values):
        return
    assert_same(said_whole(whole_object(collected(events))), ours)


def cuts(body: bytes, seed: str) -> list[list[bytes]]:
    """Return ways to cut *body*, the same ones every time: small pieces at both ends,
    and anywhere."""
    edge = 1_500
    fine = [body[place : place + 1] for place in range(min(edge, len(body)))]
    fine += [body[place : place + 997] for place in range(edge, len(body), 997)]
    chosen = random.Random(zlib.crc32(seed.encode()))
    places = sorted({0, len(body), *(chosen.randint(0, len(body)) for _ in range(20))})
    coarse = [body[a:b] for a, b in itertools.pairwise(places)]
    return [fine, coarse]


def check_whole(item: Item, dialect: Any, theirs: Said) -> None:
    recording = item.recording
    try:
        response = dialect.parse_response(recording.head, recording.body)
    except UpstreamError as error:
        is_refused = isinstance(error, UpstreamRefused)
        assert theirs.error is not None if is_refused else not theirs.choices
        return
    assert theirs.error is None
    head, body = OPENAI_CHAT.render_response(REQUEST, response, IDENTITY)
    value = json.loads(body)
    assert head.status == 200
    assert_legal("CreateChatCompletionResponse", value)
    ours = said_whole(value)
    assert_same(ours, theirs)
    if theirs.usage is None:
        assert response.usage is None
    else:
        usage = response.usage
        assert (usage.input_tokens, usage.output_tokens) == theirs.usage
        assert ours.usage is not None
    if dialect.name == OPENAI_CHAT.name:
        # A provider may answer so where a stream was asked for.
        chunks = client_chunks(stream_of(item, dialect, [recording.body]))
        assert_legal("CreateChatCompletionStreamResponse", *chunks)
        assert_same(said_streamed(chunks), ours)


# -- the rest -------------------------------------------------------------------


def check_error(item: Item, dialect: Any, theirs: Said | None) -> None:
    recording = item.recording
    error = dialect.parse_error(recording.head, recording.body)
    assert isinstance(error, UpstreamRefused)
    # A key that is wrong is said with 400 and 403 by some; some recorders did not keep
    # the status that the body repeats.
    assert error.status in (recording.head.status, 401, code_in(recording.body))
    assert error.message
    words = words_of(recording.body)
    if words:
        assert any(word in error.message for word in words)
    if theirs is not None:
        assert theirs.error is not None
        assert error.message.startswith(theirs.error[:200])
        if theirs.code in CODES:
            assert error.code == CODES[theirs.code]
    told = GatewayError(
        error.message, code=error.code or "upstream_error", kind=error.kind or "x"
    )
    _, body = OPENAI_CHAT.render_error(told, False)
    assert_legal("ErrorResponse", json.loads(body))
    assert b"Bearer " not in body


CODES = {
    "AccessDeniedException": "permission_denied",
    "ExpiredTokenException": "invalid_api_key",
    "InvalidSignatureException": "invalid_api_key",
    "ModelTimeoutException": "timeout",
    "ResourceNotFoundException": "model_not_found",
    "ServiceQuotaExceededException": "insufficient_quota",
    "ThrottlingException": "rate_limit_exceeded",
    "UnrecognizedClientException": "invalid_api_key",
}
"""By the name that AWS gives an error: OpenAI's code for it, where there is one."""


def code_in(body: bytes) -> Any:
    """Return what an error in Google's form repeats of the status."""
    try:
        return json.loads(body)["error"]["code"]
    except (ValueError, TypeError, KeyError):
        return None


def words_of(body: bytes) -> list[str]:
    """Return the beginnings of every text in an error that could be its message."""
    try:
        value = json.loads(body.decode("utf-8-sig"))
    except ValueError:
        return []
    texts: list[str] = []

    def walk(node: Any, name: str) -> None:
        if isinstance(node, str):
            if name.lower() in SAYING:
                texts.append(node[:12])
        elif isinstance(node, dict):
            for key, child in node.items():
                walk(child, key if key.lower() in SAYING else "")
        elif isinstance(node, list):
            for child in node:
                walk(child, name)

    walk(value, "message")
    # The gateway takes addresses out.
    return [text for text in texts if len(text) > 5 and "://" not in text]


SAYING = ("message", "msg", "detail", "error", "errors", "error_msg", "title")
"""Names of members that say what is wrong."""


def check_embedding(item: Item, dialect: Any, theirs: Said) -> None:
    recording = item.recording
    if theirs.error is not None:
        with pytest.raises(UpstreamRefused):
            dialect.parse_response(recording.head, recording.body)
        return
    response = dialect.parse_response(recording.head, recording.body)
    _, body = OPENAI_EMBEDDINGS.render_response(PLAIN, response, IDENTITY)
    value = json.loads(body)
    assert_legal("CreateEmbeddingResponse", value)
    assert [one["embedding"] for one in value["data"]] == theirs.vectors
    assert [one["index"] for one in value["data"]] == list(range(len(theirs.vectors)))
    if theirs.usage is not None:
        assert value["usage"]["prompt_tokens"] == theirs.usage[0]
    if response.usage is not None:
        assert value["usage"]["prompt_tokens"] == response.usage.input_tokens


def check_moderation(item: Item, dialect: Any, theirs: Said) -> None:
    recording = item.recording
    if theirs.error is not None:
        with pytest.raises(UpstreamRefused):
            dialect.parse_response(recording.head, recording.body)
        return
    response = dialect.parse_response(recording.head, recording.body)
    _, body = OPENAI_MODERATIONS.render_response(PLAIN, response, IDENTITY)
    value = json.loads(body)
    assert_legal("CreateModerationResponse", value)
    assert [result["flagged"] for result in value["results"]] == theirs.flagged
