"""Multipart forms both ways, for any content, and what they cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.errors import InvalidRequest
from tz_protocol.types.form import FormPart
from tz_protocol.wire.multipart import (
    boundary_of,
    parse_multipart,
    render_multipart,
)

CONTROLS = "".join(map(chr, range(32))) + "\x7f"
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters=CONTROLS), max_size=40)
TYPES = st.from_regex(r"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True).filter(
    lambda text: not text.lower().startswith("multipart/")
)
PIECES = st.sampled_from(
    [b"\r\n", b"--", b"\r\n--", b"form-data-of-tz-gateway", b"b", b'"', b"\0", b":"]
)
DATA = st.binary(max_size=60) | st.lists(PIECES, max_size=8).map(b"".join)
PARTS = st.lists(
    st.builds(
        FormPart,
        name=TEXTS,
        data=DATA,
        filename=st.none() | TEXTS,
        content_type=st.none() | TYPES,
    ),
    max_size=6,
)


@given(PARTS)
def test_parse_of_what_was_rendered_is_the_same(parts):
    content_type, body = render_multipart(parts)
    assert parse_multipart(body, boundary_of(content_type)) == tuple(parts)


@given(PARTS, st.data())
def test_parse_of_cut_form_is_refused(parts, data):
    content_type, body = render_multipart(parts)
    # The line end behind the last boundary may be left out.
    end = data.draw(st.integers(0, len(body) - 3))
    with pytest.raises(InvalidRequest):
        parse_multipart(body[:end], boundary_of(content_type))


NOISE = st.lists(
    st.sampled_from(
        [
            b"--b",
            b"\r\n--b",
            b"--",
            b"\r\n",
            b"\r\n\r\n",
            b'Content-Disposition: form-data; name="f"',
            b"; filename*=utf-8''",
            b"Content-Type: ",
            b'"',
            b"\\",
            b"%",
            b"\xff",
        ]
    )
    | st.binary(max_size=5),
    max_size=20,
).map(b"".join)


@given(NOISE, st.just("b") | st.text(max_size=80))
def test_parse_of_anything_raises_nothing_else(body, boundary):
    try:
        parts = parse_multipart(body, boundary)
    except InvalidRequest:
        return
    content_type, rendered = render_multipart(parts)
    assert parse_multipart(rendered, boundary_of(content_type)) == parts


@given(st.text(max_size=80) | NOISE.map(lambda noise: noise.decode("latin-1")))
def test_boundary_of_anything_raises_nothing_else(text):
    try:
        boundary = boundary_of(f"multipart/form-data; boundary={text}")
    except InvalidRequest:
        return
    assert parse_multipart(f"--{boundary}--".encode(), boundary) == ()
