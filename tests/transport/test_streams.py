"""What only sockets can show: TLS, addresses, limits of the system, lost peers."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import queue
import resource
import socket
import ssl
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.transport.certificates import make_certificate
from tests.transport.loops import BOUND, FAR, NAMES, FakePeers, Transport, served
from tests.transport.test_conformance import SuiteGateway
from tz_protocol.errors import OperationBroken, OperationTimeout
from tz_protocol.gateway import Gateway
from tz_protocol.machine import ClientGone, Context, Machine
from tz_protocol.notices import Close, LogLine, RecordNotice
from tz_protocol.operations import (
    All,
    Bind,
    Connect,
    HttpCall,
    IsQuiet,
    Print,
    Read,
    ReadFiles,
    Resolve,
    ResolveSecret,
    Signal,
    Sleep,
    StopListening,
    TlsOptions,
    Wait,
    Write,
    WriteEof,
    WriteFile,
    WriteRead,
)
from tz_protocol.records.record import Outcome
from tz_protocol.testing import Facts, conformance, http_request, take_message
from tz_protocol.types.policy import Policy, StreamPolicy
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import (
    Model,
    ProviderSettings,
    ServerTimeouts,
    Snapshot,
    Url,
)
from tz_stores.threads import THREADS, Threads

PLAIN = conformance.SCENARIOS[0]
LONG = 10.0
"""Seconds for what is expected to come about."""
REQUEST = http_request("GET", "/", (("connection", "close"),))


@pytest.fixture(params=[*NAMES, "uvloop"], scope="module")
def transport(request):
    return Transport(request.param)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


def gateway():
    return SuiteGateway(PLAIN, Facts())


def receive_all(stream):
    data = b""
    while piece := stream.recv(65_536):
        data += piece
    return data


def is_ok(data):
    found = take_message(data, is_response=True, is_eof=True)
    return found is not None and (found[0].status, found[0].body) == (200, b"OK")


def ask(stream):
    with stream:
        stream.settimeout(BOUND)
        stream.sendall(REQUEST)
        return receive_all(stream)


def refuse(transport, address, match, **files):
    """Check that one cannot listen there."""
    with (
        pytest.raises(OperationBroken, match=match),
        served(transport, gateway(), (address,), **files),
    ):
        pytest.fail("it listens")


def run_flow(transport, make):
    """Drive ``make(context)``; the deadlines may be taken from ``context.now``."""
    context = Context()
    return transport.run_flow(lambda: make(context), context)


# -- addresses ------------------------------------------------------------------


def test_server_on_ipv6_answers(transport):
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        with served(transport, gateway(), ("[::1]:0",)) as server:
            assert server.addresses[0].startswith("[::1]:")
            assert is_ok(ask(socket.create_connection(server.address)))
        return
    pytest.skip("this machine has no IPv6")


def test_server_on_port_zero_says_which_it_got(transport):
    with served(transport, gateway(), ("127.0.0.1:0", "127.0.0.1:0")) as server:
        ports = {address.rpartition(":")[2] for address in server.addresses}
        assert len(ports) == 2
        for port in ports:
            assert is_ok(ask(socket.create_connection(("127.0.0.1", int(port)))))


def test_server_on_a_unix_socket_replaces_a_stale_one(transport, tmp_path):
    path = str(tmp_path / "tz.sock")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    with served(transport, gateway(), (f"unix:{path}",)) as server:
        assert server.addresses == (f"unix:{path}",)
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(path)
            assert is_ok(ask(stream))


@pytest.mark.parametrize("is_file", [False, True], ids=["live socket", "plain file"])
def test_server_on_a_unix_path_in_use_is_refused(transport, tmp_path, is_file):
    path = tmp_path / "tz.sock"
    with socket.socket(socket.AF_UNIX) as other:
        if is_file:
            path.write_text("precious")
        else:
            other.bind(str(path))
            other.listen()
        refuse(transport, f"unix:{path}", "in use")
    assert path.exists()


def test_server_on_a_port_in_use_is_refused(transport):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refuse(transport, f"127.0.0.1:{port}", "in use")


def test_server_adopts_an_inherited_socket(transport):
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        address = inherited.getsockname()
        number = os.dup(inherited.fileno())
        with served(transport, gateway(), (f"fd:{number}",)) as server:
            assert server.addresses == (f"127.0.0.1:{address[1]}",)
            assert is_ok(ask(socket.create_connection(address)))


def test_bind_keeps_a_socket_that_a_child_can_inherit(transport):
    def flow(context):
        (name,) = yield from Bind(FAR, ("127.0.0.1:0",))
        kind, _, number = name.partition(":")
        assert kind == "fd"
        with socket.socket(fileno=os.dup(int(number))) as same:
            assert same.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            port = same.getsockname()[1]
        yield from StopListening(FAR)
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port))

    assert run_flow(transport, flow) == errno.ECONNREFUSED


# -- TLS ------------------------------------------------------------------------


def client_context(certificate):
    context = ssl.create_default_context(cafile=str(certificate.cert))
    context.set_alpn_protocols(["http/1.1"])
    return context


def test_server_with_tls_answers(transport, certificate):
    files = {"cert_file": certificate.cert, "key_file": certificate.key}
    with served(transport, gateway(), **files) as server:
        raw = socket.create_connection(server.address)
        context = client_context(certificate)
        with context.wrap_socket(raw, server_hostname="localhost") as stream:
            assert is_ok(ask(stream))


def test_server_with_tls_survives_plain_clients_and_silent_ones(transport, certificate):
    files = {"cert_file": certificate.cert, "key_file": certificate.key}
    with served(transport, gateway(), **files) as server:
        silent = socket.create_connection(server.address)
        with socket.create_connection(server.address) as plain:
            plain.settimeout(BOUND)
            plain.sendall(REQUEST)
            with contextlib.suppress(ConnectionResetError):
                assert b"HTTP/1.1 200" not in receive_all(plain)
        raw = socket.create_connection(server.address)
        context = client_context(certificate)
        with context.wrap_socket(raw, server_hostname="localhost") as stream:
            assert is_ok(ask(stream))
        silent.close()
    assert server.gateway.bugs == []


def test_handshake_that_does_not_come_ends_with_the_idle_deadline(
    transport, certificate
):
    scenario = conformance.Scenario(
        name="short", client=(), check=print, timeouts=ServerTimeouts(idle=0.1)
    )
    files = {"cert_file": certificate.cert, "key_file": certificate.key}
    with (
        served(transport, SuiteGateway(scenario, Facts()), **files) as server,
        socket.create_connection(server.address) as silent,
        contextlib.suppress(ConnectionResetError),
    ):
        silent.settimeout(BOUND)
        assert silent.recv(1) == b""


def tls_echo(peers, options):
    def flow(context):
        host, port = peers.addresses.echo
        handle = yield from Connect(FAR, host, port, options)
        try:
            quiet = yield from IsQuiet(FAR, handle)
            first = yield from WriteRead(FAR, handle, b"one")
            yield from Write(FAR, handle, b"two")
            second = yield from Read(FAR, handle)
            yield from WriteEof(FAR, handle)
            return quiet, first, second
        finally:
            context.tell(Close(handle))

    return flow


@pytest.fixture
def tls_peers(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.cert, certificate.key)
    context.num_tickets = 0  # or a kept connection is never quiet at first
    with FakePeers(context) as peers:
        yield peers


@pytest.mark.parametrize("verify", [True, False], ids=["ca_file", "no verification"])
def test_upstream_with_tls_is_spoken_to(transport, certificate, tls_peers, verify):
    ca_file = str(certificate.cert) if verify else None
    options = TlsOptions("localhost" if verify else "other.test", verify, ca_file)
    flow = tls_echo(tls_peers, options)
    assert run_flow(transport, flow) == (True, b"one", b"two")


@pytest.mark.parametrize("how", ["untrusted", "wrong name"])
def test_upstream_with_a_bad_certificate_is_refused(
    transport, certificate, tls_peers, how
):
    options = TlsOptions("localhost")
    if how == "wrong name":
        options = TlsOptions("other.test", ca_file=str(certificate.cert))
    with pytest.raises(OperationBroken) as caught:
        run_flow(transport, tls_echo(tls_peers, options))
    assert caught.value.kind == "tls"


def test_upstream_without_tls_refuses_the_handshake(transport):
    with FakePeers() as peers:
        flow = tls_echo(peers, TlsOptions("localhost"))
        with pytest.raises(OperationBroken) as caught:
            run_flow(transport, flow)
        assert caught.value.kind in ("tls", "reset")


def test_upstream_with_a_missing_ca_file_is_told(transport, tls_peers):
    options = TlsOptions("localhost", ca_file="/there/is/no/such/file.pem")
    with pytest.raises(OperationBroken) as caught:
        run_flow(transport, tls_echo(tls_peers, options))
    assert caught.value.kind == "missing"


# -- connecting -----------------------------------------------------------------


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70 + ".test"])
def test_connect_to_what_is_no_host_tells_dns(transport, host):
    def flow(context):
        yield from Connect(context.now + BOUND, host, 80)

    with pytest.raises(OperationBroken) as caught:
        run_flow(transport, flow)
    assert caught.value.kind == "dns"


def test_connect_tries_every_address(transport):
    """``localhost`` is two addresses on most machines, and one of them answers."""
    with FakePeers() as peers:

        def flow(context):
            handle = yield from Connect(FAR, "localhost", peers.addresses.echo[1])
            data = yield from WriteRead(FAR, handle, b"x")
            context.tell(Close(handle))
            return data

        assert run_flow(transport, flow) == b"x"


def test_connect_to_a_name_that_refuses_tells_refused(transport):
    with FakePeers() as peers:

        def flow(context):
            yield from Connect(FAR, "localhost", peers.addresses.refusing[1])

        with pytest.raises(OperationBroken) as caught:
            run_flow(transport, flow)
        assert caught.value.kind == "refused"


def test_connections_have_no_delay(transport):
    """Nagle's algorithm and delayed ACKs cost 40 ms a stream."""
    seen: list[Any] = []

    def note(handle):
        seen.append(handle)
        return handle

    class Watching(SuiteGateway):
        def __init__(self):
            super().__init__(PLAIN, Facts())
            make = self.connection
            self.connection = lambda handle, peer: make(note(handle), peer)

    def no_delay(handle):
        raw = getattr(handle, "socket", None)
        if raw is None:
            raw = handle._transport.get_extra_info("socket")
        return raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    with (
        served(transport, Watching()) as server,
        socket.create_connection(server.address) as stream,
    ):
        stream.settimeout(BOUND)
        stream.sendall(http_request("GET", "/"))
        assert stream.recv(65_536).startswith(b"HTTP/1.1 200")
        assert server.call(lambda: no_delay(seen[0])) != 0

    with FakePeers() as peers:

        def flow(context):
            handle = yield from Connect(FAR, *peers.addresses.echo)
            found = no_delay(handle)
            context.tell(Close(handle))
            return found

        assert run_flow(transport, flow) != 0


# -- the system's limits --------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_server_out_of_descriptors_goes_on_when_some_come_back(transport):
    with served(transport, gateway()) as server:
        assert is_ok(ask(socket.create_connection(server.address)))
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        streams = []
        used = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, limits[1]))
            streams.append(socket.socket())
            streams[0].settimeout(BOUND)
            fill = []
            with contextlib.suppress(OSError):
                while True:
                    fill.append(os.dup(0))
            streams[0].connect(server.address)
            deadline = time.monotonic() + BOUND
            while not server.notices and time.monotonic() < deadline:
                server.call(lambda: None)
            for number in fill:
                os.close(number)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert is_ok(ask(streams[0]))
    lines = [n for n in server.notices if isinstance(n, LogLine)]
    assert [line.level for line in lines] == ["error"]
    assert "cannot be accepted" in lines[0].message


def test_server_that_is_full_waits_for_room(transport):
    class Full(SuiteGateway):
        def __init__(self):
            super().__init__(PLAIN, Facts())
            self.is_full = True

        def admits(self):
            return not self.is_full

    full = Full()

    def open_up():
        full.is_full = False
        room, full.room = full.room, Signal()
        room.set()

    with (
        served(transport, full) as server,
        socket.create_connection(server.address) as stream,
    ):
        stream.settimeout(0.1)
        stream.sendall(REQUEST)
        with pytest.raises(TimeoutError):
            stream.recv(1)
        server.call(open_up)
        stream.settimeout(BOUND)
        assert is_ok(receive_all(stream))


# -- peers that leave -----------------------------------------------------------


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


# -- the surroundings -----------------------------------------------------------


def test_files_are_read_sorted_and_whole(transport, tmp_path):
    (tmp_path / "b.toml").write_text("zwei ä", encoding="utf-8")
    (tmp_path / "a.toml").write_text("one")
    (tmp_path / "c.txt").write_text("not asked for")

    def flow(context):
        return (yield from ReadFiles(FAR, str(tmp_path / "*.toml")))

    assert run_flow(transport, flow) == (
        (str(tmp_path / "a.toml"), "one"),
        (str(tmp_path / "b.toml"), "zwei ä"),
    )


def test_files_that_are_not_text_are_told(transport, tmp_path):
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")

    def flow(context):
        return (yield from ReadFiles(FAR, str(tmp_path / "a.toml")))

    with pytest.raises(OperationBroken, match="not UTF-8"):
        run_flow(transport, flow)


def test_file_is_replaced_whole(transport, tmp_path):
    path = tmp_path / "state"
    path.write_text("old")

    def flow(context):
        yield from WriteFile(FAR, str(path), "new")

    run_flow(transport, flow)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_secrets_are_found_where_they_are_said_to_be(transport, tmp_path, monkeypatch):
    path = tmp_path / "key"
    path.write_text("from a file\n")
    monkeypatch.setenv("TZ_TEST_KEY", "from the environment")
    monkeypatch.setenv("TZ_TEST_PATH", str(path))

    def flow(context):
        found = []
        locations = ("env::TZ_TEST_KEY", f"path::{path}", "path_from_env::TZ_TEST_PATH")
        for location in locations:
            secret = yield from ResolveSecret(FAR, location)
            found.append(secret.reveal())
        return found

    expected = ["from the environment", "from a file", "from a file"]
    assert run_flow(transport, flow) == expected


@pytest.mark.parametrize(
    "location", ["env::TZ_NO_SUCH", "path::/no/such", "path_from_env::TZ_NO_SUCH"]
)
def test_secret_that_is_missing_is_told(transport, location):
    def flow(context):
        yield from ResolveSecret(FAR, location)

    with pytest.raises(OperationBroken) as caught:
        run_flow(transport, flow)
    assert caught.value.kind == "missing"


def test_print_writes_as_it_stands(transport, capsys):
    def flow(context):
        yield from Print(FAR, "out\n")
        yield from Print(FAR, "err", is_error=True)

    run_flow(transport, flow)
    assert capsys.readouterr() == ("out\n", "err")


# -- drivers --------------------------------------------------------------------


def test_bug_in_an_operation_ends_the_machine_only(transport):
    """What is no ``OSError`` is a bug: the flow is not asked, only settled."""
    seen = []

    class Broken:
        async def read(self):
            raise ZeroDivisionError

    def flow(context):
        try:
            yield from Read(FAR, Broken())
        except BaseException as error:
            seen.append(type(error).__name__)
            raise

    with pytest.raises(ZeroDivisionError):
        run_flow(transport, flow)
    assert seen == ["Cancelled"]


def test_unknown_operation_is_a_bug(transport):
    class Unknown(Sleep):
        pass

    with pytest.raises(KeyError):
        run_flow(transport, lambda context: iter(Unknown(FAR)))


def test_busy_machine_lets_others_have_their_turn(transport):
    """Every operation is ready at once; a timer must come through all the same."""
    rounds = 0

    class Ready:
        async def read(self):
            return b"x"

    def flow(context):
        nonlocal rounds
        while not signal.is_set and rounds < 1_000_000:
            rounds += 1
            yield from Read(FAR, Ready())

    signal = Signal()

    async def main():
        context = Context()
        async with transport.server.open_server(lambda _: None) as server:
            context.now = server.now()
            driver = transport.driver.Driver(Machine(flow(context), context), server)
            driver.start()
            server.call_later(0.01, signal.set)
            await driver.drive()

    transport.run(main)
    assert signal.is_set
    assert rounds > 1


def test_wait_that_times_out_forgets_its_signal(transport):
    signal = Signal()

    def flow(context):
        try:
            yield from Wait(context.now + 0.001, signal)
        except OperationTimeout:
            return list(signal._callbacks)

    assert run_flow(transport, flow) == []


def test_closed_stream_fails_whoever_reads_it(transport):
    """One machine closes what another one reads: no hang, no bug."""
    with FakePeers() as peers:
        context = Context()

        async def main():
            async with transport.server.open_server(lambda _: None) as server:
                context.now = server.now()
                handles: list[Any] = []

                def flow():
                    handle = yield from Connect(FAR, *peers.addresses.silent)
                    handles.append(handle)
                    try:
                        yield from Read(FAR, handle)
                    except OperationBroken as error:
                        return error.kind

                driver = transport.driver.Driver(Machine(flow(), context), server)
                driver.start()
                server.call_later(0.05, lambda: handles[0].close())
                await driver.drive()
                return driver.machine.result

        assert transport.run(main) == "reset"


# -- names ----------------------------------------------------------------------


@pytest.fixture
def hanging(monkeypatch):
    """Names within ``hangs.test`` are looked for until the test is over."""
    is_over, asked, find = threading.Event(), [], socket.getaddrinfo

    def getaddrinfo(host, *given, **named):
        name = host.decode() if isinstance(host, bytes) else str(host)
        if name.endswith("hangs.test"):
            asked.append(name)
            assert is_over.wait(BOUND)
            raise socket.gaierror(socket.EAI_AGAIN, "no server answers")
        return find(host, *given, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield asked
    is_over.set()


def test_names_that_callers_wrote_do_not_hold_up_those_of_providers(hanging):
    """For as long as their servers like, and however many there are."""
    for name in NAMES:  # uvloop resolves by itself

        def late(number, context):
            with pytest.raises(OperationTimeout):
                yield from Resolve(context.now + 0.2, f"{number}.hangs.test", 443)

        def dial(port, context):
            yield from Sleep(context.now + 0.1)
            handle = yield from Connect(context.now + LONG, "localhost", port)
            context.tell(Close(handle))
            return "connected"

        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]

            def flow(context, port=port):
                flows = [late(number, context) for number in range(100)]
                flows.append(dial(port, context))
                return (yield from All(FAR, tuple(flows)))

            assert run_flow(Transport(name), flow)[-1] == "connected"
    assert 0 < len(hanging) <= 2 * THREADS


def test_name_that_nobody_waits_for_any_more_is_not_looked_for(hanging):
    clock = [0.0]
    resolve = Threads(lambda: clock[0]).calls[Resolve]
    assert resolve(Resolve(1.0, "127.0.0.1", 443)) == ("127.0.0.1",)
    clock[0] = 1.0
    with pytest.raises(OperationTimeout):
        resolve(Resolve(1.0, "one.hangs.test", 443))
    assert hanging == []


# -- through an egress proxy ----------------------------------------------------


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


class SlowProxy:
    """Answers one request with a stream, of which each part waits to be released."""

    def __init__(self, *parts):
        self._parts = parts
        self._released: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.is_left = threading.Event()
        """Set when the stream's reader has gone."""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._released.put(False)
        self._listener.close()
        self._thread.join(BOUND)

    def release(self):
        """Send the next part."""
        self._released.put(True)

    def _serve(self):
        stream, _ = self._listener.accept()
        with stream:
            stream.settimeout(BOUND)
            stream.recv(65_536)
            stream.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                b"transfer-encoding: chunked\r\n\r\n"
            )
            for part in self._parts:
                if not self._released.get(timeout=BOUND):
                    return
                stream.sendall(b"%x\r\n%b\r\n" % (len(part), part))
            if self._released.get(timeout=BOUND):
                stream.sendall(b"0\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                receive_all(stream)
            self.is_left.set()


def test_read_of_a_proxied_body_that_is_given_up_loses_nothing(transport):
    with SlowProxy(b"one", b"two") as proxy:

        def flow(context):
            _, _, handle = yield from HttpCall(
                FAR, "POST", "http://up.test/", (), b"body", proxy.url
            )
            pieces, pauses = [], 0
            for _ in range(3):
                with pytest.raises(OperationTimeout):
                    yield from Read(context.now + 0.01, handle)
                pauses += 1
                proxy.release()
                pieces.append((yield from Read(FAR, handle)))
            context.tell(Close(handle))
            return pieces, pauses

        assert run_flow(transport, flow) == ([b"one", b"two", b""], 3)


def test_proxied_body_that_is_closed_within_a_read_is_left(transport):
    with SlowProxy() as proxy:

        def flow(context):
            _, _, handle = yield from HttpCall(
                FAR, "POST", "http://up.test/", (), b"body", proxy.url
            )
            with pytest.raises(OperationTimeout):
                yield from Read(context.now + 0.01, handle)
            context.tell(Close(handle))
            proxy.release()

        run_flow(transport, flow)
        assert proxy.is_left.wait(BOUND)


def proxied_gateway(proxy, policy):
    """Return a gateway whose one model is reached through *proxy*."""
    provider = ProviderSettings(
        name="up",
        type="openai",
        model="m",
        url=Url("http", "up.test", 80, "/v1/"),
        proxy=Secret(proxy),
    )
    model = Model(
        name="m",
        capabilities=frozenset({"chat"}),
        routing=("up",),
        providers={"up": provider},
        policy=policy,
    )
    return Gateway(
        Snapshot(models={"m": model}),
        wall_clock=time.time,
        new_id=lambda: "01890000-0000-7000-8000-000000000001",
        jitter=lambda: 0.5,
    )


def delta(text, finish=None):
    """Return one event of OpenAI's."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    chunk = {"id": "c", "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: %b\n\n" % json.dumps(chunk).encode()


PARTS = (delta("Hel"), delta("lo", "stop") + b"data: [DONE]\n\n")


def test_comments_do_not_cut_a_stream_that_comes_through_a_proxy(transport):
    policy = Policy(stream=StreamPolicy(ping_after=0.01))
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": ""}]}
    lines = []
    with (
        SlowProxy(*PARTS) as proxy,
        served(transport, proxied_gateway(proxy.url, policy)) as running,
        contextlib.closing(http.client.HTTPConnection(*running.address, BOUND)) as ours,
    ):
        headers = {"content-type": "application/json"}
        ours.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = ours.getresponse()
        assert response.status == 200
        for _ in PARTS:
            while (line := response.readline()) not in (b": ping\n", b""):
                lines.append(line)
            proxy.release()
        proxy.release()
        lines += response.read().splitlines(keepends=True)
    told = [line.removeprefix(b"data: ") for line in lines if line[:5] == b"data:"]
    assert told.pop() == b"[DONE]\n"
    choices = [json.loads(line)["choices"] for line in told]
    text = "".join(
        one["delta"].get("content") or "" for (one,) in filter(None, choices)
    )
    assert text == "Hello"


def test_comments_do_not_cut_a_proxied_stream_within_an_application(transport):
    policy = Policy(stream=StreamPolicy(ping_after=0.01))
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": ""}]}
    found = []
    with SlowProxy(*PARTS) as proxy:
        made = proxied_gateway(proxy.url, policy)
        inside = transport.embed.SyncGatewayTransport(made)
        proxy.release()  # a caller in the same process waits for content as for a head
        with (
            httpx.Client(transport=inside, base_url="http://gateway.test") as ours,
            ours.stream("POST", "/v1/chat/completions", json=body) as response,
        ):
            assert response.status_code == 200
            parts = len(PARTS)
            for line in response.iter_lines():
                found.append(line)
                if line == ": ping" and parts:
                    proxy.release()
                    parts -= 1
    data = [line for line in found if line.startswith("data:")]
    assert data[-1] == "data: [DONE]"
    assert "Hel" in "".join(data)
    assert '"lo"' in "".join(data)


def test_window_to_hold_content_back_does_not_cut_what_comes_through_a_proxy(
    transport,
):
    policy = Policy(stream=StreamPolicy(hold=0.01))
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": ""}]}
    with (
        SlowProxy(*PARTS) as proxy,
        served(transport, proxied_gateway(proxy.url, policy)) as running,
        contextlib.closing(http.client.HTTPConnection(*running.address, BOUND)) as ours,
    ):
        proxy.release()
        headers = {"content-type": "application/json"}
        ours.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = ours.getresponse()
        # The head is here: the window is over, and nothing more has come.
        proxy.release()
        proxy.release()
        answer = response.read()
    assert b"Hel" in answer
    assert answer.endswith(b"data: [DONE]\n\n")


def test_path_of_a_certificate_that_is_missing_is_told(transport):
    missing = Path("/no/such/cert.pem")
    files = {"cert_file": missing, "key_file": missing}
    refuse(transport, "127.0.0.1:0", "missing", **files)
