"""Redis's messages against a real server, on both transports."""

from __future__ import annotations

import contextlib

import pytest

from tests.transport.asking import (
    LONG,
    SHORT,
    run,
)
from tests.transport.loops import NAMES, Transport
from tests.transport.redisserver import (
    eventually,
    serving,
)
from tz_protocol.errors import OperationBroken, OperationTimeout
from tz_protocol.operations import All, Race
from tz_protocol.storeops import (
    MESSAGE_LIMIT,
)


@pytest.fixture(params=[*NAMES, "uvloop"])
def transport(request):
    return Transport(request.param)


@pytest.fixture
def server(tmp_path):
    with serving(tmp_path) as server:
        yield server


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
        for _ in range(200):  # turns of the loop: let them come, asking for none
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
