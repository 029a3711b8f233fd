from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.wire.feeding import cut, in_bytes, serve
from tz_protocol.errors import LocalProtocolError, RemoteProtocolError
from tz_protocol.types.http import RequestHead, ResponseHead
from tz_protocol.types.settings import Limits
from tz_protocol.wire.http1 import BodyChunk, EndOfBody, ServerCodec

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
EXPECTING = (
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n"
)
OLD = b"GET / HTTP/1.0\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"

OK = ResponseHead(200)
SIZED = ResponseHead(200, (("content-length", "2"), ("x-a", "b")))


def received(data):
    """Return a codec that has taken *data* whole, and its events."""
    codec = ServerCodec(Limits(), "192.0.2.1:5")
    codec.receive_data(data)
    events = []
    while (event := codec.next_event()) is not None:
        events.append(event)
    return codec, events


def respond(codec, head=SIZED, body=b"hi"):
    return codec.send_head(head) + codec.send_data(body) + codec.send_end()


def parsed(data, request=b"GET"):
    """Return status, headers and body of the response in *data*, as h11 reads it."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=request, target="/", headers=[("host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    head = connection.next_event()
    assert isinstance(head, h11.Response)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += bytes(event.data)
    assert type(event) is h11.EndOfMessage
    return head.status_code, dict(head.headers), body


# -- receiving ----------------------------------------------------------------------


def test_request_with_body_comes_as_head_body_and_end():
    codec, events = received(POST)
    assert events == [
        RequestHead(
            method="POST",
            path="/",
            headers=(("host", "a"), ("content-length", "3")),
            lines=(("Host", "a"), ("Content-Length", "3")),
            peer="192.0.2.1:5",
        ),
        BodyChunk(b"abc"),
        EndOfBody(),
    ]
    assert codec.is_request_complete
    assert not codec.has_buffered


def test_request_without_body_ends_at_once():
    codec, events = received(GET)
    assert [type(event) for event in events] == [RequestHead, EndOfBody]
    assert codec.is_request_complete


def test_request_that_comes_slowly_is_complete_at_its_last_byte():
    codec = ServerCodec(Limits())
    for byte in in_bytes(POST[:-1]):
        codec.receive_data(byte)
        while codec.next_event() is not None:
            pass
        assert not codec.is_request_complete
    codec.receive_data(POST[-1:])
    assert codec.next_event() == BodyChunk(b"c")
    assert codec.next_event() == EndOfBody()
    assert codec.is_request_complete


def test_chunks_that_came_together_are_one_piece():
    _, events = received(CHUNKED + b"1\r\na\r\n2\r\nbc\r\n3\r\nde")
    assert events[1:] == [BodyChunk(b"abcde")]


def test_large_body_is_not_held_back_until_it_is_whole():
    codec, _ = received(CHUNKED + b"fffff\r\n")
    for _ in range(4):
        codec.receive_data(b"x" * 1_000)
        assert codec.next_event() == BodyChunk(b"x" * 1_000)
        assert not codec.has_buffered


def test_body_before_an_error_is_given_first():
    codec, events = received(CHUNKED)
    codec.receive_data(b"3\r\nabc\r\nZ\r\n")
    assert codec.next_event() == BodyChunk(b"abc")
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="chunk line") as caught:
            codec.next_event()
        assert (caught.value.status, caught.value.code) == (400, "bad_chunk")
    assert len(events) == 1


def test_nothing_is_kept_after_an_error():
    codec = ServerCodec(Limits())
    codec.receive_data(b"\0")
    with pytest.raises(RemoteProtocolError):
        codec.next_event()
    codec.receive_data(GET)
    assert not codec.has_buffered
    with pytest.raises(RemoteProtocolError, match="control byte 0x00"):
        codec.next_event()


@pytest.mark.parametrize(
    "data",
    [
        b"G",
        GET[:-1],
        b"\r",
        POST[:-1],
        CHUNKED,
        CHUNKED + b"3\r\nab",
        CHUNKED + b"0\r\n",
    ],
)
def test_end_within_a_request_is_incomplete(data):
    codec, _ = received(data)
    codec.receive_eof()
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="ended within") as caught:
            codec.next_event()
        assert caught.value.code == "incomplete"


@pytest.mark.parametrize("data", [b"", b"\r\n\r\n"])
def test_end_between_requests_is_no_error(data):
    codec, _ = received(GET)
    respond(codec)
    codec.start_next_cycle()
    if data:
        codec.receive_data(data)
        assert codec.next_event() is None
        assert not codec.has_buffered
    codec.receive_eof()
    assert codec.next_event() is None
    assert codec.is_at_eof


def test_end_after_a_request_still_lets_it_be_answered():
    codec, _ = received(GET + GET)
    codec.receive_eof()
    respond(codec)
    codec.start_next_cycle()
    assert isinstance(codec.next_event(), RequestHead)
    assert codec.next_event() == EndOfBody()
    assert codec.next_event() is None


# -- pipelining and reuse -----------------------------------------------------------


def test_pipelined_request_waits_for_the_next_cycle():
    codec, events = received(POST + GET)
    assert len(events) == 3
    assert codec.has_buffered
    assert codec.is_request_complete
    respond(codec)
    assert codec.can_reuse
    codec.start_next_cycle()
    assert not codec.is_request_complete
    assert isinstance(codec.next_event(), RequestHead)
    assert not codec.has_buffered


@given(
    st.lists(st.tuples(st.binary(max_size=20), st.booleans()), min_size=1, max_size=5),
    st.lists(st.integers(0, 2_000), max_size=6),
)
def test_pipelined_requests_come_out_as_they_went_in(bodies, places):
    data = b""
    for number, (body, is_chunked) in enumerate(bodies):
        data += b"POST /%d HTTP/1.1\r\nHost: a\r\n" % number
        if not is_chunked:
            data += b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            continue
        half = len(body) // 2
        data += b"Transfer-Encoding: chunked\r\n\r\n"
        for part in (body[:half], body[half:]):
            data += b"%x\r\n%b\r\n" % (len(part), part) if part else b""
        data += b"0\r\n\r\n"
    verdict = serve(cut(data, places))
    found = [(head.path, body) for head, body in verdict.messages]
    assert found == [(f"/{n}", body) for n, (body, _) in enumerate(bodies)]
    assert verdict.is_whole


@pytest.mark.parametrize(
    ("data", "is_reused"),
    [
        (GET, True),
        (GET.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"), True),
        (GET.replace(b"\r\n\r\n", b"\r\nConnection: x, Close\r\n\r\n"), False),
        (
            GET.replace(b"\r\n\r\n", b"\r\nConnection: x\r\nConnection:close\r\n\r\n"),
            False,
        ),
        (OLD, False),
        (OLD.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"), False),
    ],
)
def test_reuse_is_as_the_client_wants_it_and_said(data, is_reused):
    codec, _ = received(data)
    status, headers, _ = parsed(respond(codec))
    assert status == 200
    assert headers.get(b"connection") == (None if is_reused else b"close")
    assert codec.can_reuse == is_reused


def test_close_after_response_is_said_and_kept_to():
    codec, _ = received(GET)
    codec.close_after_response()
    _, headers, _ = parsed(respond(codec))
    assert headers[b"connection"] == b"close"
    assert not codec.can_reuse
    with pytest.raises(LocalProtocolError, match="another request"):
        codec.start_next_cycle()


def test_response_before_the_request_is_whole_allows_reuse_only_afterwards():
    codec, _ = received(POST[:-1])
    respond(codec)
    assert not codec.can_reuse
    codec.receive_data(b"c" + GET)
    assert codec.next_event() == BodyChunk(b"c")
    assert codec.next_event() == EndOfBody()
    assert codec.can_reuse
    codec.start_next_cycle()
    assert isinstance(codec.next_event(), RequestHead)


def test_illegal_request_can_be_answered_and_nothing_more():
    codec = ServerCodec(Limits())
    codec.receive_data(b"GET / HTTP/9.9\r\n")
    with pytest.raises(RemoteProtocolError):
        codec.next_event()
    data = respond(codec, ResponseHead(505, (("content-length", "2"),)))
    status, headers, body = parsed(data)
    assert (status, body, headers[b"connection"]) == (505, b"hi", b"close")
    assert not codec.can_reuse


def test_illegal_body_can_be_answered_and_nothing_more():
    codec, _ = received(CHUNKED)
    codec.receive_data(b"Z\r\n")
    with pytest.raises(RemoteProtocolError):
        codec.next_event()
    _, headers, _ = parsed(respond(codec))
    assert headers[b"connection"] == b"close"
    assert not codec.can_reuse


def test_illegal_body_after_the_answer_ends_the_connection():
    codec, _ = received(CHUNKED)
    respond(codec)
    codec.receive_data(b"Z\r\n")
    with pytest.raises(RemoteProtocolError):
        codec.next_event()
    assert not codec.can_reuse


# -- sending ------------------------------------------------------------------------


def test_response_of_known_length_is_sent_as_it_is():
    codec, _ = received(GET)
    assert codec.send_head(SIZED) == (
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-a: b\r\n\r\n"
    )
    assert codec.send_data(b"h") == b"h"
    assert codec.send_data(b"") == b""
    assert codec.send_data(b"i") == b"i"
    assert codec.send_end() == b""


def test_response_of_unknown_length_is_chunked():
    codec, _ = received(GET)
    assert codec.send_head(OK) == (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    assert codec.send_data(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert codec.send_data(b"") == b""
    assert codec.send_end() == b"0\r\n\r\n"
    assert codec.can_reuse


def test_response_of_unknown_length_to_an_old_client_ends_with_the_connection():
    codec, _ = received(OLD)
    data = respond(codec, OK)
    assert data == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi"
    assert not codec.can_reuse


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize(
    ("request_", "status"), [(HEAD, 200), (GET, 204), (GET, 304), (HEAD, 404)]
)
def test_response_without_body_has_none(request_, status, length):
    codec, _ = received(request_)
    head = ResponseHead(status, (("content-length", "2"),) if length else ())
    data = codec.send_head(head)
    assert codec.send_data(b"hi") == b""
    assert codec.send_end() == b""
    found, headers, body = parsed(data, request_.split()[0])
    assert (found, body) == (status, b"")
    assert (b"content-length" in headers) == (length and status != 204)
    assert codec.can_reuse


def test_unknown_status_is_sent_without_a_reason():
    codec, _ = received(GET)
    assert codec.send_head(ResponseHead(299)).startswith(b"HTTP/1.1 299 \r\n")


@pytest.mark.parametrize("data", [b"hi!", b"h"])
def test_body_of_another_length_than_said_is_our_error(data):
    codec, _ = received(GET)
    codec.send_head(SIZED)
    with pytest.raises(LocalProtocolError, match="Content-Length"):
        codec.send_end() if codec.send_data(data) else None
    assert not codec.can_reuse


@pytest.mark.parametrize(
    "headers",
    [
        (("x-a", "b\r\nx-b: c"),),
        (("x-a\r\nx-b", "c"),),
        (("x-a", "b\nc"),),
        (("x-a", "b\rc"),),
        (("x-a", "b\0"),),
        (("x-a", "\x7f"),),
        (("x-a", "\u010d"),),
        (("x a", "b"),),
        (("", "b"),),
        (("x-\xe9", "b"),),
        (("content-length", "x"),),
        (("content-length", "\u0662"),),
        (("content-length", "2"), ("content-length", "2")),
        (("transfer-encoding", "chunked"),),
        (("connection", "close"),),
        (("upgrade", "x"),),
    ],
)
def test_illegal_header_is_our_error_and_sends_nothing(headers):
    codec, _ = received(GET)
    with pytest.raises(LocalProtocolError):
        codec.send_head(ResponseHead(200, headers))
    assert parsed(respond(codec))[0] == 200


@pytest.mark.parametrize("status", [100, 199, 1_000])
def test_status_that_is_not_final_is_our_error(status):
    codec, _ = received(GET)
    with pytest.raises(LocalProtocolError):
        codec.send_head(ResponseHead(status))


def test_steps_out_of_order_are_our_error():
    codec, _ = received(GET)
    with pytest.raises(LocalProtocolError, match="outside of a response"):
        codec.send_data(b"hi")
    codec.send_head(OK)
    codec.send_end()
    with pytest.raises(LocalProtocolError, match="outside of a response"):
        codec.send_data(b"hi")
    with pytest.raises(LocalProtocolError):
        codec.send_end()
    with pytest.raises(LocalProtocolError):
        codec.send_head(OK)


HEADER_NAMES = st.from_regex(r"\A[a-z0-9!#$%&'*+.^_`|~-]{1,8}\Z").filter(
    lambda name: (
        name
        not in {"connection", "upgrade", "keep-alive", "transfer-encoding"}
        | {"content-length"}
    )
)
HEADER_VALUES = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"),
    max_size=12,
).map(lambda value: "".join(c for c in value.strip() if not 0x7F <= ord(c) < 0xA1))


@given(
    st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=5),
    st.lists(st.binary(max_size=20), max_size=4),
    st.booleans(),
    st.sampled_from([GET, OLD, HEAD, POST]),
)
def test_response_reads_as_what_was_sent(headers, pieces, is_sized, request_):
    codec, _ = received(request_)
    body = b"".join(pieces)
    sized = (("content-length", str(len(body))),) if is_sized else ()
    data = codec.send_head(ResponseHead(200, (*headers, *sized)))
    data += b"".join(codec.send_data(piece) for piece in pieces)
    data += codec.send_end()
    method = request_.split()[0]
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    head = connection.next_event()
    assert isinstance(head, h11.Response)
    found = [pair for pair in head.headers if pair[0] not in FRAMING]
    assert found == [
        (name.encode(), value.encode("latin-1")) for name, value in headers
    ]
    theirs = b""
    while isinstance(event := connection.next_event(), h11.Data):
        theirs += bytes(event.data)
    assert theirs == (b"" if method == b"HEAD" else body)


FRAMING = (b"content-length", b"transfer-encoding", b"connection")


# -- 100-continue -------------------------------------------------------------------


def test_expectation_is_there_until_100_is_sent():
    codec, _ = received(EXPECTING)
    assert codec.is_expecting_continue
    assert codec.send_continue() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert not codec.is_expecting_continue
    codec.receive_data(b"abc")
    assert codec.next_event() == BodyChunk(b"abc")
    assert codec.next_event() == EndOfBody()
    assert parsed(respond(codec))[2] == b"hi"
    assert codec.can_reuse
    codec.start_next_cycle()
    assert not codec.is_expecting_continue


def test_expectation_is_over_once_the_body_begins():
    codec, _ = received(EXPECTING)
    codec.receive_data(b"a")
    assert not codec.is_expecting_continue
    assert codec.next_event() == BodyChunk(b"a")
    assert not codec.is_expecting_continue


def test_expectation_is_over_once_the_response_begins():
    codec, _ = received(EXPECTING)
    codec.send_head(SIZED)
    assert not codec.is_expecting_continue
    with pytest.raises(LocalProtocolError):
        codec.send_continue()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (EXPECTING, True),
        (EXPECTING.replace(b"100-Continue", b"x, 100-continue"), True),
        (EXPECTING.replace(b"100-Continue", b"100-continued"), False),
        (EXPECTING.replace(b"HTTP/1.1", b"HTTP/1.0"), False),
        (EXPECTING.replace(b"Content-Length: 3", b"Content-Length: 0"), False),
        (EXPECTING.replace(b"Content-Length: 3\r\n", b""), False),
        (CHUNKED.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n"), True),
        (EXPECTING + b"a", False),
    ],
)
def test_expectation_is_seen_where_it_means_something(data, expected):
    codec, _ = received(data)
    assert codec.is_expecting_continue == expected
