from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.testing import (
    LAST_CHUNK,
    chunk,
    http_request,
    http_response,
    sse_event,
    take_message,
    take_responses,
)

BODIES = st.binary(max_size=60)


@given(BODIES, st.sampled_from(["length", "chunked", "close"]), st.integers(0, 200))
def test_response_is_found_again_and_only_when_whole(body, framing, cut):
    data = http_response(200, (("a", "b"),), body, framing=framing)
    found = take_message(data, is_response=True, is_eof=True)
    assert found is not None
    message, count = found
    assert (message.status, message.body, count) == (200, body, len(data))
    assert message.get("a") == "b"
    if cut < len(data):
        assert take_message(data[:cut], is_response=True) is None


@given(BODIES, st.booleans(), BODIES)
def test_request_is_found_again_and_leaves_what_follows(body, is_chunked, rest):
    data = http_request("POST", "/x?y", (), body, is_chunked=is_chunked)
    found = take_message(data + rest, is_response=False)
    assert found is not None
    message, count = found
    assert (message.method, message.target) == ("POST", "/x?y")
    assert (message.body, message.is_chunked) == (body, is_chunked)
    assert count == len(data)


def test_responses_in_a_row_are_told_apart_by_their_requests():
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    data = head + interim + http_response(201, (), b"x") + b"HTTP"
    messages, rest = take_responses(data, ["HEAD", "POST"])
    assert [message.status for message in messages] == [200, 100, 201]
    assert rest == b"HTTP"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"SSH-2.0\r\n\r\n", "not a status line"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "not a header"),
        (
            http_response(framing="chunked").replace(
                b"\r\n", b"\r\ncontent-length: 1\r\n", 1
            ),
            "two framings",
        ),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", "other than chunked"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
            "begin with its size",
        ),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n",
            "chunk has no end",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_response_with_illegal_framing_is_an_error(data, why):
    with pytest.raises(AssertionError, match=why):
        take_message(data, is_response=True)


def test_chunk_of_nothing_is_refused():
    with pytest.raises(ValueError, match="use LAST_CHUNK"):
        chunk(b"")


def test_sse_event_carries_text_and_bytes():
    assert sse_event("a") == sse_event(b"a") == b"data: a\n\n"
    assert chunk(b"a" * 16) + LAST_CHUNK == b"10\r\n" + b"a" * 16 + b"\r\n0\r\n\r\n"
