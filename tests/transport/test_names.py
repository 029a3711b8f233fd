"""Names that callers wrote, which others' servers may take long to resolve."""

from __future__ import annotations

import socket
import threading

import pytest

from tests.transport.loops import BOUND, FAR, NAMES, Transport
from tests.transport.sockets import run_flow
from tz_protocol.errors import OperationTimeout
from tz_protocol.notices import Close
from tz_protocol.operations import All, Connect, Resolve, Sleep
from tz_stores.threads import THREADS, Threads

LONG = 10.0
"""Seconds for what is expected to come about."""


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
