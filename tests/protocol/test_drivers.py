"""The waiting-free half of a driver, driven by hand: no loop, no clock."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol import operations
from tz_protocol.drivers import (
    Arms,
    BaseDriver,
    Timers,
    accept_failure,
    begin_connection,
    bound_address,
    end_connection,
    performers,
    split_address,
)
from tz_protocol.errors import Interrupted, OperationBroken, OperationTimeout, kind_of
from tz_protocol.machine import ClientGone, Context, Drain, Machine
from tz_protocol.notices import Close, LogLine
from tz_protocol.operations import (
    All,
    Connect,
    HttpCall,
    Operation,
    Race,
    Read,
    Sleep,
    Wait,
    WriteRead,
)

FAR = 1e9


class Loop:
    """A backend with a clock that stands still until it is moved."""

    def __init__(self):
        self.time = 0.0
        self.timers = Timers()
        self.armed = []
        self.notices: list[Any] = []
        self.watched = {}
        self.operations = performers(self)
        self.notice = self.notices.append

    def now(self):
        return self.time

    def call_later(self, seconds, callback):
        self.armed.append(self.time + seconds)
        return self.timers.add(self.time + seconds, callback)

    def move_to(self, time):
        self.time = time
        return self.timers.run(time)

    def watch(self, stream, gone):
        self.watched[stream] = gone


class Handle:
    def __init__(self):
        self.is_closed = False
        self.taken_back = b""

    def close(self):
        self.is_closed = True

    def unread(self, data):
        self.taken_back = data


@pytest.fixture
def loop():
    return Loop()


def driver_of(loop, flow, listener=None):
    driver = BaseDriver(Machine(flow, Context(), listener), loop)
    driver.start()
    return driver


def asked(*deadlines):
    """A flow that reads once for each deadline; returns how each read went."""
    went: list[Any] = []
    for deadline in deadlines:
        try:
            data = yield from Read(deadline, Handle())
        except OperationBroken as error:
            went.append(error.kind)
        except OperationTimeout:
            went.append("OperationTimeout")
        else:
            went.append(data)
    return went


# -- deadlines ------------------------------------------------------------------


def test_past_deadlines_time_out_without_being_performed(loop):
    loop.time = 10.0
    driver = driver_of(loop, asked(9.0, 10.0, 11.0))
    assert driver.next_operation().deadline == 11.0
    driver.resume(b"x")
    assert driver.next_operation() is None
    assert driver.machine.result == ["OperationTimeout", "OperationTimeout", b"x"]


def test_past_sleep_resumes(loop):
    driver = driver_of(loop, iter(Sleep(0.0)))
    assert driver.next_operation() is None
    assert driver.machine.done
    assert driver.error is None


def test_timer_is_armed_again_only_for_an_earlier_deadline(loop):
    driver = driver_of(loop, asked(5.0, 9.0, 3.0, 7.0))
    for _ in range(4):
        driver.next_operation()
        driver.resume(b"x")
    assert loop.armed == [5.0, 3.0]


def test_timer_that_fires_early_is_armed_for_the_current_deadline(loop):
    driver = driver_of(loop, asked(5.0, 9.0))
    driver.next_operation()
    driver.resume(b"x")
    driver.next_operation()
    loop.move_to(5.0)
    assert not driver.is_abandoned()
    assert loop.armed == [5.0, 9.0]
    halted = []
    driver.halt = lambda: halted.append(True)
    loop.move_to(9.0)
    assert driver.is_abandoned()
    assert halted == [True]
    assert driver.next_operation() is None
    assert driver.machine.result == [b"x", "OperationTimeout"]


def test_deadline_that_never_comes_arms_nothing(loop):
    driver = driver_of(loop, asked(math.inf))
    driver.next_operation()
    assert loop.armed == []


def test_timer_is_given_up_with_the_machine(loop):
    driver = driver_of(loop, asked(5.0))
    driver.next_operation()
    driver.resume(b"x")
    driver.rest()
    assert loop.timers.run(0.0) == math.inf


# -- events and the end ---------------------------------------------------------


def waiting(seen, deadline=FAR):
    try:
        yield from Read(deadline, Handle())
    except BaseException as error:
        seen.append(type(error).__name__)
        raise


def test_event_ends_the_operation_once_it_has_let_go(loop):
    seen: list[str] = []
    driver = driver_of(loop, waiting(seen))
    driver.next_operation()
    halted = []
    driver.halt = lambda: halted.append(True)
    assert driver.tell(ClientGone())
    assert driver.tell(ClientGone())
    assert (halted, seen) == ([True], [])
    assert driver.next_operation() is None
    assert seen == ["Interrupted"]
    assert driver.error is None


def test_event_that_is_not_for_now_changes_nothing(loop):
    driver = driver_of(loop, waiting([]))
    driver.next_operation()
    assert not driver.tell(Drain())
    assert not driver.is_abandoned()


@pytest.mark.parametrize("is_told_first", [True, False])
def test_event_counts_for_more_than_a_deadline(loop, is_told_first):
    seen: list[str] = []
    driver = driver_of(loop, waiting(seen, 1.0))
    driver.next_operation()
    steps = [lambda: driver.tell(ClientGone()), lambda: loop.move_to(2.0)]
    for step in steps if is_told_first else reversed(steps):
        step()
    driver.next_operation()
    assert seen == ["Interrupted"]


def test_cancel_counts_for_more_than_an_event(loop):
    seen: list[str] = []
    driver = driver_of(loop, waiting(seen))
    driver.next_operation()
    driver.halt = lambda: None
    driver.tell(ClientGone())
    driver.cancel()
    assert not driver.tell(ClientGone())
    assert driver.next_operation() is None
    assert seen == ["Cancelled"]


def test_cancel_of_what_is_not_performed_is_at_once(loop):
    seen: list[str] = []
    driver = driver_of(loop, waiting(seen))
    driver.cancel()
    assert seen == ["Cancelled"]
    assert driver.machine.done
    driver.cancel()
    driver.start()
    assert driver.next_operation() is None


def test_until_pauses_before_an_operation(loop):
    driver = driver_of(loop, asked(FAR, FAR))
    assert driver.next_operation(lambda: True) is None
    assert not driver.machine.done
    assert isinstance(driver.next_operation(lambda: False), Read)


# -- errors ---------------------------------------------------------------------


def test_failure_is_told_to_the_flow(loop):
    driver = driver_of(loop, asked(FAR))
    driver.next_operation()
    driver.fail(ConnectionRefusedError())
    assert driver.machine.result == ["refused"]
    assert driver.error is None


def test_bug_ends_the_machine_and_is_kept(loop):
    seen: list[str] = []
    driver = driver_of(loop, waiting(seen))
    driver.next_operation()
    bug = ZeroDivisionError()
    driver.fail(bug)
    assert driver.error is bug
    assert seen == ["Cancelled"]


def test_what_is_no_exception_is_nobodys_answer(loop):
    driver = driver_of(loop, waiting([]))
    driver.next_operation()
    with pytest.raises(KeyboardInterrupt):
        driver.fail(KeyboardInterrupt())
    assert not driver.machine.done


def test_bug_in_a_flow_is_kept(loop):
    def flow():
        yield from Read(FAR, Handle())
        raise ZeroDivisionError

    driver = driver_of(loop, flow())
    driver.resume(b"")
    assert isinstance(driver.error, ZeroDivisionError)
    assert driver.machine.done


def test_stage_of_an_operation_does_not_outlive_it(loop):
    stages = []

    def flow():
        for _ in range(2):
            try:
                yield from WriteRead(FAR, Handle(), b"")
            except OperationBroken as error:
                stages.append(error.stage)

    driver = driver_of(loop, flow())
    driver.next_operation()
    driver.stage = "write"
    driver.fail(ConnectionResetError())
    driver.next_operation()
    driver.fail(ConnectionResetError())
    assert stages == ["write", ""]


def test_notices_are_dealt_with_after_every_call(loop):
    handle, context = Handle(), Context()

    def flow():
        context.tell(Close(handle))
        context.tell(LogLine("info", "one"))
        yield from Sleep(FAR)

    driver = BaseDriver(Machine(flow(), context), loop)
    driver.start()
    assert handle.is_closed
    assert loop.notices == [LogLine("info", "one")]


def test_turn_is_over_now_and_then(loop):
    driver = driver_of(loop, waiting([]))
    turns = [driver.is_turn_over() for _ in range(100)]
    assert 1 <= turns.count(True) <= 10


@pytest.mark.parametrize(
    ("operation", "value"),
    [
        (Read(FAR, "handle"), b"data"),
        (Connect(FAR, "host", 1), "handle"),
        (HttpCall(FAR, "GET", "", (), b"", ""), (200, (), "handle")),
        (Wait(FAR, operations.Signal()), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_nobody_gets_is_taken_back(loop, operation, value):
    handle = Handle()
    if isinstance(operation, Read):
        operation = Read(FAR, handle)
    elif isinstance(value, tuple):
        value = (*value[:2], handle)
    elif value == "handle":
        value = handle
    driver_of(loop, waiting([])).take_back(value, operation)
    assert handle.taken_back == (value if isinstance(operation, Read) else b"")
    assert handle.is_closed is isinstance(operation, (Connect, HttpCall))


# -- arms -----------------------------------------------------------------------


def arms_of(loop, kind, count):
    flows = tuple(asked(FAR) for _ in range(count))
    arms = Arms(driver_of(loop, waiting([])), kind(FAR, flows))
    for arm in arms.drivers:
        arm.start()
        arm.next_operation()
    return arms


def end(arms, index, value=b"x", error=None):
    arm = arms.drivers[index]
    if error is None:
        arm.resume(value)
    else:
        arm.fail(error)
    arms.ended(arm)


def test_race_is_over_with_its_first_arm(loop):
    arms = arms_of(loop, Race, 3)
    end(arms, 1)
    assert all(arm.machine.done for arm in arms.drivers)
    assert arms.answer() == (1, [b"x"])


def test_all_is_over_with_its_last_arm(loop):
    arms = arms_of(loop, All, 3)
    for index in (2, 0):
        end(arms, index, b"%d" % index)
    assert not arms.drivers[1].machine.done
    end(arms, 1, b"1")
    assert arms.answer() == ([b"0"], [b"1"], [b"2"])


@pytest.mark.parametrize("kind", [Race, All])
def test_bug_in_an_arm_is_the_answer(loop, kind):
    arms = arms_of(loop, kind, 3)
    end(arms, 1, error=ZeroDivisionError())
    assert all(arm.machine.done for arm in arms.drivers)
    with pytest.raises(ZeroDivisionError):
        arms.answer()


@pytest.mark.parametrize(("kind", "is_endless"), [(Race, True), (All, False)])
def test_no_arms_at_all(loop, kind, is_endless):
    arms = arms_of(loop, kind, 0)
    assert arms.is_endless is is_endless
    assert arms.answer() == ()


# -- connections ----------------------------------------------------------------


class Source:
    """What a server needs of a gateway."""

    def __init__(self, flow):
        self.context = Context()
        self.live = set()
        self.bugs: list[BaseException] = []
        self.bug = self.bugs.append
        self.peers = []
        self.flow = flow

    def connection(self, stream, peer):
        self.peers.append(peer)
        return self

    def run(self):
        return self.flow

    def tell(self, event):
        return True


def test_connection_is_known_while_it_lives(loop):
    seen: list[str] = []
    stream = Handle()
    source = Source(waiting(seen))
    driver = begin_connection(BaseDriver, loop, source, stream, ("10.0.0.1", 5))
    assert source.peers == ["10.0.0.1"]
    assert source.live == {driver.tell}
    loop.watched[stream]()
    assert driver.next_operation() is None
    end_connection(driver, source, stream)
    assert seen == ["Interrupted"]
    assert (source.live, source.bugs, stream.is_closed) == (set(), [], True)


def test_connection_with_a_bug_is_told(loop):
    def flow():
        yield from Read(FAR, Handle())
        raise ZeroDivisionError

    source, stream = Source(flow()), Handle()
    driver = begin_connection(BaseDriver, loop, source, stream, "")
    assert source.peers == [""]
    driver.resume(b"")
    end_connection(driver, source, stream)
    assert [type(bug) for bug in source.bugs] == [ZeroDivisionError]


# -- tables and words -----------------------------------------------------------


def test_performers_are_found_by_their_names():
    class Backend:
        def http_call(self, operation):
            return "performed"

        def operation(self):
            """No operation is called Operation."""

    found: dict[Any, Any] = dict(performers(Backend()))
    assert found[HttpCall](None) == "performed"
    assert Operation not in found
    assert Sleep not in found


@pytest.mark.parametrize(
    ("address", "parts", "name"),
    [
        ("127.0.0.1:3000", ("ipv4", "127.0.0.1", 3000), ("127.0.0.1", 3000)),
        ("localhost:0", ("ipv4", "localhost", 0), ("localhost", 0)),
        ("[::1]:80", ("ipv6", "::1", 80), ("::1", 80, 0, 0)),
        ("unix:/run/a:b.sock", ("unix", "/run/a:b.sock", 0), "/run/a:b.sock"),
        ("fd:3", ("fd", "", 3), None),
    ],
)
def test_addresses_are_taken_apart_and_named(address, parts, name):
    assert split_address(address) == parts
    if name is not None:
        assert bound_address(name) == address


def test_accept_that_failed_is_told_with_its_reason():
    line = accept_failure(OSError(24, "Too many open files"))
    assert line.fields == {"reason": "Too many open files"}
    assert accept_failure(ConnectionAbortedError()).fields == {
        "reason": "ConnectionAbortedError"
    }


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=30))
def test_timers_come_in_order_and_once(planned):
    timers = Timers()
    rung: list[tuple[int, int]] = []
    for number, (when, is_cancelled) in enumerate(planned):
        moment = timers.add(float(when), partial(rung.append, (when, number)))
        if is_cancelled:
            moment.cancel()
    expected = sorted(
        (when, number) for number, (when, gone) in enumerate(planned) if not gone
    )
    time = 0.0
    while time < math.inf:
        following = timers.run(time)
        assert following > time
        time = following
    assert rung == expected


def raised(error, cause=None, context=None):
    error.__cause__ = cause
    error.__context__ = context
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (raised(OSError(), ConnectionRefusedError()), "refused"),
        (raised(OSError(), ExceptionGroup("", [ConnectionRefusedError()])), "refused"),
        (raised(Exception(), context=ConnectionRefusedError()), "refused"),
        (raised(Exception(), raised(OSError(), TimeoutError())), "timeout"),
        (raised(ConnectionResetError(), context=KeyError()), "reset"),
        (Exception(), "reset"),
    ],
    ids=str,
)
def test_kind_of_asks_the_cause(error, kind):
    assert kind_of(error) == kind


def test_interrupted_machine_may_say_goodbye(loop):
    def flow():
        try:
            yield from Read(FAR, Handle())
        except Interrupted:
            return (yield from Read(FAR, Handle()))

    driver = driver_of(loop, flow())
    driver.next_operation()
    driver.tell(ClientGone())
    assert isinstance(driver.next_operation(), Read)
    driver.resume(b"bye")
    assert driver.machine.result == b"bye"
