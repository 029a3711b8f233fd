"""When a call through an egress proxy is connected: after the tunnel, and only then."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

import pytest

from tests.transport.certificates import make_certificate
from tests.transport.loops import BOUND, FAR, NAMES, FakePeers, Transport
from tz_protocol.errors import OperationBroken
from tz_protocol.machine import Context
from tz_protocol.notices import Close
from tz_protocol.operations import HttpCall, Read, TlsOptions

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK"


@pytest.fixture(params=NAMES)
def transport(request):
    return Transport(request.param)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


# -- peers ----------------------------------------------------------------------


def head_of(stream):
    """Return what comes up to an empty line; nothing at the end of the stream."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        piece = stream.recv(1)
        if not piece:
            return b""
        data += piece
    return data


@contextlib.contextmanager
def listening(serve):
    """Call *serve* with each client, in a thread of its own; yield the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run(client):
        with client, contextlib.suppress(OSError):
            client.settimeout(BOUND)
            serve(client)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=run, args=(client,), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(BOUND)


def answering(events, certificate=None):
    """Return what answers every request on a connection."""

    def serve(client):
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.cert, certificate.key)
            client = context.wrap_socket(client, server_side=True)
        with client:
            while head_of(client):
                events.append("request")
                client.sendall(ANSWER)

    return serve


def tunnelling(events, status=200):
    """Return a proxy that knows CONNECT only."""

    def copy(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve(client):
        method, target, _ = head_of(client).split(b" ", 2)
        assert method == b"CONNECT"
        events.append("tunnel")
        client.sendall(b"HTTP/1.1 %d Said\r\n\r\n" % status)
        if status != 200:
            return
        port = int(target.rpartition(b":")[2])
        with socket.create_connection(("127.0.0.1", port)) as server:
            back = threading.Thread(target=copy, args=(server, client), daemon=True)
            back.start()
            copy(client, server)
            back.join(BOUND)

    return serve


def call(transport, url, proxy, events, tls=None, count=1):
    """Make calls one after the other; what is told of connections is an event."""
    context = Context()

    def flow():
        for _ in range(count):
            started = context.now

            def told(moment, started=started):
                assert moment >= started
                events.append("connected")

            headers = (("host", "up.test"),)
            _, _, handle = yield from HttpCall(
                FAR, "GET", url, headers, b"", proxy, tls, told
            )
            while (yield from Read(FAR, handle)):
                pass
            context.tell(Close(handle))
            events.append("answered")

    transport.run_flow(flow, context)


# -- tests ----------------------------------------------------------------------


def test_call_through_a_tunnel_is_connected_after_it(transport, certificate):
    events: list[str] = []
    with (
        listening(answering(events, certificate)) as port,
        listening(tunnelling(events)) as proxy,
    ):
        tls = TlsOptions("localhost", ca_file=str(certificate.cert))
        url = f"https://localhost:{port}/"
        call(transport, url, f"http://127.0.0.1:{proxy}", events, tls)
    assert events == ["tunnel", "connected", "request", "answered"]


def test_every_call_through_a_proxy_is_told_that_it_is_connected(transport):
    events: list[str] = []
    with listening(answering(events)) as proxy:
        url = f"http://127.0.0.1:{proxy}"
        call(transport, "http://up.test/", url, events, count=2)
    assert events == ["connected", "request", "answered"] * 2


def test_tunnel_that_is_refused_is_no_connection(transport):
    events: list[str] = []
    with listening(tunnelling(events, 403)) as proxy:
        url, tls = f"http://127.0.0.1:{proxy}", TlsOptions("localhost")
        with pytest.raises(OperationBroken):
            call(transport, "https://localhost:1/", url, events, tls)
    assert events == ["tunnel"]


def test_proxy_that_is_dead_is_no_connection(transport):
    events: list[str] = []
    with FakePeers() as peers:
        url = f"http://127.0.0.1:{peers.addresses.refusing[1]}"
        with pytest.raises(OperationBroken):
            call(transport, "http://up.test/", url, events)
    assert events == []
