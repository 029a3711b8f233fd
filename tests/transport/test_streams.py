"""Byte streams: TLS, connections, and machines that share a loop."""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Any

import pytest

from tests.transport.certificates import make_certificate
from tests.transport.loops import BOUND, FAR, NAMES, FakePeers, Transport, served
from tests.transport.sockets import (
    PLAIN,
    REQUEST,
    ask,
    client_context,
    gateway,
    is_ok,
    receive_all,
    run_flow,
)
from tests.transport.test_conformance import SuiteGateway
from tz_protocol.errors import OperationBroken, OperationTimeout
from tz_protocol.machine import Context, Machine
from tz_protocol.notices import Close
from tz_protocol.operations import (
    Connect,
    IsQuiet,
    Read,
    Signal,
    Sleep,
    TlsOptions,
    Wait,
    Write,
    WriteEof,
    WriteRead,
)
from tz_protocol.testing import Facts, conformance, http_request
from tz_protocol.types.settings import (
    ServerTimeouts,
)


@pytest.fixture(params=[*NAMES, "uvloop"], scope="module")
def transport(request):
    return Transport(request.param)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


# -- TLS ------------------------------------------------------------------------


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
