"""AWS event streams, cut anywhere and damaged everywhere."""

from __future__ import annotations

import struct
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.wire.feeding import cut, in_bytes
from tz_protocol.errors import RemoteProtocolError
from tz_protocol.wire.eventstream import (
    HEADERS_LIMIT,
    MESSAGE_LIMIT,
    EventMessage,
    EventStreamDecoder,
    HeaderType,
    encode_message,
)


def read(pieces, *, limit=MESSAGE_LIMIT, is_eof=True):
    """Return the messages of *pieces*, and the error's code if it ended in one."""
    decoder = EventStreamDecoder(limit)
    found: list[EventMessage | str] = []
    try:
        for piece in pieces:
            decoder.receive_data(piece)
            while (event := decoder.next_event()) is not None:
                found.append(event)
        if is_eof:
            decoder.receive_eof()
            assert decoder.next_event() is None
    except RemoteProtocolError as error:
        found.append(error.code)
        with pytest.raises(RemoteProtocolError):
            decoder.next_event()
    return found


def raw(headers=b"", payload=b"", *, size=None, header_size=None):
    """Return a message of which the lengths may lie, with checksums that are right."""
    real = 16 + len(headers) + len(payload)
    lengths = struct.pack(
        ">II",
        real if size is None else size,
        len(headers) if header_size is None else header_size,
    )
    body = lengths + struct.pack(">I", crc32(lengths)) + headers + payload
    return body + struct.pack(">I", crc32(body))


# The vectors of the specification's examples, worked out by hand from its layout.
EMPTY = bytes.fromhex("0000001000000000 05c248eb 7d98c8ff")
ONE_STRING = (
    bytes.fromhex("0000003d00000020 07fd8396")
    + b"\x0ccontent-type\x07\x00\x10application/json"
    + b"{'foo':'bar'}"
    + bytes.fromhex("8d9c08b1")
)


def test_message_golden_bytes():
    assert encode_message((), b"") == EMPTY
    headers = [("content-type", HeaderType.STRING, "application/json")]
    assert encode_message(headers, b"{'foo':'bar'}") == ONE_STRING
    assert read([EMPTY + ONE_STRING]) == [
        EventMessage({}, b""),
        EventMessage({"content-type": "application/json"}, b"{'foo':'bar'}"),
    ]


def test_message_headers_of_every_type_are_read():
    headers = [
        ("yes", HeaderType.TRUE, None),
        ("no", HeaderType.FALSE, None),
        ("byte", HeaderType.BYTE, -1),
        ("short", HeaderType.SHORT, -32_768),
        ("integer", HeaderType.INTEGER, 2**31 - 1),
        ("long", HeaderType.LONG, -(2**63)),
        ("bytes", HeaderType.BYTES, b"\x00\xff"),
        ("string", HeaderType.STRING, "é"),
        ("time", HeaderType.TIMESTAMP, 1_440_938_160_000),
        ("uuid", HeaderType.UUID, bytes(range(16))),
    ]
    (message,) = read([encode_message(headers, b"p")])
    assert isinstance(message, EventMessage)
    expected = {name: value for name, _, value in headers}
    assert message.headers == {**expected, "yes": True, "no": False}
    assert message.text("string") == "é"
    assert message.text("byte") == message.text("missing") == ""


def test_text_of_a_number_is_empty():
    message = EventMessage({":event-type": 3}, b"")
    assert message.text(":event-type") == ""


VALUES = st.one_of(
    st.sampled_from([(HeaderType.TRUE, True), (HeaderType.FALSE, False)]),
    st.tuples(st.just(HeaderType.BYTE), st.integers(-128, 127)),
    st.tuples(st.just(HeaderType.SHORT), st.integers(-(2**15), 2**15 - 1)),
    st.tuples(st.just(HeaderType.INTEGER), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(
        st.sampled_from([HeaderType.LONG, HeaderType.TIMESTAMP]),
        st.integers(-(2**63), 2**63 - 1),
    ),
    st.tuples(st.just(HeaderType.BYTES), st.binary(max_size=20)),
    st.tuples(st.just(HeaderType.STRING), st.text(max_size=20)),
    st.tuples(st.just(HeaderType.UUID), st.binary(min_size=16, max_size=16)),
)
NAMES = st.text(min_size=1, max_size=10)
MESSAGES = st.lists(
    st.tuples(st.dictionaries(NAMES, VALUES, max_size=4), st.binary(max_size=40)),
    max_size=5,
)
PLACES = st.lists(st.integers(0, 10_000), max_size=8)


def encoded(messages):
    return b"".join(
        encode_message([(name, *value) for name, value in headers.items()], payload)
        for headers, payload in messages
    )


@given(MESSAGES, PLACES)
def test_messages_come_back_however_the_bytes_are_cut(messages, places):
    data = encoded(messages)
    expected = [
        EventMessage({name: value for name, (_, value) in headers.items()}, payload)
        for headers, payload in messages
    ]
    assert expected == read(cut(data, places))
    assert expected == read(in_bytes(data))


@given(MESSAGES.filter(bool), st.data())
def test_damaged_bytes_raise_a_remote_protocol_error_and_nothing_else(messages, draw):
    data = bytearray(encoded(messages))
    place = draw.draw(st.integers(0, len(data) - 1))
    data[place] ^= draw.draw(st.integers(1, 255))
    # A length that has become larger may only show at the end of the bytes, and
    # whatever a checksum does not cover is a checksum.
    found = read([bytes(data)])
    assert isinstance(found[-1], str)
    assert found == read(in_bytes(bytes(data)))


@given(st.binary(max_size=200), PLACES)
def test_any_bytes_raise_a_remote_protocol_error_and_nothing_else(data, places):
    assert read([data]) == read(cut(data, places))


@given(st.binary(max_size=60))
def test_any_headers_with_right_checksums_are_read_or_refused(headers):
    found = read([raw(headers, b"p")])
    assert isinstance(found[0], EventMessage) or found[0] == "bad_event_stream"


@pytest.mark.parametrize(
    "headers",
    [
        b"\x01a\x0a",
        b"\x01a\x07\x00\x05abc",
        b"\x01a\x02",
        b"\x01a",
        b"\x05a",
        b"\x00\x00",
        b"\x01a\x00\x01a\x00",
        b"\x01\xff\x00",
        b"\x01a\x07\x00\x01\xff",
    ],
    ids=[
        "unknown type",
        "value cut off",
        "number missing",
        "type missing",
        "name cut off",
        "name empty",
        "name twice",
        "name not utf-8",
        "value not utf-8",
    ],
)
def test_headers_that_are_none_are_refused(headers):
    assert read([raw(headers)]) == ["bad_event_stream"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (raw(size=15), "bad_event_stream"),
        (raw(b"\x01a\x00", header_size=4), "bad_event_stream"),
        (raw(size=MESSAGE_LIMIT + 1), "event_too_large"),
        (raw(size=MESSAGE_LIMIT, header_size=HEADERS_LIMIT + 1), "event_too_large"),
        (EMPTY[:8] + b"\x00" * 8, "bad_event_stream"),
        (EMPTY[:-1] + b"\x00", "bad_event_stream"),
    ],
    ids=[
        "shorter than its frame",
        "headers over its end",
        "over the limit",
        "headers over the limit",
        "checksum of the lengths",
        "checksum of the message",
    ],
)
def test_message_that_cannot_be_is_refused_before_it_is_whole(data, code):
    assert read([data], is_eof=False) == [code]


def test_message_over_a_limit_of_ones_own_is_refused():
    assert read([encode_message((), b"x" * 20)], limit=35) == ["event_too_large"]
    assert len(read([encode_message((), b"x" * 20)], limit=36)) == 1


@pytest.mark.parametrize("size", range(1, len(ONE_STRING)))
def test_stream_that_ends_within_a_message_is_incomplete(size):
    assert read([EMPTY + ONE_STRING[:size]]) == [EventMessage({}, b""), "incomplete"]


def test_stream_of_much_data_does_not_grow_the_buffer():
    decoder = EventStreamDecoder()
    message = encode_message((), b"x" * 40_000)
    taken = 0
    for start in range(0, len(message) * 20, 1_000):
        decoder.receive_data((message * 20)[start : start + 1_000])
        while decoder.next_event() is not None:
            taken += 1
        assert len(decoder._buffer) < 2 * 65_536
    assert taken == 20


def test_stream_of_ever_new_headers_is_read():
    data = b"".join(
        encode_message([("a", HeaderType.INTEGER, n)], b"") for n in range(200)
    )
    found = read([data])
    assert [
        event.headers["a"] for event in found if isinstance(event, EventMessage)
    ] == (list(range(200)))


def test_decoder_that_has_refused_takes_nothing_more():
    decoder = EventStreamDecoder()
    decoder.receive_data(b"\xff" * 16)
    with pytest.raises(RemoteProtocolError):
        decoder.next_event()
    decoder.receive_data(EMPTY)
    with pytest.raises(RemoteProtocolError):
        decoder.next_event()


def test_encoding_over_the_limits_is_refused():
    with pytest.raises(ValueError, match="over the limit"):
        encode_message((), b"x" * MESSAGE_LIMIT)
    with pytest.raises(struct.error):
        encode_message([("a", HeaderType.BYTE, 128)], b"")
