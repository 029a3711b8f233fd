from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.protocol.config.reading import refusal
from tz_protocol.config.addresses import (
    BIND_FORMS,
    is_loopback_bind,
    is_loopback_host,
    parse_base_path,
    parse_bind_address,
    parse_url,
    with_host_and_port,
)
from tz_protocol.types.settings import Url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://api.x", Url("https", "api.x", 443, "/")),
        ("http://api.x", Url("http", "api.x", 80, "/")),
        ("HTTPS://API.X/V1", Url("https", "api.x", 443, "/V1/")),
        ("http://h:8000/v1/", Url("http", "h", 8000, "/v1/")),
        ("http://h:080", Url("http", "h", 80, "/")),
        ("http://10.0.0.5/", Url("http", "10.0.0.5", 80, "/")),
        ("http://[::1]:1/a", Url("http", "::1", 1, "/a/")),
        ("http://[0:0::1]", Url("http", "::1", 80, "/")),
        ("http://my_host-1/", Url("http", "my_host-1", 80, "/")),
        ("https://h/p?a=b/c", Url("https", "h", 443, "/p/", "a=b/c")),
        ("https://h?", Url("https", "h", 443, "/")),
    ],
    ids=str,
)
def test_parse_url_takes_it_apart(text, url):
    assert parse_url(text) == url


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "visible ASCII"),
        ("https://h/ä", "visible ASCII"),
        ("https://h/a b", "visible ASCII"),
        ("https://h\\@other", "without backslashes"),
        ("https://h/\r\nx: y", "visible ASCII"),
        ("h:8000", "such as https://host/v1/"),
        ("//h/", "such as https://host/v1/"),
        ("https:/h/", "such as https://host/v1/"),
        ("https://h/#x", "without a fragment"),
        ("ftp://h/", "begins with https:// or http://"),
        ("https://user:pa@h/", "must not hold a user name"),
        ("https://@h/", "must not hold a user name"),
        ("https://", "expected a host name"),
        ("https://:80/", "expected a host name"),
        ("https://h:/", "expected a host name"),
        ("https://h:8a/", "expected a host name"),
        ("https://::1/", "expected a host name"),
        ("https://[fe80::1%25en0]/", "expected a host name"),
        ("https://[12]/", "brackets hold no IPv6 address"),
        ("https://127.1/", "neither an IPv4 address nor a name"),
        ("https://010.0.0.1/", "neither an IPv4 address nor a name"),
        ("https://256.0.0.1/", "neither an IPv4 address nor a name"),
        ("https://h:0/", "a port from 1 to 65535"),
        ("https://h:65536/", "a port from 1 to 65535"),
    ],
    ids=repr,
)
def test_parse_url_that_is_none_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_url(text)


@given(text=st.text(min_size=8))
@example(text="https://sk-secret@host")
def test_parse_url_message_never_holds_the_text(text):
    assert text not in refusal(parse_url, text)


LABEL = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,8}[a-z0-9_])?", fullmatch=True)
NAMES = st.lists(LABEL, min_size=1, max_size=3).map(".".join)
HOSTS = st.one_of(
    NAMES.filter(lambda name: not set(name) <= set("0123456789.")),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
)
URLS = st.builds(
    Url,
    scheme=st.sampled_from(["http", "https"]),
    host=HOSTS,
    port=st.integers(1, 65_535),
    path=st.lists(st.from_regex(r"[!$-.0-9:;=@-\[\]-~]*", fullmatch=True)).map(
        lambda parts: "".join(f"/{part}" for part in parts) + "/"
    ),
    query=st.from_regex(r"[!$-\[\]-~]*", fullmatch=True),
)


@given(url=URLS)
def test_parse_url_round_trips(url):
    query = f"?{url.query}" if url.query else ""
    assert parse_url(f"{url.scheme}://{url.authority}{url.path}{query}") == url


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:3000", "127.0.0.1:3000"),
        ("localhost:0", "localhost:0"),
        ("[::]:3000", "[::]:3000"),
        ("[0:0:0:0:0:0:0:1]:3000", "[::1]:3000"),
        ("Host:1", "host:1"),
        ("unix:/run/tz.sock", "unix:/run/tz.sock"),
    ],
)
def test_parse_bind_address_returns_the_form_of_listen(text, address):
    assert parse_bind_address(text) == address
    assert parse_bind_address(address) == address


FORMS = re.escape(BIND_FORMS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", FORMS),
        ("3000", FORMS),
        ("host", FORMS),
        (":3000", r"write 0\.0\.0\.0:3000 or \[::\]:3000"),
        ("::1:3000", "needs its brackets"),
        ("[::g]:3000", FORMS),
        ("host:70000", "a port from 0 to 65535"),
        ("999.0.0.1:1", "neither an IPv4 address nor a name"),
        ("unix:", "expected a path after unix:"),
        ("unix:/a\nb", "expected a path after unix:"),
    ],
    ids=repr,
)
def test_parse_bind_address_that_is_none_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_bind_address(text)


@pytest.mark.parametrize(
    ("address", "host", "port", "expected"),
    [
        ("127.0.0.1:3000", None, None, "127.0.0.1:3000"),
        ("127.0.0.1:3000", None, 80, "127.0.0.1:80"),
        ("127.0.0.1:3000", "::1", None, "[::1]:3000"),
        ("[::1]:3000", "[::]", 1, "[::]:1"),
        ("[::1]:3000", None, 0, "[::1]:0"),
        ("unix:/run/tz.sock", "localhost", 80, "localhost:80"),
        ("unix:/run/tz.sock", None, None, "unix:/run/tz.sock"),
    ],
)
def test_with_host_and_port_replaces_what_is_given(address, host, port, expected):
    assert with_host_and_port(address, host, port) == expected


@pytest.mark.parametrize(("host", "port"), [("h", None), (None, 80)])
def test_with_host_and_port_unix_socket_needs_both(host, port):
    with pytest.raises(ValueError, match="give both --host and --port"):
        with_host_and_port("unix:/run/tz.sock", host, port)


def test_with_host_and_port_bad_host_is_refused():
    with pytest.raises(ValueError, match="expected host:port"):
        with_host_and_port("127.0.0.1:3000", "a b", None)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("app.localhost", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("example", False),
    ],
)
def test_is_loopback_host_knows_names_and_addresses(host, expected):
    assert is_loopback_host(host) is expected
    text = f"[{host}]" if ":" in host else host
    assert is_loopback_bind(f"{text}:3000") is expected


def test_is_loopback_bind_unix_socket_is():
    assert is_loopback_bind("unix:/run/tz.sock")


@given(address=st.ip_addresses())
def test_is_loopback_host_agrees_with_ipaddress(address):
    assert is_loopback_host(str(address)) is ipaddress.ip_address(address).is_loopback


@pytest.mark.parametrize(
    ("text", "path"),
    [("", ""), ("/", ""), ("/a", "/a"), ("/a/b/", "/a/b"), ("/a%2Fb", "/a%2Fb")],
)
def test_parse_base_path_loses_its_final_slash(text, path):
    assert parse_base_path(text) == path


@pytest.mark.parametrize(
    "text", ["a", "//", "//a", "/a//b", "/a/../b", "/.", "/a b", "/a?b", "/a%2", "/ä"]
)
def test_parse_base_path_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="expected a path such as /gateway"):
        parse_base_path(text)
