"""What a request held is free once it has ended, not when the collector comes.

A body may be large and the collector counts objects, not bytes: an exception that is
kept by a frame of its own traceback keeps the whole request.
"""

from __future__ import annotations

import gc
from itertools import count
from types import FrameType

import pytest

from tz_protocol.embedding import LocalCall
from tz_protocol.gateway import Gateway
from tz_protocol.machine import ClientGone, Machine
from tz_protocol.operations import Read, Sleep, Write, WriteEof
from tz_protocol.types.settings import Model, ProviderSettings, Snapshot

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
BODY = b'{"model":"%s","stream":%s,"messages":[{"role":"user","content":"Hello"}]}'


def model(name, upstream):
    provider = ProviderSettings(name="dummy", type="dummy", model=upstream)
    return Model(
        name=name,
        capabilities=frozenset({"chat"}),
        routing=("dummy",),
        providers={"dummy": provider},
    )


@pytest.fixture
def gateway():
    numbers = count()
    models = {"good": model("good", "slow"), "bad": model("bad", "error")}
    return Gateway(
        Snapshot(models=models),
        wall_clock=lambda: 1_750_000_000.0,
        new_id=lambda: str(next(numbers)),
        jitter=lambda: 0.5,
    )


def request(name, *, stream=b"false", missing=0):
    body = BODY % (name, stream)
    return HEAD % (len(body) + missing) + body


def step(machine):
    """Do what the machine asks for, as far as that is not to read or to wait."""
    while type(machine.operation) in (Write, WriteEof):
        machine.resume(None, 0.0)


def lost(machine):
    """The connection breaks."""
    machine.broken(ConnectionResetError(), 0.0)


def gone(machine):
    """The client closes."""
    assert machine.tell(ClientGone(), 0.0)
    machine.interrupted(0.0)


def late(machine):
    """What the machine waits for does not come in time."""
    machine.timed_out(1e6)


def waited(machine):
    """What is slept for comes."""
    while type(machine.operation) is Sleep:
        machine.resume(None, machine.operation.deadline)


def nothing(machine):
    """All is said."""


def frames_left(run):
    """Return the frames that nothing but the collector frees after *run*."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        run()
        gc.collect()
        left = [found for found in gc.garbage if isinstance(found, FrameType)]
        return [frame.f_code.co_qualname for frame in left]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize(
    ("sent", "end"),
    [
        pytest.param(request(b"good", missing=9), lost, id="client lost in its body"),
        pytest.param(request(b"good", missing=9), late, id="body too slow"),
        pytest.param(request(b"good"), gone, id="client gone while waiting"),
        pytest.param(request(b"bad"), waited, id="every provider failed"),
        pytest.param(request(b"bad", stream=b"true"), waited, id="no stream"),
        pytest.param(request(b"nope"), nothing, id="no such model"),
        pytest.param(request(b"good")[:-9] + b"*" * 9, nothing, id="no JSON"),
    ],
)
def test_request_that_ends_early_holds_nothing(gateway, sent, end):
    records: list[object] = []
    gateway.settle = records.append

    def run():
        connection = gateway.connection(object())
        machine = Machine(connection.run(), gateway.context, connection.tell)
        machine.start(0.0)
        machine.resume(sent, 0.0)
        step(machine)
        end(machine)
        step(machine)
        if not machine.done:
            assert type(machine.operation) is Read, "the answer is not over"
            machine.timed_out(1e6)
        assert machine.done

    assert frames_left(run) == []
    assert len(records) == 1


def test_call_in_the_process_that_is_given_up_holds_nothing(gateway):
    records: list[object] = []
    gateway.settle = records.append

    def run():
        body = BODY % (b"good", b"false")
        call = LocalCall(gateway, "POST", b"/v1/chat/completions", (), body)
        machine = Machine(call.run(), gateway.context)
        machine.start(0.0)
        gone(machine)
        assert machine.done

    assert frames_left(run) == []
    assert len(records) == 1
