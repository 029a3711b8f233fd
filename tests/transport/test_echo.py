"""The echo application: the connection flow under a handler that is not the gateway."""

from __future__ import annotations

import asyncio

import pytest

from tests.transport.processes import running
from tests.transport.test_load import ask


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def port(request):
    with running("tests.echo", request.param, "0") as process:
        yield process.port


def call(port, method, path, *lines, body=b""):
    head = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        f"Content-Length: {len(body)}",
        *lines,
    ]
    message = asyncio.run(ask(port, "\r\n".join([*head, "", ""]).encode() + body))
    return message.status, message.body


def test_root_answers_ok(port):
    assert call(port, "GET", "/") == (200, b"OK")


def test_root_sends_the_body_back(port):
    assert call(port, "POST", "/", body=b"hello") == (200, b"hello")


def test_echo_shows_the_header_lines_as_they_came(port):
    status, body = call(port, "GET", "/echo", "X-Mixed-Case: A  b", "x-other: é")
    assert status == 200
    assert b"\nX-Mixed-Case: A  b\n" in body
    assert "\nx-other: é\n".encode() in body


def test_cookies_are_shown_a_line_each(port):
    status, body = call(port, "GET", "/cookie", "Cookie: a=1; b=two words; c")
    assert (status, body) == (200, b"a=1\nb=two words\n")


def test_other_paths_do_not_exist(port):
    assert call(port, "GET", "/nope")[0] == 404
