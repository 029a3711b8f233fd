"""Converse's answers, whole and streamed."""

from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from tests.protocol.dialects.checking import (
    byte_by_byte,
    collected,
    comparable,
    decoded,
    decoder_of,
    facts_of,
    splits,
    whole_object,
)
from tests.protocol.dialects.eventstreams import error, event, exception
from tz_protocol.dialects.anthropic_request import ANSWER_TOOL
from tz_protocol.dialects.bedrock import BEDROCK
from tz_protocol.dialects.deltas import content, finished, lifecycle
from tz_protocol.errors import UpstreamBroken, UpstreamGarbled, UpstreamRefused
from tz_protocol.types.conversation import (
    ArgumentsDelta,
    Choice,
    Citation,
    CitationDelta,
    Completion,
    Finished,
    Opaque,
    OpaqueDelta,
    ReasoningDelta,
    ReasoningSealed,
    Started,
    Text,
    TextDelta,
    Thinking,
    ToolCall,
    ToolCallStarted,
)
from tz_protocol.types.http import ResponseHead
from tz_protocol.types.stream import (
    StreamDone,
    StreamFailed,
    StreamPart,
    StreamSkipped,
)
from tz_protocol.types.usage import Usage

HEAD = ResponseHead(200, (("x-amzn-requestid", "req-1"),))
FORMAT = "anthropic-claude-v1"
# Claude's own base64, which Converse puts into base64 once more.
DATA = base64.b64encode(b"opaque").decode()
TWICE = base64.b64encode(DATA.encode()).decode()


def start():
    return event("messageStart", {"p": "abcd", "role": "assistant"})


def block_start(index, value):
    payload = {"contentBlockIndex": index, "start": value, "p": "ab"}
    return event("contentBlockStart", payload)


def delta(index, value):
    return event("contentBlockDelta", {"contentBlockIndex": index, "delta": value})


def text(index, value):
    return delta(index, {"text": value})


def thought(index, **value):
    return delta(index, {"reasoningContent": value})


def arguments(index, value):
    return delta(index, {"toolUse": {"input": value}})


def block_stop(index):
    return event("contentBlockStop", {"contentBlockIndex": index})


def stop(reason):
    return event("messageStop", {"stopReason": reason})


def call(index, call_id, name, **more):
    use = {"toolUseId": call_id, "name": name, **more}
    return block_start(index, {"toolUse": use})


def metadata(**usage):
    counts = {"inputTokens": 3, "outputTokens": 42, "totalTokens": 45, **usage}
    return event("metadata", {"usage": counts, "metrics": {"latencyMs": 9}})


STREAM = b"".join(
    [
        start(),
        thought(0, text="Let me "),
        thought(0, text="see."),
        thought(0, signature="c2ln"),
        block_stop(0),
        thought(1, redactedContent=TWICE),
        block_stop(1),
        text(2, "Häl"),
        text(2, "lo 😀"),
        block_stop(2),
        call(3, "tooluse_1", "look"),
        arguments(3, ""),
        arguments(3, '{"n": 1.50'),
        arguments(3, "}"),
        block_stop(3),
        call(4, "tooluse_2", "wait", type="tool_use"),
        block_stop(4),
        stop("tool_use"),
        metadata(cacheReadInputTokens=100, cacheWriteInputTokens=20),
    ]
)

WHOLE = (
    '{"metrics":{"latencyMs":9},"output":{"message":{"content":['
    '{"reasoningContent":{"reasoningText":{"text":"Let me see.","signature":"c2ln"}}},'
    f'{{"reasoningContent":{{"redactedContent":"{TWICE}"}}}},'
    '{"text":"Häl"},{"text":"lo 😀"},'
    '{"toolUse":{"toolUseId":"tooluse_1","name":"look","input":{"n": 1.50}}},'
    '{"toolUse":{"toolUseId":"tooluse_2","name":"wait","input":{},"type":"tool_use"}}'
    '],"role":"assistant"}},"stopReason":"tool_use","usage":{"inputTokens":3,'
    '"outputTokens":42,"totalTokens":165,"cacheReadInputTokens":100,'
    '"cacheReadInputTokenCount":100,"cacheWriteInputTokens":20,"serverToolUsage":{}}}'
).encode()

USAGE = Usage(
    input_tokens=123, output_tokens=42, cache_read_tokens=100, cache_write_tokens=20
)

EVENTS = [
    lifecycle(Started(id="req-1")),
    content(ReasoningDelta("Let me ")),
    content(ReasoningDelta("see.")),
    lifecycle(ReasoningSealed(text="Let me see.", signature="c2ln", format=FORMAT)),
    lifecycle(ReasoningSealed(index=1, data=DATA, format=FORMAT)),
    content(TextDelta("Häl")),
    content(TextDelta("lo 😀")),
    content(ToolCallStarted(index=0, id="tooluse_1", name="look")),
    content(ArgumentsDelta(0, '{"n": 1.50')),
    content(ArgumentsDelta(0, "}")),
    content(ToolCallStarted(index=1, id="tooluse_2", name="wait")),
    content(ArgumentsDelta(1, "{}")),
    finished(Finished(finish="tool_calls"), USAGE),
    StreamDone(),
]

COMPLETION = Completion(
    choices=(
        Choice(
            content=(
                Thinking(text="Let me see.", signature="c2ln", format=FORMAT),
                Thinking(data=DATA, format=FORMAT),
                Text("Hällo 😀"),
                ToolCall(id="tooluse_1", name="look", arguments='{"n": 1.50}'),
                ToolCall(id="tooluse_2", name="wait", arguments="{}"),
            ),
            finish="tool_calls",
        ),
    ),
    usage=USAGE,
    id="req-1",
)


def read(*pieces):
    return decoded(decoder_of(BEDROCK, HEAD), [b"".join(pieces)])


def parts_of(events):
    return [e.value for e in events if isinstance(e, StreamPart)]


def parse(blocks, reason="end_turn"):
    body = (
        f'{{"output":{{"message":{{"content":[{blocks}]}}}},"stopReason":"{reason}"}}'
    )
    return BEDROCK.parse_response(HEAD, body.encode())


# -- golden ---------------------------------------------------------------------


def test_stream_golden_events():
    assert read(STREAM) == EVENTS


def test_stream_byte_by_byte_gives_the_same():
    assert decoded(decoder_of(BEDROCK, HEAD), byte_by_byte(STREAM)) == EVENTS


@given(splits(STREAM))
def test_stream_in_any_pieces_gives_the_same(pieces):
    assert decoded(decoder_of(BEDROCK, HEAD), pieces) == EVENTS


def test_stream_adds_up_to_the_whole_answer():
    assert collected(read(STREAM)) == COMPLETION
    assert BEDROCK.parse_response(HEAD, WHOLE) == COMPLETION


def test_whole_answer_in_openais_words():
    value = whole_object(BEDROCK.parse_response(HEAD, WHOLE))
    message = value["choices"][0]["message"]
    assert message["content"] == "Hällo 😀"
    assert message["reasoning_content"] == "Let me see."
    assert [seal["type"] for seal in message["reasoning_details"]] == [
        "reasoning.text",
        "reasoning.encrypted",
    ]
    assert value["choices"][0]["finish_reason"] == "tool_calls"
    assert value["usage"] == {
        "prompt_tokens": 123,
        "completion_tokens": 42,
        "total_tokens": 165,
        "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 20},
    }


# -- ends -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "finish", "native"),
    [
        ("end_turn", "stop", UNSET),
        ("stop_sequence", "stop", "stop_sequence"),
        ("max_tokens", "length", UNSET),
        ("model_context_window_exceeded", "length", "model_context_window_exceeded"),
        ("guardrail_intervened", "content_filter", "guardrail_intervened"),
        ("content_filtered", "content_filter", "content_filtered"),
        ("malformed_model_output", "stop", "malformed_model_output"),
        ("malformed_tool_use", "stop", "malformed_tool_use"),
        ("something_new", "stop", "something_new"),
        ("tool_use", "stop", UNSET),
    ],
)
def test_finish_of_each_stop_reason(reason, finish, native):
    stream = read(start(), text(0, "a"), block_stop(0), stop(reason), metadata())
    expected = Finished(finish=finish, native_finish=native)
    assert expected == stream[-2].value
    (choice,) = parse('{"text":"a"}', reason).choices
    assert (finish, native) == (choice.finish, choice.native_finish)


def test_finish_of_an_answer_with_calls_is_tool_calls():
    stream = read(call(0, "t", "f"), block_stop(0), stop("end_turn"), metadata())
    assert stream[-2].value == Finished(finish="tool_calls")


def test_stream_without_usage_is_complete():
    events = read(start(), text(0, "a"), block_stop(0), stop("end_turn"))
    assert events[-2:] == [finished(Finished(finish="stop")), StreamDone()]


def test_stream_whose_usage_comes_before_its_end_is_complete():
    decoder = decoder_of(BEDROCK, HEAD)
    for piece in (start(), text(0, "a"), metadata(), stop("end_turn"), text(1, "b")):
        decoder.receive_data(piece)
    events = list(iter(decoder.next_event, None))
    usage = Usage(input_tokens=3, output_tokens=42)
    assert events[-2:] == [finished(Finished(finish="stop"), usage), StreamDone()]


def test_stream_without_a_start_begins_with_its_first_event():
    events = read(text(0, "a"), stop("end_turn"), metadata())
    assert parts_of(events)[:2] == [Started(id="req-1"), TextDelta("a")]


def test_stream_of_nothing_but_an_end_is_an_empty_answer():
    events = read(stop("end_turn"), metadata())
    assert [type(value) for value in parts_of(events)] == [Started, Finished]


@pytest.mark.parametrize("size", [0, 5, len(start()), len(STREAM) // 2])
def test_stream_cut_before_the_end_of_the_answer_fails(size):
    last = read(STREAM[:size])[-1]
    assert isinstance(last, StreamFailed)
    assert isinstance(last.error, UpstreamBroken)
    assert last.error.kind == "cut"


def test_stream_cut_within_its_usage_is_complete():
    assert read(STREAM[:-3])[-1] == StreamDone()


# -- citations, tools of the provider, structured output ------------------------


WEB = '{"location":{"web":{"domain":"e.org","url":"https://e.org/a"}}}'
PAGE = (
    '{"location":{"documentPage":{"documentIndex":0,"start":1,"end":2}},'
    '"sourceContent":[{"text":"Ru"},{"text":"st"}],"title":"Goals"}'
)
SEARCH = '{"location":{},"source":"https://e.org/b","title":"B"}'


def test_citations_are_placed_in_the_text_of_the_whole_answer():
    def cited(index, raw):
        return delta(index, {"citation": msgspec.Raw(raw.encode())})

    events = read(
        start(),
        text(0, "abc"),
        block_stop(0),
        cited(1, WEB),
        text(1, "defg"),
        cited(1, PAGE),
        block_stop(1),
        cited(2, SEARCH),
        block_stop(2),
        stop("end_turn"),
        metadata(),
    )
    found = (
        Citation(start=3, end=7, url="https://e.org/a", native=Raw(WEB.encode())),
        Citation(
            start=3, end=7, title="Goals", quote="Rust", native=Raw(PAGE.encode())
        ),
        Citation(
            start=7,
            end=7,
            url="https://e.org/b",
            title="B",
            native=Raw(SEARCH.encode()),
        ),
    )
    cites = [value for value in parts_of(events) if isinstance(value, CitationDelta)]
    assert cites == [CitationDelta(citation) for citation in found]
    completion = parse(
        '{"text":"abc"},{"citationsContent":{"content":[{"text":"de"},{"text":"fg"}],'
        f'"citations":[{WEB},{PAGE}]}}}},{{"citationsContent":{{"citations":[{SEARCH}]}}}}'
    )
    assert completion.choices[0].content == (Text("abcdefg", UNSET, found),)
    assert collected(events).choices == completion.choices
    message = whole_object(completion)["choices"][0]["message"]
    urls = [entry["url_citation"]["url"] for entry in message["annotations"]]
    assert urls == ["https://e.org/a", "https://e.org/b"]
    assert message["citations"][0]["quote"] == "Rust"


SERVER_USE = (
    '{"toolUse":{"toolUseId":"s","name":"nova_grounding","type":"server_tool_use",'
    '"input":{"q":1}}}'
)
SERVER_RESULT = (
    '{"toolResult":{"toolUseId":"s","type":"nova_grounding_result",'
    '"status":"success","content":[{"text":"a"},{"text":"b"}]}}'
)
IMAGE = '{"image":{"format":"png","source":{"bytes":"AAAA"}}}'


def test_blocks_that_only_this_vendor_knows_are_kept_whole():
    result = {"toolUseId": "s", "type": "nova_grounding_result", "status": "success"}
    events = read(
        start(),
        call(0, "s", "nova_grounding", type="server_tool_use"),
        arguments(0, '{"q":'),
        arguments(0, "1}"),
        block_stop(0),
        block_start(1, {"toolResult": result}),
        delta(1, {"toolResult": [{"text": "a"}]}),
        delta(1, {"toolResult": [{"text": "b"}]}),
        block_stop(1),
        block_start(2, {"image": {"format": "png"}}),
        delta(2, {"image": {"source": {"bytes": "AAAA"}}}),
        block_stop(2),
        stop("end_turn"),
        metadata(),
    )
    blocks = [
        value.block for value in parts_of(events) if isinstance(value, OpaqueDelta)
    ]
    expected = [
        Opaque("bedrock", kind, Raw(raw.encode()))
        for kind, raw in [
            ("toolUse", SERVER_USE),
            ("toolResult", SERVER_RESULT),
            ("image", IMAGE),
        ]
    ]
    assert expected == blocks
    assert parts_of(events)[-1] == Finished(finish="stop")
    completion = parse(f"{SERVER_USE},{SERVER_RESULT},{IMAGE}")
    assert completion.choices[0].content == tuple(expected)


def test_arguments_of_the_providers_tool_that_were_cut_off_are_kept_as_text():
    events = read(
        call(0, "s", "n", type="server_tool_use"),
        arguments(0, '{"q":'),
        stop("max_tokens"),
        metadata(),
    )
    (block,) = [v.block for v in parts_of(events) if isinstance(v, OpaqueDelta)]
    assert msgspec.json.decode(block.value)["toolUse"]["input"] == '{"q":'


def test_answer_through_the_gateways_tool_is_text_and_no_call():
    events = read(
        start(),
        call(0, "t", ANSWER_TOOL),
        arguments(0, '{"a":'),
        arguments(0, "1}"),
        block_stop(0),
        stop("tool_use"),
        metadata(),
    )
    expected = (Choice(content=(Text('{"a":1}'),), finish="stop"),)
    assert expected == collected(events).choices
    use = f'{{"toolUse":{{"toolUseId":"t","name":"{ANSWER_TOOL}","input":{{"a":1}}}}}}'
    assert expected == parse(use, "tool_use").choices
    empty = read(call(0, "t", ANSWER_TOOL), stop("tool_use"), metadata())
    assert collected(empty).choices[0].content == (Text("{}"),)


def test_thought_without_a_seal_has_none():
    events = read(thought(0, text="hm"), text(1, "a"), stop("end_turn"), metadata())
    expected = (Thinking(text="hm"), Text("a"))
    assert expected == collected(events).choices[0].content
    blocks = '{"reasoningContent":{"reasoningText":{"text":"hm"}}},{"text":"a"}'
    assert expected == parse(blocks).choices[0].content
    assert parse('{"reasoningContent":{}}').choices[0].content == ()


@pytest.mark.parametrize("data", ["/w==", "nonsense!"])
def test_redacted_thought_that_is_not_claudes_is_kept_as_it_is(data):
    expected = (Thinking(data=data, format="aws-bedrock-v1"),)
    events = read(thought(0, redactedContent=data), stop("end_turn"), metadata())
    assert expected == collected(events).choices[0].content
    block = f'{{"reasoningContent":{{"redactedContent":"{data}"}}}}'
    assert expected == parse(block).choices[0].content


def test_redacted_thought_in_pieces_is_one():
    pieces = [base64.b64encode(half.encode()).decode() for half in (DATA[:3], DATA[3:])]
    events = read(
        *(thought(0, redactedContent=piece) for piece in pieces),
        stop("end_turn"),
        metadata(),
    )
    expected = (Thinking(data=DATA, format=FORMAT),)
    assert expected == collected(events).choices[0].content
    raw = [base64.b64encode(half).decode() for half in (b"\xff", b"\xfe")]
    events = read(
        *(thought(0, redactedContent=piece) for piece in raw),
        stop("end_turn"),
        metadata(),
    )
    assert collected(events).choices[0].content == (
        Thinking(data="//4=", format="aws-bedrock-v1"),
    )


def test_redacted_thought_in_pieces_that_are_not_base64_is_their_text():
    events = read(
        thought(0, redactedContent="a!"),
        thought(0, redactedContent="b"),
        stop("end_turn"),
        metadata(),
    )
    expected = (Thinking(data="a!b", format="aws-bedrock-v1"),)
    assert expected == collected(events).choices[0].content


@pytest.mark.parametrize(
    ("tier", "told"),
    [("flex", "flex"), ("priority", "priority"), ("reserved", UNSET)],
)
def test_service_tier_of_the_answer(tier, told):
    body = (
        '{"output":{"message":{"content":[]}},"stopReason":"end_turn",'
        f'"serviceTier":{{"type":"{tier}"}}}}'
    )
    assert BEDROCK.parse_response(HEAD, body.encode()).service_tier == told


# -- errors ---------------------------------------------------------------------

TYPES = [
    ("ValidationException", 400, 400, "invalid_request_error", None),
    ("AccessDeniedException", 403, 403, "permission_error", "permission_denied"),
    (
        "UnrecognizedClientException",
        403,
        401,
        "authentication_error",
        "invalid_api_key",
    ),
    ("ExpiredTokenException", 403, 401, "authentication_error", "invalid_api_key"),
    ("InvalidSignatureException", 403, 401, "authentication_error", "invalid_api_key"),
    ("ResourceNotFoundException", 404, 404, "invalid_request_error", "model_not_found"),
    ("ModelTimeoutException", 408, 408, "timeout_error", "timeout"),
    ("ModelErrorException", 424, 424, "api_error", "model_error"),
    ("ThrottlingException", 429, 429, "rate_limit_error", "rate_limit_exceeded"),
    ("ModelNotReadyException", 429, 429, "server_error", "overloaded"),
    (
        "ServiceQuotaExceededException",
        400,
        400,
        "insufficient_quota",
        "insufficient_quota",
    ),
    ("InternalServerException", 500, 500, "server_error", None),
    ("ServiceUnavailableException", 503, 503, "server_error", "overloaded"),
]


@pytest.mark.parametrize(("name", "status", "told", "kind", "code"), TYPES)
def test_error_of_each_type(name, status, told, kind, code):
    address = "http://internal.amazon.com/coral/com.amazon.bedrock/"
    head = ResponseHead(status, (("x-amzn-errortype", f"{name}:{address}"),))
    refused = BEDROCK.parse_error(head, b'{"message":"No."}')
    assert isinstance(refused, UpstreamRefused)
    assert facts_of(refused) == (told, "No.", kind, code, None)


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", None),
        (403, "permission_error", "permission_denied"),
        (404, "invalid_request_error", "model_not_found"),
        (429, "rate_limit_error", "rate_limit_exceeded"),
        (502, "server_error", None),
    ],
)
def test_error_without_a_type_is_told_by_its_status(status, kind, code):
    refused = BEDROCK.parse_error(ResponseHead(status), b'{"message":"No."}')
    assert isinstance(refused, UpstreamRefused)
    assert facts_of(refused) == (status, "No.", kind, code, None)


@pytest.mark.parametrize(
    ("name", "status", "kind", "code"),
    [
        ("throttlingException", 429, "rate_limit_error", "rate_limit_exceeded"),
        ("modelStreamErrorException", 424, "api_error", "model_error"),
        ("validationException", 400, "invalid_request_error", None),
        ("serviceUnavailableException", 503, "server_error", "overloaded"),
        ("internalServerException", 500, "server_error", None),
        ("modelTimeoutException", 408, "timeout_error", "timeout"),
        ("somethingNew", 500, "server_error", None),
    ],
)
def test_exception_within_a_stream_fails_it(name, status, kind, code):
    events = read(start(), text(0, "a"), exception(name, message="No."), text(0, "b"))
    failed = events[-1]
    assert isinstance(failed, StreamFailed)
    assert isinstance(failed.error, UpstreamRefused)
    assert facts_of(failed.error) == (status, "No.", kind, code, None)
    assert parts_of(events)[-1] == TextDelta("a")


def test_error_within_a_stream_that_is_no_exception_fails_it():
    failed = read(start(), error("InternalFailure", "Broken."))[-1]
    assert isinstance(failed, StreamFailed)
    assert isinstance(failed.error, UpstreamRefused)
    assert facts_of(failed.error)[:2] == (500, "Broken.")
    silent = read(exception("throttlingException"))[-1]
    assert isinstance(silent.error, UpstreamRefused)
    assert silent.error.message.endswith("without an explanation.")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("Input is too long for requested model.", "context_length_exceeded"),
        ("prompt is too long: 9 tokens > 8 maximum", "context_length_exceeded"),
        ("The provided model identifier is invalid.", None),
    ],
)
def test_error_of_a_prompt_over_the_limit_has_openais_code(message, code):
    body = msgspec.json.encode({"message": message})
    refused = BEDROCK.parse_error(ResponseHead(400), body)
    assert isinstance(refused, UpstreamRefused)
    assert refused.code == code


def test_error_says_when_to_come_back_and_nothing_secret():
    head = ResponseHead(429, (("retry-after", "3"),))
    body = b'{"Message":"Slow down, AKIAIOSFODNN7EXAMPLE."}'
    refused = BEDROCK.parse_error(head, body)
    assert isinstance(refused, UpstreamRefused)
    assert refused.retry_after == 3.0
    assert "AKIA" not in refused.message
    assert refused.message.startswith("Slow down")


def test_error_that_is_not_json_is_told_by_its_status():
    refused = BEDROCK.parse_error(ResponseHead(503), b"<html>busy</html>")
    assert isinstance(refused, UpstreamRefused)
    assert facts_of(refused)[2:4] == ("server_error", "overloaded")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"output":{}}',
        b'{"output":{"message":{"content":3}}}',
        b'{"output":{"message":{"content":[3]}}}',
        b"<html>",
        b"\xff",
    ],
)
def test_whole_answer_that_is_none_is_garbled(body):
    with pytest.raises(UpstreamGarbled):
        BEDROCK.parse_response(HEAD, body)


def test_stream_whose_framing_is_damaged_fails():
    data = bytearray(STREAM)
    data[len(data) // 2] ^= 1
    last = decoded(decoder_of(BEDROCK, HEAD), [bytes(data)])[-1]
    assert isinstance(last, StreamFailed)
    assert isinstance(last.error, UpstreamGarbled)
    assert last.error.code == "bad_event_stream"


def test_stream_event_that_is_not_json_fails_the_stream():
    last = read(start(), event("contentBlockDelta", b"{nonsense"))[-1]
    assert isinstance(last, StreamFailed)
    assert isinstance(last.error, UpstreamGarbled)


def test_stream_events_that_are_not_known_are_skipped_and_counted():
    events = read(
        start(),
        event("somethingNew", {"a": 1}),
        event("contentBlockDelta", {"contentBlockIndex": "0"}),
        event("messageStart", {}, "initial-response"),
        text(0, "a"),
        arguments(0, "{}"),
        thought(1, text="b"),
        text(1, "c"),
        call(2, "t", "f"),
        text(2, "c"),
        stop("end_turn"),
        metadata(),
    )
    skipped = [one for one in events if isinstance(one, StreamSkipped)]
    assert len(skipped) == 6
    assert events[-1] == StreamDone()


def test_stream_deltas_that_say_nothing_are_nothing():
    events = read(
        event("contentBlockDelta", {"contentBlockIndex": 0}),
        block_start(0, {}),
        text(0, ""),
        delta(0, {}),
        delta(0, {"something": 1}),
        block_stop(0),
        block_stop(7),
        stop("end_turn"),
        metadata(),
    )
    assert [type(value) for value in parts_of(events)] == [Started, Finished]


def test_arguments_of_a_call_that_was_never_announced_are_kept():
    events = read(arguments(0, '{"a":1}'), stop("end_turn"), metadata())
    (block,) = [v.block for v in parts_of(events) if isinstance(v, OpaqueDelta)]
    assert block == Opaque("bedrock", "toolUse", Raw(b'{"toolUse":{"input":{"a":1}}}'))


# -- anything -------------------------------------------------------------------

NAMES = st.sampled_from(
    [
        "messageStart",
        "contentBlockStart",
        "contentBlockDelta",
        "contentBlockStop",
        "messageStop",
        "metadata",
        "other",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "contentBlockIndex",
                    "start",
                    "delta",
                    "text",
                    "toolUse",
                    "toolResult",
                    "input",
                    "name",
                    "toolUseId",
                    "reasoningContent",
                    "redactedContent",
                    "signature",
                    "citation",
                    "stopReason",
                    "usage",
                    "inputTokens",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(
    st.lists(
        st.binary(max_size=20).filter(lambda data: not data.startswith(b"\0"))
        | st.builds(event, NAMES, JSON, st.sampled_from(["event", "exception"]))
        | st.builds(event, NAMES, JSON),
        max_size=10,
    )
)
def test_stream_decoder_fed_with_anything_ends_and_never_raises(pieces):
    got = decoded(decoder_of(BEDROCK, HEAD), pieces)
    assert isinstance(got[-1], StreamDone | StreamFailed)
    whole = decoded(decoder_of(BEDROCK, HEAD), [b"".join(pieces)])
    assert comparable(got) == comparable(whole)
    collected(got)


@given(st.binary(max_size=60) | JSON.map(msgspec.json.encode))
def test_whole_answer_of_anything_is_read_or_refused(body):
    for data in (
        body,
        b'{"output":{"message":{"content":[%b]}}}' % body,
    ):
        try:
            completion = BEDROCK.parse_response(HEAD, data)
        except UpstreamGarbled:
            continue
        whole_object(completion)


@given(st.binary(max_size=60) | JSON.map(msgspec.json.encode), st.integers(400, 599))
def test_error_of_anything_is_read(body, status):
    refused = BEDROCK.parse_error(ResponseHead(status), body)
    assert isinstance(refused, UpstreamRefused)
    assert refused.message
