"""Servers: where they listen, and what the system lets them have."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import sys
import time

import pytest

from tests.transport.loops import BOUND, FAR, NAMES, Transport, served
from tests.transport.sockets import (
    PLAIN,
    REQUEST,
    ask,
    gateway,
    is_ok,
    receive_all,
    refuse,
    run_flow,
)
from tests.transport.test_conformance import SuiteGateway
from tz_protocol.notices import LogLine
from tz_protocol.operations import (
    Bind,
    Signal,
    StopListening,
)
from tz_protocol.testing import Facts


@pytest.fixture(params=[*NAMES, "uvloop"], scope="module")
def transport(request):
    return Transport(request.param)


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
