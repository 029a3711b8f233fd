from __future__ import annotations

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
from tz_protocol.dialects.anthropic import ANTHROPIC
from tz_protocol.dialects.anthropic_request import ANSWER_TOOL
from tz_protocol.dialects.deltas import content, finished, lifecycle
from tz_protocol.dialects.openai_completion import chunk_of
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
    Refusal,
    RefusalDelta,
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

HEAD = ResponseHead(200)
FORMAT = "anthropic-claude-v1"


def events(*bodies, ending="\n"):
    """Return a stream of the vendor's events."""
    return b"".join(
        f"event: {msgspec.json.decode(body)['type']}{ending}"
        f"data: {body}{ending}{ending}".encode()
        for body in bodies
    )


def start(usage='{"input_tokens":10,"output_tokens":1}'):
    return (
        '{"type":"message_start","message":{"id":"msg_1","type":"message",'
        '"role":"assistant","content":[],"model":"claude-x","stop_reason":null,'
        f'"stop_sequence":null,"usage":{usage}}}}}'
    )


def block_start(index, block):
    return f'{{"type":"content_block_start","index":{index},"content_block":{block}}}'


def delta(index, value):
    return f'{{"type":"content_block_delta","index":{index},"delta":{value}}}'


def block_stop(index):
    return f'{{"type":"content_block_stop","index":{index}}}'


def message_delta(reason, usage='{"output_tokens":7}', more=""):
    return (
        '{"type":"message_delta","delta":{"stop_reason":'
        f'"{reason}","stop_sequence":null{more}}},"usage":{usage}}}'
    )


PING = '{"type":"ping"}'
STOP = '{"type":"message_stop"}'

STREAM = events(
    start(
        '{"input_tokens":3,"cache_creation_input_tokens":20,'
        '"cache_read_input_tokens":100,"output_tokens":1,"service_tier":"standard"}'
    ),
    PING,
    block_start(0, '{"type":"thinking","thinking":"","signature":""}'),
    delta(0, '{"type":"thinking_delta","thinking":"Let me "}'),
    delta(0, '{"type":"thinking_delta","thinking":"see."}'),
    delta(0, '{"type":"signature_delta","signature":"c2ln"}'),
    block_stop(0),
    block_start(1, '{"type":"redacted_thinking","data":"b3BhcXVl"}'),
    block_stop(1),
    block_start(2, '{"type":"text","text":""}'),
    delta(2, '{"type":"text_delta","text":"Häl"}'),
    PING,
    delta(2, '{"type":"text_delta","text":"lo \\ud83d\\ude00"}'),
    block_stop(2),
    block_start(3, '{"type":"tool_use","id":"toolu_1","name":"look","input":{}}'),
    delta(3, '{"type":"input_json_delta","partial_json":""}'),
    delta(3, '{"type":"input_json_delta","partial_json":"{\\"n\\": 1.50"}'),
    delta(3, '{"type":"input_json_delta","partial_json":"}"}'),
    block_stop(3),
    block_start(4, '{"type":"tool_use","id":"toolu_2","name":"wait","input":{}}'),
    block_stop(4),
    message_delta(
        "tool_use",
        '{"input_tokens":null,"output_tokens":42,'
        '"output_tokens_details":{"thinking_tokens":5}}',
    ),
    STOP,
)

USAGE = Usage(
    input_tokens=123,
    output_tokens=42,
    cache_read_tokens=100,
    cache_write_tokens=20,
    reasoning_tokens=5,
)

EVENTS = [
    lifecycle(
        Started(id="msg_1", model="claude-x", service_tier="default"),
        Usage(
            input_tokens=123,
            output_tokens=1,
            cache_read_tokens=100,
            cache_write_tokens=20,
        ),
    ),
    content(ReasoningDelta("Let me ")),
    content(ReasoningDelta("see.")),
    lifecycle(ReasoningSealed(text="Let me see.", signature="c2ln", format=FORMAT)),
    lifecycle(ReasoningSealed(index=1, data="b3BhcXVl", format=FORMAT)),
    content(TextDelta("Häl")),
    content(TextDelta("lo 😀")),
    content(ToolCallStarted(index=0, id="toolu_1", name="look")),
    content(ArgumentsDelta(0, '{"n": 1.50')),
    content(ArgumentsDelta(0, "}")),
    content(ToolCallStarted(index=1, id="toolu_2", name="wait")),
    content(ArgumentsDelta(1, "{}")),
    finished(Finished(finish="tool_calls"), USAGE),
    StreamDone(),
]

WHOLE = (
    b'{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":['
    b'{"type":"thinking","thinking":"Let me see.","signature":"c2ln"},'
    b'{"type":"redacted_thinking","data":"b3BhcXVl"},'
    b'{"type":"text","text":"H\xc3\xa4llo \xf0\x9f\x98\x80"},'
    b'{"type":"tool_use","id":"toolu_1","name":"look","input":{"n": 1.50}},'
    b'{"type":"tool_use","id":"toolu_2","name":"wait","input":{}}],'
    b'"stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":3,'
    b'"cache_creation_input_tokens":20,"cache_read_input_tokens":100,'
    b'"output_tokens":42,"output_tokens_details":{"thinking_tokens":5},'
    b'"service_tier":"standard"}}'
)

COMPLETION = Completion(
    id="msg_1",
    model="claude-x",
    service_tier="default",
    usage=USAGE,
    choices=(
        Choice(
            content=(
                Thinking(text="Let me see.", signature="c2ln", format=FORMAT),
                Thinking(data="b3BhcXVl", format=FORMAT),
                Text("Hällo 😀"),
                ToolCall(id="toolu_1", name="look", arguments='{"n": 1.50}'),
                ToolCall(id="toolu_2", name="wait", arguments="{}"),
            ),
            finish="tool_calls",
        ),
    ),
)


def read(data):
    return decoded(decoder_of(ANTHROPIC, HEAD), [data])


# -- golden bytes ---------------------------------------------------------------


def test_stream_golden_bytes_become_these_events():
    assert read(STREAM) == EVENTS


def test_stream_golden_bytes_byte_by_byte_become_the_same_events():
    decoder = decoder_of(ANTHROPIC, HEAD)
    assert decoded(decoder, byte_by_byte(STREAM)) == EVENTS


@given(st.data())
def test_stream_golden_bytes_split_anywhere_become_the_same_events(data):
    pieces = data.draw(splits(STREAM))
    assert decoded(decoder_of(ANTHROPIC, HEAD), pieces) == EVENTS


def test_stream_with_carriage_returns_becomes_the_same_events():
    assert read(STREAM.replace(b"\n", b"\r\n")) == EVENTS


def test_whole_golden_bytes_become_this_answer():
    assert ANTHROPIC.parse_response(HEAD, WHOLE) == COMPLETION


def test_whole_and_stream_say_the_same():
    assert collected(read(STREAM)) == COMPLETION


def test_stream_golden_bytes_render_as_these_chunks():
    choices = [
        chunk_of(event.value).data.partition(b'"choices":')[2][:-1].decode()
        for event in EVENTS
        if isinstance(event, StreamPart)
    ]

    def said(text, reason="null"):
        return f'[{{"index":0,"delta":{text},"finish_reason":{reason}}}]'

    assert choices == [
        said('{"role":"assistant","content":""}'),
        said('{"reasoning_content":"Let me "}'),
        said('{"reasoning_content":"see."}'),
        said(
            '{"reasoning_details":[{"type":"reasoning.text","text":"Let me see.",'
            '"signature":"c2ln","format":"anthropic-claude-v1","index":0}]}'
        ),
        said(
            '{"reasoning_details":[{"type":"reasoning.encrypted","data":"b3BhcXVl",'
            '"format":"anthropic-claude-v1","index":1}]}'
        ),
        said('{"content":"Häl"}'),
        said('{"content":"lo 😀"}'),
        said(
            '{"tool_calls":[{"index":0,"id":"toolu_1","type":"function",'
            '"function":{"name":"look","arguments":""}}]}'
        ),
        said('{"tool_calls":[{"index":0,"function":{"arguments":"{\\"n\\": 1.50"}}]}'),
        said('{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]}'),
        said(
            '{"tool_calls":[{"index":1,"id":"toolu_2","type":"function",'
            '"function":{"name":"wait","arguments":""}}]}'
        ),
        said('{"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]}'),
        said("{}", '"tool_calls"'),
    ]


def test_whole_golden_bytes_render_as_this_object():
    assert whole_object(COMPLETION) == {
        "id": "0",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "service_tier": "default",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hällo 😀",
                    "refusal": None,
                    "reasoning_content": "Let me see.",
                    "reasoning_details": [
                        {
                            "type": "reasoning.text",
                            "text": "Let me see.",
                            "signature": "c2ln",
                            "format": FORMAT,
                            "index": 0,
                        },
                        {
                            "type": "reasoning.encrypted",
                            "data": "b3BhcXVl",
                            "format": FORMAT,
                            "index": 1,
                        },
                    ],
                    "tool_calls": [
                        {
                            "id": "toolu_1",
                            "type": "function",
                            "function": {"name": "look", "arguments": '{"n": 1.50}'},
                        },
                        {
                            "id": "toolu_2",
                            "type": "function",
                            "function": {"name": "wait", "arguments": "{}"},
                        },
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {
            "prompt_tokens": 123,
            "completion_tokens": 42,
            "total_tokens": 165,
            "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 20},
            "completion_tokens_details": {"reasoning_tokens": 5},
        },
    }


# -- ends -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "finish", "native"),
    [
        ("end_turn", "stop", UNSET),
        ("stop_sequence", "stop", "stop_sequence"),
        ("max_tokens", "length", UNSET),
        ("model_context_window_exceeded", "length", "model_context_window_exceeded"),
        ("refusal", "content_filter", "refusal"),
        ("pause_turn", "stop", "pause_turn"),
        ("something_new", "stop", "something_new"),
    ],
)
def test_finish_of_each_stop_reason(reason, finish, native):
    stream = events(
        start(),
        block_start(0, '{"type":"text","text":"a"}'),
        block_stop(0),
        message_delta(reason),
        STOP,
    )
    expected = Finished(finish=finish, native_finish=native)
    assert expected == read(stream)[-2].value
    whole = f'{{"content":[],"stop_reason":"{reason}"}}'.encode()
    (choice,) = ANTHROPIC.parse_response(HEAD, whole).choices
    assert (finish, native) == (choice.finish, choice.native_finish)


def test_stream_without_message_stop_after_stop_reason_is_complete():
    stream = events(
        start(),
        block_start(0, '{"type":"text","text":"a"}'),
        message_delta("end_turn"),
    )
    usage = Usage(input_tokens=10, output_tokens=7)
    assert read(stream)[-2:] == [finished(Finished(finish="stop"), usage), StreamDone()]


@pytest.mark.parametrize("count", range(6))
def test_stream_cut_before_stop_reason_fails(count):
    bodies = [
        start(),
        block_start(0, '{"type":"text","text":""}'),
        delta(0, '{"type":"text_delta","text":"a"}'),
        block_stop(0),
        PING,
    ]
    last = read(events(*bodies[:count]))[-1]
    assert isinstance(last, StreamFailed)
    assert isinstance(last.error, UpstreamBroken)
    assert last.error.kind == "cut"


def test_members_of_blocks_that_are_null_are_not_there():
    thinking = '{"type":"thinking","thinking":"","signature":null}'
    text = '{"type":"text","text":null,"citations":null}'
    call = '{"type":"tool_use","id":"t","name":"f","text":null,"input":{"x":null}}'
    data = events(
        start(),
        block_start(0, thinking),
        delta(0, '{"type":"thinking_delta","thinking":"h","signature":null}'),
        block_stop(0),
        block_start(1, text),
        delta(1, '{"type":"text_delta","text":"a","citation":null}'),
        block_stop(1),
        block_start(2, call),
        block_stop(2),
        message_delta("tool_use"),
        STOP,
    )
    (choice,) = collected(read(data)).choices
    expected = (
        Thinking(text="h"),
        Text("a"),
        ToolCall(id="t", name="f", arguments='{"x":null}'),
    )
    assert choice.content == expected
    blocks = [
        thinking.replace('""', '"h"'),
        text.replace("null", '"a"', 1),
        call,
    ]
    body = f'{{"content":[{",".join(blocks)}],"stop_reason":"tool_use"}}'
    completion = ANTHROPIC.parse_response(HEAD, body.encode())
    assert completion.choices[0].content == expected


def test_stream_of_two_message_deltas_takes_the_last_usage():
    stream = events(
        start(),
        block_start(0, '{"type":"text","text":"a"}'),
        block_stop(0),
        message_delta("end_turn", '{"output_tokens":7}'),
        message_delta("end_turn", '{"output_tokens":9,"input_tokens":12}'),
        STOP,
    )
    expected = finished(
        Finished(finish="stop"), Usage(input_tokens=12, output_tokens=9)
    )
    assert [e for e in read(stream) if getattr(e, "is_finish", False)] == [expected]


def test_stream_of_an_imitator_that_ends_with_done_is_complete():
    stream = (
        events(start(), block_start(0, '{"type":"text","text":"a"}'))
        + events(message_delta("end_turn"))
        + b"data: [DONE]\n\n"
    )
    assert read(stream)[-1] == StreamDone()


def test_refusal_details_become_a_refusal():
    more = ',"stop_details":{"type":"refusal","explanation":"I must not."}'
    stream = events(start(), message_delta("refusal", more=more), STOP)
    whole = (
        b'{"content":[],"stop_reason":"refusal",'
        b'"stop_details":{"type":"refusal","explanation":"I must not."}}'
    )
    assert content(RefusalDelta("I must not.")) in read(stream)
    (choice,) = ANTHROPIC.parse_response(HEAD, whole).choices
    assert choice.content == (Refusal("I must not."),)
    message = whole_object(Completion(choices=(choice,)))["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, "I must not.")


# -- citations, tools of the provider, structured output ------------------------


CITATION = (
    '{"type":"web_search_result_location","cited_text":"Rust is","url":'
    '"https://example.org/a","title":"A","encrypted_index":"x"}'
)
PLACE = (
    '{"type":"char_location","cited_text":"Rust","document_index":0,'
    '"document_title":"Goals","start_char_index":0,"end_char_index":4}'
)


def test_citations_are_placed_in_the_text_of_the_whole_answer():
    stream = events(
        start(),
        block_start(0, '{"type":"text","text":"abc"}'),
        block_stop(0),
        block_start(1, '{"type":"text","text":"","citations":null}'),
        delta(1, f'{{"type":"citations_delta","citation":{CITATION}}}'),
        delta(1, '{"type":"text_delta","text":"defg"}'),
        delta(1, f'{{"type":"citations_delta","citation":{PLACE}}}'),
        block_stop(1),
        message_delta("end_turn"),
        STOP,
    )
    found = Citation(
        start=3,
        end=7,
        url="https://example.org/a",
        title="A",
        quote="Rust is",
        native=Raw(CITATION.encode()),
    )
    placed = Citation(
        start=3, end=7, title="Goals", quote="Rust", native=Raw(PLACE.encode())
    )
    parts = [e.value for e in read(stream) if isinstance(e, StreamPart)]
    assert [p for p in parts if isinstance(p, CitationDelta)] == [
        CitationDelta(found),
        CitationDelta(placed),
    ]
    whole = (
        '{"content":[{"type":"text","text":"abc"},{"type":"text","text":"defg",'
        f'"citations":[{CITATION},{PLACE}]}}],"stop_reason":"end_turn"}}'
    )
    completion = ANTHROPIC.parse_response(HEAD, whole.encode())
    assert completion.choices[0].content == (Text("abcdefg", UNSET, (found, placed)),)
    message = whole_object(completion)["choices"][0]["message"]
    assert message["annotations"] == [
        {
            "type": "url_citation",
            "url_citation": {
                "start_index": 3,
                "end_index": 7,
                "url": "https://example.org/a",
                "title": "A",
            },
        }
    ]
    assert message["citations"] == [
        {
            "start_index": 3,
            "end_index": 7,
            "title": "Goals",
            "quote": "Rust",
            "source": msgspec.json.decode(PLACE),
        }
    ]


def test_blocks_of_unknown_types_are_kept_whole():
    block = (
        '{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search",'
        '"input":{"query":"x"}}'
    )
    stream = events(
        start(),
        block_start(
            0,
            '{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search",'
            '"input":{}}',
        ),
        delta(0, '{"type":"input_json_delta","partial_json":"{\\"query\\":"}'),
        delta(0, '{"type":"input_json_delta","partial_json":"\\"x\\"}"}'),
        block_stop(0),
        block_start(1, '{"type":"compaction","content":null}'),
        delta(1, '{"type":"compaction_delta","content":"short","extra":[1]}'),
        block_stop(1),
        message_delta("end_turn"),
        STOP,
    )
    called = Opaque("anthropic", "server_tool_use", Raw(block.encode()))
    compacted = Opaque(
        "anthropic",
        "compaction",
        Raw(b'{"type":"compaction","content":"short","extra":[1]}'),
    )
    got = [e.value for e in read(stream) if isinstance(e, StreamPart)]
    assert got[1:3] == [OpaqueDelta(called), OpaqueDelta(compacted)]
    whole = f'{{"content":[{block}],"stop_reason":"end_turn"}}'.encode()
    assert ANTHROPIC.parse_response(HEAD, whole).choices[0].content == (called,)


def test_answer_through_the_gateways_tool_is_text_and_no_call():
    stream = events(
        start(),
        block_start(0, f'{{"type":"tool_use","id":"t","name":"{ANSWER_TOOL}"}}'),
        delta(0, '{"type":"input_json_delta","partial_json":"{\\"a\\":"}'),
        delta(0, '{"type":"input_json_delta","partial_json":"1}"}'),
        block_stop(0),
        message_delta("tool_use"),
        STOP,
    )
    whole = (
        '{"content":[{"type":"tool_use","id":"t","input":{"a":1},'
        f'"name":"{ANSWER_TOOL}"}}],"stop_reason":"tool_use"}}'
    )
    expected = Choice(content=(Text('{"a":1}'),), finish="stop")
    assert (expected,) == collected(read(stream)).choices
    assert (expected,) == ANTHROPIC.parse_response(HEAD, whole.encode()).choices


def test_arguments_given_whole_at_the_start_of_a_block_are_not_lost():
    stream = events(
        start(),
        block_start(0, '{"type":"tool_use","id":"t","name":"f","input":{"a":1}}'),
        block_stop(0),
        message_delta("tool_use"),
        STOP,
    )
    call = ToolCall(id="t", name="f", arguments='{"a":1}')
    assert collected(read(stream)).choices[0].content == (call,)


# -- errors ---------------------------------------------------------------------


def error_body(kind, message="Overloaded"):
    return (
        f'{{"type":"error","error":{{"type":"{kind}","message":"{message}"}},'
        '"request_id":"req_1"}'
    )


@pytest.mark.parametrize(
    ("kind", "status", "told", "code"),
    [
        ("invalid_request_error", 400, "invalid_request_error", None),
        ("authentication_error", 401, "authentication_error", "invalid_api_key"),
        ("billing_error", 402, "insufficient_quota", "insufficient_quota"),
        ("permission_error", 403, "permission_error", "permission_denied"),
        ("not_found_error", 404, "invalid_request_error", "model_not_found"),
        ("request_too_large", 413, "invalid_request_error", "request_too_large"),
        ("rate_limit_error", 429, "rate_limit_error", "rate_limit_exceeded"),
        ("api_error", 500, "server_error", None),
        ("timeout_error", 504, "timeout_error", "timeout"),
        ("overloaded_error", 529, "server_error", "overloaded"),
    ],
)
def test_error_of_each_type_whole_in_a_200_and_in_a_stream(kind, status, told, code):
    body = error_body(kind)
    expected = (status, "Overloaded", told, code, None)
    refused = ANTHROPIC.parse_error(ResponseHead(status), body.encode())
    assert isinstance(refused, UpstreamRefused)
    assert expected == facts_of(refused)
    with pytest.raises(UpstreamRefused) as caught:
        ANTHROPIC.parse_response(HEAD, body.encode())
    assert expected == facts_of(caught.value)
    failed = read(events(start(), body))[-1]
    assert isinstance(failed, StreamFailed)
    assert isinstance(failed.error, UpstreamRefused)
    assert expected == facts_of(failed.error)


def test_error_before_any_content_is_the_first_event_that_matters():
    first, last = read(events(start(), PING, error_body("overloaded_error"), STOP))
    assert first.has_content is False
    assert isinstance(last, StreamFailed)


def test_error_of_a_full_provider_says_when_to_come_back():
    head = ResponseHead(529, (("retry-after", "3"),))
    refused = ANTHROPIC.parse_error(head, error_body("overloaded_error").encode())
    assert isinstance(refused, UpstreamRefused)
    assert refused.retry_after == 3.0


def test_error_of_a_prompt_over_the_limit_has_openais_code():
    body = error_body("invalid_request_error", "prompt is too long: 9 tokens > 8")
    refused = ANTHROPIC.parse_error(ResponseHead(400), body.encode())
    assert isinstance(refused, UpstreamRefused)
    assert refused.code == "context_length_exceeded"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"content":3}',
        b"<html>",
        b'{"content":[1',
        b"\xff",
    ],
)
def test_whole_answer_that_is_no_message_is_garbled(body):
    with pytest.raises(UpstreamGarbled):
        ANTHROPIC.parse_response(HEAD, body)


def test_stream_event_that_is_not_json_fails_the_stream():
    last = read(events(start()) + b"data: {nonsense\n\n" + events(STOP))[-1]
    assert isinstance(last, StreamFailed)
    assert isinstance(last.error, UpstreamGarbled)


def test_stream_that_begins_a_second_message_after_content_fails():
    stream = events(start(), block_start(0, '{"type":"text","text":"a"}'), start())
    last = read(stream)[-1]
    assert isinstance(last, StreamFailed)
    assert isinstance(last.error, UpstreamGarbled)


def test_stream_events_of_unknown_types_are_skipped_and_counted():
    stream = events(
        start(),
        '{"type":"news","payload":{"a":1}}',
        '{"type":"content_block_delta","index":9,"delta":{"type":"text_delta"}}',
        '{"type":"content_block_delta","index":"0","delta":{}}',
        message_delta("end_turn"),
        STOP,
    )
    skipped = [e for e in read(stream) if isinstance(e, StreamSkipped)]
    assert len(skipped) == 3
    assert read(stream)[-1] == StreamDone()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "index", "delta", "content_block", "message", "usage", "text"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
_KINDS = st.sampled_from(
    [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "error",
        "ping",
    ]
)


@given(
    st.lists(
        st.binary(max_size=20)
        | st.builds(
            lambda kind, value: (
                b"data: "
                + msgspec.json.encode(
                    {**value, "type": kind} if isinstance(value, dict) else value
                )
                + b"\n\n"
            ),
            _KINDS,
            _JSON,
        ),
        max_size=8,
    )
)
def test_stream_decoder_fed_with_anything_ends_and_never_raises(pieces):
    decoder = decoder_of(ANTHROPIC, HEAD)
    got = decoded(decoder, pieces)
    assert isinstance(got[-1], StreamDone | StreamFailed)
    whole = decoded(decoder_of(ANTHROPIC, HEAD), [b"".join(pieces)])
    assert comparable(got) == comparable(whole)
    collected(got)


@given(st.binary(max_size=60))
def test_whole_answer_of_anything_is_read_or_refused(body):
    try:
        completion = ANTHROPIC.parse_response(HEAD, body)
    except (UpstreamGarbled, UpstreamRefused):
        return
    whole_object(completion)
