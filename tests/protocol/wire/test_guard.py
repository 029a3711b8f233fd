from __future__ import annotations

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.protocol.wire.feeding import call, cut, in_bytes, serve
from tz_protocol.types.settings import Limits

HOST = b"Host: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
TIGHT = Limits(head_bytes=200, line_bytes=80, headers=5)


def request(
    *lines, first=b"POST / HTTP/1.1", host=HOST, body=b"", end=b"\r\n", sep=b"\r\n"
):
    """Return a request of *lines*, each of which gets a line end."""
    block = b"".join(line + sep for line in lines)
    return first + b"\r\n" + host + block + end + body


def chunks(body):
    return request(b"Transfer-Encoding: chunked", body=body)


REFUSED = {
    # -- how a message is delimited
    "length and chunks": (
        request(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        (400, "ambiguous_length"),
    ),
    "two lengths": (
        request(b"Content-Length: 5", b"Content-Length: 5"),
        (400, "bad_content_length"),
    ),
    "list of lengths": (request(b"Content-Length: 5, 5"), (400, "bad_content_length")),
    "length with leading zero": (
        request(b"Content-Length: 05"),
        (400, "bad_content_length"),
    ),
    "length with sign": (request(b"Content-Length: +5"), (400, "bad_content_length")),
    "negative length": (request(b"Content-Length: -5"), (400, "bad_content_length")),
    "length in another base": (
        request(b"Content-Length: 0x5"),
        (400, "bad_content_length"),
    ),
    "length with underscore": (
        request(b"Content-Length: 1_0"),
        (400, "bad_content_length"),
    ),
    "length in other digits": (
        request("Content-Length: ²".encode("latin-1")),
        (400, "bad_content_length"),
    ),
    "length of 19 digits": (
        request(b"Content-Length: 1000000000000000000"),
        (400, "bad_content_length"),
    ),
    "no length": (request(b"Content-Length:"), (400, "bad_content_length")),
    "chunks in HTTP/1.0": (
        request(b"Transfer-Encoding: chunked", first=b"POST / HTTP/1.0"),
        (400, "bad_transfer_encoding"),
    ),
    "chunks twice": (
        request(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        (400, "bad_transfer_encoding"),
    ),
    "no coding": (request(b"Transfer-Encoding: "), (400, "bad_transfer_encoding")),
    "unknown coding": (
        request(b"Transfer-Encoding: gzip, chunked"),
        (501, "unknown_transfer_coding"),
    ),
    "coding with a parameter": (
        request(b"Transfer-Encoding: chunked;q=1"),
        (501, "unknown_transfer_coding"),
    ),
    "identity": (
        request(b"Transfer-Encoding: identity"),
        (501, "unknown_transfer_coding"),
    ),
    # -- lines
    "folded line": (request(b"A: b", b" c"), (400, "folded_header")),
    "folded by tab": (request(b"A: b", b"\tc"), (400, "folded_header")),
    "folded first line": (
        request(b"A: b", host=b" Host: a\r\n"),
        (400, "folded_header"),
    ),
    "blank before colon": (request(b"A : b"), (400, "bad_header")),
    "no colon": (request(b"A"), (400, "bad_header")),
    "no name": (request(b": b"), (400, "bad_header")),
    "delimiter in name": (request(b"A(b): c"), (400, "bad_header")),
    "name not ASCII": (request(b"A\xe9: b"), (400, "bad_header")),
    "NUL in value": (request(b"A: b\0c"), (400, "control_byte")),
    "bell in value": (request(b"A: b\x07c"), (400, "control_byte")),
    "delete in value": (request(b"A: b\x7fc"), (400, "control_byte")),
    "form feed in name": (request(b"A\x0cb: c"), (400, "control_byte")),
    "bare LF": (request(b"A: b", sep=b"\n"), (400, "bare_lf")),
    "bare CR in value": (request(b"A: b\rc"), (400, "bare_cr")),
    "two CR": (request(b"A: b\r"), (400, "bare_cr")),
    "bare CR at the end": (request(end=b"\r", body=b"x"), (400, "bare_cr")),
    "two content types": (
        request(b"Content-Type: a/b", b"Content-Type: c/d"),
        (400, "bad_header"),
    ),
    "two authorizations": (
        request(b"Authorization: Bearer a", b"Authorization: Bearer b"),
        (400, "bad_header"),
    ),
    # -- the request line
    "HTTP/1.2": (request(first=b"GET / HTTP/1.2"), (505, "http_version")),
    "HTTP/2.0": (request(first=b"PRI * HTTP/2.0"), (505, "http_version")),
    "HTTP/9.9": (request(first=b"GET / HTTP/9.9"), (505, "http_version")),
    "HTTP/0.9": (request(first=b"GET /"), (400, "bad_request_line")),
    "HTTP/1.10": (request(first=b"GET / HTTP/1.10"), (400, "bad_request_line")),
    "http/1.1": (request(first=b"GET / http/1.1"), (400, "bad_request_line")),
    "two spaces": (request(first=b"GET  / HTTP/1.1"), (400, "bad_request_line")),
    "space at the end": (request(first=b"GET / HTTP/1.1 "), (400, "bad_request_line")),
    "tab for space": (request(first=b"GET\t/ HTTP/1.1"), (400, "bad_request_line")),
    "illegal method": (request(first=b"G(T / HTTP/1.1"), (400, "bad_method")),
    "CONNECT": (
        request(first=b"CONNECT a:1 HTTP/1.1"),
        (501, "method_not_implemented"),
    ),
    "TRACE": (request(first=b"TRACE / HTTP/1.1"), (501, "method_not_implemented")),
    "asterisk": (request(first=b"GET * HTTP/1.1"), (400, "bad_target")),
    "relative target": (request(first=b"GET a/b HTTP/1.1"), (400, "bad_target")),
    "authority": (request(first=b"GET a:80 HTTP/1.1"), (400, "bad_target")),
    "fragment": (request(first=b"GET /a#b HTTP/1.1"), (400, "bad_target")),
    "target not ASCII": (request(first=b"GET /\xe9 HTTP/1.1"), (400, "bad_target")),
    "another scheme": (request(first=b"GET ftp://a/ HTTP/1.1"), (400, "bad_target")),
    "URL with user": (request(first=b"GET http://u@a/ HTTP/1.1"), (400, "bad_target")),
    "URL without authority": (
        request(first=b"GET http:///a HTTP/1.1"),
        (400, "bad_target"),
    ),
    "blank lines without end": (b"\r\n" * 5 + request(), (400, "bad_request_line")),
    # -- the host
    "no host": (request(host=b""), (400, "bad_host")),
    "two hosts": (request(b"Host: a"), (400, "bad_host")),
    "host of the URL is another": (
        request(first=b"GET http://b/ HTTP/1.1"),
        (400, "bad_host"),
    ),
    **{
        f"host {name}": (request(host=b"Host: %b\r\n" % value), (400, "bad_host"))
        for name, value in {
            "empty": b"",
            "with user": b"u@a",
            "with path": b"a/b",
            "with query": b"a?b",
            "with fragment": b"a#b",
            "list": b"a, b",
            "with blank": b"a b",
            "with port of letters": b"a:b",
            "with port of six digits": b"a:100000",
            "with two ports": b"a:1:2",
            "with open bracket": b"[::1",
            "with name in brackets": b"[a.example]",
            "with broken escape": b"a%2",
            "not ASCII": b"\xe9",
            "with backslash": b"a\\b",
        }.items()
    },
    # -- chunks
    **{
        f"chunk line {name}": (chunks(line + b"hello\r\n0\r\n\r\n"), (400, "bad_chunk"))
        for name, line in {
            "with blank": b"5 \r\n",
            "with blank before": b" 5\r\n",
            "with sign": b"+5\r\n",
            "with 0x": b"0x5\r\n",
            "with underscore": b"0_5\r\n",
            "empty": b"\r\n",
            "of 16 digits": b"0000000000000005\r\n",
            "with bare semicolon": b"5;\r\n",
            "with two semicolons": b"5;;a\r\n",
            "with blank before semicolon": b"5 ;a\r\n",
            "with empty value": b"5;a=\r\n",
            "with open quote": b'5;a="b\r\n',
            "with quote in the middle": b'5;a=b"c"\r\n',
            "with bare CR": b"5;a=b\rc\r\n",
            "with bare LF": b"5\n",
            "with NUL": b"5;a=\0\r\n",
            "too long": b"5;a=" + b"b" * 4_096 + b"\r\n",
            "that never ends": b"5;a=" + b"b" * 5_000,
        }.items()
    },
    "chunk longer than its size": (chunks(b"4\r\nhello\r\n"), (400, "bad_chunk")),
    "chunk ended by LF": (chunks(b"5\r\nhello\n"), (400, "bad_chunk")),
    "chunk ended by CR and more": (chunks(b"5\r\nhello\rX"), (400, "bad_chunk")),
    "extensions over all chunks": (
        chunks((b"1;a=" + b"b" * 2_000 + b"\r\nx\r\n") * 9),
        (400, "bad_chunk"),
    ),
    # -- trailers
    **{
        f"trailer {name.decode()}": (
            chunks(b"0\r\n%b: a\r\n\r\n" % name),
            (400, "bad_trailer"),
        )
        for name in (
            b"Host",
            b"Content-Length",
            b"Transfer-Encoding",
            b"Authorization",
            b"CONNECTION",
        )
    },
    "trailer with blank before colon": (
        chunks(b"0\r\nA : b\r\n\r\n"),
        (400, "bad_header"),
    ),
    "folded trailer": (chunks(b"0\r\nA: b\r\n c\r\n\r\n"), (400, "folded_header")),
    "trailer with bare LF": (chunks(b"0\r\nA: b\n\r\n"), (400, "bad_trailer")),
    "trailer line too long": (
        chunks(b"0\r\nA: " + b"b" * 5_000 + b"\r\n\r\n"),
        (400, "bad_trailer"),
    ),
    "trailers too long": (
        chunks(b"0\r\n" + (b"A: " + b"b" * 1_000 + b"\r\n") * 9 + b"\r\n"),
        (431, "bad_trailer"),
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_illegal_request_is_refused_however_split(case):
    data, expected = case
    whole = serve([data], is_eof=False)
    assert (whole.status, whole.code) == expected
    assert serve(in_bytes(data), is_eof=False) == whole


ACCEPTED = {
    "no headers in HTTP/1.0": (request(first=b"GET / HTTP/1.0", host=b""), b""),
    "blank lines first": (b"\r\n" * 4 + request(), b""),
    "blanks around a value": (request(b"A: \t b \t"), b""),
    "no value": (request(b"A:"), b""),
    "value not ASCII": (request(b"A: caf\xc3\xa9"), b""),
    "every character of a name": (request(b"!#$%&'*+-.^_`|~09azAZ: b"), b""),
    "any method": (request(first=b"-!x / HTTP/1.1"), b""),
    "any visible character of a target": (
        request(first=b'GET /\\"<>^`{|}?%zz HTTP/1.1'),
        b"",
    ),
    "asterisk for OPTIONS": (request(first=b"OPTIONS * HTTP/1.1"), b""),
    "host with port": (request(host=b"hOST:\ta.example:8080\r\n"), b""),
    "host of IPv6": (request(host=b"Host: [::ffff:1.2.3.4]:80\r\n"), b""),
    "host escaped": (request(host=b"Host: a%20b\r\n"), b""),
    "length": (request(b"content-LENGTH: \t5 ", body=b"hello"), b"hello"),
    "length zero": (request(b"Content-Length: 0"), b""),
    "coding in capitals": (
        request(b"Transfer-Encoding:\tCHUNKED", body=b"5\r\nhello\r\n0\r\n\r\n"),
        b"hello",
    ),
    "no chunk": (chunks(b"0\r\n\r\n"), b""),
    "last chunk of many zeros": (chunks(b"000\r\n\r\n"), b""),
    "sizes in both cases": (
        chunks(b"00a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"),
        b"0123456789" * 2,
    ),
    "data that looks like framing": (
        chunks(b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n"),
        b"\r\n0\r\n\r\n",
    ),
    "extensions": (
        chunks(b'5;a;b=c; d="e; \\" \xe9"\r\nhello\r\n0;z\r\n\r\n'),
        b"hello",
    ),
    "trailers": (chunks(b"5\r\nhello\r\n0\r\nA: b\r\nC:\r\n\r\n"), b"hello"),
}


@pytest.mark.parametrize("case", ACCEPTED.values(), ids=ACCEPTED)
def test_legal_request_is_taken_however_split(case):
    data, body = case
    whole = serve([data])
    assert whole.is_whole
    assert [message[1] for message in whole.messages] == [body]
    assert serve(in_bytes(data)) == whole


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/a%2Fb//c?d=e?f", "/a%2Fb//c", "d=e?f"),
        (b"/a?", "/a", ""),
        (b"//a", "//a", ""),
        (b"http://A", "/", ""),
        (b"HTTPS://a/b?c", "/b", "c"),
        (b"http://a?c", "/", "c"),
        (b"http://a/b?", "/b", ""),
    ],
)
def test_target_is_reduced_to_path_and_query(target, path, query):
    verdict = serve([request(first=b"GET %b HTTP/1.1" % target)])
    head = verdict.messages[0][0]
    assert (head.path, head.query) == (path, query)


def test_head_is_given_as_spelled_and_in_lower_case():
    data = request(b"X-A:  B ", b"x-a: c", host=b"hOST: Ex.ample\r\n")
    head = serve([data]).messages[0][0]
    assert head.lines == (("hOST", "Ex.ample"), ("X-A", "B"), ("x-a", "c"))
    assert head.headers == (("host", "Ex.ample"), ("x-a", "B"), ("x-a", "c"))
    assert (head.method, head.version) == ("POST", "1.1")


@pytest.mark.parametrize("first_bad", [b"\x16", b"\n", b"\0"])
def test_control_byte_is_refused_before_its_line_ends(first_bad):
    verdict = serve([b"GET / HTTP/1.1\r\nHost: a" + first_bad], is_eof=False)
    assert verdict.status == 400


# -- bounds -------------------------------------------------------------------------


def line(size):
    """Return a header line of *size* bytes without its line end."""
    return b"A: " + b"b" * (size - 3)


@pytest.mark.parametrize(
    "split", [lambda data: [data], in_bytes], ids=["whole", "bytes"]
)
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (request(line(80)), (0, "")),
        (request(line(81)), (431, "line_too_long")),
        (request(first=b"GET /" + b"a" * 66 + b" HTTP/1.1"), (0, "")),
        (request(first=b"GET /" + b"a" * 67 + b" HTTP/1.1"), (414, "line_too_long")),
        (request(first=b"G" * 81), (414, "line_too_long")),
        (request(b"a:", b"b:", b"c:", b"d:"), (0, "")),
        (request(b"a:", b"b:", b"c:", b"d:", b"e:"), (431, "too_many_headers")),
        (request(line(80), line(80)), (0, "")),
        (request(line(80), line(80), line(8)), (0, "")),
        (request(line(80), line(80), line(9)), (431, "head_too_large")),
        (request(line(80), line(80), b"a: \x01" + b"b" * 20), (400, "control_byte")),
        (request(line(80), line(80), b"a: b\n" + b"b" * 20), (400, "bare_lf")),
        (
            request(line(80), line(80), b"a: " + b"b" * 20 + b"\n"),
            (431, "head_too_large"),
        ),
        (request(line(79) + b"\n"), (400, "bare_lf")),
        (request(line(81) + b"\n"), (431, "line_too_long")),
    ],
)
def test_bounds_are_the_same_however_split(split, data, expected):
    verdict = serve(split(data), limits=TIGHT, is_eof=False)
    assert (verdict.status, verdict.code) == expected


ENDLESS = {
    "method": (b"", b"G", 8_192),
    "target": (b"GET /", b"a", 8_192),
    "header name": (b"GET / HTTP/1.1\r\n", b"a", 8_192),
    "header value": (b"GET / HTTP/1.1\r\nA: ", b"a", 8_192),
    "headers": (b"GET / HTTP/1.1\r\n", b"A: b\r\n", 32_768),
    "long headers": (b"GET / HTTP/1.1\r\n", line(4_000) + b"\r\n", 32_768),
    "chunk extension": (chunks(b"1;a="), b"a", 4_096),
    "chunk size": (chunks(b""), b"0", 4_096),
    "extensions": (chunks(b""), b"1;abcdefgh=abcdefgh\r\nx\r\n", 24_576),
    "trailer": (chunks(b"0\r\nA: "), b"a", 4_096),
    "trailers": (chunks(b"0\r\n"), b"A: b\r\n", 16_384),
}


@pytest.mark.parametrize("step", [100, 65_536])
@pytest.mark.parametrize("case", ENDLESS.values(), ids=ENDLESS)
def test_endless_input_is_refused_within_its_bound(case, step):
    start, unit, bound = case
    data = start + unit * (200_000 // len(unit))
    taken = 0

    def pieces():
        nonlocal taken
        for at in range(0, len(data), step):
            taken = at
            yield data[at : at + step]

    verdict = serve(pieces(), is_eof=False)
    assert verdict.is_refused
    assert taken <= bound + len(start)


# -- any input ----------------------------------------------------------------------

FRAGMENTS = st.one_of(
    st.sampled_from(
        [
            b"GET / HTTP/1.1\r\n",
            b"POST /a?b HTTP/1.1\r\n",
            b"HEAD / HTTP/1.0\r\n",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.0 204 \r\n",
            b"HTTP/1.1 100\r\n\r\n",
            HOST,
            CHUNKED,
            b"Content-Length: 3\r\n",
            b"Content-Length: 0\r\n",
            b"Connection: close\r\n",
            b"Expect: 100-continue\r\n",
            b"A: b\r\n",
            b"\r\n",
            b"abc",
            b"3\r\nabc\r\n",
            b"1;a=b\r\nx\r\n",
            b"0\r\n",
            b"0\r\n\r\n",
            b" ",
            b"\t",
            b"\r",
            b"\n",
            b"\0",
            b":",
        ]
    ),
    st.binary(max_size=4),
)
STREAMS = st.one_of(
    st.binary(max_size=200), st.lists(FRAGMENTS, max_size=20).map(b"".join)
)
PLACES = st.lists(st.integers(0, 1_000), max_size=8)


@given(STREAMS, PLACES, st.booleans())
@example(request(body=b"\r\n\r\n\r\n\r\n\r"), [3], True)
@example(chunks(b"1\r\nx\r\n0\r\nA: b\r"), [80], True)
def test_any_input_gets_one_verdict_however_split(data, places, is_eof):
    for run in (serve, call):
        for limits in (Limits(), TIGHT):
            whole = run([data], limits=limits, is_eof=is_eof)
            pieces = cut(data, places)
            assert run(pieces, limits=limits, is_eof=is_eof) == whole
            assert run(in_bytes(data), limits=limits, is_eof=is_eof) == whole


TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12)
NAMES = st.from_regex(r"\A[A-Za-z0-9!#$%&'*+.^_`|~-]{1,8}\Z").filter(
    lambda name: name.lower() not in ("host", "connection", "expect", "upgrade")
)


@given(
    st.sampled_from([b"GET", b"POST", b"HEAD", b"x-Y"]),
    st.from_regex(rb"\A/[!-\"$-~]{0,9}\Z"),
    st.lists(st.tuples(NAMES, TEXT), max_size=6),
    st.one_of(st.none(), st.binary(max_size=9)),
    st.booleans(),
)
def test_what_passes_means_to_h11_what_it_means_here(
    method, target, pairs, body, is_chunked
):
    """h11 sees digests only, so it is asked for its own reading here."""
    lines = [f"{name}:{value}".encode() for name, value in pairs]
    payload = body or b""
    if body is not None and is_chunked:
        lines.append(b"Transfer-Encoding: chunked")
        sized = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        payload = sized + b"0\r\n\r\n"
    elif body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    data = request(*lines, first=b"%b %b HTTP/1.1" % (method, target), body=payload)
    verdict = serve([data])
    assert verdict.is_whole
    ((head, taken),) = verdict.messages
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert event.method == head.method.encode()
    path, _, query = target.decode().partition("?")
    assert (head.path, head.query) == (path, query)
    found = [(name.encode(), value.encode()) for name, value in head.headers]
    assert list(event.headers) == found
    theirs = b""
    while isinstance(part := connection.next_event(), h11.Data):
        theirs += bytes(part.data)
    assert type(part) is h11.EndOfMessage
    assert (taken, theirs) == (body or b"", body or b"")
