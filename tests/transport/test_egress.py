"""Calls through an egress proxy."""

from __future__ import annotations

import socket
import threading

import httpx
import pytest

from tests.transport.loops import BOUND, FAR, NAMES, FakePeers, Transport
from tests.transport.sockets import (
    run_flow,
)
from tz_protocol.errors import OperationBroken
from tz_protocol.notices import Close
from tz_protocol.operations import (
    HttpCall,
    Read,
)


@pytest.fixture(params=[*NAMES, "uvloop"], scope="module")
def transport(request):
    return Transport(request.param)


class Proxy:
    """Answers requests in absolute form; remembers what it was asked."""

    def __init__(self, answer):
        self.answer = answer
        self.heads = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(BOUND)

    def _serve(self):
        while True:
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return
            with stream:
                data = b""
                while b"\r\n\r\n" not in data or not data.endswith(b"body"):
                    data += stream.recv(65_536)
                self.heads.append(data)
                stream.sendall(self.answer)


def test_http_call_goes_through_the_proxy_and_streams(transport):
    answer = (
        b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.test/\r\n"
        b"Content-Length: 5\r\n\r\nmoved"
    )
    with Proxy(answer) as proxy:

        def flow(context):
            status, headers, handle = yield from HttpCall(
                FAR,
                "POST",
                "http://upstream.test/v1/x?y=z",
                (("authorization", "Bearer k"),),
                b"body",
                proxy.url,
            )
            pieces = b""
            while piece := (yield from Read(FAR, handle)):
                pieces += piece
            context.tell(Close(handle))
            return status, dict(headers)["location"], pieces

        found = run_flow(transport, flow)
    assert found == (302, "http://elsewhere.test/", b"moved")
    head = proxy.heads[0].lower()
    assert head.startswith(b"post http://upstream.test/v1/x?y=z http/1.1\r\n")
    assert b"authorization: bearer k" in head
    assert b"accept-encoding" not in head
    assert b"user-agent" not in head


def test_http_call_keeps_no_cookies(transport, monkeypatch):
    answer = (
        b"HTTP/1.1 204 No Content\r\nSet-Cookie: a=b\r\n"
        b"Set-Cookie: c=d; domain=up.test; max-age=9999\r\n\r\n"
    )
    clients = []

    class Client(httpx.AsyncClient):
        def __init__(self, **options):
            super().__init__(**options)
            clients.append(self)

    monkeypatch.setattr(httpx, "AsyncClient", Client)
    with Proxy(answer) as proxy:

        def flow(context):
            for _ in range(2):
                _, _, handle = yield from HttpCall(
                    FAR, "POST", "http://up.test/", (), b"body", proxy.url
                )
                context.tell(Close(handle))

        run_flow(transport, flow)
    assert len(proxy.heads) == 2
    assert b"cookie" not in b"".join(proxy.heads).lower()
    assert [list(client.cookies.jar) for client in clients] == [[]]


def test_http_call_through_a_dead_proxy_tells_refused(transport):
    with FakePeers() as peers:
        proxy = f"http://user:secret@127.0.0.1:{peers.addresses.refusing[1]}"

        def flow(context):
            yield from HttpCall(FAR, "POST", "http://up.test/", (), b"body", proxy)

        with pytest.raises(OperationBroken) as caught:
            run_flow(transport, flow)
    assert caught.value.kind == "refused"
    assert "secret" not in str(caught.value)


def test_http_call_that_is_cut_tells_reset(transport):
    with Proxy(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf") as proxy:

        def flow(context):
            _, _, handle = yield from HttpCall(
                FAR, "POST", "http://up.test/", (), b"body", proxy.url
            )
            try:
                while (yield from Read(FAR, handle)):
                    pass
            finally:
                context.tell(Close(handle))

        with pytest.raises(OperationBroken) as caught:
            run_flow(transport, flow)
    assert caught.value.kind == "reset"
