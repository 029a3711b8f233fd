from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.config.reading import environment
from tz_protocol.config.addresses import parse_url
from tz_protocol.config.proxies import PROXY_LOCATIONS, BadProxy, Proxies
from tz_protocol.types.secret import Secret

HTTPS = "https://api.x/v1/"
HTTP = "http://api.x/v1/"


def chosen(url: str, **variables: str) -> str | None:
    secret = Proxies(environment(**variables)).choose(parse_url(url))
    return None if secret is None else secret.reveal()


@pytest.mark.parametrize(
    ("url", "variables", "proxy"),
    [
        (HTTPS, {}, None),
        (HTTPS, {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        (HTTPS, {"HTTP_PROXY": "http://p:1"}, None),
        (HTTP, {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        (HTTPS, {"ALL_PROXY": "socks5://p"}, "socks5://p"),
        (HTTPS, {"ALL_PROXY": "http://a", "HTTPS_PROXY": "http://b"}, "http://b"),
        (HTTPS, {"https_proxy": "http://a", "HTTPS_PROXY": "http://b"}, "http://a"),
        (HTTPS, {"https_proxy": " ", "HTTPS_PROXY": "http://b"}, "http://b"),
        (HTTPS, {"HTTPS_PROXY": " http://p "}, "http://p"),
        (HTTPS, {"HTTPS_PROXY": "p:3128"}, "http://p:3128"),
        (HTTPS, {"HTTPS_PROXY": "http://u:pa@p:3128"}, "http://u:pa@p:3128"),
    ],
    ids=str,
)
def test_choose_takes_the_variable_that_counts(url, variables, proxy):
    assert chosen(url, **variables) == proxy


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_direct"),
    [
        ("*", HTTPS, True),
        ("api.x", HTTPS, True),
        ("API.X", HTTPS, True),
        (".x", HTTPS, True),
        ("x", HTTPS, True),
        ("*.x", HTTPS, True),
        ("i.x", HTTPS, False),
        ("pi.x", HTTPS, False),
        ("other, api.x", HTTPS, True),
        ("other api.x", HTTPS, True),
        ("api.x:443", HTTPS, True),
        ("api.x:80", HTTPS, False),
        ("api.x:²", HTTPS, False),
        (",", HTTPS, False),
        (".", HTTPS, False),
        ("10.0.0.0/8", "http://10.1.2.3/", True),
        ("10.0.0.0/8", "http://11.1.2.3/", False),
        ("10.1.2.3", "http://10.1.2.3/", True),
        ("10.1.2.3:80", "http://10.1.2.3/", True),
        ("10.1.2.3:81", "http://10.1.2.3/", False),
        ("2001:db8::/32", "http://[2001:db8::1]/", True),
        ("[2001:db8::1]", "http://[2001:db8::1]/", True),
        ("[2001:db8::1]:80", "http://[2001:db8::1]/", True),
        ("[2001:db8::1]:81", "http://[2001:db8::1]/", False),
        ("10.0.0.0/8", HTTPS, False),
    ],
)
def test_choose_leaves_out_what_no_proxy_covers(no_proxy, url, is_direct):
    proxy = chosen(url, ALL_PROXY="http://p", NO_PROXY=no_proxy)
    assert (proxy is None) is is_direct


@pytest.mark.parametrize(
    "host", ["localhost", "a.localhost", "127.0.0.1", "[::1]", "127.3.2.1"]
)
def test_choose_this_machine_is_always_direct(host):
    assert chosen(f"http://{host}:11434/", ALL_PROXY="http://p") is None


@pytest.mark.parametrize("value", ["ftp://p", "http://", "http://a b", "://"])
def test_choose_bad_variable_is_named_and_not_shown(value):
    with pytest.raises(BadProxy) as info:
        chosen(HTTPS, https_proxy=value)
    assert str(info.value) == "https_proxy must hold an http, https or socks5 URL"


@given(no_proxy=st.text(), host=st.sampled_from(["api.x", "10.0.0.1", "[::2]"]))
def test_choose_any_no_proxy_decides_something(no_proxy, host):
    proxy = chosen(f"http://{host}/", ALL_PROXY="http://p", NO_PROXY=no_proxy)
    assert proxy in (None, "http://p")


def test_locations_are_what_choose_looks_at():
    asked: list[str] = []

    class Spy(dict[str, Secret | None]):
        def get(self, key, default=None):
            asked.append(key)
            return default

    Proxies(Spy())
    assert sorted(asked) == sorted(PROXY_LOCATIONS)
