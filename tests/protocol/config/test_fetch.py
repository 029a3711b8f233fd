from __future__ import annotations

import pytest

from tests.protocol.config.reading import problems, read
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import FetchSettings


def fetch(text: str, **changes) -> FetchSettings:
    return read(f"[gateway.fetch]\n{text}", **changes).gateway.fetch


def test_fetch_empty_is_the_defaults():
    assert fetch("") == read("").gateway.fetch == FetchSettings()


def test_fetch_sets_what_is_said():
    text = """
        enabled = false
        timeout_ms = 1500
        max_bytes = 1
        max_total_bytes = 2
        max_links = 3
        max_redirects = 0
        allow_http = true
        allow_private = true
        allowed_ports = [8443]
        allowed_hosts = ["A.example", "*.b.example", "::1"]
        ca_file = "/ca.pem"
        through_proxy = true
    """
    assert fetch(text) == FetchSettings(
        is_enabled=False,
        timeout=1.5,
        link_bytes=1,
        total_bytes=2,
        links=3,
        redirects=0,
        allow_http=True,
        allow_private=True,
        ports=(8443,),
        hosts=("a.example", "*.b.example", "::1"),
        ca_file="/ca.pem",
        through_proxy=True,
    )


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("timeout_ms = 1\ntimeout_s = 1", "not both"),
        ("max_bytes = 0", "max_bytes"),
        ("max_redirects = -1", "max_redirects"),
        ("allowed_ports = []", "no port is left"),
        ("allowed_ports = [0]", "allowed_ports"),
        ("allowed_hosts = []", "no host is left"),
        ('allowed_hosts = ["https://a.example/"]', "expected a host"),
        ('allowed_hosts = ["*"]', "expected a host"),
        ("max_byte = 1", "max_bytes"),
    ],
)
def test_fetch_mistake_is_told_with_its_place(text, word):
    (problem,) = problems(f"[gateway.fetch]\n{text}")
    assert word in problem
    assert "fetch" in problem


def test_fetch_knows_the_proxies_of_other_places():
    proxied = {"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "inner.example"}
    assert fetch("", **proxied).proxies == {"https": Secret("http://proxy:1")}
    assert fetch("", **{**proxied, "NO_PROXY": "*"}).proxies == {}
    assert fetch("", HTTPS_PROXY="nonsense://").proxies == {"https": Secret("")}
