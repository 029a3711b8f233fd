"""What all conversions share: reports, turns, ids, media, schemas, collecting."""

from __future__ import annotations

import itertools
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tests.protocol.dialects.checking import LIMIT
from tests.protocol.dialects.strategies import MESSAGES, parsed
from tz_protocol.dialects.deltas import Collector, content, finished, joined, lifecycle
from tz_protocol.dialects.ids import legal_id, minted_id
from tz_protocol.dialects.losses import Report
from tz_protocol.dialects.media import inline_text, media_type_of
from tz_protocol.dialects.openai_conversation import conversation_of
from tz_protocol.dialects.outbound import encode_body, outbound_dialect
from tz_protocol.dialects.parameters import COLUMNS, DEFAULTS, TABLE, Handling
from tz_protocol.dialects.schemas import as_object, closed
from tz_protocol.dialects.streaming import SseStream
from tz_protocol.dialects.turns import turns_of
from tz_protocol.errors import InvalidRequest, UpstreamGarbled
from tz_protocol.types.conversation import (
    ArgumentsDelta,
    Block,
    Choice,
    Completion,
    Conversation,
    Finished,
    Inline,
    Message,
    Refusal,
    RefusalDelta,
    Started,
    Text,
    TextDelta,
    ToolCall,
    ToolCallStarted,
    ToolResult,
)
from tz_protocol.types.request import Target
from tz_protocol.types.stream import StreamDone, StreamFailed, StreamPart
from tz_protocol.types.usage import Usage

# -- the table ------------------------------------------------------------------


def test_table_says_something_of_every_parameter_for_every_format():
    rows = {frozenset(column) for column in TABLE.values()}
    assert set(TABLE) == set(COLUMNS)
    assert len(rows) == 1


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_of_parameters_in_the_table_and_valid_json(name):
    assert name in TABLE["anthropic"]
    for value in DEFAULTS[name]:
        msgspec.json.decode(value)


# -- reports --------------------------------------------------------------------

COLUMN = {
    "good": Handling.PASSED,
    "hint": Handling.DROPPED,
    "must": Handling.REFUSED,
    "must.part": Handling.REFUSED,
}


def report(*names, policy=None, unsupported=(), unread=(), native=()):
    options = {} if policy is None else {"on_unsupported_param": policy}
    target = Target(
        provider="acme", model="m", options=options, unsupported=frozenset(unsupported)
    )
    conversation = Conversation(
        messages=(),
        parameters={name: Raw(b"1") for name in names},
        given=frozenset(names),
        unread=tuple(unread),
    )
    return Report(target, conversation, COLUMN, frozenset(native))


def test_report_applies_the_table():
    assert report("good", "hint", "new").losses() == ("hint", "new")


def test_report_refuses_by_name_of_provider_and_field():
    with pytest.raises(InvalidRequest) as caught:
        report("must")
    assert caught.value.param == "must"
    assert caught.value.code == "unsupported_parameter"
    assert "acme" in caught.value.message


def test_report_refuses_one_use_by_the_name_of_its_field():
    with pytest.raises(InvalidRequest) as caught:
        report("must.part")
    assert caught.value.param == "must"
    assert "part" in caught.value.message


def test_report_leaves_the_formats_own_members_alone():
    assert report("own", native=["own"]).losses() == ()


def test_report_drops_what_the_operator_says_is_unsupported():
    assert report("good", "must", unsupported=["good", "must"]).losses() == (
        "good",
        "must",
    )


def test_report_names_what_was_left_unread():
    assert report(unread=["messages[0].x"]).losses() == ("messages[0].x",)


@pytest.mark.parametrize(
    ("policy", "losses"),
    [("warn", ("hint", "must", "x")), ("drop", ())],
)
def test_report_policy_warn_and_drop(policy, losses):
    made = report("must", "hint", policy=policy)
    made.refuse("x", "Because.")
    assert made.losses() == losses


def test_report_policy_error_refuses_hints():
    with pytest.raises(InvalidRequest) as caught:
        report("hint", policy="error")
    assert caught.value.param == "hint"


def test_report_handles_one_use_as_the_table_says():
    made = report(policy="warn")
    assert made.handle("good", "a") is True
    assert made.handle("hint", "b") is False
    assert made.handle("must", "c") is False
    assert made.losses() == ("b", "c")


# -- turns ----------------------------------------------------------------------


def test_turns_put_results_first_and_keep_the_order_of_all_else():
    result, late = ToolResult(call_id="a"), ToolResult(call_id="b")
    messages = (
        Message("system", (Text("s"),)),
        Message("user", (Text("1"), Text(""))),
        Message("assistant", (Text("2"),)),
        Message("tool", (result,)),
        Message("user", (Text("3"),)),
        Message("tool", (late,)),
        Message("developer", (Text("d"),)),
    )
    found = turns_of(messages)
    assert [piece.block for piece in found.system] == [Text("s"), Text("d")]
    assert found.late == [6]
    assert [(t.role, [p.block for p in t.pieces]) for t in found.turns] == [
        ("user", [Text("1")]),
        ("assistant", [Text("2")]),
        ("user", [result, late, Text("3")]),
    ]
    assert found.turns[0].pieces[0].path() == "messages[1].content[0]"


@given(MESSAGES)
def test_turns_alternate_and_lose_no_block(messages):
    conversation = conversation_of(parsed({"messages": messages}))
    found = turns_of(conversation.messages)
    roles = [turn.role for turn in found.turns]
    assert all(one != other for one, other in itertools.pairwise(roles))
    pieces = [*found.system, *(p for turn in found.turns for p in turn.pieces)]
    places = sorted((piece.message, piece.place) for piece in pieces)
    assert places == [
        (index, place)
        for index, message in enumerate(conversation.messages)
        for place, block in enumerate(message.content)
        if block != Text("")
    ]
    for turn in found.turns:
        kinds = [isinstance(piece.block, ToolResult) for piece in turn.pieces]
        assert kinds == sorted(kinds, reverse=True)


# -- ids ------------------------------------------------------------------------


@given(st.lists(st.text() | st.integers(), max_size=4))
def test_minted_ids_are_legal_and_repeatable(parts):
    made = minted_id(*parts)
    assert made == minted_id(*parts)
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", made)


def test_minted_ids_differ_where_their_parts_do():
    ids = {minted_id("a", 1), minted_id("a", 2), minted_id("a1"), minted_id("a", 1, "")}
    assert len(ids) == 4


def test_legal_ids_stay_and_others_are_replaced_alike():
    pattern = re.compile("[a-z]+")
    assert legal_id("abc", pattern) == "abc"
    assert legal_id("a.c", pattern) == legal_id("a.c", pattern) != "a.c"


# -- media ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "data", "expected"),
    [
        ("image/tiff", "iVBORw0KGgo=", "image/tiff"),
        ("image/jpg", "", "image/jpeg"),
        ("", "iVBORw0KGgo=", "image/png"),
        ("", "/9j/4AAQ", "image/jpeg"),
        ("application/octet-stream", "R0lGODlh", "image/gif"),
        ("", "UklGRh4A", "image/webp"),
        ("", "JVBERi0x", "application/pdf"),
        ("", "AAAA", ""),
    ],
)
def test_media_type_is_as_stated_or_told_by_the_bytes(stated, data, expected):
    assert media_type_of(Inline(stated, data)) == expected


@pytest.mark.parametrize(
    ("data", "expected"), [("SMOk", "Hä"), ("/w==", None), ("!", None), ("", "")]
)
def test_inline_text_is_utf8_in_base64_or_nothing(data, expected):
    assert inline_text(Inline("text/plain", data)) == expected


# -- schemas --------------------------------------------------------------------


def close(schema):
    made = closed(Raw(msgspec.json.encode(schema)))
    return None if made is None else msgspec.json.decode(made)


def test_closed_schema_closes_objects_everywhere():
    inner = {"type": "object", "properties": {"b": {"type": "string"}}}
    schema = {
        "type": "object",
        "properties": {"a": inner, "c": {"type": "array", "items": inner}},
        "$defs": {"d": inner},
        "anyOf": [inner],
    }
    shut = {**inner, "additionalProperties": False}
    assert close(schema) == {
        "type": "object",
        "properties": {"a": shut, "c": {"type": "array", "items": shut}},
        "$defs": {"d": shut},
        "anyOf": [shut],
        "additionalProperties": False,
    }


def test_closed_schema_says_unenforceable_constraints_in_words():
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 1, "description": "Count"},
            "l": {"type": "array", "minItems": 3},
            "m": {"type": "array", "minItems": 1},
        },
    }
    made = close(schema)
    assert made is not None
    assert made["properties"] == {
        "n": {"type": "integer", "description": "Count (minimum: 1)"},
        "l": {"type": "array", "description": "(minItems: 3)"},
        "m": {"type": "array", "minItems": 1},
    }


@pytest.mark.parametrize(
    "schema",
    [
        [1],
        {"type": "object", "additionalProperties": True},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "object", "patternProperties": {}},
        {"oneOf": [{"type": "string"}]},
        {"type": "object", "properties": {"a": {"oneOf": []}}},
        {"type": "array", "items": {"not": {}}},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        {
            "$ref": "#/$defs/a",
            "$defs": {
                "a": {"anyOf": [{"$ref": "#/$defs/b"}]},
                "b": {"properties": {"x": {"$ref": "#/$defs/a"}}},
            },
        },
    ],
)
def test_closed_schema_cannot_be_had_of_open_or_endless_ones(schema):
    assert close(schema) is None


def test_closed_schema_takes_references_that_end():
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/a"}, "b": {"$ref": "#/$defs/a"}},
        "$defs": {"a": {"type": "string"}},
        "additionalProperties": False,
    }
    assert close(schema) == schema


def test_as_object_adds_the_type_and_nothing_else():
    typed = Raw(b'{"type": "object", "x": 1.50}')
    assert as_object(typed) is typed
    assert bytes(as_object(Raw(b'{"x": 1.50}'))) == b'{"type":"object","x":1.50}'
    with pytest.raises(ValueError, match="JSON Schema"):
        as_object(Raw(b"[]"))


# -- collecting -----------------------------------------------------------------


def test_collector_keeps_choices_apart_and_blocks_in_order():
    usage = Usage(input_tokens=1, output_tokens=2)
    parts = [
        lifecycle(Started(id="i", model="m")),
        content(TextDelta("a")),
        content(TextDelta("x", 1)),
        content(ToolCallStarted(index=0, id="c", name="f")),
        content(ToolCallStarted(index=1, id="d", name="g", arguments="{")),
        content(ArgumentsDelta(0, "{}")),
        content(ArgumentsDelta(1, "}")),
        content(TextDelta("b")),
        content(RefusalDelta("no", 1)),
        finished(Finished(finish="tool_calls")),
        finished(Finished(finish="stop", native_finish="end", choice=1), usage),
    ]
    collector = Collector()
    for part in parts:
        collector.add(part)
    assert collector.completion() == Completion(
        id="i",
        model="m",
        usage=usage,
        choices=(
            Choice(
                content=(
                    Text("a"),
                    ToolCall(id="c", name="f", arguments="{}"),
                    ToolCall(id="d", name="g", arguments="{}"),
                    Text("b"),
                ),
                finish="tool_calls",
            ),
            Choice(
                index=1,
                content=(Text("x"), Refusal("no")),
                finish="stop",
                native_finish="end",
            ),
        ),
    )


def test_joined_texts_are_one_and_others_stay():
    blocks: list[Block] = [Text("a"), Text("b"), Refusal("r"), Text("c")]
    assert joined(blocks) == (Text("ab"), Refusal("r"), Text("c"))


# -- streams and rows -----------------------------------------------------------


class Words:
    """A reader of a made-up vendor: each event is a word, ``END`` the last."""

    def read(self, event, out):
        if event.data == b"END":
            self.end(out)
        else:
            out.append(content(TextDelta(event.data.decode())))

    def end(self, out):
        out.append(finished(Finished(finish="stop")))
        out.append(StreamDone())


def drained(decoder):
    found = []
    while (event := decoder.next_event()) is not None:
        found.append(event)
    return found


def test_sse_stream_says_nothing_after_its_end():
    decoder = SseStream(Words(), LIMIT)
    decoder.receive_data(b"data: a\n\ndata: END\n\ndata: b\n\n")
    events = drained(decoder)
    assert [type(event) for event in events] == [StreamPart, StreamPart, StreamDone]
    decoder.receive_data(b"data: c\n\n")
    decoder.receive_eof()
    assert drained(decoder) == []


def test_sse_stream_at_its_end_asks_the_reader_once():
    decoder = SseStream(Words(), LIMIT)
    decoder.receive_data(b"data: a")
    decoder.receive_eof()
    decoder.receive_eof()
    assert [type(e) for e in drained(decoder)] == [StreamPart, StreamPart, StreamDone]


def test_sse_stream_whose_event_has_no_end_fails():
    decoder = SseStream(Words(), LIMIT)
    decoder.receive_data(b"data: " + b"x" * 2_000_000)
    (event,) = drained(decoder)
    assert isinstance(event, StreamFailed)
    assert isinstance(event.error, UpstreamGarbled)


def test_outbound_dialect_has_no_clients_side():
    dialect = outbound_dialect(
        "acme",
        render_request=lambda parsed, target: pytest.fail("not asked"),
        parse_response=lambda head, body: None,
        parse_error=lambda head, body: ValueError(),
        table=None,
    )
    with pytest.raises(RuntimeError, match="acme"):
        dialect.parse_request(b"", None)  # type: ignore[arg-type]


def test_encode_body_lets_the_config_have_the_last_word():
    fields = {"a": 1, "b": Raw(b"1.50")}
    assert encode_body(fields, {}) == b'{"a":1,"b":1.50}'
    assert encode_body(fields, {"a": Raw(b"2")}) == b'{"a":2,"b":1.50}'
