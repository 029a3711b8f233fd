from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.errors import RemoteProtocolError
from tz_protocol.wire.json_list import EventsOrList, JsonListDecoder
from tz_protocol.wire.sse import SseEvent

LIMIT = 1_000_000


def taken(decoder, pieces):
    """Return what *decoder* makes of *pieces*, and why it refused them."""
    found = []
    for piece in (*pieces, None):
        if piece is None:
            decoder.receive_eof()
        else:
            decoder.receive_data(piece)
        try:
            while (event := decoder.next_event()) is not None:
                found.append(event.data)
        except RemoteProtocolError as error:
            return found, error.code
    return found, None


def byte_by_byte(data):
    return [data[place : place + 1] for place in range(len(data))]


ODD = {"a": '}{][,"\\', "b": [{"c": "\\\\"}], "": {}}


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"[]", 0),
        (b"", 0),
        (b" [ ] ", 0),
        (b"[{}]", 1),
        (b'{"a":1}', 1),
        (b"[{},{}\r\n,\t{}]", 3),
        (b"[" + msgspec.json.encode(ODD) + b"," + msgspec.json.encode(ODD) + b"]", 2),
    ],
)
@pytest.mark.parametrize("cut", [lambda data: [data], byte_by_byte])
def test_objects_of_a_list_are_events(data, count, cut):
    found, refusal = taken(JsonListDecoder(LIMIT), cut(data))
    assert refusal is None
    assert len(found) == count
    assert all(msgspec.json.decode(one) in ({}, {"a": 1}, ODD) for one in found)


@pytest.mark.parametrize("data", [b"[1]", b"null", b'["a"]', b"[{},x{}]", b"}"])
def test_list_of_something_else_is_refused(data):
    assert taken(JsonListDecoder(LIMIT), [data])[1] == "bad_list"
    assert taken(JsonListDecoder(LIMIT), byte_by_byte(data))[1] == "bad_list"


def test_object_over_the_limit_is_refused():
    data = b'[{"a":"' + b"x" * 9
    assert taken(JsonListDecoder(limit=8), [data]) == ([], "event_too_large")
    whole = data + b'"}]'
    for pieces in ([whole], byte_by_byte(whole)):
        assert taken(JsonListDecoder(limit=8), pieces) == ([], "event_too_large")
    assert not taken(JsonListDecoder(limit=8), [b'[{"a":1},{"a":1},{"a":1}]'])[1]


def test_object_that_is_cut_off_is_handed_on_as_it_is():
    assert taken(JsonListDecoder(LIMIT), [b'[{"a":1},{"b":'])[0] == [
        b'{"a":1}',
        b'{"b":',
    ]


VALUES = st.lists(
    st.dictionaries(
        st.text('{}[]",\\ab', max_size=3),
        st.text('{}[]",\\ab\n', max_size=5) | st.lists(st.integers(), max_size=2),
        max_size=3,
    ),
    max_size=4,
)


@given(VALUES, st.lists(st.integers(0, 200), max_size=8), st.booleans())
def test_any_list_cut_anywhere_is_its_objects(values, cuts, is_pretty):
    data = msgspec.json.encode(values)
    if is_pretty:
        data = msgspec.json.format(data, indent=2)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    for decoder in (JsonListDecoder(LIMIT), EventsOrList(LIMIT)):
        found, refusal = taken(decoder, pieces)
        assert refusal is None
        assert [msgspec.json.decode(one) for one in found] == values


@given(st.binary(max_size=40))
def test_any_bytes_never_raise_anything_else(data):
    whole = taken(JsonListDecoder(LIMIT), [data])
    assert taken(JsonListDecoder(LIMIT), byte_by_byte(data)) == whole
    taken(EventsOrList(LIMIT), byte_by_byte(data))


@pytest.mark.parametrize(
    "data",
    [
        b"data: [1]\n\n",
        b"\r\n\r\ndata: [1]\r\n\r\n",
        b": {}\n\ndata: [1]\n\n",
        b"\xef\xbb\xbfdata: [1]\n\n",
    ],
)
@pytest.mark.parametrize("cut", [lambda data: [data], byte_by_byte])
def test_events_are_known_by_their_first_byte(data, cut):
    decoder = EventsOrList(LIMIT)
    found = []
    for piece in cut(data):
        decoder.receive_data(piece)
        while (event := decoder.next_event()) is not None:
            found.append(event)
    assert found == [SseEvent(b"[1]")]
