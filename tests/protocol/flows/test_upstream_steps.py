"""One call to one provider, step by step: moments that no scripted peer can meet."""

from __future__ import annotations

import pytest

from tz_protocol.errors import UpstreamBroken, UpstreamTimeout
from tz_protocol.flows.upstream import Call, open_upstream
from tz_protocol.machine import ClientGone, Context, Machine
from tz_protocol.notices import Close
from tz_protocol.operations import IsQuiet, Read
from tz_protocol.routing.pool import Pool, PooledConnection, origin_of
from tz_protocol.types.http import HttpRequest
from tz_protocol.types.settings import Limits, ProviderSettings, Url
from tz_protocol.wire.http1 import ClientCodec

LIMITS = Limits()
URL = Url("http", "a.test", 80, "/v1/")


class Calling:
    """One call, whose operations are answered by hand; the pool keeps *kept*."""

    def __init__(self, *kept, url=URL):
        self.pool = Pool(LIMITS)
        self.context = Context()
        settings = ProviderSettings(name="a", type="openai", model="m", url=url)
        for handle in kept:
            origin = origin_of(settings, URL)
            assert self.pool.reserve(origin)
            connection = PooledConnection(origin, handle, ClientCodec(LIMITS))
            self.pool.keep(connection, 0.0)
        call = Call(
            request=HttpRequest(path="chat/completions", body=b"{}"),
            headers=(),
            settings=settings,
            connect_deadline=5.0,
            head_deadline=60.0,
            total_deadline=300.0,
        )
        flow = open_upstream(call, self.pool, self.context, LIMITS)
        self.machine = Machine(flow, self.context)
        self.machine.start(1.0)

    @property
    def operation(self):
        return self.machine.operation

    def closed(self):
        return [n.handle for n in self.machine.notices() if isinstance(n, Close)]


def test_kept_connection_that_cannot_be_looked_at_is_closed_and_another_used():
    calling = Calling("old", "new")
    assert calling.operation == IsQuiet(60.0, "new")
    calling.machine.broken(OSError(), 1.0)
    assert calling.operation == IsQuiet(60.0, "old")
    assert calling.closed() == ["new"]
    calling.machine.resume(True, 1.0)
    assert calling.operation.handle == "old"
    assert calling.pool.counts() == (1, 0)


def test_kept_connection_that_is_looked_at_too_late_is_a_timeout_of_the_provider():
    calling = Calling("kept")
    with pytest.raises(UpstreamTimeout) as raised:
        calling.machine.timed_out(60.0)
    assert raised.value.phase == "first_content"
    assert calling.closed() == ["kept"]
    assert calling.pool.counts() == (0, 0)


@pytest.mark.parametrize("is_gone", [True, False], ids=["cancelled", "told"])
def test_call_that_is_given_up_at_a_kept_connection_closes_it(is_gone):
    calling = Calling("kept")
    if is_gone:
        calling.machine.cancel(1.0)
    else:
        assert calling.machine.tell(ClientGone(), 1.0)
        calling.machine.interrupted(1.0)
    assert calling.machine.done
    assert calling.closed() == ["kept"]
    assert calling.pool.counts() == (0, 0)


@pytest.mark.parametrize(
    ("fail", "error"),
    [
        (lambda machine: machine.timed_out(60.0), UpstreamTimeout),
        (lambda machine: machine.broken(ConnectionResetError(), 3.0), UpstreamBroken),
    ],
    ids=["late", "broken"],
)
def test_answer_that_is_still_read_after_a_broken_write_may_fail_too(fail, error):
    calling = Calling()
    calling.machine.resume("handle", 1.0)
    calling.machine.broken(ConnectionResetError(), 2.0, stage="write")
    assert calling.operation == Read(60.0, "handle")
    with pytest.raises(error):
        fail(calling.machine)
    assert calling.closed() == ["handle"]
    assert calling.pool.counts() == (0, 0)


def test_provider_without_a_url_is_told_as_its_failure():
    with pytest.raises(UpstreamBroken) as raised:
        Calling(url=None)
    assert raised.value.kind == "missing"
