"""Redis's operations against a real server, on both transports."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.transport.certificates import make_certificate
from tests.transport.loops import FAR, NAMES, FakePeers, Transport
from tests.transport.redisserver import (
    eventually,
    free_port,
    replicated,
    sentinel_for,
    serving,
)
from tz_protocol.errors import OperationBroken, OperationTimeout, StoreRefused
from tz_protocol.machine import Context
from tz_protocol.operations import All, Race, Sleep
from tz_protocol.storedrivers import CONNECTION_LIMIT
from tz_protocol.storeops import (
    MESSAGE_LIMIT,
    RandomBytes,
    RedisCommands,
    RedisMessages,
)
from tz_protocol.types.secret import Secret

LONG = 15.0
"""Seconds for what is expected to come to an end of its own."""
SHORT = 0.15
"""Seconds for what is expected to be ended."""


@pytest.fixture(params=[*NAMES, "uvloop"])
def transport(request):
    return Transport(request.param)


@pytest.fixture
def server(tmp_path):
    with serving(tmp_path) as server:
        yield server


class Asking:
    """What flows say to one server, in seconds from now.

    Args:
        context: Of the machine that runs them.
        url: Of the server.
    """

    def __init__(self, context, url):
        self.context = context
        self.url = Secret(url)

    def commands(self, *commands, seconds=LONG):
        return RedisCommands(self.context.now + seconds, self.url, commands)

    def messages(self, *patterns, seconds=LONG):
        return RedisMessages(self.context.now + seconds, self.url, patterns)

    def pause(self, seconds=0.005):
        """Let the loop go on, however long the flow has held it up."""
        yield from Sleep(self.context.now)
        yield from Sleep(self.context.now + seconds)


def run(transport, url, make):
    """Return what a flow returns that has an ``Asking``; nothing may be left over."""
    context = Context()
    result = transport.run_flow(lambda: make(Asking(context, url)), context)
    eventually(lambda: not busy_threads())
    return result


def ask(transport, url, *commands, seconds=LONG):
    """Return the replies to one pipeline."""

    def flow(asking):
        return (yield from asking.commands(*commands, seconds=seconds))

    return run(transport, url, flow)


def broken_kind(transport, url, *commands):
    """Return the kind of the failure of one pipeline."""
    with pytest.raises(OperationBroken) as caught:
        ask(transport, url, *commands)
    return caught.value.kind


def busy_threads():
    """Return the threads in which a store is at work; an idle one may wait for more."""
    found = []
    for ident, innermost in sys._current_frames().items():
        frame: Any = innermost
        while frame is not None and ident != threading.get_ident():
            if Path(frame.f_code.co_filename).name == "stores.py":
                found.append(ident)
            frame = frame.f_back
    return found


# -- replies ----------------------------------------------------------------------


def test_replies_are_as_the_server_sends_them(transport, server):
    replies = ask(
        transport,
        server.url,
        ("SET", "a", "1"),
        ("GET", "a"),
        ("GET", "none"),
        ("INCRBY", b"a", 41),
        ("HSET", "h", "f", 1.5, "g", "x"),
        ("HGETALL", "h"),
        ("SADD", "s", "m"),
        ("SMEMBERS", "s"),
        ("SISMEMBER", "s", "m"),
        ("EXISTS", "a"),
        ("ZADD", "z", "2.5", "m"),
        ("ZSCORE", "z", "m"),
        ("SCAN", 0, "MATCH", "h", "COUNT", 100),
        ("MGET", "a", "none"),
        ("CONFIG", "GET", "maxclients"),
        ("EXPIRE", "a", 100),
        ("PING",),
    )
    assert replies == (
        b"OK",
        b"1",
        None,
        42,
        2,
        [b"f", b"1.5", b"g", b"x"],
        1,
        [b"m"],
        1,
        1,
        1,
        b"2.5",
        [b"0", [b"h"]],
        [b"42", None],
        [b"maxclients", b"10000"],
        1,
        b"PONG",
    )
    assert all(type(reply) in (bytes, int, list, type(None)) for reply in replies)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\r\n",
        b"$3\r\nfoo\r\n",
        bytes(range(256)),
        b"-ERR no\r\n+OK\r\n",
        b"\xff" * 1_000_000,
        "naïve ☃",
    ],
    ids=["empty", "crlf", "resp", "every-byte", "error", "megabyte", "text"],
)
def test_keys_and_values_pass_unchanged(transport, server, value):
    sent = value.encode() if isinstance(value, str) else value
    key = b"k\r\n \x00" + sent[:1000]
    commands = (("SET", key, value), ("GET", key), ("KEYS", "*"))
    assert ask(transport, server.url, *commands) == (b"OK", sent, [key])


def test_error_stands_in_its_place_and_says_only_its_code(transport, server):
    replies = ask(
        transport,
        server.url,
        ("SET", "text", "canary"),
        ("HGET", "text", "field"),
        ("NOSUCHCOMMAND", "canary"),
        ("INCR", "text"),
        ("MULTI",),
        ("LPUSH", "text", "canary"),
        ("GET", "text"),
        ("EXEC",),
        ("GET", "text"),
    )
    codes = [r.code if isinstance(r, StoreRefused) else None for r in replies]
    assert codes == [None, "WRONGTYPE", "ERR", "ERR", *[None] * 5]
    inner = replies[7]
    assert (inner[0].code, inner[1]) == ("WRONGTYPE", b"canary")
    assert replies[8] == b"canary"
    assert not any("canary" in str(error) for error in (*replies[1:4], inner[0]))


def test_pipeline_of_many_commands_is_answered_in_order(transport, server):
    commands = [("ECHO", f"{n}") for n in range(10_000)]
    replies = ask(transport, server.url, *commands)
    assert replies == tuple(b"%d" % n for n in range(10_000))


def test_random_bytes_are_as_many_as_asked_for_and_never_the_same(transport):
    def flow(asking):
        deadline = asking.context.now + LONG
        first = yield from RandomBytes(deadline, 32)
        return first, (yield from RandomBytes(deadline, 32))

    first, second = run(transport, "", flow)
    assert len(first) == len(second) == 32
    assert first != second


# -- addresses and who may --------------------------------------------------------


def test_unix_socket_and_database_are_found(transport, server):
    assert ask(transport, f"{server.url}/3", ("SET", "k", "third")) == (b"OK",)
    assert ask(transport, f"unix://{server.path}?db=3", ("GET", "k")) == (b"third",)
    assert ask(transport, server.url, ("GET", "k")) == (None,)


def test_password_and_user_are_believed_or_denied(transport, tmp_path):
    with serving(tmp_path, requirepass="s3cret") as server:
        server.admin.acl_setuser(
            "reader",
            enabled=True,
            passwords=["+pw"],
            keys=["mine:*"],
            categories=["+@read"],
        )
        place = server.place
        assert ask(transport, f"redis://:s3cret@{place}", ("PING",)) == (b"PONG",)
        reader = f"redis://reader:pw@{place}"
        commands = (("GET", "mine:a"), ("GET", "other"), ("SET", "mine:a", 1))
        first, *others = ask(transport, reader, *commands)
        assert first is None
        assert [error.code for error in others] == ["NOPERM", "NOPERM"]
        for login in ("", ":wrong@", "reader:wrong@", "nobody:pw@"):
            assert broken_kind(transport, f"redis://{login}{place}", ("PING",)) == (
                "denied"
            )
        assert broken_kind(transport, f"{reader}/1", ("PING",)) == "denied"


def test_url_options_of_time_and_form_are_not_taken(transport, server):
    options = "protocol=3&decode_responses=yes&socket_timeout=0.001&retry_on_timeout=1"
    more = "&health_check_interval=1&max_connections=1&socket_connect_timeout=1e-9"
    commands = (("HSET", "h", "f", "v"), ("HGETALL", "h"))
    url = f"{server.url}?{options}{more}"
    assert ask(transport, url, *commands) == (1, [b"f", b"v"])


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://127.0.0.1:{port}", "refused"),
        ("unix://{folder}/none.sock", "missing"),
        ("redis://tz-gateway.invalid", "dns"),
        ("redis://:canary@127.0.0.1:{port}/?canary=1", "url"),
        ("redis://:canary@127.0.0.1:canary", "url"),
        ("http://:canary@127.0.0.1", "url"),
        ("redis+sentinel://:canary@127.0.0.1:{port}", "url"),
        ("redis+sentinel://:canary@127.0.0.1:{port},localhost:{port}/m", "refused"),
    ],
    ids=[
        "closed-port",
        "no-socket",
        "no-name",
        "no-option",
        "no-port",
        "no-scheme",
        "no-service",
        "no-sentinel",
    ],
)
def test_server_that_cannot_be_reached_is_told(transport, tmp_path, url, kind):
    address = url.format(port=free_port(), folder=tmp_path)
    with pytest.raises(OperationBroken) as caught:
        ask(transport, address, ("PING",))
    assert caught.value.kind == kind
    assert "canary@" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)


class TlsFront:
    """Ends TLS for a server, one thread a direction."""

    def __init__(self, server, certificate):
        self._server = server
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificate.cert, certificate.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                raw, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw):
        with contextlib.suppress(OSError), raw:
            near = self._context.wrap_socket(raw, server_side=True)
            address = ("127.0.0.1", self._server.port)
            with near, socket.create_connection(address) as far:
                back = threading.Thread(target=self._pump, args=(far, near))
                back.start()
                self._pump(near, far)
                back.join()

    @staticmethod
    def _pump(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


def test_tls_is_spoken_and_the_certificate_is_checked(transport, server, tmp_path):
    certificate = make_certificate(tmp_path)
    with TlsFront(server, certificate) as front:
        url = f"rediss://localhost:{front.port}"
        trusting = f"{url}?ssl_ca_certs={certificate.cert}"
        commands = [("SET", "k", "v" * 100_000), ("STRLEN", "k")]
        assert ask(transport, trusting, *commands) == (b"OK", 100_000)
        assert broken_kind(transport, url, ("PING",)) == "tls"
        eventually(lambda: not server.clients())


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


# -- messages ---------------------------------------------------------------------


def follow(asking, wanted, *patterns):
    """Return the next *wanted* messages, however they are bundled."""
    messages: list[tuple[bytes, bytes]] = []
    while len(messages) < wanted:
        messages += yield from asking.messages(*patterns)
    return messages


def test_subscription_begins_empty_and_then_tells_everything(transport, server):
    def flow(asking):
        first = yield from asking.messages("__keyevent@0__:*")
        yield from asking.commands(("SET", b"a\r\n", 1), ("DEL", b"a\r\n"))
        return first, (yield from follow(asking, 2, "__keyevent@0__:*"))

    first, messages = run(transport, server.url, flow)
    assert first == ()
    assert messages == [
        (b"__keyevent@0__:set", b"a\r\n"),
        (b"__keyevent@0__:del", b"a\r\n"),
    ]
    eventually(lambda: not server.clients())


def test_subscription_to_several_patterns_waits_for_all(transport, server):
    def flow(asking):
        assert (yield from asking.messages("a*", "b*")) == ()
        yield from asking.commands(("PUBLISH", "b1", "x"), ("PUBLISH", "a1", "y"))
        both = yield from follow(asking, 2, "a*", "b*")
        (other,) = [row for row in server.clients() if row["psub"] != "0"]
        return both, other["psub"]

    assert run(transport, server.url, flow) == ([(b"b1", b"x"), (b"a1", b"y")], "2")


def test_subscription_outlasts_deadlines_and_cancellations(transport, server):
    def cancelled(asking):
        arms = (asking.messages("c").__iter__(), asking.pause())
        return (yield from Race(asking.context.now + LONG, arms))

    def flow(asking):
        yield from asking.messages("c")
        with pytest.raises(OperationTimeout):
            yield from asking.messages("c", seconds=SHORT)
        yield from asking.commands(("PUBLISH", "c", "1"))
        first = yield from follow(asking, 1, "c")
        assert (yield from cancelled(asking)) == (1, None)
        yield from asking.commands(("PUBLISH", "c", "2"), ("PUBLISH", "c", "3"))
        rest = yield from follow(asking, 2, "c")
        (row,) = [row for row in server.clients() if row["psub"] != "0"]
        return first + rest, row["psub"]

    messages, count = run(transport, server.url, flow)
    assert messages == [(b"c", b"1"), (b"c", b"2"), (b"c", b"3")]
    assert count == "1"


def test_messages_are_not_lost_to_operations_abandoned_at_any_moment(transport, server):
    def flow(asking):
        got = []

        def taking():
            got.extend((yield from asking.messages("c")))

        def ending(seconds):
            yield from asking.pause(seconds)

        yield from asking.messages("c")
        for n in range(100):
            server.admin.publish("c", n)
            arms = (taking(), ending(n * 0.00002))
            yield from Race(asking.context.now + LONG, arms)
        while len(got) < 100:
            yield from taking()
        return got

    assert run(transport, server.url, flow) == [(b"c", b"%d" % n) for n in range(100)]


def test_lost_subscription_is_told_once_and_begins_anew(transport, server):
    def flow(asking):
        yield from asking.messages("c")
        server.kill()
        kinds = []
        for _ in range(2):
            with pytest.raises(OperationBroken) as caught:
                yield from asking.messages("c")
            kinds.append(caught.value.kind)
        server.start()
        again = yield from asking.messages("c")
        yield from asking.commands(("PUBLISH", "c", "x"))
        return kinds, again, (yield from asking.messages("c"))

    kinds, again, messages = run(transport, server.url, flow)
    assert kinds == ["reset", "refused"]
    assert (again, messages) == ((), ((b"c", b"x"),))


def test_subscription_on_which_too_many_wait_overflows(transport, server):
    def publishing(asking, count):
        yield from asking.messages("c")
        pipeline = server.admin.pipeline(transaction=False)
        for n in range(count):
            pipeline.publish("c", n)
        pipeline.execute()

    def full(asking):
        yield from publishing(asking, MESSAGE_LIMIT)
        return (yield from follow(asking, MESSAGE_LIMIT, "c"))

    def overfull(asking):
        yield from publishing(asking, 3 * MESSAGE_LIMIT)
        end = asking.context.now + 1.0
        while asking.context.now < end:  # let them come, asking for none
            yield from asking.pause()
        with pytest.raises(OperationBroken) as caught:
            yield from asking.messages("c")
        again = yield from asking.messages("c")
        return caught.value.kind, again

    messages = run(transport, server.url, full)
    assert [int(data) for _, data in messages] == list(range(MESSAGE_LIMIT))
    assert run(transport, server.url, overfull) == ("overflow", ())
    eventually(lambda: not server.clients())


def test_subscription_that_is_not_allowed_is_denied(transport, server):
    server.admin.acl_setuser(
        "deaf", enabled=True, nopass=True, commands=["+psubscribe"], reset_channels=True
    )

    def flow(asking):
        with pytest.raises(OperationBroken) as caught:
            yield from asking.messages("c")
        return caught.value.kind

    assert run(transport, f"redis://deaf:x@{server.place}", flow) == "denied"
    eventually(lambda: not server.clients())


def test_subscription_that_did_not_begin_in_time_is_forgotten(transport, server):
    def flow(asking):
        server.freeze()
        with pytest.raises(OperationTimeout):
            yield from asking.messages("c", seconds=SHORT)
        server.thaw()
        return (yield from asking.messages("c"))

    assert run(transport, server.url, flow) == ()
    eventually(lambda: not server.clients())


def test_subscription_asked_for_twice_is_one_and_tells_each_message_once(
    transport, server
):
    def flow(asking):
        yield from asking.messages("c")
        got: list[tuple[bytes, bytes]] = []

        def taking():
            while len(got) < 50:
                with contextlib.suppress(OperationTimeout):
                    got.extend((yield from asking.messages("c", seconds=SHORT)))

        def publishing():
            for n in range(50):
                yield from asking.commands(("PUBLISH", "c", n))

        arms = (taking(), taking(), publishing())
        yield from All(asking.context.now + LONG, arms)
        return got

    messages = run(transport, server.url, flow)
    assert sorted(int(data) for _, data in messages) == list(range(50))


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


# -- the process ------------------------------------------------------------------


def test_nothing_is_left_open_when_the_loop_ends(transport, server):
    def blocking(asking):
        yield from asking.commands(("BLPOP", "nothing", 0))

    def seeing(asking):
        while not any(row["cmd"] == "blpop" for row in server.clients()):
            yield from asking.pause()

    def flow(asking):
        yield from asking.messages("c")
        yield from asking.commands(("PING",))
        arms = (blocking(asking), seeing(asking))
        return (yield from Race(asking.context.now + LONG, arms))

    assert run(transport, server.url, flow) == (1, None)
    eventually(lambda: not server.clients())


@pytest.mark.parametrize("name", NAMES)
def test_library_is_not_imported_before_a_store_is_used(name):
    code = (
        f"import sys, tz_transport_{name}.__main__, tz_transport_{name}.embed\n"
        "print(sorted(n for n in sys.modules if n.startswith('redis')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
