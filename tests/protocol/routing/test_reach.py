"""Where a caller's link may lead."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tz_protocol.routing.reach import (
    Unfollowable,
    is_public,
    named,
    names_public_host,
    onward,
    reachable,
    target_of,
)
from tz_protocol.types.settings import FetchSettings, Url

DEFAULT = FetchSettings()
ANYTHING = FetchSettings(allow_http=True, allow_private=True)

PRIVATE = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
    *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24"),
    *("192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
    *("224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
]
"""https://www.iana.org/assignments/iana-ipv4-special-registry, and multicast; the last
is one of Microsoft's, behind which every machine on Azure has a host of its own."""

PRIVATE_V6 = [
    *("::/128", "::1/128", "::/96", "64:ff9b:1::/48", "100::/64", "2001::/23"),
    *("2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7"),
    *("fe80::/10", "fec0::/10", "ff00::/8", "::ffff:0:0:0/96"),
]
"""https://www.iana.org/assignments/iana-ipv6-special-registry, and older ones."""


def within(network):
    """Return a strategy for the addresses of *network*, its ends among them."""
    found = ipaddress.ip_network(network)
    last = found.num_addresses - 1
    return st.one_of(st.sampled_from([0, last]), st.integers(0, last)).map(
        lambda number: found[number]
    )


private_v4 = st.one_of(*map(within, PRIVATE))


@given(private_v4)
@example(ipaddress.IPv4Address("169.254.169.254"))
def test_private_v4_address_is_not_public_in_any_form(address):
    number = int(address)
    assert not is_public(str(address))
    for prefix in ("::ffff:0:0", "64:ff9b::", "::", "64:ff9b:1::", "::ffff:0:0:0"):
        whole = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | number)
        assert not is_public(str(whole)), whole
    sixtofour = ipaddress.IPv6Address(0x2002 << 112 | number << 80 | 1)
    teredo = ipaddress.IPv6Address(0x2001 << 112 | number << 64 | number ^ 0xFFFFFFFF)
    isatap = ipaddress.IPv6Address(0x26064700 << 96 | 0x5EFE << 32 | number)
    for whole in (sixtofour, teredo, isatap):
        assert not is_public(str(whole)), whole


@given(st.one_of(*map(within, PRIVATE_V6)))
def test_private_v6_address_is_not_public(address):
    assert not is_public(str(address))


@given(st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address))
def test_v4_address_is_public_exactly_outside_of_the_registry(address):
    special = any(address in ipaddress.ip_network(one) for one in PRIVATE)
    assert is_public(str(address)) is not special
    assert is_public(f"::ffff:{address}") is not special
    assert is_public(f"64:ff9b::{address}") is not special


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "2a00:1450::1"])
def test_public_address_is_public(address):
    assert is_public(address)
    assert reachable((address, address), DEFAULT) == (address,)


@pytest.mark.parametrize("text", ["", "a", "127.1", "fe80::1%eth0", "2606::1%1", "1"])
def test_what_is_no_address_is_not_public(text):
    assert not is_public(text)


def test_name_with_one_private_address_has_none_that_is_reached():
    with pytest.raises(Unfollowable, match="no public address"):
        reachable(("8.8.8.8", "10.0.0.1"), DEFAULT)
    with pytest.raises(Unfollowable, match="no public address"):
        reachable((), ANYTHING)
    assert reachable(("8.8.8.8", "10.0.0.1"), ANYTHING) == ("8.8.8.8", "10.0.0.1")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("images.example", True),
        ("8.8.8.8", True),
        ("127.0.0.1", False),
        ("127.1", False),
        ("2130706433", False),
        ("0x7f000001", False),
        ("0177.0.0.1", False),
        ("::1", False),
        ("2606:4700::1111", True),
        ("localhost", False),
        ("a.localhost.", False),
        ("metadata.google.internal", False),
        ("printer.local", False),
        ("intranet", False),
    ],
)
def test_host_for_a_proxy_to_resolve_is_a_public_name(host, expected):
    assert names_public_host(host) is expected


# -- links ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("https://a.test", Url("https", "a.test", 443, "/")),
        ("HTTPS://A.Test./p", Url("https", "a.test", 443, "/p")),
        ("https://a.test:80/x?y=1#z", Url("https", "a.test", 80, "/x", "y=1")),
        ("https://a.test/é?é", Url("https", "a.test", 443, "/%C3%A9", "%C3%A9")),
        ("https://a.test/%2F%41", Url("https", "a.test", 443, "/%2F%41")),
        ("https://[2606::1]/", Url("https", "2606::1", 443, "/")),
        ("https://a_b.test/", Url("https", "a_b.test", 443, "/")),
    ],
)
def test_link_is_taken_apart(link, expected):
    assert target_of(link, DEFAULT) == expected


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("", "URL of https"),
        ("a.png", "URL of https"),
        ("//a.test/x", "URL of https"),
        ("http://a.test/", "URL of https"),
        ("ftp://a.test/", "URL of https"),
        ("file:///etc/passwd", "URL of https"),
        ("gopher://a.test/", "URL of https"),
        ("https://u@a.test/", "user or a password"),
        ("https://u:p@a.test/", "user or a password"),
        ("https://@a.test/", "user or a password"),
        ("https://a.test:22/", "port"),
        ("https://a.test:0/", "port"),
        ("https://a.test:65536/", "not a URL"),
        ("https://a.test:x/", "not a URL"),
        ("https:///x", "host"),
        ("https://a..b/", "host"),
        ("https://-a/", "host"),
        ("https://é.test/", "host"),
        ("https://a.tes\u212a/", "host"),
        ("https://a%2Eb/", "host"),
        ("https://[::1/", "not a URL"),
        ("https://[fe80::1%25eth0]/", "host"),
        ("https://a.test\\@b.test/", "character"),
        ("https://a.test/\r\nx: y", "character"),
        ("https://a.test/ x", "character"),
        (" https://a.test/", "character"),
        ("https://a.test/\t", "character"),
        ("https://a.test/\u2028", "character"),
        ("https://" + "a" * 64 + "/", "host"),
        ("https://a.test/" + "x" * 9_000, "longer"),
    ],
)
def test_link_that_is_none_is_refused(link, reason):
    with pytest.raises(Unfollowable, match=reason):
        target_of(link, DEFAULT)


@given(st.text(max_size=60), st.sampled_from(["https://", "https://a.test/"]))
def test_link_that_is_followed_is_ascii_without_user_or_blank(text, beginning):
    try:
        url = target_of(beginning + text, DEFAULT)
    except Unfollowable:
        return
    whole = f"{url.scheme}://{url.authority}{url.path}?{url.query}"
    assert whole.isascii()
    assert whole.isprintable()
    assert " " not in whole
    assert "@" not in url.authority
    assert url.path.startswith("/")


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("a.test", True),
        ("b.a.test", False),
        ("c.test", False),
        ("x.c.test", True),
        ("xc.test", False),
        ("y.x.c.test", True),
    ],
)
def test_hosts_are_those_that_are_allowed(host, is_allowed):
    settings = FetchSettings(hosts=("a.test", "*.c.test"))
    if is_allowed:
        assert target_of(f"https://{host}/", settings).host == host
        return
    with pytest.raises(Unfollowable, match="not one that is allowed"):
        target_of(f"https://{host}/", settings)


def test_redirect_leads_on_within_the_rules():
    start = Url("https", "a.test", 443, "/x/y", "q")
    assert onward(start, "/z", DEFAULT) == Url("https", "a.test", 443, "/z")
    assert onward(start, "z#f", DEFAULT) == Url("https", "a.test", 443, "/x/z")
    away = Url("https", "b.test", 443, "/z", "s=1")
    assert onward(start, "//b.test/z?s=1", DEFAULT) == away
    assert onward(start, "https://b.test/z?s=1", DEFAULT) == away
    http = Url("http", "a.test", 80, "/")
    assert onward(http, "https://b.test/z?s=1", ANYTHING) == away


@pytest.mark.parametrize(
    "location",
    ["http://b.test/", "https://u:p@b.test/", "file:///x", "https://b.test:22/", "//["],
)
def test_redirect_out_of_the_rules_is_refused_without_naming_it(location):
    start = Url("https", "a.test", 443, "/")
    for settings in (DEFAULT, FetchSettings(allow_http=True)):
        with pytest.raises(Unfollowable) as caught:
            onward(start, location, settings)
        assert "b.test" not in caught.value.reason
        assert caught.value.reason.startswith("it redirects")


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("https://u:p@a.test/x?key=1#f", "https://a.test/x"),
        ("https://u:p@b@a.test", "https://a.test"),
        ("u:p@a.test?x", "a.test"),
        ("https://a.test/é\n", "https://a.test/??"),
        ("x" * 300, "x" * 200 + "..."),
    ],
)
def test_link_in_a_message_has_no_secret(link, expected):
    assert named(link) == expected
