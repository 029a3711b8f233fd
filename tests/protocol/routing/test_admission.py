"""Places in flight, the queue before them, and the memory budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.errors import Overloaded
from tz_protocol.machine import Context, Machine
from tz_protocol.routing.admission import Admission, Memory


def enter(admission, deadline=10.0):
    machine = Machine(admission.enter(deadline), Context())
    machine.start(0.0)
    return machine


def test_admission_within_places_asks_for_nothing():
    admission = Admission(2, 0)
    assert enter(admission).done
    assert enter(admission).done
    assert admission.in_flight == 2


def test_admission_full_queue_refuses_at_once():
    admission = Admission(1, 1)
    enter(admission)
    waiting = enter(admission)
    assert not waiting.done
    with pytest.raises(Overloaded) as caught:
        enter(admission)
    assert (caught.value.status, caught.value.retry_after) == (503, 1.0)


def test_admission_leave_hands_the_place_to_the_longest_waiting():
    admission = Admission(1, 2)
    enter(admission)
    first, second = enter(admission), enter(admission)
    admission.leave()
    assert first.operation.signal.is_set
    assert not second.operation.signal.is_set
    assert first.resume(None, 1.0) is None
    assert admission.in_flight == 1


def test_admission_wait_times_out_as_overloaded():
    admission = Admission(1, 1)
    enter(admission)
    waiting = enter(admission)
    with pytest.raises(Overloaded):
        waiting.timed_out(10.0)
    assert admission.queued == 0


@given(st.lists(st.sampled_from(["enter", "leave", "cancel", "timeout", "resume"])))
def test_admission_any_sequence_keeps_its_books(steps):
    admission = Admission(2, 2)
    inside, waiting = 0, []
    for step in steps:
        if step == "enter":
            try:
                machine = enter(admission)
            except Overloaded:
                continue
            if machine.done:
                inside += 1
            else:
                waiting.append(machine)
        elif step == "leave" and inside:
            inside -= 1
            admission.leave()
        elif waiting and step == "cancel":
            waiting.pop(0).cancel(1.0)
        elif waiting and step == "timeout":
            with pytest.raises(Overloaded):
                waiting.pop(0).timed_out(1.0)
        elif waiting and step == "resume" and waiting[0].operation.signal.is_set:
            waiting.pop(0).resume(None, 1.0)
            inside += 1
        handed = sum(m.operation.signal.is_set for m in waiting)
        assert admission.in_flight == inside + handed <= admission.places
        assert admission.queued == len(waiting) - handed <= admission.queue
        assert not admission.queued or admission.in_flight == admission.places


def test_memory_past_the_budget_refuses_and_keeps_its_books():
    memory = Memory(10)
    memory.take(6)
    with pytest.raises(Overloaded):
        memory.take(5)
    memory.give(6)
    memory.take(10)
    assert memory.held == 10
