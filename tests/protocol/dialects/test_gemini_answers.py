from __future__ import annotations

import json
from typing import Any

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
from tests.protocol.dialects.strategies import parsed
from tz_protocol.dialects.anthropic_request import ANSWER_TOOL
from tz_protocol.dialects.deltas import content, finished, lifecycle
from tz_protocol.dialects.gemini import GEMINI
from tz_protocol.dialects.ids import minted_id
from tz_protocol.dialects.openai_completion import chunk_of
from tz_protocol.errors import UpstreamBroken, UpstreamGarbled, UpstreamRefused
from tz_protocol.types.conversation import (
    ArgumentsDelta,
    Citation,
    CitationDelta,
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
from tz_protocol.types.request import Target
from tz_protocol.types.stream import (
    StreamDone,
    StreamFailed,
    StreamPart,
    StreamSkipped,
)
from tz_protocol.types.usage import Usage

HEAD = ResponseHead(200)
FORMAT = "google-gemini-v1"
NAMES = {"responseId": "r1", "modelVersion": "gemini-x"}
COUNTS = {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7}
USAGE = Usage(input_tokens=3, output_tokens=4)
STARTED = lifecycle(Started(id="r1", model="gemini-x"))
STOPPED = [finished(Finished(finish="stop"), USAGE), StreamDone()]


def response(*parts, finish=None, usage=COUNTS, candidate=None, **members):
    """Return one ``GenerateContentResponse``."""
    made = {"content": {"parts": [*parts], "role": "model"}, **(candidate or {})}
    if finish is not None:
        made["finishReason"] = finish
    value = {"candidates": [made], **NAMES, **members}
    return value if usage is None else {**value, "usageMetadata": usage}


def dumped(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def sse(*responses, ending="\r\n"):
    return b"".join(
        f"data: {dumped(one)}{ending}{ending}".encode() for one in responses
    )


def listed(*responses):
    """Return a stream as it comes without ``alt=sse``."""
    return (
        b"["
        + b",\r\n".join(json.dumps(r, indent=2).encode() for r in responses)
        + b"\n]"
    )


def events_of(*responses) -> Any:
    return decoded(decoder_of(GEMINI, HEAD), [sse(*responses)])


def whole_of(value) -> Any:
    return GEMINI.parse_response(HEAD, dumped(value).encode())


def text(value, **more):
    return {"text": value, **more}


def called(name="f", *, seal=None, **members):
    part = {"functionCall": {"name": name, **members}}
    return part if seal is None else {**part, "thoughtSignature": seal}


# -- golden ---------------------------------------------------------------------

STREAM = [
    response(text("Let me ", thought=True), usage={"trafficType": "ON_DEMAND"}),
    response(text("see.", thought=True, thoughtSignature="dDE=")),
    response(text("Häl"), text("lo 😀")),
    response(text("", thoughtSignature="dDI=")),
    response(called("look", args={"n": 1.5}, seal="dDM=")),
    response(called("wait", id="own1")),
    response(
        finish="STOP",
        usage={
            "promptTokenCount": 100,
            "cachedContentTokenCount": 60,
            "toolUsePromptTokenCount": 20,
            "candidatesTokenCount": 30,
            "thoughtsTokenCount": 5,
            "totalTokenCount": 155,
            "serviceTier": "standard",
        },
    ),
]

STREAM_USAGE = Usage(
    input_tokens=120, output_tokens=35, cache_read_tokens=60, reasoning_tokens=5
)

EVENTS = [
    STARTED,
    content(ReasoningDelta("Let me ")),
    content(ReasoningDelta("see.")),
    lifecycle(ReasoningSealed(text="Let me see.", signature="dDE=", format=FORMAT)),
    content(TextDelta("Häl")),
    content(TextDelta("lo 😀")),
    lifecycle(ReasoningSealed(index=1, data="dDI=", format=FORMAT)),
    content(
        ToolCallStarted(
            index=0,
            id=minted_id("r1", 0, 0, "look"),
            name="look",
            arguments='{"n":1.5}',
            signature="dDM=",
        )
    ),
    content(ToolCallStarted(index=1, id="own1", name="wait", arguments="{}")),
    finished(Finished(finish="tool_calls"), STREAM_USAGE),
    StreamDone(),
]


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_stream_golden_events(ending):
    data = sse(*STREAM, ending=ending)
    assert decoded(decoder_of(GEMINI, HEAD), [data]) == EVENTS
    assert decoded(decoder_of(GEMINI, HEAD), byte_by_byte(data)) == EVENTS


def test_stream_that_is_a_list_means_the_same():
    data = listed(*STREAM)
    assert decoded(decoder_of(GEMINI, HEAD), [data]) == EVENTS
    assert decoded(decoder_of(GEMINI, HEAD), byte_by_byte(data)) == EVENTS


@given(st.data())
def test_stream_split_anywhere_means_the_same(data):
    body = data.draw(st.sampled_from([sse(*STREAM), listed(*STREAM)]))
    assert decoded(decoder_of(GEMINI, HEAD), data.draw(splits(body))) == EVENTS


def test_whole_answer_golden():
    parts = [
        part for one in STREAM for part in one["candidates"][0]["content"]["parts"]
    ]
    value = response(*parts, finish="STOP", usage=STREAM[-1]["usageMetadata"])
    completion = whole_of(value)
    assert completion.choices[0].content == (
        Thinking(text="Let me see.", signature="dDE=", format=FORMAT),
        Text("Hällo 😀"),
        Thinking(data="dDI=", format=FORMAT),
        ToolCall(
            id=minted_id("r1", 0, 0, "look"),
            name="look",
            arguments='{"n":1.5}',
            signature="dDM=",
        ),
        ToolCall(id="own1", name="wait", arguments="{}"),
    )
    assert completion.choices[0].finish == "tool_calls"
    assert completion.usage == STREAM_USAGE
    assert (completion.id, completion.model) == ("r1", "gemini-x")
    assert completion.service_tier == "default"
    streamed = collected(events_of(*STREAM))
    assert streamed.choices == completion.choices


def test_arguments_are_one_line_with_numbers_as_they_were_written():
    body = b"""{"candidates": [{"content": {"parts": [{"functionCall": {
        "name": "f", "args": {\n  "a": 1.50,\n  "b": [1e2, "x\\n y"]\n}}}]},
        "finishReason": "STOP"}]}"""
    block: Any
    (block,) = GEMINI.parse_response(HEAD, body).choices[0].content
    assert block.arguments == '{"a":1.50,"b":[1e2,"x\\n y"]}'


# -- parts ----------------------------------------------------------------------


def test_thoughts_without_a_seal_are_one_until_something_else_comes():
    completion = whole_of(
        response(
            text("a", thought=True),
            text("b", thought=True),
            text("x"),
            text("c", thought=True),
            finish="STOP",
        )
    )
    assert completion.choices[0].content == (
        Thinking(text="ab"),
        Text("x"),
        Thinking(text="c"),
    )


def test_part_with_nothing_but_a_signature_seals():
    (block,) = (
        whole_of(response({"thoughtSignature": "cw=="}, finish="STOP"))
        .choices[0]
        .content
    )
    assert block == Thinking(data="cw==", format=FORMAT)


@pytest.mark.parametrize(
    "part",
    [
        {
            "executableCode": {"code": "1", "language": "PYTHON"},
            "thoughtSignature": "c",
        },
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
        {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
        {"toolCall": {"id": "1", "toolType": "FILE_SEARCH"}},
        {"somethingNew": {"text": 1}},
    ],
    ids=lambda part: next(iter(part)),
)
def test_part_of_another_kind_is_kept_and_returns_as_it_was(part):
    events = events_of(response(text("a"), part, text("b"), finish="STOP"))
    (kept,) = [
        e.value for e in events if isinstance(getattr(e, "value", None), OpaqueDelta)
    ]
    assert kept.block.kind == next(iter(part))
    assert msgspec.json.decode(kept.block.value) == part
    message = whole_object(collected(events))["choices"][0]["message"]
    request = parsed({"messages": [{"role": "user", "content": "x"}, message]})
    rendered, losses = GEMINI.render_request(request, Target(provider="g", model="m"))
    assert losses == ()
    turn = json.loads(rendered.body)["contents"][1]
    assert turn["parts"] == [part, {"text": "ab"}]


def test_answer_tool_is_the_text_of_the_answer():
    completion = whole_of(response(called(ANSWER_TOOL, args={"a": 1}), finish="STOP"))
    (choice,) = completion.choices
    assert choice.content == (Text('{"a":1}'),)
    assert choice.finish == "stop"


def test_candidates_are_choices_of_their_own():
    first = {"index": 0, "content": {"parts": [text("a")]}, "finishReason": "STOP"}
    second = {"index": 1, "content": {"parts": [called()]}, "finishReason": "STOP"}
    more = {"index": 0, "content": {"parts": [text("b")]}}
    stream = [
        {**NAMES, "candidates": [first, second]},
        {**NAMES, "candidates": [more], "usageMetadata": COUNTS},
    ]
    completion: Any = collected(events_of(*stream))
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert completion.choices[0].content == (Text("ab"),)
    assert [choice.finish for choice in completion.choices] == ["stop", "tool_calls"]
    assert completion.choices[1].content[0].id == minted_id("r1", 1, 0, "f")
    assert completion.usage == USAGE


def test_members_that_are_null_are_not_there():
    # As the vendor's SDKs write their objects down.
    nothing = dict.fromkeys(("thought", "thoughtSignature", "inlineData", "text"))
    call = {"name": "f", "args": {"x": None}}
    nulls = dict.fromkeys(("id", "partialArgs", "willContinue"))
    support = {
        "segment": {"startIndex": None, "endIndex": 1, "text": "a"},
        "groundingChunkIndices": [0],
    }
    grounding = {
        "groundingChunks": [{"web": {"uri": "https://x.example", "title": None}}],
        "groundingSupports": [support],
    }
    citation = {"startIndex": None, "endIndex": 1, "uri": "https://y.example"}
    candidate = {
        "index": None,
        "finishReason": "STOP",
        "groundingMetadata": grounding,
        "citationMetadata": {"citations": [citation]},
        "logprobsResult": None,
    }
    parts = (
        {**nothing, "text": "a", "functionCall": None},
        {**nothing, "functionCall": {**call, **nulls}},
    )
    value = response(*parts, candidate=candidate, promptFeedback=None)
    (choice,) = whole_of(value).choices
    said, made, *_ = choice.content
    assert said.text == "a"
    assert [one.url for one in said.citations] == [
        "https://x.example",
        "https://y.example",
    ]
    assert (made.name, made.arguments) == ("f", '{"x":null}')
    assert whole_object(collected(events_of(value))) == whole_object(whole_of(value))


def test_arguments_that_are_null_are_none():
    (choice,) = whole_of(response(called(args=None), finish="STOP")).choices
    assert choice.content[0].arguments == "{}"


def test_part_of_a_list_in_many_lines_is_in_one_line_for_our_client():
    part = {"executableCode": {"language": "PYTHON", "code": "a\nb"}}
    data = listed(response(part, finish="STOP")).replace(b"\n", b"\r\n")
    events = decoded(decoder_of(GEMINI, HEAD), [data])
    for event in events:
        if isinstance(event, StreamPart):
            line = chunk_of(event.value).data
            assert b"\n" not in line
            assert b"\r" not in line
    message = whole_object(collected(events))["choices"][0]["message"]
    assert message["provider_content"][0]["value"] == part


def test_ids_of_equal_calls_differ():
    completion = whole_of(response(called(), called(), called(), finish="STOP"))
    ids = [block.id for block in completion.choices[0].content]
    assert len(set(ids)) == 3


def test_ids_of_the_vendor_that_are_there_twice_are_told_apart():
    answer = response(called(id="a"), called(id="a"), called(id="b"), finish="STOP")
    completion = whole_of(answer)
    ids = [block.id for block in completion.choices[0].content]
    assert ids[0] == "a"
    assert ids[2] == "b"
    assert len(set(ids)) == 3
    assert collected(events_of(answer)) == completion


# -- arguments in pieces --------------------------------------------------------


def piece(path, *, more=True, **value):
    return {
        "functionCall": {
            "partialArgs": [{"jsonPath": path, **value}],
            "willContinue": more,
        }
    }


END: dict[str, Any] = {"functionCall": {}}


def arguments_of(*parts) -> Any:
    events = events_of(
        response(called("f", willContinue=True), usage=None),
        *(response(part, usage=None) for part in parts),
        response(finish="STOP"),
    )
    call: Any
    (call,) = collected(events).choices[0].content
    skipped = [event for event in events if isinstance(event, StreamSkipped)]
    return call.arguments, skipped


def test_arguments_in_pieces_are_put_together():
    found, skipped = arguments_of(
        piece("$.a", stringValue="Hel", willContinue=True),
        piece("$.a", stringValue="lo"),
        piece("$.list[0].n", numberValue=1.5),
        piece("$.list[0].ok", boolValue=True),
        piece("$.list[1]", nullValue="NULL_VALUE"),
        piece("$['od.d'][\"k\"]", stringValue="x"),
        END,
    )
    assert not skipped
    assert found == ('{"a":"Hello","list":[{"n":1.5,"ok":true},null],"od.d":{"k":"x"}}')


def test_arguments_in_pieces_are_numbered_and_end_with_the_call():
    events = events_of(
        response(called("f", willContinue=True, seal="c")),
        response(piece("$.a", stringValue="x", more=False)),
        response(called("g")),
        response(called("h", partialArgs=[{"jsonPath": "$.b", "numberValue": 1}])),
        response(finish="STOP"),
    )
    assert [e.value for e in events if isinstance(e, StreamPart)][1:-1] == [
        ToolCallStarted(
            index=0, id=minted_id("r1", 0, 0, "f"), name="f", signature="c"
        ),
        ArgumentsDelta(0, '{"a":"x"}'),
        ToolCallStarted(
            index=1, id=minted_id("r1", 0, 1, "g"), name="g", arguments="{}"
        ),
        ToolCallStarted(index=2, id=minted_id("r1", 0, 2, "h"), name="h"),
        ArgumentsDelta(2, '{"b":1}'),
    ]


def test_arguments_that_the_end_cuts_off_are_what_has_come():
    found, _ = arguments_of(piece("$.a", stringValue="x"))
    assert found == '{"a":"x"}'


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "$",
        "$[0]",
        "$.a[5]",
        "$.a[999999999999]",
        "$.a[",
        "$." + ".".join("a" * 200),
        "$.taken.b",
        "$.taken[0]",
    ],
)
def test_argument_whose_path_leads_nowhere_is_skipped(path):
    found, skipped = arguments_of(
        piece("$.taken", numberValue=1), piece(path, stringValue="x"), END
    )
    assert len(skipped) == 1
    assert json.loads(found)["taken"] == 1


def test_arguments_of_no_call_are_skipped():
    events = events_of(response(END), response(text("a"), finish="STOP"))
    assert isinstance(events[1], StreamSkipped)
    assert collected(events).choices[0].content == (Text("a"),)


# -- the end --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "finish", "native"),
    [
        ("STOP", "stop", UNSET),
        ("MAX_TOKENS", "length", UNSET),
        ("SAFETY", "content_filter", "SAFETY"),
        ("RECITATION", "content_filter", "RECITATION"),
        ("MODEL_ARMOR", "content_filter", "MODEL_ARMOR"),
        ("LANGUAGE", "content_filter", "LANGUAGE"),
        ("MALFORMED_FUNCTION_CALL", "stop", "MALFORMED_FUNCTION_CALL"),
        ("UNEXPECTED_TOOL_CALL", "stop", "UNEXPECTED_TOOL_CALL"),
        ("OTHER", "stop", "OTHER"),
        ("A_NEW_ONE", "stop", "A_NEW_ONE"),
        (1, "stop", UNSET),
        (2, "length", UNSET),
        (3, "content_filter", "SAFETY"),
        (99, "stop", "99"),
    ],
)
def test_reason_becomes_openais_word(reason, finish, native):
    choice = whole_of(response(text("a"), finish=reason)).choices[0]
    assert (choice.finish, choice.native_finish) == (finish, native)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("STOP", "tool_calls"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter")],
)
def test_calls_make_it_tool_calls_unless_something_cut_it_off(reason, finish):
    assert whole_of(response(called(), finish=reason)).choices[0].finish == finish


def test_reason_in_the_middle_does_not_end_the_answer():
    events = events_of(
        response(text("a"), finish="STOP"), response(text("b"), finish="MAX_TOKENS")
    )
    assert collected(events).choices[0].content == (Text("ab"),)
    ends = [e.value for e in events if isinstance(e, StreamPart) and e.is_finish]
    assert ends == [Finished(finish="length")]


@pytest.mark.parametrize("members", [{}, {"content": {}}, {"content": {"parts": []}}])
def test_candidate_without_parts_is_an_empty_answer(members):
    value = {
        "candidates": [{**members, "finishReason": "STOP"}],
        "usageMetadata": COUNTS,
    }
    completion = whole_of(value)
    assert completion.choices[0].content == ()
    message = whole_object(completion)["choices"][0]["message"]
    assert message["content"] == ""


def test_prompt_that_was_refused_is_filtered():
    value = {
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": COUNTS,
        **NAMES,
    }
    (choice,) = whole_of(value).choices
    assert (choice.content, choice.finish) == ((), "content_filter")
    assert choice.native_finish == "SAFETY"
    end = Finished(finish="content_filter", native_finish="SAFETY")
    assert events_of(value) == [STARTED, finished(end, USAGE), StreamDone()]


def test_stream_without_a_reason_is_cut():
    events = events_of(response(text("a")))
    assert isinstance(events[-1].error, UpstreamBroken)
    first = {"index": 0, "finishReason": "STOP"}
    events = events_of({"candidates": [first, {"index": 1}]})
    assert isinstance(events[-1].error, UpstreamBroken)


@pytest.mark.parametrize("data", [b"", b"\r\n", b": comment\n\n"])
def test_stream_of_nothing_is_cut(data):
    (event,) = decoded(decoder_of(GEMINI, HEAD), [data])
    assert isinstance(event.error, UpstreamBroken)


def test_terminator_of_imitators_ends_the_stream():
    data = sse(response(text("a"), finish="STOP")) + b"data: [DONE]\n\ndata: {}\n\n"
    events = decoded(decoder_of(GEMINI, HEAD), [data])
    assert events == [STARTED, content(TextDelta("a")), *STOPPED]


# -- usage ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({}, None),
        ({"trafficType": "ON_DEMAND"}, None),
        ({"promptTokenCount": 5, "totalTokenCount": 5}, (5, 0, None, None)),
        ({"totalTokenCount": 0}, (0, 0, None, None)),
        (
            {"promptTokenCount": 5, "thoughtsTokenCount": 2, "totalTokenCount": 7},
            (5, 2, None, 2),
        ),
        (
            {"promptTokenCount": 5, "cachedContentTokenCount": 4},
            (5, 0, 4, None),
        ),
    ],
)
def test_usage_counts_as_openai_does(usage, expected):
    found = whole_of(response(text("a"), finish="STOP", usage=usage)).usage
    if expected is None:
        assert found is None
    else:
        prompt, output, cached, thoughts = expected
        assert found == Usage(
            input_tokens=prompt,
            output_tokens=output,
            cache_read_tokens=cached,
            reasoning_tokens=thoughts,
        )


def test_usage_is_the_last_that_counts():
    events = events_of(
        response(text("a"), usage={"promptTokenCount": 9, "totalTokenCount": 9}),
        response(text("b"), finish="STOP"),
        response(usage={"trafficType": "ON_DEMAND"}),
    )
    assert events[-2].usage == USAGE


@pytest.mark.parametrize(
    ("tier", "word"),
    [("standard", "default"), ("PRIORITY", "priority"), ("unspecified", UNSET)],
)
def test_service_tier_is_said_in_openais_words(tier, word):
    usage = {**COUNTS, "serviceTier": tier}
    found = whole_of(response(text("a"), finish="STOP", usage=usage))
    assert found.service_tier == word


# -- citations and log probabilities --------------------------------------------


def grounded(*supports, chunks):
    metadata = {"groundingChunks": chunks, "groundingSupports": [*supports]}
    return {"groundingMetadata": metadata}


def support(start, end, words, *indices):
    segment = {"startIndex": start, "endIndex": end, "text": words}
    return {"segment": segment, "groundingChunkIndices": [*indices]}


WEB = {"web": {"uri": "https://e.org", "title": "E"}}
BOOK = {"retrievedContext": {"title": "B", "text": "words", "uri": "gs://b"}}


def citations_of(*responses):
    return [
        event.value.citation
        for event in events_of(*responses)
        if isinstance(event, StreamPart) and isinstance(event.value, CitationDelta)
    ]


def test_citations_count_characters_where_the_vendor_counts_bytes():
    whole = "Größe: 😀 ok"
    data = whole.encode()
    start, end = data.index("😀".encode()), len(data)
    metadata = grounded(support(start, end, "😀 ok", 0, 1), chunks=[WEB, BOOK])
    found = citations_of(response(text(whole), finish="STOP", candidate=metadata))
    assert found[0] == Citation(start=7, end=11, url="https://e.org", title="E")
    assert (found[1].start, found[1].end, found[1].url) == (7, 11, UNSET)
    assert (found[1].title, found[1].quote) == ("B", "words")
    assert found[1].native is not UNSET


def test_citations_of_a_stream_count_in_all_of_its_text_and_its_chunks():
    found = citations_of(
        response(text("one "), candidate=grounded(chunks=[WEB])),
        response(
            text("two"),
            finish="STOP",
            candidate=grounded(
                support(4, 7, "two", 0, 1, 7),
                support(0, 3, "two", 0),
                chunks=[{"maps": {"uri": "https://m.org"}}],
            ),
        ),
    )
    assert [(c.start, c.end, c.url) for c in found] == [
        (4, 7, "https://e.org"),
        (4, 7, "https://m.org"),
    ]


def test_citations_without_a_source_say_nothing():
    recited = {
        "citationMetadata": {
            "citationSources": [
                {"startIndex": 1, "endIndex": 2, "uri": "https://c.org"}
            ],
            "citations": [{}, {"uri": "https://d.org"}],
        }
    }
    found = citations_of(response(text("abc"), finish="STOP", candidate=recited))
    assert [(c.start, c.end, c.url) for c in found] == [
        (1, 2, "https://c.org"),
        (0, 3, "https://d.org"),
    ]


def test_metadata_of_the_providers_tools_is_kept_and_not_sent_back():
    metadata = {"webSearchQueries": ["q"]}
    candidate = {"groundingMetadata": metadata, "urlContextMetadata": {}}
    completion = whole_of(response(text("a"), finish="STOP", candidate=candidate))
    (block,) = [b for b in completion.choices[0].content if isinstance(b, Opaque)]
    assert block.kind == "groundingMetadata"
    assert msgspec.json.decode(block.value) == metadata


def test_grounding_of_an_unknown_shape_does_not_cost_the_answer():
    candidate = {"groundingMetadata": {"groundingChunks": 5}}
    events = events_of(response(text("a"), finish="STOP", candidate=candidate))
    assert any(isinstance(event, StreamSkipped) for event in events)
    assert isinstance(events[-1], StreamDone)


def test_log_probabilities_are_openais_object():
    logprobs = {
        "chosenCandidates": [{"token": "Hä", "tokenId": 1, "logProbability": -0.50}],
        "topCandidates": [{"candidates": [{"token": "x", "logProbability": -1}]}],
    }
    value = response(text("Hä"), finish="STOP", candidate={"logprobsResult": logprobs})
    expected = {
        "content": [
            {
                "token": "Hä",
                "logprob": -0.5,
                "bytes": [72, 195, 164],
                "top_logprobs": [{"token": "x", "logprob": -1, "bytes": [120]}],
            }
        ],
        "refusal": None,
    }
    (choice,) = whole_object(whole_of(value))["choices"]
    assert choice["logprobs"] == expected
    delta = events_of(value)[1].value
    assert msgspec.json.decode(delta.logprobs) == expected


# -- what is wrong --------------------------------------------------------------


def error(code, word, message="no", *details):
    return {
        "error": {
            "code": code,
            "message": message,
            "status": word,
            "details": [*details],
        }
    }


BAD_KEY = {
    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    "reason": "API_KEY_INVALID",
}
RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}

ERRORS = [
    (400, error(400, "INVALID_ARGUMENT"), (400, "invalid_request_error", None, None)),
    (
        400,
        error(400, "INVALID_ARGUMENT", "API key not valid.", BAD_KEY),
        (401, "authentication_error", "invalid_api_key", None),
    ),
    (
        400,
        error(
            400,
            "INVALID_ARGUMENT",
            "The input token count (9) exceeds the maximum number of tokens allowed.",
        ),
        (400, "invalid_request_error", "context_length_exceeded", None),
    ),
    (
        401,
        error(401, "UNAUTHENTICATED"),
        (401, "authentication_error", "invalid_api_key", None),
    ),
    (
        403,
        error(403, "PERMISSION_DENIED"),
        (403, "permission_error", "permission_denied", None),
    ),
    (
        404,
        error(404, "NOT_FOUND"),
        (404, "invalid_request_error", "model_not_found", None),
    ),
    (
        429,
        error(429, "RESOURCE_EXHAUSTED", "slow", RETRY),
        (429, "rate_limit_error", "rate_limit_exceeded", 34.4),
    ),
    (503, error(503, "UNAVAILABLE"), (503, "server_error", "overloaded", None)),
    (504, error(504, "DEADLINE_EXCEEDED"), (504, "timeout_error", "timeout", None)),
    (500, error(500, "INTERNAL"), (500, "server_error", None, None)),
]


def error_of(head, body) -> Any:
    return GEMINI.parse_error(head, body)


@pytest.mark.parametrize(("status", "value", "facts"), ERRORS)
def test_error_is_translated(status, value, facts):
    for body in (value, [value]):
        head = ResponseHead(status)
        found = error_of(head, json.dumps(body).encode())
        made, _, kind, code, wait = facts_of(found)
        assert (made, kind, code, wait) == facts


@pytest.mark.parametrize(("status", "value", "facts"), ERRORS)
def test_error_within_an_answer_means_the_same(status, value, facts):
    del status
    with pytest.raises(UpstreamRefused) as caught:
        whole_of(value)
    assert (caught.value.status, caught.value.kind) == facts[:2]
    begun = response(text("a"))
    for data in (
        sse(begun, value),
        sse(begun, [value]),
        json.dumps([value]).encode(),
        json.dumps(value).encode(),
    ):
        last: Any = decoded(decoder_of(GEMINI, HEAD), [data])[-1]
        assert isinstance(last.error, UpstreamRefused)
        assert last.error.status == facts[0]


def test_error_without_googles_words_keeps_its_status():
    found = error_of(ResponseHead(502), b"<html>")
    assert (found.status, found.kind) == (502, None)
    weird = error(400, "INVALID_ARGUMENT", "no", 5, {"retryDelay": "soon"})
    found = error_of(ResponseHead(400), json.dumps(weird).encode())
    assert found.retry_after is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"{",
        b'{"candidates":[]}',
        b'{"candidates":5}',
        b"\xff",
    ],
)
def test_body_that_is_no_answer_is_garbled(body):
    with pytest.raises(UpstreamGarbled):
        GEMINI.parse_response(HEAD, body)


def test_event_of_an_unknown_shape_is_skipped_and_others_count():
    data = b'data: {"candidates":[{"content":7}]}\n\n'
    events = decoded(
        decoder_of(GEMINI, HEAD), [data + sse(response(text("a"), finish="STOP"))]
    )
    assert isinstance(events[0], StreamSkipped)
    assert events[1:] == [STARTED, content(TextDelta("a")), *STOPPED]


@pytest.mark.parametrize("data", [b"data: {\n\n", b"data: \xff\n\n"])
def test_event_that_is_not_json_fails(data):
    (event,) = decoded(decoder_of(GEMINI, HEAD), [data])
    assert isinstance(event.error, UpstreamGarbled)


@pytest.mark.parametrize("data", [b"[1]", b"[{},x", b"[nul"])
def test_list_of_something_else_fails(data):
    events = decoded(decoder_of(GEMINI, HEAD), [data])
    assert isinstance(events[-1].error, UpstreamGarbled)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "candidates",
                    "content",
                    "parts",
                    "text",
                    "thought",
                    "functionCall",
                    "name",
                    "args",
                    "partialArgs",
                    "jsonPath",
                    "finishReason",
                    "index",
                    "groundingMetadata",
                    "error",
                    "promptFeedback",
                    "thoughtSignature",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(JSON | st.binary(max_size=8), max_size=3), st.booleans())
def test_decoder_never_raises_and_always_ends(values, is_list):
    datas = [
        value if isinstance(value, bytes) else msgspec.json.encode(value)
        for value in values
    ]
    body = (
        b"[" + b",".join(datas) + b"]"
        if is_list
        else b"".join(b"data: " + data + b"\n\n" for data in datas)
    )
    events = decoded(decoder_of(GEMINI, HEAD), [body])
    assert isinstance(events[-1], (StreamDone, StreamFailed))
    split = decoded(decoder_of(GEMINI, HEAD), byte_by_byte(body))
    assert comparable(split) == comparable(events)


@given(JSON)
def test_whole_answer_raises_nothing_but_upstream_errors(value):
    try:
        completion = GEMINI.parse_response(HEAD, msgspec.json.encode(value))
    except (UpstreamGarbled, UpstreamRefused):
        return
    assert completion.choices


# -- there and back -------------------------------------------------------------

PARTS = st.lists(
    st.builds(
        lambda words, thought, seal: {
            "text": words,
            **({"thought": True} if thought else {}),
            **({"thoughtSignature": seal} if seal else {}),
        },
        st.text(st.characters(codec="utf-8"), max_size=6),
        st.booleans(),
        st.sampled_from(["", "", "c2ln"]),
    )
    | st.builds(
        lambda name, args: {"functionCall": {"name": name, "args": args}},
        st.sampled_from(["f", "g"]),
        st.dictionaries(st.sampled_from("ab"), st.integers(), max_size=2),
    ),
    min_size=1,
    max_size=6,
)


@given(PARTS, st.data())
def test_whole_and_streamed_forms_of_one_answer_are_one(parts, data):
    whole = whole_of(response(*parts, finish="STOP"))
    cut = data.draw(st.integers(0, len(parts)))
    events = events_of(response(*parts[:cut]), response(*parts[cut:], finish="STOP"))
    assert collected(events) == whole


def test_raw_of_a_part_is_the_one_of_its_candidate():
    odd = {"codeExecutionResult": {"output": "2"}}
    candidates = [
        {"index": 0, "content": None, "finishReason": "STOP"},
        {"index": 1, "content": {"parts": [text("a"), odd]}, "finishReason": "STOP"},
    ]
    blocks = whole_of({"candidates": candidates}).choices[1].content
    assert blocks[0] == Text("a")
    assert isinstance(blocks[1], Opaque)
    assert blocks[1].value == Raw(dumped(odd).encode())
