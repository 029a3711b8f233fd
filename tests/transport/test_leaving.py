"""Peers that leave, read late or are cut off: who is told, and what is closed."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

import pytest

from tests.transport.certificates import make_certificate
from tests.transport.loops import BOUND, FAR, NAMES, FakePeers, Transport, served
from tests.transport.sockets import (
    PLAIN,
    client_context,
    receive_all,
)
from tests.transport.test_conformance import SuiteGateway
from tz_protocol.machine import ClientGone, Context, Machine
from tz_protocol.notices import Close, RecordNotice
from tz_protocol.operations import (
    Connect,
    Read,
    Write,
    WriteRead,
)
from tz_protocol.records.record import Outcome
from tz_protocol.testing import Facts, http_request
from tz_protocol.types.settings import (
    Model,
    ProviderSettings,
    Snapshot,
    Url,
)


@pytest.fixture(params=[*NAMES, "uvloop"], scope="module")
def transport(request):
    return Transport(request.param)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


class Trickle:
    """An upstream that begins a stream and then says nothing more."""

    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
    )
    event = (
        b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m",'
        b'"choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"}}]}\n\n'
    )

    def __init__(self, *, speaks):
        self._speaks = speaks
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.asked, self.left = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def address(self):
        return self._listener.getsockname()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._thread.join(BOUND)
        self._listener.close()

    def _serve(self):
        stream, _ = self._listener.accept()
        with stream, contextlib.suppress(OSError):
            stream.recv(65_536)
            if self._speaks:
                chunk = b"%x\r\n%s\r\n" % (len(self.event), self.event)
                stream.sendall(self.head + chunk)
            self.asked.set()
            while stream.recv(65_536):
                pass
        self.left.set()


@pytest.mark.parametrize("how", ["close", "reset", "close TLS"])
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_client_that_leaves_closes_the_upstream_at_once(
    transport, certificate, is_stream, how
):
    files = {"cert_file": certificate.cert, "key_file": certificate.key}
    with Trickle(speaks=is_stream) as upstream:
        host, port = upstream.address
        provider = ProviderSettings(
            name="up", type="openai", model="m", url=Url("http", host, port)
        )
        model = Model(
            name="m",
            capabilities=frozenset({"chat"}),
            routing=("up",),
            providers={"up": provider},
        )
        made = transport.embed.make_gateway(Snapshot(models={"m": model}))
        flag = b"true" if is_stream else b"false"
        body = b'{"model":"m","stream":%s,"messages":[{"role":"user","content":"Hi"}]}'
        headers = (("content-type", "application/json"),)
        request = http_request("POST", "/v1/chat/completions", headers, body % flag)
        with served(transport, made, **(files if "TLS" in how else {})) as server:
            client = socket.create_connection(server.address)
            if "TLS" in how:
                client = client_context(certificate).wrap_socket(
                    client, server_hostname="localhost"
                )
            with client:
                client.settimeout(BOUND)
                client.sendall(request)
                assert upstream.asked.wait(BOUND)
                if is_stream:
                    assert b"data: " in client.recv(65_536)
                if how == "reset":
                    linger = struct.pack("ii", 1, 0)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            assert upstream.left.wait(BOUND)
            server.call(lambda: None)
    records = [n.record for n in server.notices if isinstance(n, RecordNotice)]
    assert [record.outcome for record in records] == [Outcome.CLIENT_GONE]


def test_close_of_a_client_resets_it(transport):
    """A body that ends with its connection must not look whole when it is not."""

    class Breaking(SuiteGateway):
        def __init__(self):
            super().__init__(PLAIN, Facts())
            self.connection = lambda handle, peer: _Breaker(self, handle)

    class _Breaker:
        def __init__(self, owner, handle):
            self.owner = owner
            self.handle = handle
            self.tell = lambda event: False

        def run(self):
            yield from Read(FAR, self.handle)
            yield from Write(FAR, self.handle, b"half")
            self.owner.context.tell(Close(self.handle))

    with (
        served(transport, Breaking()) as server,
        socket.create_connection(server.address) as stream,
    ):
        stream.settimeout(BOUND)
        stream.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            receive_all(stream)


def test_last_bytes_reach_a_client_that_reads_late(transport):
    """More than the kernel holds is on its way when the machine ends."""
    body = bytes(range(256)) * 256

    class Saying(SuiteGateway):
        def __init__(self):
            super().__init__(PLAIN, Facts())
            self.connection = lambda handle, peer: _Sayer(self, handle)

    class _Sayer:
        def __init__(self, owner, handle):
            self.owner = owner
            self.handle = handle
            self.tell = lambda event: False

        def run(self):
            count = yield from Read(FAR, self.handle)
            for _ in range(int(count)):
                yield from Write(FAR, self.handle, body)

    with served(transport, Saying()) as server:
        stream = socket.socket()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
        stream.connect(server.address)
        with stream:
            stream.settimeout(BOUND)
            stream.sendall(b"100")
            server.call(lambda: None)
            assert receive_all(stream) == body * 100


def test_cancelled_exchange_closes_its_upstream_at_once(transport):
    with FakePeers() as peers:
        context = Context()

        async def main():
            async with transport.server.open_server(lambda _: None) as server:

                def flow():
                    handle = yield from Connect(FAR, *peers.addresses.silent)
                    try:
                        yield from WriteRead(FAR, handle, b"x")
                    finally:
                        context.tell(Close(handle))

                context.now = server.now()
                driver = transport.driver.Driver(Machine(flow(), context), server)
                driver.start()

                server.call_later(0.05, lambda: driver.tell(ClientGone()))
                await driver.drive()
                assert driver.error is None

        transport.run(main)
        assert peers.opened == 1
        assert peers.all_ended()
