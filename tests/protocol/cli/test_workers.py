from __future__ import annotations

import pytest

from tests.protocol.cli.running import config, start
from tz_protocol.cli.workers import GRACE
from tz_protocol.operations import Bind, SendSignal, Spawn, StopListening
from tz_protocol.testing import ProcessScript, World
from tz_protocol.testing.driving import _PERFORM
from tz_protocol.testing.surroundings import AT_ONCE

GOOD = config("one", gateway='bind_address = "127.0.0.1:0"')
BOUNDED = config("one", gateway="server_timeouts = { drain_s = 20.0, goodbye_s = 2.0 }")
ARGV = "--config-file gateway.toml --workers 3"
TERM = [(5.0, "SIGTERM")]
STUBBORN = ProcessScript(ignores=("SIGTERM", "SIGINT"))


def operations(process, kind):
    return [op for _, op in process.outcome.operations if isinstance(op, kind)]


def processes(process):
    return process.sim.surroundings.processes


def signals(process):
    return [child.signals for child in processes(process)]


def spawn_times(process):
    start_time = process.sim.start
    return [
        time - start_time
        for time, op in process.outcome.operations
        if isinstance(op, Spawn)
    ]


# -- start ----------------------------------------------------------------------


def test_supervisor_binds_once_and_starts_workers_that_inherit():
    process = start(ARGV, World(signals=TERM), gateway=GOOD)
    process.until(1.0)
    (bind,) = operations(process, Bind)
    assert bind.addresses == ("127.0.0.1:0",)
    rest = tuple(ARGV.split())
    assert [child.arguments for child in processes(process)] == [
        ("serve", "--worker", f"{number}/3@fd:3@/tmp/folder-1", *rest)
        for number in (1, 2, 3)
    ]
    assert not process.gateways
    assert process.finish() == 0


def test_supervisor_says_which_limits_each_worker_has():
    text = config("one", gateway="limits = { connections = 30, requests = 9 }")
    process = start(ARGV, World(signals=TERM), gateway=text)
    process.until(1.0)
    (fields,) = process.logged("starting workers")
    assert fields["workers"] == 3
    assert (fields["connections"], fields["requests"]) == (10, 3)


def test_one_worker_is_no_supervisor():
    argv = "--config-file gateway.toml --workers 1"
    process = start(argv, World(signals=TERM), gateway=GOOD)
    process.until(1.0)
    assert not processes(process)
    assert "listening" in process.out


def test_supervisor_bad_file_starts_nothing():
    process = start(ARGV, gateway=GOOD + "[frobnicate]\n")
    assert process.finish() == 2
    assert process.err.startswith("gateway.toml:")
    assert not operations(process, Bind)
    assert not processes(process)


def test_supervisor_address_that_cannot_be_bound_ends_with_1(monkeypatch):
    process = start(ARGV, gateway=GOOD)

    def refuse(surroundings, operation):
        raise OSError("Address already in use")

    monkeypatch.setitem(AT_ONCE, Bind, refuse)
    assert process.finish() == 1
    assert process.err == (
        "tz-gateway: cannot listen on 127.0.0.1:0: Address already in use; "
        "another process uses it: end that one, or choose another address\n"
    )


def test_supervisor_certificate_that_cannot_be_used_starts_nothing():
    argv = f"{ARGV} --tls-cert c.pem --tls-key k.pem"
    process = start(argv, gateway=GOOD)
    assert process.finish() == 1
    assert process.err.startswith("tz-gateway: cannot listen on 127.0.0.1:0: ")
    assert process.err.endswith(" (with c.pem and k.pem)\n")
    assert not operations(process, Bind)
    assert not processes(process)


# -- signals --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_supervisor_signal_ends_every_worker_and_then_itself(name):
    process = start(ARGV, World(signals=[(5.0, name)]), gateway=GOOD)
    assert process.finish() == 0
    assert process.ended_after == 5.0
    assert signals(process) == [["SIGTERM"]] * 3
    assert len(operations(process, StopListening)) == 1


def test_supervisor_waits_for_the_slowest_worker():
    slow = ProcessScript(after=12.0, ignores=("SIGTERM",))
    world = World(signals=TERM, processes=[ProcessScript(), slow, ProcessScript()])
    process = start(ARGV, world, gateway=GOOD)
    assert process.finish() == 0
    assert process.ended_after == 12.0


def test_supervisor_kills_workers_that_outstay_the_drain():
    process = start(ARGV, World(signals=TERM, processes=[STUBBORN]), gateway=BOUNDED)
    assert process.finish() == 1
    assert process.ended_after == 5.0 + 20.0 + 2.0 + GRACE
    assert signals(process) == [["SIGTERM", "SIGKILL"]] * 3
    (fields,) = process.logged("killed")
    assert fields["workers"] == [1, 2, 3]


def test_supervisor_second_signal_kills_and_ends_at_once():
    world = World(signals=[*TERM, (6.0, "SIGINT")], processes=[STUBBORN])
    process = start(ARGV, world, gateway=BOUNDED)
    assert process.finish() == 130
    assert process.ended_after == 6.0
    assert signals(process) == [["SIGTERM", "SIGKILL"]] * 3


def test_supervisor_passes_hangups_on():
    world = World(signals=[(2.0, "SIGHUP"), (3.0, "SIGHUP"), *TERM])
    process = start(ARGV, world, gateway=GOOD)
    assert process.finish() == 0
    assert signals(process) == [["SIGHUP", "SIGHUP", "SIGTERM"]] * 3


def test_supervisor_knows_the_drain_of_a_reloaded_file():
    world = World(signals=[(2.0, "SIGHUP"), *TERM], processes=[STUBBORN])
    process = start(ARGV, world, gateway=BOUNDED)
    longer = BOUNDED.replace("20.0", "40.0")
    process.at(1.0, lambda: process.sim.world.files.update({"gateway.toml": longer}))
    process.finish()
    assert process.ended_after == 5.0 + 40.0 + 2.0 + GRACE


def test_supervisor_keeps_its_bounds_when_a_reloaded_file_is_bad():
    world = World(signals=[(2.0, "SIGHUP"), *TERM], processes=[STUBBORN])
    process = start(ARGV, world, gateway=BOUNDED)
    process.at(1.0, lambda: process.sim.world.files.update({"gateway.toml": "["}))
    process.finish()
    assert process.ended_after == 5.0 + 20.0 + 2.0 + GRACE


# -- deaths ---------------------------------------------------------------------


def test_supervisor_replaces_a_worker_that_died():
    killed = ProcessScript(after=2.0, status=-9)
    world = World(signals=TERM, processes=[killed, ProcessScript()])
    process = start(ARGV, world, gateway=GOOD)
    assert process.finish() == 0
    assert spawn_times(process) == [0.0, 0.0, 0.0, 2.5]
    assert processes(process)[3].arguments == processes(process)[0].arguments
    assert process.logged("a worker ended") == [
        {"worker": 1, "reason": "signal 9", "pause_s": 0.5}
    ]
    assert signals(process) == [[], ["SIGTERM"], ["SIGTERM"], ["SIGTERM"]]


def test_supervisor_worker_that_keeps_dying_is_replaced_ever_more_slowly():
    crash = ProcessScript(after=0.0, status=1)
    argv = ARGV.replace("3", "2")
    healthy = ProcessScript()
    world = World(signals=[(100.0, "SIGTERM")], processes=[healthy, crash])
    process = start(argv, world, gateway=GOOD)
    assert process.finish() == 0
    pauses = [fields["pause_s"] for fields in process.logged("a worker ended")]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert not process.logged("giving up")


def test_supervisor_worker_that_lived_long_is_replaced_soon_again():
    worker = ProcessScript(after=100.0, status=-11)
    argv = ARGV.replace("3", "2")
    world = World(signals=[(250.0, "SIGTERM")], processes=[worker])
    process = start(argv, world, gateway=GOOD)
    assert process.finish() == 0
    assert [f["pause_s"] for f in process.logged("a worker ended")] == [0.5] * 4


def test_supervisor_gives_up_when_every_worker_dies_at_once():
    crash = ProcessScript(after=0.1, status=2)
    process = start(ARGV, World(processes=[crash]), gateway=GOOD)
    assert process.finish() == 1
    assert process.logged("giving up") == [{"reason": "status 2"}]
    assert process.ended_after < 10.0
    assert len(processes(process)) == 15


def test_supervisor_signal_during_a_pause_ends_at_once():
    crash = ProcessScript(after=1.0, status=1)
    world = World(signals=[(1.25, "SIGTERM")], processes=[crash])
    process = start(ARGV, world, gateway=GOOD)
    assert process.finish() == 0
    assert process.ended_after == 1.25


def test_supervisor_process_that_cannot_be_started_is_tried_again(monkeypatch):
    def refuse(driver, operation):
        driver.fail(BlockingIOError(11, "Resource temporarily unavailable"))

    monkeypatch.setitem(_PERFORM, Spawn, refuse)
    process = start(ARGV, gateway=GOOD)
    assert process.finish() == 1
    (fields,) = process.logged("giving up")
    assert fields["reason"].startswith("it could not be started: ")
    assert len(process.logged("a worker ended")) == 14


def test_supervisor_signal_while_a_process_is_being_started_reaches_it(monkeypatch):
    spawn = _PERFORM[Spawn]

    def slowly(driver, operation):
        driver.sim.after(2.0, lambda: spawn(driver, operation))

    monkeypatch.setitem(_PERFORM, Spawn, slowly)
    process = start(ARGV, World(signals=[(1.0, "SIGTERM")]), gateway=GOOD)
    assert process.finish() == 0
    assert process.ended_after == 2.0
    assert signals(process) == [["SIGTERM"]] * 3


@pytest.mark.parametrize("kind", [SendSignal, StopListening])
def test_supervisor_operation_that_fails_at_the_end_is_logged(monkeypatch, kind):
    perform = AT_ONCE[kind]

    def fail(surroundings, operation):
        perform(surroundings, operation)
        raise OSError(1, "Operation not permitted")

    monkeypatch.setitem(AT_ONCE, kind, fail)
    process = start(ARGV, World(signals=TERM), gateway=GOOD)
    assert process.finish() == 0
    assert [line.level for line in process.log].count("error") >= 1


@pytest.mark.parametrize("seed", range(20))
def test_supervisor_whatever_the_order_no_worker_is_left(seed):
    scripts = [ProcessScript(after=5.0, status=1), ProcessScript()]
    world = World(signals=TERM, processes=scripts)
    process = start(ARGV, world, gateway=GOOD)
    process.sim._seed = seed
    assert process.finish() == 0
    assert all(child.status is not None for child in processes(process))
