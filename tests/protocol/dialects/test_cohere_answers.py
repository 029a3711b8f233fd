from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

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
from tests.protocol.dialects.strategies import JSON_VALUES
from tz_protocol.dialects.cohere import COHERE_CHAT
from tz_protocol.dialects.cohere_request import ANSWER_TOOL
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
    ReasoningDelta,
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


def events(*bodies, ending="\n"):
    """Return a stream of the vendor's events."""
    return b"".join(
        f"event: {msgspec.json.decode(body)['type']}{ending}"
        f"data: {body}{ending}{ending}".encode()
        for body in bodies
    )


def event(kind, message, index=0):
    return (
        f'{{"type":"{kind}","index":{index},'
        f'"delta":{{"message":{msgspec.json.encode(message).decode()}}}}}'
    )


def text(value, index=0):
    return event("content-delta", {"content": {"text": value}}, index)


def thought(value, index=0):
    return event("content-delta", {"content": {"thinking": value}}, index)


def call(name, call_id="c1", index=0, arguments=""):
    function = {"name": name, "arguments": arguments}
    value = {"id": call_id, "type": "function", "function": function}
    return event("tool-call-start", {"tool_calls": value}, index)


def arguments(value, index=0):
    function = {"arguments": value}
    return event("tool-call-delta", {"tool_calls": {"function": function}}, index)


START = (
    '{"type":"message-start","id":"id-1","delta":{"message":{"role":"assistant",'
    '"content":[],"tool_plan":"","tool_calls":[],"citations":[]}}}'
)


def end(
    reason="COMPLETE",
    usage='{"tokens":{"input_tokens":10,"output_tokens":5}}',
    more="",
):
    return (
        '{"type":"message-end","delta":{'
        f'"finish_reason":"{reason}","usage":{usage}{more}}}}}'
    )


CITATION = (
    '{"start":1,"end":3,"text":"öl","sources":[{"type":"tool","id":"c:0",'
    '"tool_output":{"content":"x"}}],"type":"TEXT_CONTENT","content_index":1}'
)
CITED = (
    f'{{"type":"citation-start","index":0,"delta":{{"message":{{"citations":'
    f"{CITATION}}}}}}}"
)
STREAM = (
    events(
        START,
        event("content-start", {"content": {"type": "thinking", "thinking": ""}}),
        thought("Let me "),
        thought("see."),
        '{"type":"content-end","index":0}',
        event("content-start", {"content": {"type": "text", "text": ""}}, 1),
        text("Hö", 1),
        text("l \U0001f600", 1),
        CITED,
        '{"type":"citation-end","index":0}',
        '{"type":"content-end","index":1}',
        event("tool-plan-delta", {"tool_plan": "I will"}),
        event("tool-plan-delta", {"tool_plan": " look."}),
        call("look"),
        arguments('{"n": 1.50'),
        arguments("}"),
        '{"type":"tool-call-end","index":0}',
        call("wait", "c2", 1),
        '{"type":"tool-call-end","index":1}',
        end(
            "TOOL_CALL",
            '{"billed_units":{"input_tokens":4,"output_tokens":3},"tokens":'
            '{"input_tokens":20,"output_tokens":9,"reasoning_tokens":2},'
            '"cached_tokens":16}',
        ),
    )
    + b"data: [DONE]\n\n"
)
USAGE = Usage(
    input_tokens=20, output_tokens=9, cache_read_tokens=16, reasoning_tokens=2
)
SOURCE = Citation(start=1, end=3, native=Raw(CITATION.encode()))
EVENTS = [
    lifecycle(Started(id="id-1")),
    content(ReasoningDelta("Let me ")),
    content(ReasoningDelta("see.")),
    content(TextDelta("Hö")),
    content(TextDelta("l \U0001f600")),
    content(CitationDelta(SOURCE)),
    content(ReasoningDelta("I will", 1)),
    content(ReasoningDelta(" look.", 1)),
    content(ToolCallStarted(index=0, id="c1", name="look")),
    content(ArgumentsDelta(0, '{"n": 1.50')),
    content(ArgumentsDelta(0, "}")),
    content(ToolCallStarted(index=1, id="c2", name="wait")),
    content(ArgumentsDelta(1, "{}")),
    finished(Finished(finish="tool_calls"), USAGE),
    StreamDone(),
]
WHOLE = (
    '{"id":"id-1","message":{"role":"assistant","content":[{"type":"thinking",'
    '"thinking":"Let me see."},{"type":"text","text":"Höl \U0001f600"}],"tool_plan":'
    '"I will look.","tool_calls":[{"id":"c1","type":"function","function":{"name":'
    '"look","arguments":"{\\"n\\": 1.50}"}},{"id":"c2","type":"function","function":'
    f'{{"name":"wait","arguments":""}}}}],"citations":[{CITATION}]}},'
    '"finish_reason":"TOOL_CALL","usage":{"billed_units":{"input_tokens":4,'
    '"output_tokens":3},"tokens":{"input_tokens":20,"output_tokens":9,'
    '"reasoning_tokens":2},"cached_tokens":16}}'
).encode()
COMPLETION = Completion(
    id="id-1",
    usage=USAGE,
    choices=(
        Choice(
            content=(
                Thinking(text="Let me see."),
                Text("Höl \U0001f600", citations=(SOURCE,)),
                Thinking(text="I will look."),
                ToolCall(id="c1", name="look", arguments='{"n": 1.50}'),
                ToolCall(id="c2", name="wait", arguments="{}"),
            ),
            finish="tool_calls",
        ),
    ),
)


def read(data):
    return decoded(decoder_of(COHERE_CHAT, HEAD), [data])


# -- golden bytes ---------------------------------------------------------------


def test_stream_golden_bytes():
    assert read(STREAM) == EVENTS


def test_stream_byte_by_byte_is_the_same():
    decoder = decoder_of(COHERE_CHAT, HEAD)
    assert decoded(decoder, byte_by_byte(STREAM)) == EVENTS


@given(splits(STREAM))
def test_stream_in_any_pieces_is_the_same(pieces):
    assert decoded(decoder_of(COHERE_CHAT, HEAD), pieces) == EVENTS


@pytest.mark.parametrize("ending", ["\r\n", "\r"])
def test_stream_with_other_line_ends_is_the_same(ending):
    data = STREAM.replace(b"\n", ending.encode())
    assert read(data) == EVENTS


def test_whole_golden_bytes():
    assert COHERE_CHAT.parse_response(HEAD, WHOLE) == COMPLETION


def test_stream_adds_up_to_the_whole_answer():
    assert collected(EVENTS) == COMPLETION


# -- ends and usage -------------------------------------------------------------

END_CASES = [
    ("COMPLETE", "stop", None),
    ("STOP_SEQUENCE", "stop", "STOP_SEQUENCE"),
    ("MAX_TOKENS", "length", None),
    ("TOOL_CALL", "stop", None),
    ("ERROR_TOXIC", "content_filter", "ERROR_TOXIC"),
    ("SOMETHING_NEW", "stop", "SOMETHING_NEW"),
]


@pytest.mark.parametrize(("reason", "finish", "native"), END_CASES)
def test_finish_is_openais_word_for_the_reason(reason, finish, native):
    body = f'{{"message":{{"content":"a"}},"finish_reason":"{reason}"}}'
    completion = COHERE_CHAT.parse_response(HEAD, body.encode())
    (choice,) = whole_object(completion)["choices"]
    assert choice["finish_reason"] == finish
    assert choice.get("native_finish_reason") == native
    streamed = collected(read(events(START, text("a"), end(reason))))
    assert streamed.choices == completion.choices


@pytest.mark.parametrize(
    ("reason", "status"), [("ERROR", 500), ("TIMEOUT", 504)], ids=["error", "timeout"]
)
def test_answer_that_ended_with_an_error_is_refused(reason, status):
    body = f'{{"message":{{"content":"a"}},"finish_reason":"{reason}"}}'
    with pytest.raises(UpstreamRefused) as caught:
        COHERE_CHAT.parse_response(HEAD, body.encode())
    assert caught.value.status == status
    last = read(events(START, text("a"), end(reason, more=',"error":"Why."')))[-1]
    assert isinstance(last, StreamFailed)
    assert isinstance(last.error, UpstreamRefused)
    assert (last.error.status, last.error.message) == (status, "Why.")


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ('{"tokens":{"input_tokens":3.0,"output_tokens":2.0}}', (3, 2, None)),
        ('{"billed_units":{"input_tokens":3,"output_tokens":2}}', (3, 2, None)),
        (
            '{"tokens":{"input_tokens":3},"cached_tokens":2}',
            (3, 0, 2),
        ),
        ("{}", None),
        ("null", None),
    ],
    ids=["floats", "billed", "cached", "empty", "null"],
)
def test_usage_is_what_the_vendor_says_or_nothing(usage, expected):
    body = f'{{"message":{{}},"finish_reason":"COMPLETE","usage":{usage}}}'
    found = COHERE_CHAT.parse_response(HEAD, body.encode()).usage
    if expected is None:
        assert found is None
    else:
        shown = (found.input_tokens, found.output_tokens, found.cache_read_tokens)
        assert shown == expected
    last = collected(read(events(START, end(usage=usage))))
    assert last.usage == found


# -- tool calls, citations ------------------------------------------------------


def test_call_of_the_answer_tool_is_the_answer():
    stream = events(START, call(ANSWER_TOOL), arguments('{"a":1}'), end("TOOL_CALL"))
    made = collected(read(stream))
    assert made.choices == (Choice(content=(Text('{"a":1}'),), finish="stop"),)
    whole = (
        '{"message":{"tool_calls":[{"id":"c","function":{"name":"'
        f'{ANSWER_TOOL}","arguments":"{{\\"a\\":1}}"}}}}]}},'
        '"finish_reason":"TOOL_CALL"}'
    )
    found = COHERE_CHAT.parse_response(HEAD, whole.encode())
    assert found.choices == made.choices


def test_call_without_an_id_gets_the_same_one_whole_and_streamed():
    stream = events(START, call("f", ""), call("f", "", 1), end("TOOL_CALL"))
    function = '{"function":{"name":"f","arguments":"{}"}}'
    whole = (
        f'{{"id":"id-1","message":{{"tool_calls":[{function},{function}]}},'
        '"finish_reason":"TOOL_CALL"}'
    )
    (choice,) = collected(read(stream)).choices
    assert COHERE_CHAT.parse_response(HEAD, whole.encode()).choices == (choice,)
    ids = [block.id for block in choice.content if isinstance(block, ToolCall)]
    assert len(set(ids)) == 2


def test_citation_counts_from_the_beginning_of_the_answer():
    citation = {"start": 0, "end": 1, "sources": [], "content_index": 1}
    content = [{"type": "text", "text": "ab"}, {"type": "text", "text": "cd"}]
    body = {"message": {"content": content, "citations": [citation]}}
    found = COHERE_CHAT.parse_response(HEAD, msgspec.json.encode(body))
    (block,) = found.choices[0].content
    assert isinstance(block, Text)
    assert [(one.start, one.end) for one in block.citations] == [(2, 3)]
    stream = events(
        START,
        event("content-start", {"content": content[0]}),
        event("content-start", {"content": content[1]}, 1),
        event("citation-start", {"citations": citation}),
        end(),
    )
    assert collected(read(stream)).choices == found.choices


def test_citation_of_a_page_has_its_address_and_title():
    document = {"url": "https://e.org/a", "title": "A"}
    citation = {
        "start": 0,
        "end": 1,
        "sources": [{"type": "document", "document": document}],
    }
    body = {"message": {"content": "a", "citations": [citation]}}
    found = COHERE_CHAT.parse_response(HEAD, msgspec.json.encode(body))
    (choice,) = whole_object(found)["choices"]
    assert choice["message"]["annotations"] == [
        {
            "type": "url_citation",
            "url_citation": {
                "start_index": 0,
                "end_index": 1,
                "url": "https://e.org/a",
                "title": "A",
            },
        }
    ]


@pytest.mark.parametrize("kind", ["PLAN", "THINKING_CONTENT"])
def test_citation_of_what_is_not_text_is_kept_unread(kind):
    citation = {"start": 0, "end": 1, "type": kind}
    body = {"message": {"content": "a", "citations": [citation]}}
    found = COHERE_CHAT.parse_response(HEAD, msgspec.json.encode(body))
    raw = Raw(msgspec.json.encode(citation))
    assert found.choices[0].content == (Text("a"), Opaque("cohere", "citation", raw))
    stream = events(
        START, text("a"), event("citation-start", {"citations": citation}), end()
    )
    assert collected(read(stream)).choices == found.choices


# -- failures -------------------------------------------------------------------


@pytest.mark.parametrize("kept", range(len(STREAM.split(b"\n\n")) - 2))
def test_stream_cut_short_between_events_is_a_broken_one(kept):
    body = b"\n\n".join(STREAM.split(b"\n\n")[:kept])
    last = read(body)[-1]
    assert isinstance(last, StreamFailed)
    assert isinstance(last.error, UpstreamBroken)


def test_stream_cut_short_anywhere_never_ends_cleanly():
    for place in range(STREAM.index(b'"message-end"')):
        assert isinstance(read(STREAM[:place])[-1], StreamFailed), place


def test_stream_that_says_done_without_an_end_fails():
    last = read(events(START, text("a")) + b"data: [DONE]\n\n")[-1]
    assert isinstance(last, StreamFailed)


def test_stream_without_done_is_complete():
    assert read(STREAM.removesuffix(b"data: [DONE]\n\n")) == EVENTS


@pytest.mark.parametrize(
    "data",
    [b"data: {oops\n\n", b'data: "\xff"\n\n', b"x" * 2_000_000],
    ids=["json", "utf-8", "endless"],
)
def test_stream_that_cannot_be_read_fails(data):
    last = read(events(START) + data)[-1]
    assert isinstance(last, StreamFailed)


def test_stream_error_of_the_vendor_fails_with_its_words():
    stream = events(START) + b'data: {"id":"x","message":"too many requests"}\n\n'
    last = read(stream)[-1]
    assert isinstance(last, StreamFailed)
    assert isinstance(last.error, UpstreamRefused)
    assert last.error.message == "too many requests"


def test_stream_events_of_unknown_types_are_skipped_and_counted():
    stream = events(
        START,
        '{"type":"news","payload":{"a":1}}',
        '{"type":"content-delta","index":"0","delta":{}}',
        arguments("{}", 9),
        '{"type":"tool-call-start","index":0}',
        end(),
    )
    found = read(stream)
    assert len([item for item in found if isinstance(item, StreamSkipped)]) == 4
    assert found[-1] == StreamDone()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (
            401,
            b'{"id":"x","message":"invalid api token"}',
            (401, "invalid api token", "authentication_error", "invalid_api_key", None),
        ),
        (
            400,
            b'{"error_type":"TOO_MANY_TOKENS","message":"too many tokens"}',
            (
                400,
                "too many tokens",
                "invalid_request_error",
                "context_length_exceeded",
                None,
            ),
        ),
        (
            404,
            b'{"message":"model not found"}',
            (
                404,
                "model not found",
                "invalid_request_error",
                "model_not_found",
                None,
            ),
        ),
        (
            429,
            b'{"message":"slow down"}',
            (429, "slow down", "rate_limit_error", "rate_limit_exceeded", 3.0),
        ),
        (
            502,
            b"<html>",
            (
                502,
                "The provider answered with status 502 and no explanation.",
                "server_error",
                None,
                None,
            ),
        ),
    ],
    ids=["key", "length", "model", "rate", "page"],
)
def test_error_is_told_in_openais_words(status, body, expected):
    headers = (("retry-after", "3"),) if status == 429 else ()
    error = COHERE_CHAT.parse_error(ResponseHead(status, headers), body)
    assert isinstance(error, UpstreamRefused)
    assert facts_of(error) == expected


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", UpstreamGarbled),
        (b"[]", UpstreamGarbled),
        (b'{"id":"x"}', UpstreamGarbled),
        (b'{"id":"x","message":"no"}', UpstreamRefused),
        (b'{"error":{"message":"no"}}', UpstreamRefused),
        (b'{"message":{"content":7}}', UpstreamGarbled),
    ],
)
def test_whole_answer_that_is_none_is_refused(body, kind):
    with pytest.raises(kind):
        COHERE_CHAT.parse_response(HEAD, body)


# -- anything -------------------------------------------------------------------

_KINDS = st.sampled_from(
    [
        "message-start",
        "content-start",
        "content-delta",
        "tool-plan-delta",
        "tool-call-start",
        "tool-call-delta",
        "tool-call-end",
        "citation-start",
        "message-end",
        "",
    ]
)
_MESSAGES = st.dictionaries(
    st.sampled_from(["content", "tool_plan", "tool_calls", "citations"]),
    JSON_VALUES
    | st.dictionaries(
        st.sampled_from(["type", "text", "thinking", "id", "function", "start"]),
        JSON_VALUES | st.fixed_dictionaries({"name": st.text(max_size=3)}),
    ),
)
_EVENTS = st.builds(
    lambda kind, index, message, more: (
        b"data: "
        + msgspec.json.encode(
            {"type": kind, "index": index, "delta": {"message": message, **more}}
        )
        + b"\n\n"
    ),
    _KINDS,
    st.integers(0, 2) | st.none() | st.text(max_size=2),
    _MESSAGES | JSON_VALUES,
    st.dictionaries(st.sampled_from(["finish_reason", "usage", "error"]), JSON_VALUES),
)


@given(st.lists(st.binary(max_size=20) | _EVENTS, max_size=8))
def test_stream_decoder_fed_with_anything_ends_and_never_raises(pieces):
    got = decoded(decoder_of(COHERE_CHAT, HEAD), pieces)
    assert isinstance(got[-1], StreamDone | StreamFailed)
    whole = decoded(decoder_of(COHERE_CHAT, HEAD), [b"".join(pieces)])
    assert comparable(got) == comparable(whole)
    collected(item for item in got if isinstance(item, StreamPart))


@given(
    st.binary(max_size=60)
    | st.builds(
        lambda message, more: msgspec.json.encode({"message": message, **more}),
        _MESSAGES | JSON_VALUES,
        st.dictionaries(st.sampled_from(["finish_reason", "usage", "id"]), JSON_VALUES),
    )
)
def test_whole_answer_of_anything_is_read_or_refused(body):
    try:
        completion = COHERE_CHAT.parse_response(HEAD, body)
    except (UpstreamGarbled, UpstreamRefused):
        return
    whole_object(completion)
