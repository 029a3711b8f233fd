"""Redis's operations while servers die, freeze, come back and change roles."""

from __future__ import annotations

import contextlib

import pytest

from tests.transport.asking import (
    LONG,
    SHORT,
    Asking,
    ask,
    broken_kind,
    run,
)
from tests.transport.loops import FAR, NAMES, FakePeers, Transport
from tests.transport.redisserver import (
    eventually,
    free_port,
    replicated,
    sentinel_for,
    serving,
)
from tz_protocol.errors import OperationBroken, OperationTimeout
from tz_protocol.operations import All, Race
from tz_protocol.storedrivers import CONNECTION_LIMIT
from tz_protocol.types.secret import Secret


@pytest.fixture(params=[*NAMES, "uvloop"])
def transport(request):
    return Transport(request.param)


@pytest.fixture
def server(tmp_path):
    with serving(tmp_path) as server:
        yield server


# -- servers that die, freeze and come back ---------------------------------------


def test_frozen_server_costs_one_deadline_and_no_more(transport, server):
    def flow(asking):
        yield from asking.commands(("SET", "k", "v"))
        server.freeze()
        for _ in range(3):
            with pytest.raises(OperationTimeout):
                yield from asking.commands(("GET", "k"), seconds=SHORT)
        server.thaw()
        return (yield from asking.commands(("GET", "k")))

    assert run(transport, server.url, flow) == (b"v",)
    eventually(lambda: not server.clients())


def test_pipeline_that_a_frozen_server_does_not_take_is_given_up(transport, server):
    big = [("SET", f"k{n}", b"x" * 100_000) for n in range(200)]

    def flow(asking):
        yield from asking.commands(("PING",))
        server.freeze()
        with pytest.raises(OperationTimeout):
            yield from asking.commands(*big, seconds=SHORT)
        server.thaw()
        return (yield from asking.commands(("PING",)))

    assert run(transport, server.url, flow) == (b"PONG",)
    eventually(lambda: not server.clients())


@pytest.mark.parametrize(
    "url",
    ["redis://{}", "redis://user:pw@{}", "redis://{}/1", "rediss://{}"],
    ids=["plain", "password", "database", "tls"],
)
def test_silent_server_is_hung_up_on_at_the_deadline(transport, url):
    def flow(asking):
        for _ in range(2):
            with pytest.raises(OperationTimeout):
                yield from asking.commands(("PING",), seconds=SHORT)
            with pytest.raises(OperationTimeout):
                yield from asking.messages("*", seconds=SHORT)

    with FakePeers() as peers:
        host, port = peers.addresses.silent
        run(transport, url.format(f"{host}:{port}"), flow)
        assert peers.all_ended()


def test_killed_server_is_told_and_its_successor_is_found(transport, server):
    def flow(asking):
        yield from asking.commands(("PING",))
        server.kill()
        kinds = []
        for _ in range(2):
            with pytest.raises(OperationBroken) as caught:
                yield from asking.commands(("PING",))
            kinds.append(caught.value.kind)
        server.start()
        return kinds[1], (yield from asking.commands(("PING",)))

    assert run(transport, server.url, flow) == ("refused", (b"PONG",))


def test_kept_connection_that_was_lost_meanwhile_is_replaced(transport, server):
    def flow(asking):
        yield from asking.commands(("PING",))
        server.kill()
        server.start()
        yield from asking.pause()
        return (yield from asking.commands(("PING",)))

    assert run(transport, server.url, flow) == (b"PONG",)


def test_server_killed_in_the_middle_breaks_the_operation(transport, server):
    """It is killed by what stands in the middle of the pipeline."""
    commands = [("ECHO", "1"), ("SHUTDOWN", "NOSAVE"), ("ECHO", "2")]
    assert broken_kind(transport, server.url, *commands) == "reset"
    assert server.process is not None
    assert server.process.wait(LONG) == 0


def test_connections_are_few_and_used_again(transport, server):
    def flow(asking):
        for _ in range(20):
            yield from asking.commands(("PING",))
        one = len(server.clients())
        flows = [list_of(asking, n) for n in range(100)]
        replies = yield from All(asking.context.now + LONG, tuple(flows))
        return one, replies, len(server.clients())

    def list_of(asking, n):
        return (yield from asking.commands(("ECHO", n), ("INCR", "count")))

    one, replies, many = run(transport, server.url, flow)
    assert one == 1
    assert 1 <= many <= CONNECTION_LIMIT
    assert [reply[0] for reply in replies] == [b"%d" % n for n in range(100)]
    assert sorted(reply[1] for reply in replies) == list(range(1, 101))
    eventually(lambda: not server.clients())


def test_operations_on_a_frozen_server_leave_others_alone(transport, tmp_path):
    """Their threads and connections are given back, however many there were."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    def times_out(asking):
        with pytest.raises(OperationTimeout):
            yield from asking.commands(("PING",), seconds=SHORT)

    def flow(asking):
        frozen.freeze()
        flows = tuple(times_out(asking) for _ in range(4 * CONNECTION_LIMIT))
        yield from All(FAR, flows)
        other = Asking(asking.context, healthy.url)
        replies = yield from other.commands(("PING",))
        frozen.thaw()
        return replies

    with serving(tmp_path / "a") as frozen, serving(tmp_path / "b") as healthy:
        assert run(transport, frozen.url, flow) == (b"PONG",)
        eventually(lambda: not frozen.clients())


@pytest.mark.parametrize("is_first", [True, False], ids=["connecting", "connected"])
def test_operation_abandoned_at_any_moment_leaves_no_reply_behind(
    transport, server, is_first
):
    def ending(asking, seconds):
        yield from asking.pause(seconds)
        return "ended"

    def echoing(asking, n):
        commands = [("ECHO", f"{n}-{m}") for m in range(300)]
        replies = yield from asking.commands(*commands)
        assert replies == tuple(word.encode() for _, word in commands)
        return "echoed"

    def flow(asking):
        seen = set()
        for n in range(60):
            if is_first:
                asking.url = Secret(f"{server.url}/{n % 16}")
            arms = (echoing(asking, n), ending(asking, n * 0.0003))
            _, how = yield from Race(asking.context.now + LONG, arms)
            seen.add(how)
            (reply,) = yield from asking.commands(("ECHO", n))
            assert reply == b"%d" % n
        return seen

    assert "ended" in run(transport, server.url, flow)
    eventually(lambda: not server.clients())


# -- sentinels --------------------------------------------------------------------


def test_sentinel_names_the_master(transport, server, tmp_path):
    with sentinel_for(server, tmp_path / "s") as sentinel:
        hosts = f"127.0.0.1:{free_port()},{sentinel.place}"
        url = f"redis+sentinel://{hosts}/main/2"
        commands = [("SET", "k", "v"), ("GET", "k")]
        assert ask(transport, url, *commands) == (b"OK", b"v")
        assert ask(transport, f"{server.url}/2", ("GET", "k")) == (b"v",)
        url = f"redis+sentinel://{hosts}/other"
        assert broken_kind(transport, url, ("PING",)) == "refused"
        eventually(lambda: not sentinel.clients())


def test_frozen_sentinel_leaves_time_for_the_next(transport, server, tmp_path):
    with (
        sentinel_for(server, tmp_path / "s") as first,
        sentinel_for(server, tmp_path / "t") as second,
    ):
        first.freeze()
        url = f"redis+sentinel://{first.place},{second.place}/main"
        assert ask(transport, url, ("PING",), seconds=1.5) == (b"PONG",)
        first.thaw()
        eventually(lambda: not first.clients() and not second.clients())


@pytest.mark.parametrize("name", NAMES)
def test_failover_is_followed(name, tmp_path):
    with replicated(tmp_path) as (master, replica, url):

        def flow(asking):
            yield from asking.commands(("SET", "k", "old"))
            yield from asking.messages("c")
            eventually(lambda: replica.admin.get("k") == b"old")
            master.kill()
            replies = None
            while replies != (b"OK",):
                with contextlib.suppress(OperationBroken):
                    replies = yield from asking.commands(("SET", "k", "new"))
                yield from asking.pause(0.05)
            with pytest.raises(OperationBroken):
                yield from asking.messages("c")
            return (yield from asking.messages("c"))

        assert run(Transport(name), url, flow) == ()
        assert replica.admin.get("k") == b"new"


def test_demoted_master_is_left(transport, server):
    """A connection on which a write was refused as to a replica is not kept."""

    def flow(asking):
        yield from asking.commands(("SET", "k", "v"))
        server.admin.replicaof("127.0.0.1", free_port())
        (reply,) = yield from asking.commands(("SET", "k", "w"))
        yield from asking.pause()
        eventually(lambda: not server.clients())
        return reply.code

    assert run(transport, server.url, flow) == "READONLY"
