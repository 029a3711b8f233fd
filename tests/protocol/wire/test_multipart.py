"""Multipart forms, case by case."""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec
import pytest

from tz_protocol.errors import InvalidRequest
from tz_protocol.types.form import FormPart
from tz_protocol.wire.multipart import (
    HEADER_LIMIT,
    PARTS_LIMIT,
    boundary_of,
    parse_multipart,
    render_multipart,
)

# -- building -------------------------------------------------------------------


def form(*parts, boundary="b", end=b"--\r\n"):
    """Return a body of *parts*, each (header lines, data)."""
    pieces = []
    for lines, data in parts:
        head = "".join(f"{line}\r\n" for line in lines)
        pieces.append(f"--{boundary}\r\n{head}\r\n".encode() + data + b"\r\n")
    return b"".join(pieces) + f"--{boundary}".encode() + end


def field(name, data, *more):
    return (f'Content-Disposition: form-data; name="{name}"', *more), data


def disposition(text):
    """Return the one part whose content-disposition is *text*."""
    (part,) = parse_multipart(form(((f"Content-Disposition: {text}",), b"x")), "b")
    return part


def refusal(body, boundary="b"):
    with pytest.raises(InvalidRequest) as caught:
        parse_multipart(body, boundary)
    assert caught.value.status == 400
    assert caught.value.code == "invalid_multipart"
    return caught.value.message


# -- boundaries -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", "abc"),
        ("multipart/form-data;boundary=abc", "abc"),
        ("Multipart/Form-Data; BOUNDARY=aBc", "aBc"),
        ('multipart/form-data; boundary="a b:c"', "a b:c"),
        ("multipart/form-data; boundary=----=_Part_1.2", "----=_Part_1.2"),
        ("multipart/form-data; charset=utf-8; boundary=abc", "abc"),
        ("multipart/form-data; boundary=abc;", "abc"),
        (f"multipart/form-data; boundary={'x' * 70}", "x" * 70),
    ],
    ids=[
        "bare",
        "no-space",
        "upper-case",
        "quoted",
        "not-a-token",
        "after-charset",
        "semicolon-at-end",
        "70-characters",
    ],
)
def test_boundary_is_what_the_content_type_names(content_type, boundary):
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    ("content_type", "reason"),
    [
        ("", "names no boundary"),
        ("multipart/form-data", "names no boundary"),
        ("multipart/form-data; boundary=", "cannot be understood"),
        ('multipart/form-data; boundary=""', "1 to 70"),
        ('multipart/form-data; boundary="a "', "not end in a space"),
        ('multipart/form-data; boundary="a', "cannot be understood"),
        ("multipart/form-data; boundary=a; boundary=b", "parameter twice"),
        (f"multipart/form-data; boundary={'x' * 71}", "1 to 70"),
        (f"multipart/form-data; boundary={'-' * 1_000_000}", "1 to 70"),
        ("multipart/form-data; boundary=a*b", "1 to 70"),
        ("multipart/form-data; boundary=a b", "cannot be understood"),
        ("multipart/form-data; boundary=ä", "1 to 70"),
    ],
    ids=[
        "empty",
        "absent",
        "nothing",
        "empty-quoted",
        "space-at-end",
        "open-quote",
        "twice",
        "71-characters",
        "a-million-dashes",
        "forbidden-character",
        "space-unquoted",
        "not-ascii",
    ],
)
def test_boundary_that_is_none_is_refused(content_type, reason):
    with pytest.raises(InvalidRequest, match=re.escape(reason)):
        boundary_of(content_type)


# -- parts ----------------------------------------------------------------------


def test_parse_keeps_fields_in_order_and_repeated():
    body = form(
        field("model", b"whisper-1"),
        field("include[]", b"a"),
        field("file", b"\0\r\n\xff", "Content-Type: audio/mpeg"),
        field("include[]", b"b"),
    )
    assert parse_multipart(body, "b") == (
        FormPart(name="model", data=b"whisper-1"),
        FormPart(name="include[]", data=b"a"),
        FormPart(name="file", data=b"\0\r\n\xff", content_type="audio/mpeg"),
        FormPart(name="include[]", data=b"b"),
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n",
        b"x--b",
        b"\n--b",
        b"\r--b\r\n",
        b"\r\n-b\r\n",
        b"\r\n--",
        bytes(range(256)),
        b"\r\n" * 1000,
    ],
    ids=[
        "empty",
        "line-end",
        "dashes-inside-a-line",
        "after-line-feed",
        "after-carriage-return",
        "one-dash",
        "dashes-only",
        "every-byte",
        "line-ends",
    ],
)
def test_parse_leaves_data_as_they_are(data):
    (part,) = parse_multipart(form(field("f", data)), "b")
    assert bytes(part.data) == data


def test_parse_does_not_copy_data():
    body = form(field("f", b"data"))
    (part,) = parse_multipart(body, "b")
    assert isinstance(part.data, memoryview)
    assert part.data.obj is body


def test_parse_part_that_shares_its_last_line_end_is_empty():
    body = b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n--b--\r\n'
    assert parse_multipart(body, "b") == (FormPart(name="f", data=b""),)


@pytest.mark.parametrize(
    "body",
    [b"--b--", b"--b--\r\n", b"\r\n--b--\r\n", b"--b--  \r\n\r\n"],
    ids=["no-line-end", "line-end", "line-end-before", "padding"],
)
def test_parse_of_form_without_fields_is_nothing(body):
    assert parse_multipart(body, "b") == ()


def test_parse_passes_over_padding_behind_boundary():
    body = form(field("f", b"x")).replace(b"--b\r\n", b"--b \t \r\n")
    assert parse_multipart(body, "b") == (FormPart(name="f", data=b"x"),)


@pytest.mark.parametrize(
    ("text", "name", "filename"),
    [
        ('form-data; name="a"', "a", None),
        ("form-data; name=a", "a", None),
        ("form-data; name=include[]", "include[]", None),
        ("Form-Data; NAME=a", "a", None),
        ('form-data;name="a";filename="b.mp3"', "a", "b.mp3"),
        ('form-data; filename="b;c.mp3"; name="a"', "a", "b;c.mp3"),
        (
            r'form-data; name="a"; filename="a\"b\\c"',
            "a",
            'a"b\\c',
        ),
        (r'form-data; name="a"; filename="C:\music\a.mp3"', "a", r"C:\music\a.mp3"),
        ('form-data; name="a"; filename="%22.mp3"', "a", "%22.mp3"),
        ('form-data; name="a"; filename=""', "a", ""),
        ('form-data; name="ä"; filename="日本.mp3"', "ä", "日本.mp3"),
        ("form-data; name=a; filename=b; filename*=utf-8''%e2%82%ac.mp3", "a", "€.mp3"),
        ("form-data; name=a; filename*=UTF-8'en'b%20c", "a", "b c"),
        ("form-data; name=a; filename*=iso-8859-1''%e4", "a", "ä"),
        ("form-data; name=a; size=3", "a", None),
        ("form-data; name=a;", "a", None),
    ],
    ids=[
        "quoted",
        "bare",
        "bare-brackets",
        "upper-case",
        "file",
        "semicolon-in-quotes",
        "escapes",
        "backslashes",
        "percent-stays",
        "empty-filename",
        "utf-8",
        "extended",
        "extended-with-language",
        "extended-latin-1",
        "unknown-parameter",
        "semicolon-at-end",
    ],
)
def test_parse_disposition_gives_names(text, name, filename):
    part = disposition(text)
    assert (part.name, part.filename) == (name, filename)


def test_parse_reads_over_headers_that_forms_do_not_use():
    lines = (
        "Content-Length: 1",
        "content-transfer-encoding: binary",
        "X-Other:",
        'content-disposition: form-data; name="f"',
        "CONTENT-TYPE: \t text/plain; charset=utf-8 ",
    )
    (part,) = parse_multipart(form((lines, b"x")), "b")
    assert part == FormPart(
        name="f", data=b"x", content_type="text/plain; charset=utf-8"
    )


# -- refusals -------------------------------------------------------------------

NAMED = 'Content-Disposition: form-data; name="f"'


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "does not begin with the boundary"),
        (b"{}", "does not begin with the boundary"),
        (b"preamble\r\n" + form(), "does not begin with the boundary"),
        (form(boundary="c"), "does not begin with the boundary"),
        (b"--b", "the boundary before part 1 is not a whole line"),
        (b"--b\n", "the boundary before part 1 is not a whole line"),
        (b"--bc\r\n", "the boundary before part 1 is not a whole line"),
        (b"--b" + b" " * 1000 + b"\r\n", "is not a whole line"),
        (b"--b\r\n", "it ends in the headers of part 1"),
        (b"--b\r\nContent-Disp", "it ends in the headers of part 1"),
        (b"--b\r\n\r\nx\r\n--b--", "part 1 has no content-disposition"),
        (form((("X-A: b",), b"x")), "part 1 has no content-disposition"),
        (form(field("f", b"x"), end=b""), "part 2 is not a whole line"),
        (form(field("f", b"x"))[:-8], "part 1 is not ended by the boundary"),
        (form(field("f", b"x\r\n--bc\r\n")), "part 2 is not a whole line"),
        (form(field("f", b"x"), end=b"--\r\nepilogue"), "something follows"),
        (form(field("f", b"x"), end=b"--x"), "something follows"),
        (form(((NAMED, NAMED), b"x")), "has a header line twice"),
        (form(((NAMED, "no colon"), b"x")), "a header line that is not one"),
        (form(((NAMED, " folded: x"), b"x")), "a header line that is not one"),
        (form(((NAMED, "Space : x"), b"x")), "a header line that is not one"),
        (form(((NAMED, "X: \0"), b"x")), "a header line that is not one"),
        (form(((NAMED, "X: a\nY: b"), b"x")), "a header line that is not one"),
        (form(((NAMED, "--b: x"), b"x")), "stands in the headers of part 1"),
        (
            form(((NAMED,), b"x")).replace(b'"f"', b'"\xff"'),
            "are not UTF-8",
        ),
        (form(((NAMED, "X: " + "y" * HEADER_LIMIT), b"x")), "are over 8192 bytes"),
        (form(((NAMED, "Content-Type: ä"), b"x")), "not printable ASCII"),
        (
            form(((NAMED, "Content-Type: multipart/mixed; boundary=c"), b"x")),
            "is itself a multipart",
        ),
        (
            form(((NAMED, "Content-Transfer-Encoding: base64"), b"x")),
            "content-transfer-encoding",
        ),
        (
            form((("Content-Disposition: attachment; name=f",), b"x")),
            "must be form-data",
        ),
        (form((("Content-Disposition: form-data",), b"x")), "must be form-data"),
        (form((('Content-Disposition: form-data; name="f',), b"x")), "be understood"),
        (form((("Content-Disposition: form-data; name=f; name=g",), b"x")), "twice"),
        (form((("Content-Disposition: form-data; name=f g",), b"x")), "be understood"),
        (
            form((('Content-Disposition: form-data; name="a\tb"',), b"x")),
            "control character",
        ),
        (form(((f"{NAMED}; filename*=utf-8''%00",), b"x")), "control character"),
        (form(((f"{NAMED}; filename*=utf-8''%ff",), b"x")), "filename* of part 1"),
        (form(((f"{NAMED}; filename*=koi8-r''a",), b"x")), "filename* of part 1"),
        (form(((f"{NAMED}; filename*=utf-8''%a",), b"x")), "filename* of part 1"),
        (form(*[field("f", b"")] * (PARTS_LIMIT + 1)), "more than 1000 parts"),
    ],
)
def test_parse_of_what_is_no_form_is_refused(body, reason):
    assert reason in refusal(body)


def test_parse_names_the_part_that_is_wrong():
    body = form(field("a", b"x"), (("Content-Disposition: form-data",), b"x"))
    assert "part 2" in refusal(body)


def test_parse_takes_as_many_parts_as_the_limit():
    body = form(*[field("f", b"")] * PARTS_LIMIT)
    assert len(parse_multipart(body, "b")) == PARTS_LIMIT


@pytest.mark.parametrize("boundary", ["", "x" * 71, "a ", "a\r\n", "\udcff"])
def test_parse_with_boundary_that_is_none_is_refused(boundary):
    assert "boundary" in refusal(b"--a--", boundary)


# -- rendering ------------------------------------------------------------------


def test_render_writes_names_types_and_data():
    content_type, body = render_multipart(
        [
            FormPart(name="model", data=b"m"),
            FormPart(
                name="file", filename='a"\\ä.mp3', content_type="audio/mpeg", data=b"\0"
            ),
        ]
    )
    boundary = boundary_of(content_type)
    assert body.decode() == (
        f"--{boundary}\r\n"
        'Content-Disposition: form-data; name="model"\r\n\r\nm\r\n'
        f"--{boundary}\r\n"
        'Content-Disposition: form-data; name="file"; filename="a\\"\\\\ä.mp3"\r\n'
        "Content-Type: audio/mpeg\r\n\r\n\0\r\n"
        f"--{boundary}--\r\n"
    )


def test_render_of_the_same_is_the_same():
    parts = [FormPart(name="file", data=bytes(range(256)))]
    assert render_multipart(parts) == render_multipart(iter(parts))


@pytest.mark.parametrize("where", ["data", "name", "filename", "content_type"])
def test_render_boundary_occurs_nowhere_else(where):
    values: dict[str, Any] = {"name": "f", "data": b"x"}
    for _ in range(3):
        content_type, body = render_multipart([FormPart(**values)])
        boundary = boundary_of(content_type)
        assert body.count(boundary.encode()) == 2
        # Put the boundary just used into the form: it must be another one now.
        text = f"x--{boundary}--" + str(values.get(where))
        values[where] = text.encode() if where == "data" else text
        used, body = render_multipart([FormPart(**values)])
        assert used != content_type
        assert parse_multipart(body, boundary_of(used)) == (FormPart(**values),)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"name": "a\r\nX: y"}, "control"),
        ({"name": "a", "filename": "a\0"}, "control"),
        ({"name": "\udcff"}, "surrogate"),
        ({"name": "a", "content_type": "a\r\nX: y"}, "printable"),
        ({"name": "a", "content_type": " a"}, "printable"),
        ({"name": "a", "content_type": ""}, "printable"),
    ],
    ids=["line", "nul", "surrogate", "type-line", "type-space", "type-empty"],
)
def test_part_that_cannot_be_written_does_not_exist(values, reason):
    with pytest.raises(ValueError, match=reason):
        FormPart(data=b"", **values)


# -- cost -----------------------------------------------------------------------


def seconds(body, boundary):
    """Return the CPU time of one parse, the least of three."""
    times = []
    for _ in range(3):
        begun = time.process_time()
        try:
            render_multipart(parse_multipart(body, boundary))
        except InvalidRequest:
            pass
        times.append(time.process_time() - begun)
    return min(times)


@pytest.mark.parametrize(
    "piece",
    [b"\0", b"\r\n", b"\r\n--", b"\r\n--bbbbbbb", b"-", b"form-data-of-tz-gateway"],
    ids=["zeros", "line-ends", "dashes", "almost", "hyphens", "our-own-boundary"],
)
def test_parse_and_render_take_time_in_proportion(piece):
    boundary = "b" * 70
    small, large = (
        form(field("f", piece * (size // len(piece))), boundary=boundary)
        for size in (250_000, 4_000_000)
    )
    # Sixteen times the bytes; quadratic would be 256 times the time.
    assert seconds(large, boundary) < 64 * max(seconds(small, boundary), 0.001)


def test_parts_compare_by_their_bytes():
    view = memoryview(b"xabcx")[1:4]
    assert FormPart(name="f", data=view) == FormPart(name="f", data=b"abc")
    assert FormPart(name="f", data=view) != msgspec.structs.replace(
        FormPart(name="f", data=b"abc"), data=b"abd"
    )
