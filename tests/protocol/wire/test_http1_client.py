from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.wire.feeding import ask, call, cut, in_bytes, serve
from tz_protocol.errors import LocalProtocolError, RemoteProtocolError
from tz_protocol.types.http import ResponseHead
from tz_protocol.types.settings import Limits
from tz_protocol.wire.http1 import BodyChunk, ClientCodec, EndOfBody, ServerCodec

HOST = (("host", "a.example"),)
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\n\r\n"


def asked(method="POST"):
    codec = ClientCodec(Limits())
    codec.send_request(method, "/", HOST, b"")
    return codec


def events(codec):
    found = []
    while (event := codec.next_event()) is not None:
        found.append(event)
    return found


# -- sending ------------------------------------------------------------------------


def test_request_is_one_piece_with_its_length():
    codec = ClientCodec(Limits())
    headers = (("accept", "*/*"), *HOST, ("x-a", "caf\xe9"))
    assert codec.send_request("POST", "/a?b", headers, b"hello") == (
        b"POST /a?b HTTP/1.1\r\nhost: a.example\r\ncontent-length: 5\r\n"
        b"accept: */*\r\nx-a: caf\xe9\r\n\r\nhello"
    )


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [
        ("POST", b"", b"content-length: 0\r\n"),
        ("GET", b"", b""),
        ("HEAD", b"", b""),
        ("GET", b"x", b"content-length: 1\r\n"),
    ],
)
def test_request_says_its_length_where_it_means_something(method, body, length):
    wire = ClientCodec(Limits()).send_request(method, "/", HOST, body)
    start = b"%b / HTTP/1.1\r\nhost: a.example\r\n" % method.encode()
    assert wire == start + length + b"\r\n" + body


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("POST", "/", ()),
        ("POST", "/", HOST * 2),
        ("POST", "/a b", HOST),
        ("POST", "/\r\n", HOST),
        ("POST", "/\xe9", HOST),
        ("PO ST", "/", HOST),
        ("CONNECT", "a:1", HOST),
        ("POST", "/", (("host", "a\r\nx: y"),)),
        ("POST", "/", (*HOST, ("x", "y\r\nz: 1"))),
        ("POST", "/", (*HOST, ("x\n", "y"))),
        ("POST", "/", (*HOST, ("x", "\u010d"))),
        ("POST", "/", (*HOST, ("content-length", "3"))),
        ("POST", "/", (*HOST, ("transfer-encoding", "chunked"))),
        ("POST", "/", (*HOST, ("connection", "close"))),
    ],
)
def test_illegal_request_is_our_error_and_sends_nothing(method, target, headers):
    codec = ClientCodec(Limits())
    with pytest.raises(LocalProtocolError):
        codec.send_request(method, target, headers, b"")
    assert ask(codec)


def test_second_request_before_the_answer_is_our_error():
    codec = asked()
    with pytest.raises(LocalProtocolError):
        ask(codec)


# -- receiving ----------------------------------------------------------------------


WHOLE = {
    "sized": (SIZED, b"hi", True),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True),
    "chunked": (CHUNKED + b"1;a=b\r\nh\r\n1\r\ni\r\n0\r\nx: y\r\n\r\n", b"hi", True),
    "no reason": (SIZED.replace(b" OK", b""), b"hi", True),
    "odd reason": (SIZED.replace(b"OK", b"\xe9\t"), b"hi", True),
    "status 599": (SIZED.replace(b"200", b"599"), b"hi", True),
    "HTTP/1.0": (SIZED.replace(b"HTTP/1.1", b"HTTP/1.0"), b"hi", False),
    "HTTP/1.0 keep-alive": (
        SIZED.replace(b"HTTP/1.1", b"HTTP/1.0").replace(
            b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"
        ),
        b"hi",
        False,
    ),
    "close": (
        SIZED.replace(b"\r\n\r\n", b"\r\nConnection: Close\r\n\r\n"),
        b"hi",
        False,
    ),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "204 with length": (b"HTTP/1.1 204 x\r\nContent-Length: 5\r\n\r\n", b"", True),
    "304 with length": (b"HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", b"", True),
    "304 with chunks": (CHUNKED.replace(b"200", b"304"), b"", True),
    "blank line first": (b"\r\n" + SIZED, b"hi", True),
    "bytes after it": (SIZED + b"x", b"hi", False),
    "line end after it": (SIZED + b"\r\n", b"hi", False),
    "response after it": (SIZED + SIZED, b"hi", False),
    "informational before it": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nLink: y\r\n\r\n" + SIZED,
        b"hi",
        True,
    ),
}


@pytest.mark.parametrize("case", WHOLE.values(), ids=WHOLE)
def test_whole_response_is_taken_however_split(case):
    data, body, is_reusable = case
    verdict = call([data], is_eof=False)
    assert not verdict.status
    assert [found for _, found in verdict.messages] == [body]
    assert verdict.is_closed != is_reusable
    assert call(in_bytes(data), is_eof=False) == verdict


REFUSED = {
    "length and chunks": (
        CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\n"),
        "ambiguous_length",
    ),
    "two lengths": (
        SIZED.replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\n"),
        "bad_content_length",
    ),
    "list of lengths": (SIZED.replace(b": 2", b": 2, 2"), "bad_content_length"),
    "negative length": (SIZED.replace(b": 2", b": -2"), "bad_content_length"),
    "two codings": (
        CHUNKED.replace(b"chunked", b"gzip, chunked"),
        "unknown_transfer_coding",
    ),
    "chunks in HTTP/1.0": (
        CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0"),
        "bad_transfer_encoding",
    ),
    "broken chunk": (CHUNKED + b"Z\r\n", "bad_chunk"),
    "forbidden trailer": (CHUNKED + b"0\r\nContent-Length: 2\r\n\r\n", "bad_trailer"),
    "folded header": (SIZED.replace(b"\r\n\r\n", b"\r\n a\r\n\r\n"), "folded_header"),
    "bare LF": (SIZED.replace(b"\r\n", b"\n"), "bare_lf"),
    "bare CR": (SIZED.replace(b" OK\r\n", b" OK\rA: b\r\n"), "bare_cr"),
    "control byte": (SIZED.replace(b"OK", b"O\0K"), "control_byte"),
    "blank before colon": (SIZED.replace(b": 2", b" : 2"), "bad_header"),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n", "bad_status_line"),
    "HTTP/2.0": (SIZED.replace(b"HTTP/1.1", b"HTTP/2.0"), "bad_status_line"),
    "status 999": (SIZED.replace(b"200", b"999"), "bad_status_line"),
    "status 099": (SIZED.replace(b"200", b"099"), "bad_status_line"),
    "status of two digits": (SIZED.replace(b"200", b"20"), "bad_status_line"),
    "another protocol": (SIZED.replace(b"200", b"101"), "upgrade"),
    "informational for ever": (b"HTTP/1.1 100 x\r\n\r\n" * 9, "informational"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_illegal_response_is_refused_however_split(case):
    data, code = case
    verdict = call([data], is_eof=False)
    assert verdict.code == code
    assert call(in_bytes(data), is_eof=False) == verdict


@pytest.mark.parametrize("data", [b"", b"\r\n", SIZED[:20], SIZED[:-1], CHUNKED + b"0"])
def test_end_before_the_response_is_whole_is_incomplete(data):
    codec = asked()
    if data:
        codec.receive_data(data)
    events(codec)
    codec.receive_eof()
    for _ in range(2):
        with pytest.raises(RemoteProtocolError) as caught:
            codec.next_event()
        assert caught.value.code == "incomplete"
    assert not codec.is_reusable


def test_body_without_a_length_ends_with_the_connection():
    codec = asked()
    codec.receive_data(ENDLESS + b"h")
    assert events(codec) == [ResponseHead(200), BodyChunk(b"h")]
    codec.receive_data(b"i")
    assert events(codec) == [BodyChunk(b"i")]
    codec.receive_eof()
    assert events(codec) == [EndOfBody()]
    assert not codec.is_reusable
    assert codec.next_event() is None


def test_end_after_a_whole_response_is_no_error():
    codec = asked()
    codec.receive_data(SIZED)
    assert len(events(codec)) == 3
    was_reusable = codec.is_reusable
    codec.receive_eof()
    assert codec.next_event() is None
    assert (was_reusable, codec.is_reusable) == (True, False)


def test_response_to_head_has_no_body():
    codec = asked("HEAD")
    codec.receive_data(SIZED[:-2])
    head, end = events(codec)
    assert head.get("content-length") == "2"
    assert end == EndOfBody()
    assert codec.is_reusable


def test_head_is_given_in_lower_case():
    codec = asked()
    codec.receive_data(b"HTTP/1.1 429 x\r\nRetry-After:  1 \r\nX-A:\r\n\r\n")
    assert codec.next_event() == ResponseHead(429, (("retry-after", "1"), ("x-a", "")))


def test_connection_is_used_for_many_requests():
    codec = ClientCodec(Limits())
    for data in (SIZED, CHUNKED + b"2\r\nhi\r\n0\r\n\r\n", SIZED) * 3:
        ask(codec)
        was_reusable = codec.is_reusable
        codec.receive_data(data)
        assert events(codec)[1:] == [BodyChunk(b"hi"), EndOfBody()]
        assert (was_reusable, codec.is_reusable) == (False, True)
        codec.start_next_cycle()


def test_connection_that_cannot_be_reused_says_so():
    codec = asked()
    codec.receive_data(SIZED + b"x")
    assert len(events(codec)) == 3
    with pytest.raises(LocalProtocolError, match="another request"):
        codec.start_next_cycle()


def test_response_that_was_not_asked_for_is_refused():
    codec = asked()
    codec.receive_data(SIZED)
    events(codec)
    codec.start_next_cycle()
    codec.receive_data(SIZED)
    ask(codec)
    with pytest.raises(RemoteProtocolError, match="without a request") as caught:
        codec.next_event()
    assert caught.value.code == "unsolicited"
    assert not codec.is_reusable


def test_response_may_have_a_larger_head_than_a_request():
    lines = b"".join(b"x-%d: %b\r\n" % (n, b"y" * 800) for n in range(120))
    verdict = call([SIZED.replace(b"\r\n", b"\r\n" + lines, 1)])
    assert verdict.is_whole
    lines = b"x: %b\r\n" % (b"y" * 33_000)
    verdict = call([SIZED.replace(b"\r\n", b"\r\n" + lines, 1)])
    assert verdict.code == "line_too_long"
    verdict = call([SIZED.replace(b"\r\n", b"\r\n" + b"x: y\r\n" * 401, 1)])
    assert verdict.code == "too_many_headers"
    lines = b"x: %b\r\n" % (b"y" * 30_000)
    verdict = call([SIZED.replace(b"\r\n", b"\r\n" + lines * 5, 1)])
    assert verdict.code == "head_too_large"


# -- both codecs --------------------------------------------------------------------

NAMES = st.from_regex(r"\Ax-[a-z0-9!#$%&'*+.^_`|~-]{0,8}\Z")
VALUES = st.text(st.sampled_from('aZ0 ,;:="\t\xe9\xff'), max_size=9).map(str.strip)
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=5).map(tuple)
PLACES = st.lists(st.integers(0, 500), max_size=6)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["GET", "POST", "PUT", "HEAD"]),
            st.from_regex(r"\A/[!-\"$->@-~]{0,9}(\?[!-\"$-~]{1,9})?\Z"),
            HEADERS,
            st.binary(max_size=20),
        ),
        min_size=1,
        max_size=3,
    ),
    PLACES,
)
def test_request_reaches_the_server_codec_as_it_was_sent(requests, places):
    data, expected = b"", []
    for method, target, headers, body in requests:
        wire = ClientCodec(Limits()).send_request(
            method, target, (*HOST, *headers), body
        )
        data += wire
        path, _, query = target.partition("?")
        expected.append((method, path, query, headers, body))
    verdict = serve(cut(data, places))
    assert verdict.is_whole
    found = []
    for head, body in verdict.messages:
        own = tuple(pair for pair in head.headers if pair[0].startswith("x-"))
        assert head.get("host") == "a.example"
        found.append((head.method, head.path, head.query, own, body))
    assert found == expected


@given(
    st.sampled_from([200, 204, 304, 404, 500, 599]),
    HEADERS,
    st.lists(st.binary(max_size=20), max_size=4),
    st.booleans(),
    PLACES,
)
def test_response_reaches_the_client_codec_as_it_was_sent(
    status, headers, pieces, is_sized, places
):
    server = ServerCodec(Limits())
    server.receive_data(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    events(server)
    body = b"".join(pieces)
    length = (("content-length", str(len(body))),) if is_sized else ()
    data = server.send_head(ResponseHead(status, (*headers, *length)))
    data += b"".join(server.send_data(piece) for piece in pieces) + server.send_end()
    verdict = call(cut(data, places), is_eof=False)
    ((head, found),) = verdict.messages
    assert not verdict.is_closed
    own = tuple(pair for pair in head.headers if pair[0].startswith("x-"))
    assert (head.status, own) == (status, headers)
    assert found == (b"" if status in (204, 304) else body)
