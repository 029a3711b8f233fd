from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.cli.running import config, start
from tz_protocol import __version__
from tz_protocol.cli.options import Worker
from tz_protocol.cli.serve import share_of
from tz_protocol.gateway import Gateway
from tz_protocol.operations import Listen, Sleep, StopListening
from tz_protocol.records.record import Outcome
from tz_protocol.testing import ReceiveResponse, Send, World, http_request
from tz_protocol.testing.surroundings import AT_ONCE
from tz_protocol.types.settings import GatewaySettings, Limits, Snapshot

GOOD = config("one", gateway='bind_address = "127.0.0.1:0"')
TERM = [(5.0, "SIGTERM")]
SERVE = "--config-file gateway.toml"


def listened(process):
    return [address for listen in _listens(process) for address in listen.addresses]


def _listens(process):
    return process.sim.surroundings.listened


# -- start ----------------------------------------------------------------------


def test_serve_good_file_listens_and_says_so_in_one_line():
    process = start(SERVE, World(signals=TERM), gateway=GOOD)
    process.until(1.0)
    config_id = process.gateway.snapshot.config_id
    assert process.out == (
        f"tz-gateway {__version__} is listening on 127.0.0.1:40001 "
        f"(config {config_id} from gateway.toml, 1 model)\n"
    )
    assert re.search(r"127\.0\.0\.1:(\d+)", process.out)
    assert process.err == ""
    assert process.finish() == 0


def test_serve_several_files_are_merged_and_counted():
    world = World(signals=TERM)
    files = {"a/1": config("one"), "a/2": config("two").replace("[gateway]", "")}
    process = start("--config-file a/*.toml", world, **files)
    process.until(1.0)
    assert list(process.gateway.snapshot.models) == ["one", "two"]
    assert "from 2 files, 2 models)" in process.out


def test_serve_overlapping_patterns_read_a_file_once():
    argv = "--config-file *.toml --config-file gateway.toml"
    process = start(argv, World(signals=TERM), gateway=GOOD)
    process.until(1.0)
    assert "from gateway.toml, 1 model)" in process.out


def test_serve_no_file_uses_the_keys_that_are_set():
    world = World(environment={"OPENAI_API_KEY": "sk-secret"}, signals=TERM)
    process = start("", world)
    process.until(1.0)
    assert listened(process) == ["127.0.0.1:3000"]
    assert "(no config file, shorthand for " in process.out
    assert "openai" in process.gateway.snapshot.shorthand
    assert not process.logged("no provider's key is set")


def test_serve_secret_of_a_path_from_a_variable_is_found():
    world = World(
        environment={"KEY_FILE": "/run/key"},
        files={"/run/key": "sk-from-file\n"},
        signals=TERM,
    )
    text = config("one") + 'api_key_location = "path_from_env::KEY_FILE"\n'
    process = start(SERVE, world, gateway=text)
    process.until(1.0)
    (settings,) = process.gateway.snapshot.models["one"].providers.values()
    assert settings.credential.secret is not None
    assert settings.credential.secret.reveal() == "sk-from-file"


def test_serve_tls_files_reach_the_listener():
    argv = f"{SERVE} --tls-cert c.pem --tls-key k.pem"
    process = start(argv, World(signals=TERM), gateway=GOOD)
    process.until(1.0)
    (listen,) = _listens(process)
    assert (listen.cert_file, listen.key_file) == ("c.pem", "k.pem")


def test_serve_path_without_its_option_works_and_is_deprecated():
    process = start("gateway.toml", World(signals=TERM), gateway=GOOD)
    process.until(1.0)
    assert "127.0.0.1:40001" in process.out
    assert process.logged("deprecated") == [{}]


ADDRESSES = {
    "file": ("", {}, "127.0.0.1:40001"),
    "environment": ("", {"A": "127.0.0.1:5000"}, "127.0.0.1:5000"),
    "empty-environment": ("", {"A": " "}, "127.0.0.1:40001"),
    "option": ("--bind-address [::1]:6000", {"A": "127.0.0.1:5000"}, "[::1]:6000"),
    "port-of-file": ("--port 7000", {}, "127.0.0.1:7000"),
    "port-of-environment": ("--port 7000", {"A": "[::1]:5000"}, "[::1]:7000"),
    "host-of-environment": ("--host ::1", {"A": "127.0.0.1:5000"}, "[::1]:5000"),
    "host-and-port": ("--host localhost --port 1", {"A": "unix:/x"}, "localhost:1"),
    "unix": ("--bind-address unix:/run/tz.sock", {}, "unix:/run/tz.sock"),
}


@pytest.mark.parametrize(
    ("options", "environment", "expected"), ADDRESSES.values(), ids=list(ADDRESSES)
)
def test_serve_address_options_win_over_environment_and_file(
    options, environment, expected
):
    variables = {
        f"TENSORZERO_GATEWAY_BIND_{name.replace('A', 'ADDRESS')}": value
        for name, value in environment.items()
    }
    world = World(environment=variables, signals=TERM)
    process = start(f"{SERVE} {options}", world, gateway=GOOD)
    process.until(1.0)
    assert process.sim.surroundings.addresses == [expected]
    assert f"listening on {expected} (" in process.out


# -- what cannot be used --------------------------------------------------------


def test_serve_bad_file_prints_every_problem_and_starts_nothing():
    text = config("one", rest="[modles]\nx = 1\n[frobnicate]\ny = 1\n")
    process = start(SERVE, gateway=text)
    assert process.finish() == 2
    lines = process.err.splitlines()
    assert len(lines) >= 2
    assert all(re.match(r"gateway\.toml:\d+: \S", line) for line in lines)
    assert process.out == ""
    assert not process.gateways
    assert not _listens(process)


MISSING = {
    "file": ("absent.toml", "absent.toml: there is no such file\n"),
    "pattern": ("config/*.toml", "config/*.toml: no file matches this pattern\n"),
}


@pytest.mark.parametrize(("pattern", "message"), MISSING.values(), ids=list(MISSING))
def test_serve_file_that_is_not_there_is_refused(pattern, message):
    process = start(f"--config-file {pattern}")
    assert process.finish() == 2
    assert process.err == message


def test_serve_every_missing_file_is_named():
    process = start("--config-file a.toml --config-file b.toml")
    assert process.finish() == 2
    assert len(process.err.splitlines()) == 2


def test_serve_environment_that_is_no_address_is_refused_beside_the_file():
    world = World(environment={"TENSORZERO_GATEWAY_BIND_ADDRESS": "3000"})
    process = start(SERVE, world, gateway=config("one", rest="[frobnicate]\n"))
    assert process.finish() == 2
    first, second = process.err.splitlines()
    expected = "the environment variable TENSORZERO_GATEWAY_BIND_ADDRESS: expected host"
    assert first.startswith(expected)
    assert second.startswith("gateway.toml:")


def test_serve_port_alone_for_a_unix_socket_is_refused():
    text = config("one", gateway='bind_address = "unix:/run/tz.sock"')
    process = start(f"{SERVE} --port 80", gateway=text)
    assert process.finish() == 2
    assert process.err.startswith("--host and --port: the address is a Unix socket")


def test_serve_address_in_use_is_said_and_ends_with_1():
    process = start("--port 3000 --config-file gateway.toml", gateway=config("one"))
    process.sim.surroundings.addresses.append("127.0.0.1:3000")
    assert process.finish() == 1
    assert process.err == (
        "tz-gateway: cannot listen on 127.0.0.1:3000: 127.0.0.1:3000 is already bound\n"
    )
    assert process.out == ""


def test_serve_tls_files_are_named_if_it_cannot_listen():
    argv = f"{SERVE} --port 3000 --tls-cert c.pem --tls-key k.pem"
    process = start(argv, gateway=config("one"))
    process.sim.surroundings.addresses.append("127.0.0.1:3000")
    assert process.finish() == 1
    assert process.err.endswith(" (with c.pem and k.pem)\n")


def test_serve_without_models_and_keys_warns_and_serves():
    process = start("--default-config", World(signals=TERM))
    process.until(1.0)
    (fields,) = process.logged("no provider's key is set")
    assert "OPENAI_API_KEY" in fields["variables"]
    assert "listening" in process.out


def test_serve_logs_the_warnings_of_the_configuration():
    text = config("one", rest="[functions.f]\ntype = 'chat'\n")
    process = start(SERVE, World(signals=TERM), gateway=text)
    process.until(1.0)
    (fields,) = process.logged("a warning of the configuration")
    assert "functions" in fields["warning"]


# -- signals --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_serve_signal_ends_in_order(name):
    process = start(SERVE, World(signals=[(5.0, name)]), gateway=GOOD)
    assert process.finish() == 0
    assert process.ended_after == 5.0
    assert process.sim.surroundings.addresses == []
    assert process.gateway.problems() == ["shutting down"]


def test_serve_signal_stops_listening_before_anything_else():
    process = start(SERVE, World(signals=TERM), gateway=GOOD)
    process.until(1.0)
    process.gateway.connections = 1
    process.until(6.0)
    after = [op for time, op in process.outcome.operations if time == 1005.0]
    kinds = [type(op) for op in after]
    assert StopListening in kinds
    assert not process.outcome.is_done
    assert process.gateway.is_draining


def test_serve_listener_that_cannot_be_closed_does_not_stop_the_drain(monkeypatch):
    def fail(surroundings, operation):
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setitem(AT_ONCE, StopListening, fail)
    process = start(SERVE, World(signals=TERM), gateway=GOOD)
    assert process.finish() == 0
    assert process.logged("could not be closed")
    assert process.logged("drained")


def test_serve_drain_waits_for_connections_that_end():
    process = start(SERVE, World(signals=TERM), gateway=GOOD)
    process.until(1.0)
    process.gateway.connections = 1
    process.at(12.0, process.gateway.closed)
    assert process.finish() == 0
    assert process.ended_after == 12.0
    assert process.logged("drained") == [{"connections": 1, "cut": 0, "seconds": 7.0}]


def test_serve_drain_is_bounded():
    text = config(
        "one", gateway="server_timeouts = { drain_s = 20.0, goodbye_s = 2.0 }"
    )
    process = start(SERVE, World(signals=TERM), gateway=text)
    process.until(1.0)
    told = []
    process.gateway.live.add(lambda event: told.append((process.sim.now, event)))
    process.gateway.connections = 1
    assert process.finish() == 0
    assert process.ended_after == 5.0 + 20.0 + 2.0
    assert [(time, repr(event)) for time, event in told] == [
        (1005.0, "Drain()"),
        (1025.0, "Shutdown()"),
    ]


STREAM = http_request(
    "POST",
    "/v1/chat/completions",
    (("content-type", "application/json"),),
    b'{"model":"one","stream":true,"messages":[{"role":"user","content":"Hi"}]}',
)


def talk(drain):
    """Return a process that gets SIGTERM at 5 s, and a client's 15 s of answer."""
    text = config("one", gateway=f"server_timeouts = {{ drain_s = {drain} }}")
    text += "spacing_ms = 1000\n"
    process = start(SERVE, World(signals=TERM), gateway=text)
    process.until(0.5)
    return process, process.connect(Send(STREAM), ReceiveResponse("POST"))


def test_serve_drain_lets_a_stream_end():
    process, client = talk(drain=30.0)
    process.until(6.0)
    assert not process.outcome.is_done
    assert process.finish() == 0
    assert 15.0 <= process.ended_after <= 17.0
    assert b"data: [DONE]" in client.client.received
    (record,) = process.sim.records
    assert record.outcome is Outcome.OK


def test_serve_drain_that_is_over_says_goodbye_in_the_stream():
    process, client = talk(drain=2.0)
    assert process.finish() == 0
    assert 7.0 <= process.ended_after < 12.0
    assert b"gateway_shutdown" in client.client.received
    assert b"[DONE]" not in client.client.received
    (record,) = process.sim.records
    assert record.outcome is Outcome.SHUTDOWN


def test_serve_services_run_until_the_drain_is_over(monkeypatch):
    ticks = []

    def tick(process):
        while True:
            yield from Sleep(process.sim.context.now + 1.0)
            ticks.append(process.sim.now)

    process = start(SERVE, World(signals=[(2.5, "SIGTERM")]), gateway=GOOD)
    monkeypatch.setattr(
        Gateway, "services", lambda self: (("t", lambda: tick(process)),)
    )
    process.until(0.5)
    process.gateway.connections = 1
    process.at(4.5, process.gateway.closed)
    assert process.finish() == 0
    process.sim.run_until_idle()
    assert ticks == [1001.0, 1002.0, 1003.0, 1004.0]


@pytest.mark.parametrize(
    ("second", "status"), [("SIGTERM", 143), ("SIGINT", 130)], ids=["term", "int"]
)
def test_serve_second_signal_ends_at_once(second, status):
    world = World(signals=[(5.0, "SIGTERM"), (6.0, second)])
    process = start(SERVE, world, gateway=GOOD)
    process.until(1.0)
    process.gateway.connections = 1
    assert process.finish() == status
    assert process.ended_after == 6.0


def test_serve_signal_before_anything_listens_ends_at_once():
    process = start(SERVE, World(signals=[(0.0, "SIGTERM")]), gateway=GOOD)
    assert process.finish() == 143
    assert process.out == ""


@pytest.mark.parametrize("seed", range(10))
def test_serve_signals_that_come_together_are_all_seen(seed):
    world = World(signals=[(5.0, "SIGHUP"), (5.0, "SIGTERM")])
    process = start(SERVE, world, gateway=GOOD)
    process.sim._seed = seed
    assert process.finish() == 0
    assert process.count("tz_config_reloads_total", result="ok") in (0.0, 1.0)


SIGNALS = st.lists(
    st.tuples(
        st.integers(1, 60).map(float),
        st.sampled_from(["SIGHUP", "SIGINT", "SIGTERM"]),
    ),
    max_size=6,
).map(sorted)


@given(
    signals=SIGNALS,
    seed=st.integers(0, 1000),
    connections=st.integers(0, 2),
    text=st.sampled_from([GOOD, "[", GOOD + config("two").replace("[gateway]", "")]),
)
def test_serve_any_signals_end_in_one_of_the_documented_ways(
    signals, seed, connections, text
):
    process = start(SERVE, World(signals=[*signals, (70.0, "SIGTERM")]), gateway=GOOD)
    process.sim._seed = seed
    process.at(0.5, lambda: setattr(process.gateway, "connections", connections))
    replace_file(process, text, 0.75)
    status = process.finish()
    first, *others = [at for at, name in signals if name != "SIGHUP"] + [70.0]
    server = process.gateway.snapshot.gateway.server
    assert process.ended_after <= first + server.drain + server.goodbye
    assert len(_listens(process)) == 1
    assert len(process.logged("drained")) == (status == 0)
    if status:
        assert status in (130, 143)
        assert process.ended_after in others


# -- services -------------------------------------------------------------------


def test_serve_service_that_fails_is_started_again_with_growing_pauses(monkeypatch):
    starts = []

    def fail(process):
        starts.append(process.sim.now - process.sim.start)
        yield from Sleep(process.sim.context.now)
        raise RuntimeError("the text may hold a secret")

    process = start(SERVE, World(signals=[(10.0, "SIGTERM")]), gateway=GOOD)
    monkeypatch.setattr(
        Gateway, "services", lambda self: (("x", lambda: fail(process)),)
    )
    assert process.finish() == 0
    assert starts == [0.0, 0.5, 1.5, 3.5, 7.5]
    assert process.count("tz_services_restarted_total", service="x") == 5
    fields = process.logged("a service ended")
    assert [f["pause_s"] for f in fields] == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert "RuntimeError in fail" in fields[0]["reason"]
    assert "secret" not in fields[0]["reason"]


def test_serve_service_that_returns_is_started_again(monkeypatch):
    def brief(process):
        yield from Sleep(process.sim.context.now + 100.0)

    process = start(SERVE, World(signals=[(201.0, "SIGTERM")]), gateway=GOOD)
    monkeypatch.setattr(
        Gateway, "services", lambda self: (("x", lambda: brief(process)),)
    )
    assert process.finish() == 0
    fields = process.logged("a service ended")
    assert [f["reason"] for f in fields] == ["returned", "returned"]
    assert [f["pause_s"] for f in fields] == [0.5, 0.5]


# -- reload ---------------------------------------------------------------------


def hangup(seconds=2.0):
    return World(signals=[(seconds, "SIGHUP"), (9.0, "SIGTERM")])


def replace_file(process, text, seconds=1.0):
    process.at(seconds, lambda: process.sim.world.files.update({"gateway.toml": text}))


def test_reload_good_file_is_used_from_then_on():
    process = start(SERVE, hangup(), gateway=GOOD)
    process.until(1.0)
    old = process.gateway.snapshot
    replace_file(process, GOOD + config("two").replace("[gateway]", ""))
    process.until(3.0)
    new = process.gateway.snapshot
    assert list(new.models) == ["one", "two"]
    assert process.logged("was reloaded") == [
        {"config_id": new.config_id, "previous": old.config_id, "models": 2}
    ]
    assert process.count("tz_config_reloads_total", result="ok") == 1
    assert not process.logged("needs a restart")
    assert process.finish() == 0


def test_reload_bad_file_keeps_the_old_snapshot_and_says_so():
    process = start(SERVE, hangup(), gateway=GOOD)
    process.until(1.0)
    old = process.gateway.snapshot
    replace_file(process, GOOD + "[frobnicate]\n")
    process.until(3.0)
    assert process.gateway.snapshot is old
    (fields,) = process.logged("was not reloaded")
    assert fields == {"config_id": old.config_id, "problems": 1}
    (problem,) = process.logged("a problem of the configuration")
    assert problem["problem"].startswith("gateway.toml:")
    assert process.count("tz_config_reloads_total", result="refused") == 1
    assert process.err == ""
    assert process.finish() == 0


def test_reload_file_that_is_gone_keeps_the_old_snapshot():
    process = start(SERVE, hangup(), gateway=GOOD)
    process.until(1.0)
    old = process.gateway.snapshot
    process.sim.world.files.clear()
    process.until(3.0)
    assert process.gateway.snapshot is old
    assert process.count("tz_config_reloads_total", result="refused") == 1


def test_reload_new_address_is_reported_as_needing_a_restart():
    process = start(SERVE, hangup(), gateway=GOOD)
    replace_file(process, GOOD.replace(":0", ":8080"))
    process.until(3.0)
    assert process.logged("needs a restart") == [
        {"listening_on": "127.0.0.1:0", "configured": "127.0.0.1:8080"}
    ]
    assert len(_listens(process)) == 1


def test_reload_after_a_bad_one_works():
    world = World(signals=[(2.0, "SIGHUP"), (4.0, "SIGHUP"), (9.0, "SIGTERM")])
    process = start(SERVE, world, gateway=GOOD)
    replace_file(process, "not toml", 1.0)
    replace_file(process, GOOD, 3.0)
    assert process.finish() == 0
    assert process.count("tz_config_reloads_total", result="refused") == 1
    assert process.count("tz_config_reloads_total", result="ok") == 1


def test_reload_uses_the_options_again():
    argv = f"{SERVE} --bind-address 127.0.0.1:5000"
    process = start(argv, hangup(), gateway=GOOD)
    replace_file(process, GOOD.replace(":0", ":8080"))
    process.until(3.0)
    assert process.gateway.snapshot.gateway.bind_address == "127.0.0.1:5000"
    assert not process.logged("needs a restart")


# -- a worker -------------------------------------------------------------------


def test_worker_listens_on_what_it_inherits_with_its_share_of_the_limits():
    argv = f"serve --worker 2/4@fd:3 --workers 4 {SERVE}"
    text = config("one", gateway="limits = { connections = 10, requests = 2 }")
    process = start(argv, World(signals=TERM), gateway=text)
    process.until(1.0)
    assert listened(process) == ["fd:3"]
    assert "worker 2/4)" in process.out
    limits = process.gateway.snapshot.gateway.limits
    assert (limits.connections, limits.requests) == (3, 1)


def test_worker_keeps_its_share_after_a_reload():
    argv = f"serve --worker 2/4@fd:3 {SERVE}"
    process = start(argv, hangup(), gateway=config("one"))
    text = config("one", gateway="limits = { connections = 20 }")
    replace_file(process, text)
    process.until(3.0)
    assert process.gateway.snapshot.gateway.limits.connections == 5


def test_worker_leaves_interrupts_to_its_supervisor():
    world = World(signals=[(1.0, "SIGINT"), (2.0, "SIGTERM"), (3.0, "SIGINT")])
    argv = f"serve --worker 1/2@fd:3 {SERVE}"
    process = start(argv, world, gateway=GOOD)
    process.until(1.5)
    assert not process.outcome.is_done
    process.gateway.connections = 1
    process.at(4.0, process.gateway.closed)
    assert process.finish() == 0
    assert process.ended_after == 4.0


def test_share_never_is_nothing_and_lets_the_largest_body_in():
    limits = Limits(connections=1, requests=3, queue=0, body_bytes=50, body_memory=100)
    snapshot = Snapshot(gateway=GatewaySettings(limits=limits))
    shared = share_of(snapshot, Worker(1, 8, ("fd:3",))).gateway.limits
    found = (shared.connections, shared.requests, shared.queue, shared.body_memory)
    assert found == (1, 1, 0, 50)


def test_share_of_a_lone_process_is_everything():
    snapshot = Snapshot()
    assert share_of(snapshot, None) is snapshot
    assert share_of(snapshot, Worker(1, 1, ("fd:3",))) is snapshot


def test_serve_listens_with_its_own_gateway():
    process = start(SERVE, World(signals=TERM), gateway=GOOD)
    process.until(1.0)
    (listen,) = _listens(process)
    assert isinstance(listen, Listen)
    assert listen.gateway is process.gateway
