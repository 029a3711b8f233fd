"""Streams of chat completions: what is recognised, and what the client gets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.dialects.checking import (
    LIMIT,
    byte_by_byte,
    comparable,
    decoded,
    splits,
)
from tz_protocol.dialects import openai_chat_stream
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.dialects.openai_chat_stream import (
    ChatDecoder,
    ChatEncoder,
    chat_decoder,
)
from tz_protocol.dialects.openai_chat_stream_repairs import with_deltas
from tz_protocol.errors import (
    Overloaded,
    UpstreamBroken,
    UpstreamGarbled,
    UpstreamRefused,
)
from tz_protocol.types.chat import ChatChunk, ChatRequest
from tz_protocol.types.http import ResponseHead
from tz_protocol.types.request import Identity
from tz_protocol.types.stream import (
    StreamDone,
    StreamFailed,
    StreamPart,
    StreamSkipped,
)
from tz_protocol.types.usage import Usage

IDENTITY = Identity(id="ours", episode_id="episode", model="public", created=1_750)
STAMPS = {
    "id": "ours",
    "episode_id": "episode",
    "object": "chat.completion.chunk",
    "model": "public",
}
HEAD = {
    "id": "chatcmpl-theirs",
    "object": "chat.completion.chunk",
    "created": 1_700,
    "model": "gpt-4.1-2025",
}
DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def event(value, name=None):
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    prefix = "" if name is None else f"event: {name}\n"
    return f"{prefix}data: {text}\n\n".encode()


def chunk(delta=None, finish=None, index=0, **members):
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return {**HEAD, "choices": [choice], **members}


def text(content):
    return chunk({"content": content})


ROLE = chunk({"role": "assistant", "content": ""})
STOP = chunk(finish="stop")
TOLD = {**HEAD, "choices": [], "usage": USAGE}


def decode(*pieces):
    decoder = chat_decoder(ResponseHead(200), LIMIT)
    return decoded(decoder, [b"".join(pieces)])


def relayed(events, *, shows=False, continuous=False):
    """Return the client's bytes for *events*, and the usage that was counted."""
    request = ChatRequest(
        model="public",
        is_stream=True,
        include_usage=shows or continuous,
        is_usage_continuous=continuous,
    )
    encoder = ChatEncoder(request, IDENTITY)
    out, usage = [], None
    for item in events:
        if isinstance(item, StreamPart):
            usage = item.usage or usage
            out.append(encoder.encode(item))
        elif isinstance(item, StreamDone):
            out.append(encoder.finish(usage))
    return b"".join(out), usage


def objects(data):
    """Return what a client reads of *data*, strictly framed."""
    blocks = data.decode().split("\n\n")
    assert blocks.pop() == ""
    found = []
    for block in blocks:
        assert block.startswith("data: ")
        assert "\n" not in block
        payload = block.removeprefix("data: ")
        found.append(payload if payload == "[DONE]" else json.loads(payload))
    return found


# -- what is recognised ---------------------------------------------------------


@pytest.mark.parametrize(
    ("delta", "has_content"),
    [
        ({}, False),
        ({"role": "assistant"}, False),
        ({"role": "assistant", "content": ""}, False),
        ({"role": "assistant", "content": None}, False),
        ({"content": None, "tool_calls": None, "reasoning": None}, False),
        ({"content": "", "tool_calls": []}, False),
        ({"content": "x"}, True),
        ({"content": " "}, True),
        ({"content": [{"type": "thinking", "thinking": []}]}, False),
        ({"content": [{"type": "thinking", "thinking": "hm"}]}, True),
        ({"refusal": "No."}, True),
        ({"tool_calls": [{"index": 0, "id": "a", "function": {}}]}, True),
        ({"function_call": {"name": "f", "arguments": ""}}, True),
        ({"reasoning_content": "hm"}, True),
        ({"reasoning": "hm", "content": ""}, True),
        ({"reasoning_details": [{"type": "reasoning.encrypted"}]}, True),
        ({"audio": {"id": "a"}}, True),
        ({"unknown": "x"}, False),
    ],
)
def test_content_is_what_a_caller_would_see(delta, has_content):
    part, *_ = decode(event(chunk(delta)))
    assert isinstance(part, StreamPart)
    assert part.has_content is has_content
    assert not part.is_finish


@pytest.mark.parametrize(
    ("finish", "is_finish"), [(None, False), ("", False), ("stop", True), ("eos", True)]
)
def test_finish_is_a_reason_that_is_not_empty(finish, is_finish):
    part, *_ = decode(event(chunk(finish=finish)))
    assert part.is_finish is is_finish


def test_content_in_any_choice_counts():
    two = [{"index": 0, "delta": {}}, {"index": 1, "delta": {"content": "x"}}]
    part, *_ = decode(event({**HEAD, "choices": two}))
    assert part.has_content


@pytest.mark.parametrize(
    ("value", "usage"),
    [
        (TOLD, Usage(input_tokens=3, output_tokens=4)),
        ({**HEAD, "usage": USAGE}, Usage(input_tokens=3, output_tokens=4)),
        ({**STOP, "usage": USAGE}, Usage(input_tokens=3, output_tokens=4)),
        (
            {**STOP, "x_groq": {"id": "r", "usage": USAGE}},
            Usage(input_tokens=3, output_tokens=4),
        ),
        ({**STOP, "usage": None}, None),
        ({**STOP, "usage": {}, "x_groq": {"id": "r"}}, None),
    ],
)
def test_usage_is_understood_wherever_it_is(value, usage):
    part, *_ = decode(event(value))
    assert part.usage == usage
    assert not part.has_content


GOOD = (event(ROLE), event(text("a")), event(STOP), event(TOLD), DONE)


def test_stream_ends_with_its_terminator_and_nothing_follows():
    events = decode(*GOOD, event(text("late")), event({"error": {"message": "late"}}))
    assert [type(item) for item in events] == [StreamPart] * 4 + [StreamDone]


def failure(events):
    assert isinstance(events[-1], StreamFailed)
    return events[-1].error


def test_stream_without_terminator_after_its_finish_is_done():
    assert decode(event(text("a")), event(STOP))[-1] == StreamDone()
    assert decode(event(text("a")), event(STOP).rstrip())[-1] == StreamDone()


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"\n\n",),
        (b": keep-alive\n\n",),
        (event(ROLE),),
        (event(text("a")),),
        (event(text("a")), event(chunk(finish=""))),
        (event(text("a")), event(chunk({"content": "b"}, index=1)), event(STOP)),
        (event(text("a")), event(STOP)[:-30]),
    ],
)
def test_stream_that_ends_before_its_finish_was_cut(pieces):
    error = failure(decode(*pieces))
    assert isinstance(error, UpstreamBroken)
    assert error.kind == "cut"


def test_stream_of_two_choices_is_done_when_both_are():
    pieces = [event(chunk({"content": "x"}, index=place)) for place in (0, 1)]
    ends = [event(chunk(finish="stop", index=place)) for place in (1, 0)]
    assert decode(*pieces, *ends)[-1] == StreamDone()


ERRORS = {
    "data only": event({"error": {"message": "too hot", "code": 503}}),
    "event error": event(
        {"error": {"message": "too hot", "status_code": 503}}, "error"
    ),
    "event error, bare": event({"message": "too hot", "code": 503}, "error"),
    "with choices": event({**text("x"), "error": {"message": "too hot", "code": 503}}),
    "text": event({"error": "too hot", "code": "503"}),
    "old vllm": event({"object": "error", "message": "too hot", "code": 503}),
    "list": event([{"error": {"message": "too hot", "code": 503}}]),
}


@pytest.mark.parametrize("data", ERRORS.values(), ids=ERRORS.keys())
def test_error_event_fails_the_stream(data):
    events = decode(event(text("a")), data, DONE)
    error = failure(events)
    assert len(events) == 2
    assert isinstance(error, UpstreamRefused)
    assert (error.status, error.message) == (503, "too hot")


@pytest.mark.parametrize("data", ["oops", "", "{}", "[]", "null"])
def test_error_event_without_words_fails_all_the_same(data):
    error = failure(decode(f"event: error\ndata: {data}x\n\n".encode()))
    assert error.status == 500


def test_error_that_is_null_is_none():
    assert decode(event({**text("a"), "error": None}), DONE)[-1] == StreamDone()


@pytest.mark.parametrize(
    "data",
    [
        b"data: {not json\n\n",
        b"data: [1,2]\n\n",
        b"data: 5\n\n",
        b'data: {"choices":5}\n\n',
        b'data: {"choices":[5]}\n\n',
        b'data: {"choices":[{"delta":[]}]}\n\n',
        b'data: {"type":"brand_new"}\n\n',
        b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n',
        b'data: {"choices":[],"x":"\xff"}\n\n',
        b"data: " + b"[" * 5_000 + b"\n\n",
        b'data: {"choices":' + b"[" * 5_000 + b"\n\n",
    ],
)
def test_event_that_is_no_chunk_is_skipped(data):
    first, skipped, last, done = decode(event(text("a")), data, event(STOP), DONE)
    assert isinstance(skipped, StreamSkipped)
    assert skipped.reason
    assert first.has_content
    assert last.is_finish
    assert done == StreamDone()


@pytest.mark.parametrize("data", [b"data:\n\n", b"data: \n\n", b": x\n\n", b"\n\n"])
def test_event_without_anything_is_nothing(data):
    assert len(decode(event(text("a")), data, event(STOP), DONE)) == 3


def test_event_names_other_than_error_mean_nothing():
    events = decode(event(text("a"), "completion.chunk"), event(STOP, "message"), DONE)
    assert [type(item) for item in events] == [StreamPart, StreamPart, StreamDone]


def test_event_over_the_limit_fails_the_stream():
    decoder = ChatDecoder(limit=100)
    events = decoded(decoder, [event(text("x" * 200)), event(STOP), DONE])
    (only,) = events
    assert isinstance(only.error, UpstreamGarbled)
    assert only.error.code == "upstream_too_large"


def test_choice_without_a_delta_gets_an_empty_one():
    late = {**HEAD, "choices": [{"index": 0, "content_filter_offsets": {"x": 1}}]}
    nulls = {**HEAD, "choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]}
    events = decode(event(text("a")), event(late), event(nulls), DONE)
    out = objects(relayed(events)[0])
    assert out[1]["choices"] == [
        {"index": 0, "content_filter_offsets": {"x": 1}, "delta": {}}
    ]
    assert out[2]["choices"][0]["delta"] == {}


# -- one JSON body instead of a stream ------------------------------------------

WHOLE: dict[str, Any] = {
    "id": "chatcmpl-theirs",
    "object": "chat.completion",
    "created": 1_700,
    "model": "gpt-4.1-2025",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hello",
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "f", "arguments": "{}"},
                    }
                ],
            },
            "logprobs": None,
            "finish_reason": "tool_calls",
        },
        {
            "message": {"role": "assistant", "content": "Ho", "reasoning": "hm"},
            "finish_reason": "stop",
        },
    ],
    "usage": USAGE,
    "system_fingerprint": "fp",
}


@pytest.mark.parametrize("indent", [None, 2])
def test_whole_answer_becomes_chunks_that_add_up_to_it(indent):
    body = json.dumps(WHOLE, indent=indent).encode()
    events = decode(b"\n  ", body)
    assert [item.has_content for item in events[:2]] == [True, True]
    assert [item.is_finish for item in events[2:4]] == [True, True]
    assert events[-1] == StreamDone()
    out, usage = relayed(events, shows=True)
    *chunks, told, done = objects(out)
    stamps = {**STAMPS, "created": 1_700, "system_fingerprint": "fp"}
    call = {"index": 0, **WHOLE["choices"][0]["message"]["tool_calls"][0]}
    said = [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": "Hello", "tool_calls": [call]},
            "logprobs": None,
            "finish_reason": None,
        },
        {"index": 1, "delta": WHOLE["choices"][1]["message"], "finish_reason": None},
        {"index": 0, "delta": {}, "finish_reason": "tool_calls"},
        {"index": 1, "delta": {}, "finish_reason": "stop"},
    ]
    assert chunks == [{**stamps, "choices": [choice]} for choice in said]
    assert told == {**stamps, "choices": [], "usage": USAGE}
    assert done == "[DONE]"
    assert usage == Usage(input_tokens=3, output_tokens=4)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"error": {"message": "no", "code": 400}}, UpstreamRefused),
        ([{"error": {"message": "no"}}], UpstreamRefused),
        ({"object": "error", "message": "no"}, UpstreamRefused),
        ({}, UpstreamGarbled),
        ({"choices": []}, UpstreamGarbled),
        ({"choices": [{}]}, UpstreamGarbled),
        ({"choices": [{"message": None}]}, UpstreamGarbled),
        ({"choices": [{"message": {"tool_calls": "x"}}]}, UpstreamGarbled),
        ({"choices": [5]}, UpstreamGarbled),
    ],
)
def test_whole_body_that_is_no_answer_fails_the_stream(body, kind):
    events = decode(json.dumps(body).encode())
    assert len(events) == 1
    assert isinstance(failure(events), kind)


def test_whole_answer_without_usage_tells_none():
    body = json.dumps({**WHOLE, "usage": None}).encode()
    out, usage = relayed(decode(body), shows=True)
    assert usage is None
    assert not any("usage" in item for item in objects(out)[:-1])


def test_whole_body_over_the_limit_fails_the_stream(monkeypatch):
    monkeypatch.setattr(openai_chat_stream, "WHOLE_LIMIT", 100)
    body = json.dumps(WHOLE).encode()
    for pieces in ([body], byte_by_byte(body)):
        (failed,) = decoded(ChatDecoder(LIMIT), pieces)
        assert failed.error.code == "upstream_too_large"


def test_whole_body_cut_off_is_garbled():
    assert isinstance(failure(decode(json.dumps(WHOLE).encode()[:-9])), UpstreamGarbled)


# -- what the client gets -------------------------------------------------------


def test_chunks_are_restamped_and_pass_byte_by_byte():
    tail = (
        b'"choices":[ {"index":0,"delta":{"content":"\\u00e9 \xc3\xa9"},'
        b'"logprobs":{"content":[{"token":"e","logprob":-0.10,"bytes":null,'
        b'"top_logprobs":[]}]},"finish_reason":null}],"x":1e0}'
    )
    theirs = b'{"id":"theirs","object":"x","created":17,"model":"m","fp":null,' + tail
    events = decode(*[b"data: " + theirs + b"\n\n"] * 3)
    ours = (
        b'data: {"id":"ours","episode_id":"episode",'
        b'"object":"chat.completion.chunk","model":"public","created":17,"fp":null,'
    )
    assert relayed(events[:-1])[0] == (ours + tail + b"\n\n") * 3


def test_row_relays_chunks_with_this_decoder_and_this_encoder():
    assert OPENAI_CHAT.stream_decoder is chat_decoder
    assert OPENAI_CHAT.stream_encoder is not None
    request = ChatRequest(model="m")
    part, *_ = decode(event(text("a")))
    expected = ChatEncoder(request, IDENTITY).encode(part)
    assert OPENAI_CHAT.stream_encoder(request, IDENTITY).encode(part) == expected


def test_content_type_is_that_of_events():
    encoder = ChatEncoder(ChatRequest(model="m"), IDENTITY)
    assert encoder.content_type == "text/event-stream; charset=utf-8"


def test_error_is_told_in_band_without_a_terminator():
    encoder = ChatEncoder(ChatRequest(model="m"), IDENTITY)
    (told,) = objects(encoder.fail(Overloaded("Going down.", code="gateway_shutdown")))
    assert told == {
        "error": {
            "message": "Going down.",
            "type": "server_error",
            "param": None,
            "code": "gateway_shutdown",
        }
    }


USAGES = {
    "in its own chunk": [text("a"), STOP, TOLD],
    "with nulls elsewhere": [
        {**text("a"), "usage": None},
        {**text("b"), "usage": None},
        {**STOP, "usage": None},
        TOLD,
    ],
    "nulls before other members": [
        {**text("a"), "usage": None, "obfuscation": "p"},
        {**text("b"), "usage": None, "obfuscation": "q"},
        {**STOP, "usage": None, "obfuscation": "r"},
        {**TOLD, "obfuscation": "s"},
    ],
    "nulls after other members": [
        {**text("a"), "p": "q", "usage": None, "obfuscation": "p"},
        {**text("b"), "p": "q", "usage": None, "obfuscation": "q"},
        STOP,
        TOLD,
    ],
    "nulls before the choices": [
        {"usage": None, **text("a")},
        {"usage": None, **text("b")},
        STOP,
        TOLD,
    ],
    "in the last chunk": [text("a"), {**STOP, "usage": USAGE}],
    "in every chunk": [
        {**text("a"), "usage": {**USAGE, "completion_tokens": 0}},
        {**text("b"), "usage": {**USAGE, "completion_tokens": 2}},
        {**STOP, "usage": USAGE},
    ],
    "twice": [text("a"), {**STOP, "usage": USAGE}, TOLD],
    "without choices at all": [text("a"), STOP, {**HEAD, "usage": USAGE}],
    "after choices sorted by name": [
        dict(sorted(text("a").items())),
        dict(sorted({**STOP, "usage": None}.items())),
        dict(sorted(TOLD.items())),
    ],
}


@pytest.mark.parametrize("values", USAGES.values(), ids=USAGES.keys())
def test_usage_is_shown_once_at_the_end_to_those_who_asked(values):
    events = decode(*map(event, values), DONE)
    out, counted = relayed(events, shows=True)
    *chunks, told, done = objects(out)
    assert done == "[DONE]"
    assert told["choices"] == []
    assert told["usage"] == USAGE
    assert told.items() >= STAMPS.items()
    assert told["created"] == 1_700
    assert all(item["choices"] for item in chunks)
    assert all(item.get("usage") is None for item in chunks)
    assert counted == Usage(input_tokens=3, output_tokens=4)


@pytest.mark.parametrize("values", USAGES.values(), ids=USAGES.keys())
def test_usage_is_not_shown_to_those_who_did_not_ask(values):
    events = decode(*map(event, values), DONE)
    out, counted = relayed(events)
    *chunks, done = objects(out)
    assert done == "[DONE]"
    assert not any("usage" in item for item in chunks)
    assert [item["choices"] for item in chunks] == [
        item["choices"] for item in values if item.get("choices")
    ]
    assert counted == Usage(input_tokens=3, output_tokens=4)


def test_usage_that_was_not_said_is_not_invented():
    out, counted = relayed(decode(event(text("a")), event(STOP), DONE), shows=True)
    assert counted is None
    assert not any("usage" in item for item in objects(out)[:-1])


def test_usage_keeps_the_providers_bytes():
    usage = '{"prompt_tokens":3, "completion_tokens":4,"total_tokens":7,"cost":1.50e-3}'
    told = f'{{"id":"x","choices":[],"usage":{usage}}}'
    out, _ = relayed(
        decode(event(text("a")), event(STOP), event(told), DONE), shows=True
    )
    assert usage.encode() in out


def test_usage_asked_for_in_every_chunk_is_in_every_chunk():
    values = [{**text("a"), "usage": USAGE}, {**STOP, "usage": USAGE}, TOLD]
    out, _ = relayed(decode(*map(event, values), DONE), continuous=True)
    assert [item["usage"] for item in objects(out)[:-1]] == [USAGE] * 3


AZURE = {
    "id": "",
    "object": "",
    "created": 0,
    "model": "",
    "prompt_filter_results": [{"prompt_index": 0}],
    "choices": [],
}


def test_chunk_without_choices_is_told_with_the_next():
    events = decode(*map(event, [AZURE, ROLE, text("a"), STOP]), DONE)
    assert not events[0].has_content
    first, *rest, done = objects(relayed(events)[0])
    assert first == {
        **STAMPS,
        "created": 1_700,
        "prompt_filter_results": [{"prompt_index": 0}],
        "choices": ROLE["choices"],
    }
    assert not any("prompt_filter_results" in item for item in rest)
    assert done == "[DONE]"


def test_chunk_without_choices_at_the_end_is_told_all_the_same():
    events = decode(*map(event, [text("a"), STOP, AZURE]), DONE)
    *_, last, done = objects(relayed(events)[0])
    assert last == {
        **STAMPS,
        "created": 1_750,
        "prompt_filter_results": [{"prompt_index": 0}],
        "choices": [],
    }
    assert done == "[DONE]"


def test_chunk_without_a_time_gets_ours():
    bare = {"choices": text("a")["choices"]}
    (out,) = objects(relayed(decode(event(bare))[:-1])[0])
    assert out == {**STAMPS, "created": 1_750, **bare}


@pytest.mark.parametrize("place", [0, 9], ids=["before", "behind"])
def test_chunk_with_an_episode_of_its_own_gets_ours(place):
    members = list(text("a").items())
    members.insert(place, ("episode_id", "theirs"))
    data = event(dict(members))
    out, _ = relayed(decode(data, data)[:-1])
    assert b"theirs" not in out.replace(b"chatcmpl-theirs", b"")
    assert [item["episode_id"] for item in objects(out)] == ["episode"] * 2


def test_chunk_nested_deeper_than_can_be_read_passes_as_it_is():
    # What can be read depends on how deep the reader itself is called.
    deep = b'{"choices":[{"index":0,"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}]}"
    assert with_deltas(deep) == deep
    encoder = ChatEncoder(ChatRequest(model="m"), IDENTITY)
    out = encoder.encode(StreamPart(ChatChunk(deep), True))
    assert out == b"data: " + deep + b"\n\n"


def test_data_in_many_lines_leaves_in_one():
    lines = json.dumps(text("a"), indent=1).splitlines()
    data = "".join(f"data: {line}\n" for line in lines).encode() + b"\n"
    out, _ = relayed(decode(data * 2, event(STOP), DONE))
    assert [item["choices"] for item in objects(out)[:2]] == [text("a")["choices"]] * 2


# -- whatever the bytes and cuts ------------------------------------------------

LIVELY = b"".join(
    [
        b"\xef\xbb\xbf: hello\r\n\r\n",
        event(AZURE),
        event(ROLE).replace(b"\n", b"\r\n"),
        event(text("žluť 🦆")),
        b"data: {}\n\n",
        event(json.dumps(text("kůň"), ensure_ascii=False)),
        b"data: {oops\n\n",
        event(chunk({"tool_calls": [{"index": 0, "id": "c", "function": {}}]})),
        event({**STOP, "usage": None}).replace(b"\n", b"\r"),
        event(TOLD),
        DONE,
    ]
)
FAILING = event(ROLE) + event(text("a")) + event({"error": "no"}, "error")


@pytest.mark.parametrize(
    "data", [LIVELY, FAILING, LIVELY[:-60], json.dumps(WHOLE).encode()]
)
def test_stream_by_byte_is_the_stream_in_one(data):
    whole = decode(data)
    assert comparable(decoded(ChatDecoder(LIMIT), byte_by_byte(data))) == comparable(
        whole
    )


@given(st.data())
def test_stream_does_not_depend_on_cuts(data):
    source = data.draw(st.sampled_from([LIVELY, FAILING, json.dumps(WHOLE).encode()]))
    pieces = data.draw(splits(source))
    assert comparable(decoded(ChatDecoder(LIMIT), pieces)) == comparable(decode(source))


@given(
    st.lists(
        st.binary(max_size=20)
        | st.sampled_from([event(text("a")), event(STOP), DONE, event(AZURE)])
        | st.text(alphabet='{}[]":,dat \nechoisnul', max_size=30).map(str.encode),
        max_size=8,
    )
)
def test_stream_of_any_bytes_ends_once_and_can_be_relayed(pieces):
    events = decoded(ChatDecoder(limit=1_000), pieces)
    ends = [item for item in events if isinstance(item, StreamDone | StreamFailed)]
    assert ends == events[-1:]
    objects(relayed(events, shows=True)[0])


ORDERS = st.permutations(["id", "object", "created", "model", "choices", "usage", "x"])


@given(
    ORDERS,
    st.lists(
        st.tuples(
            st.text(alphabet='ab"\\\n,]}é', max_size=6),
            st.sampled_from([..., None, USAGE]),
            st.sampled_from([..., None, "usage", '],"usage":null', {"model": "m"}]),
            st.booleans(),
        ),
        min_size=1,
        max_size=6,
    ),
    st.booleans(),
)
def test_chunks_in_any_order_of_members_say_the_same(order, contents, shows):
    values = []
    for content, usage, extra, is_spaced in contents:
        value = {**text(content), "usage": usage, "x": extra}
        value = {name: value[name] for name in order if value[name] is not ...}
        separators = (", ", ": ") if is_spaced else (",", ":")
        values.append((value, json.dumps(value, separators=separators)))
    events = decode(*(event(data) for _, data in values), event(STOP), DONE)
    out, _ = relayed(events, shows=shows)
    for found, (value, _) in zip(objects(out), values, strict=False):
        expected = {**value, **STAMPS}
        if shows and "usage" in value:
            expected["usage"] = None
        else:
            expected.pop("usage", None)
        assert found == expected
    told = [item for item in objects(out)[:-1] if item.get("usage")]
    is_told = shows and any(value.get("usage") for value, _ in values)
    assert len(told) == is_told
    assert len(objects(out)) == len(values) + 2 + is_told
