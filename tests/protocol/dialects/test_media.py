from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.dialects.media import IMAGES, sniffed

WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


@pytest.mark.parametrize(
    ("data", "names", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n", (), "image/png"),
        (b"\x89PNG\r\n", (), ""),
        (b"\xff\xd8\xff\xe0", ("a.png",), "image/jpeg"),
        (b"GIF89a", (), "image/gif"),
        (b"GIF88a", (), "text/plain"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", (), "image/webp"),
        (b"RIFF\x00\n\x00\x00WEBPVP8 ", (), "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", (), ""),
        (b"%PDF-1.4", ("a.txt",), "application/pdf"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", ("a.png",), "text/plain"),
        (b"<html>", ("a.png",), "text/html"),
        (b"", ("a.txt",), ""),
        (b"\x00", ("a.txt",), ""),
        (b"\xff\xfe", ("a.txt",), ""),
        (b"a", ("", "x/A.CSV"), "text/csv"),
        (b"a", ("a.doc",), "text/plain"),
        (b"PK\x03\x04", ("a.docx",), ""),
        (b"PK\x03\x04 word/", (), WORD),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", ("a",), ""),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", ("a.xls",), "application/vnd.ms-excel"),
    ],
)
def test_type_is_what_the_bytes_say(data, names, expected):
    assert sniffed(data, *names) == expected


@given(st.binary(max_size=40), st.text(max_size=8))
def test_name_never_makes_a_picture(data, name):
    assert (sniffed(data, name) in IMAGES) == (sniffed(data) in IMAGES)
