"""The Machine: what each call does to a flow."""

from __future__ import annotations

import pytest

from tz_protocol.errors import (
    Cancelled,
    ClientBroken,
    ClientTimeout,
    Interrupted,
    OperationBroken,
    OperationTimeout,
    UpstreamBroken,
)
from tz_protocol.machine import ClientGone, Context, Drain, Machine, Shutdown
from tz_protocol.notices import Close
from tz_protocol.operations import Read, SendBody, Signal, Sleep, Write


def machine_of(flow, listener=None):
    return Machine(flow, Context(), listener)


def test_machine_flow_returns_result_kept():
    def flow():
        data = yield from Read(5.0, "handle")
        yield from Write(6.0, "handle", data.upper())
        return len(data)

    machine = machine_of(flow())
    assert machine.start(0.0) == Read(5.0, "handle")
    assert machine.resume(b"abc", 1.0) == Write(6.0, "handle", b"ABC")
    assert machine.resume(None, 2.0) is None
    assert (machine.done, machine.result, machine.operation) == (True, 3, None)


def test_machine_every_call_sets_now():
    context = Context()
    seen = []

    def flow():
        for _ in range(2):
            seen.append(context.now)
            yield from Sleep(context.now + 1)
        seen.append(context.now)

    machine = Machine(flow(), context)
    machine.start(1.0)
    machine.resume(None, 2.0)
    machine.resume(None, 3.5)
    assert seen == [1.0, 2.0, 3.5]


def test_machine_timed_out_throws_with_stage():
    def flow():
        try:
            yield from Read(1.0, "handle")
        except OperationTimeout as error:
            return error.stage

    machine = machine_of(flow())
    machine.start(0.0)
    assert machine.timed_out(1.0, "write") is None
    assert machine.result == "write"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionRefusedError(), "refused"),
        (ConnectionResetError(), "reset"),
        (TimeoutError(), "timeout"),
        (FileNotFoundError(), "missing"),
        (OSError(), "reset"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_machine_broken_names_the_kind(error, kind):
    def flow():
        try:
            yield from Read(1.0, "handle")
        except OperationBroken as broken:
            return broken.kind

    machine = machine_of(flow())
    machine.start(0.0)
    machine.broken(error, 0.5)
    assert machine.result == kind


def test_machine_broken_by_a_core_error_throws_it_as_it_is():
    error = UpstreamBroken("reset")

    def flow():
        try:
            yield from Read(1.0, "handle")
        except UpstreamBroken as caught:
            return caught

    machine = machine_of(flow())
    machine.start(0.0)
    machine.broken(error, 0.5)
    assert machine.result is error


def test_machine_handler_operations_fail_as_the_clients():
    def flow(expected):
        try:
            yield from SendBody(1.0, b"x")
        except expected as error:
            return type(error)

    machine = machine_of(flow(ClientTimeout))
    machine.start(0.0)
    machine.timed_out(1.0)
    assert machine.result is ClientTimeout
    for cause in (OSError(), OperationBroken("reset")):
        machine = machine_of(flow(ClientBroken))
        machine.start(0.0)
        machine.broken(cause, 1.0)
        assert machine.result is ClientBroken


def test_machine_drain_leaves_a_lone_exchange_alone():
    def flow():
        yield from Read(9.0, "handle")

    machine = machine_of(flow())
    machine.start(0.0)
    assert machine.tell(Drain(), 1.0) is False
    assert machine.tell(Shutdown(), 1.0) is True


def test_machine_interrupted_flow_may_say_goodbye():
    def flow():
        try:
            yield from Read(9.0, "handle")
        except Interrupted as interrupt:
            yield from Write(2.0, "handle", repr(interrupt.event).encode())
        return "said"

    machine = machine_of(flow())
    machine.start(0.0)
    assert machine.tell(ClientGone(), 1.0)
    assert machine.interrupted(1.0) == Write(2.0, "handle", b"ClientGone()")
    assert machine.resume(None, 1.5) is None
    assert machine.result == "said"


def test_machine_interrupt_that_nobody_catches_ends_it_quietly():
    def flow():
        yield from Read(9.0, "handle")

    machine = machine_of(flow())
    machine.start(0.0)
    machine.tell(ClientGone(), 1.0)
    assert machine.interrupted(1.0) is None
    assert machine.done
    assert machine.tell(Shutdown(), 2.0) is False


def test_machine_listener_decides():
    machine = machine_of(iter_sleep(), lambda event: isinstance(event, Drain))
    machine.start(0.0)
    assert machine.tell(ClientGone(), 1.0) is False
    assert machine.tell(Drain(), 1.0) is True


def iter_sleep():
    yield from Sleep(9.0)


def test_machine_cancel_settles_without_asking():
    context = Context()

    def flow():
        try:
            yield from Read(9.0, "handle")
        finally:
            context.tell(Close("handle"))

    machine = Machine(flow(), context)
    machine.start(0.0)
    machine.cancel(1.0)
    assert machine.done
    assert machine.notices() == [Close("handle")]
    assert machine.notices() == []
    machine.cancel(2.0)


def test_machine_cancel_before_start_runs_nothing():
    ran = []

    def flow():
        ran.append(1)
        yield from Sleep(1.0)

    machine = machine_of(flow())
    machine.cancel(0.0)
    assert machine.done
    assert ran == []


def test_machine_cleanup_that_asks_is_a_bug():
    def flow():
        try:
            yield from Read(9.0, "handle")
        except Cancelled:
            yield from Write(9.0, "handle", b"bye")

    machine = machine_of(flow())
    machine.start(0.0)
    with pytest.raises(RuntimeError, match="asked for Write"):
        machine.cancel(1.0)
    assert machine.done


def test_machine_bug_escapes_and_ends_it():
    def flow():
        yield from Sleep(1.0)
        raise ZeroDivisionError

    machine = machine_of(flow())
    machine.start(0.0)
    with pytest.raises(ZeroDivisionError):
        machine.resume(None, 1.0)
    assert machine.done


def test_signal_calls_back_once_and_forgets():
    signal, calls = Signal(), []
    signal.on_set(lambda: calls.append("a"))
    forgotten = lambda: calls.append("b")  # noqa: E731  # identity matters
    signal.on_set(forgotten)
    signal.forget(forgotten)
    signal.forget(forgotten)
    signal.set()
    signal.set()
    assert calls == ["a"]
    signal.on_set(lambda: calls.append("late"))
    assert calls == ["a", "late"]
