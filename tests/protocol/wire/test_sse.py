"""Event streams, cut anywhere."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tz_protocol.errors import RemoteProtocolError
from tz_protocol.wire.sse import SseDecoder, SseEvent


def events(pieces, *, limit=1_000_000, is_eof=True):
    """Return the events of *pieces*, and the error's code if it ended in one."""
    decoder = SseDecoder(limit)
    found: list[SseEvent | str] = []
    try:
        for piece in pieces:
            decoder.receive_data(piece)
            while (event := decoder.next_event()) is not None:
                found.append(event)
        if is_eof:
            decoder.receive_eof()
            while (event := decoder.next_event()) is not None:
                found.append(event)
    except RemoteProtocolError as error:
        found.append(error.code)
    return found


def one_by_one(data):
    return [data[place : place + 1] for place in range(len(data))]


STREAMS = {
    "line feeds": (b"data: a\n\ndata: b\n\n", ["a", "b"]),
    "carriage returns": (b"data: a\r\rdata: b\r\r", ["a", "b"]),
    "both": (b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
    "mixed": (b"data: a\r\n\ndata: b\n\r\ndata: c\r\n\rdata: d\n\n", list("abcd")),
    "mark": (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
    "mark later": (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", ["a"]),
    "no space": (b"data:a\n\n", ["a"]),
    "two spaces": (b"data:  a\n\n", [" a"]),
    "many lines": (b"data: a\ndata:\ndata: b\n\n", ["a\n\nb"]),
    "no colon": (b"data\n\n", [""]),
    "comment": (b": hello\n\n:\n\ndata: a\n: within\n\n", ["a"]),
    "comments only": (b": OPENROUTER PROCESSING\n\n" * 5, []),
    "empty lines": (b"\n\n\n\ndata: a\n\n\n\n\n", ["a"]),
    "unknown fields": (b"foo: bar\nretry: 10\ndata: a\nfoo\n\n", ["a"]),
    "no last blank line": (b"data: a\n\ndata: b\n", ["a", "b"]),
    "no last line feed": (b"data: a\n\ndata: b", ["a", "b"]),
    "nothing": (b"", []),
    "colons in data": (b"data: a: b:c\n\n", ["a: b:c"]),
    "indented field": (b" data: a\n\n", []),
    "utf-8": ("data: žluťoučký 🦆\n\n".encode(), ["žluťoučký 🦆"]),
    "line separators": (
        "data: a\u2028b\x0bc\x85d\n\n".encode(),
        ["a\u2028b\x0bc\x85d"],
    ),
    "event without data": (b"event: ping\n\ndata: a\n\n", ["a"]),
    "only a mark": (b"\xef\xbb", []),
}


@pytest.mark.parametrize(("data", "expected"), STREAMS.values(), ids=STREAMS.keys())
def test_stream_is_read_whole_by_byte_and_in_two(data, expected):
    found = [event.data.decode() for event in events([data])]
    assert found == expected
    whole = events([data])
    assert events(one_by_one(data)) == whole
    for place in range(len(data)):
        assert events([data[:place], data[place:]]) == whole


def test_event_has_name_and_id():
    data = b"event: error\nid: 7\ndata: a\n\ndata: b\n\nid\ndata: c\n\n"
    assert events([data]) == [
        SseEvent(b"a", "error", "7"),
        SseEvent(b"b", "", "7"),
        SseEvent(b"c", "", ""),
    ]


def test_id_with_a_nul_is_not_taken():
    assert events([b"id: 1\nid: a\0b\ndata: x\n\n"]) == [SseEvent(b"x", "", "1")]


def test_name_is_forgotten_with_an_event_that_has_no_data():
    assert events([b"event: x\n\n", b"data: a\n\n"]) == [SseEvent(b"a")]


def test_event_is_there_as_soon_as_its_blank_line_is():
    assert events([b"data: a\n"], is_eof=False) == []
    assert events([b"data: a\n\n"], is_eof=False) == [SseEvent(b"a")]
    assert events([b"data: a\r\r"], is_eof=False) == [SseEvent(b"a")]


@given(
    st.lists(
        st.sampled_from(
            [b"data: x", b"data:", b"event: e", b"id: 1", b": c", b"", b"\xc5\x99"]
        )
        | st.binary(max_size=6),
        max_size=20,
    ),
    st.lists(st.sampled_from([b"\n", b"\r", b"\r\n"]), min_size=1, max_size=4),
    st.lists(st.integers(0, 200), max_size=8),
)
@example([b"data: x", b"", b"data: y", b""], [b"\r\n"], [8, 9, 10])
def test_stream_of_any_lines_does_not_depend_on_cuts(lines, ends, cuts):
    data = b"".join(
        line + end for line, end in zip(lines, itertools.cycle(ends), strict=False)
    )
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    whole = events([data])
    assert events(pieces) == whole
    assert events(one_by_one(data)) == whole


@given(
    st.lists(
        st.binary(max_size=30)
        | st.sampled_from([b"data: ", b"data", b"\n", b"\n\n", b"\r", b"x" * 9, b": "]),
        max_size=14,
    )
)
def test_stream_under_a_small_limit_does_not_depend_on_cuts(pieces):
    found = events(pieces, limit=20)
    assert events([b"".join(pieces)], limit=20) == found
    assert events(one_by_one(b"".join(pieces)), limit=20) == found
    for event in found:
        assert event == "event_too_large" or isinstance(event, SseEvent)


TOO_LONG = {
    "one line": b"data: " + b"x" * 100 + b"\n\n",
    "a line without end": b"data: " + b"x" * 100,
    "many lines": b"data: xxxxxxxx\n" * 20,
    "a comment without end": b":" + b"x" * 100,
    "a name without end": b"event: " + b"x" * 100,
}


@pytest.mark.parametrize("data", TOO_LONG.values(), ids=TOO_LONG.keys())
def test_event_over_the_limit_is_refused_after_those_before_it(data):
    for pieces in ([data], one_by_one(data)):
        stream = [b"data: a\n\n", *pieces, b"\n\ndata: b\n\n"]
        assert events(stream, limit=50) == [SseEvent(b"a"), "event_too_large"]
        assert events([b"".join(stream)], limit=50) == events(stream, limit=50)


def test_event_over_the_limit_holds_no_memory_after_it():
    decoder = SseDecoder(50)
    for _ in range(1_000):
        decoder.receive_data(b"x" * 100)
    with pytest.raises(RemoteProtocolError):
        decoder.next_event()
    assert len(decoder._line) == 0


def test_comments_without_end_are_no_event_and_hold_no_memory():
    decoder = SseDecoder(100)
    for _ in range(1_000):
        decoder.receive_data(b": keep-alive\n" * 100)
    assert decoder.next_event() is None
    decoder.receive_data(b"data: a\n\n")
    assert decoder.next_event() == SseEvent(b"a")
