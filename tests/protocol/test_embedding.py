"""What embedders share: the calls of ASGI and of a caller in the same process."""

from __future__ import annotations

import itertools
import math
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.embedding import LocalCall, asgi_call, attended, closing, uuid7
from tz_protocol.gateway import Gateway
from tz_protocol.machine import ClientGone, Machine
from tz_protocol.operations import (
    AbortBody,
    Read,
    ReceiveBody,
    SendBody,
    SendHead,
    Signal,
    Sleep,
    Wait,
    Write,
)
from tz_protocol.types.http import ResponseHead
from tz_protocol.types.settings import Snapshot

FAR = 1e9


class Handled(Gateway):
    """A gateway whose handler is the test's."""

    def __init__(self, handler):
        numbers = itertools.count()
        super().__init__(
            Snapshot(),
            wall_clock=lambda: 1_700_000_000.0,
            new_id=lambda: f"id-{next(numbers)}",
            jitter=lambda: 0.5,
        )
        self.handler = handler
        self.heads = []
        self.bugs = []

    def handle(self, head):
        self.heads.append(head)
        return self.handler()

    def bug(self, error):
        self.bugs.append(error)


def echo():
    """Answer with the body, in the pieces in which it came."""
    pieces = []
    while piece := (yield from ReceiveBody(FAR)):
        pieces.append(piece)
    yield from SendHead(FAR, ResponseHead(200, (("content-type", "text/plain"),)))
    for piece in pieces:
        yield from SendBody(FAR, piece)
    yield from SendBody(FAR, b"", end=True)


def local(handler, body=b"hello"):
    gateway = Handled(handler)
    headers = [(b"X-One", b"1")]
    call = LocalCall(gateway, "POST", b"/p%20q?a=b&c", headers, body)
    return gateway, call, Machine(call.run(), gateway.context)


# -- in the same process --------------------------------------------------------


def test_local_call_needs_nobody():
    gateway, call, machine = local(echo)
    assert machine.start(0.0) is None
    assert call.head.status == 200
    assert call.raw_headers() == [(b"content-type", b"text/plain")]
    assert call.is_complete
    assert (call.take(), call.take()) == (b"hello", b"")
    (head,) = gateway.heads
    assert (head.method, head.path, head.query) == ("POST", "/p%20q", "a=b&c")
    assert head.headers == (("x-one", "1"),)
    assert head.lines == (("X-One", "1"),)


def test_local_call_has_news_with_each_piece():
    def handler():
        yield from SendHead(FAR, ResponseHead(200))
        yield from Sleep(FAR)
        yield from SendBody(FAR, b"one")
        yield from Sleep(FAR)
        yield from SendBody(FAR, b"two", end=True)

    _, call, machine = local(handler)
    machine.start(0.0)
    assert not call.has_news()
    machine.resume(None, 1.0)
    assert call.has_news()
    assert call.take() == b"one"
    assert not call.has_news()
    machine.resume(None, 2.0)
    assert call.has_news()
    assert call.is_complete
    assert call.take() == b"two"


def test_local_call_that_is_broken_off_is_not_complete():
    def handler():
        yield from SendHead(FAR, ResponseHead(200))
        yield from SendBody(FAR, b"half")
        yield from AbortBody(FAR)

    _, call, machine = local(handler)
    assert machine.start(0.0) is None
    assert not call.is_complete


@pytest.mark.parametrize("is_late", [False, True], ids=["before", "after"])
def test_bug_is_told_and_answered_once(is_late):
    def handler():
        if is_late:
            yield from SendHead(FAR, ResponseHead(200))
        yield from Sleep(0.0)
        raise ZeroDivisionError

    gateway, call, machine = local(handler)
    machine.start(0.0)
    assert machine.resume(None, 1.0) is None
    assert [type(bug) for bug in gateway.bugs] == [ZeroDivisionError]
    assert call.head.status == (200 if is_late else 500)
    assert call.is_complete is not is_late


def test_errors_and_events_reach_the_handler():
    seen = []

    def handler():
        for _ in range(2):
            try:
                yield from Wait(FAR, Signal())
            except BaseException as error:
                seen.append(type(error).__name__)

    _, _, machine = local(handler)
    machine.start(0.0)
    machine.timed_out(1.0)
    assert machine.tell(ClientGone(), 2.0)
    machine.interrupted(2.0)
    assert seen == ["OperationTimeout", "Interrupted"]


# -- ASGI -----------------------------------------------------------------------

SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/p q",
    "raw_path": b"/p%20q",
    "query_string": b"a=b",
    "headers": [(b"x-one", b"1")],
}


def play(handler, messages, scope=SCOPE):
    """Answer every ``Read`` with the next message; return what was written."""
    gateway = Handled(handler)
    machine = Machine(asgi_call(gateway, scope, "server"), gateway.context)
    inbox, written = iter(messages), []
    operation = machine.start(0.0)
    while operation is not None:
        if isinstance(operation, Read):
            operation = machine.resume(next(inbox), 0.0)
        elif isinstance(operation, Write):
            written.append(operation.data)
            operation = machine.resume(None, 0.0)
        else:
            operation = machine.resume(None, 0.0)
    return gateway, written


def body_messages(body, cuts):
    edges = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    pieces = [body[a:b] for a, b in itertools.pairwise(edges)] or [b""]
    return [
        {"type": "http.request", "body": piece, "more_body": n + 1 < len(pieces)}
        for n, piece in enumerate(pieces)
    ]


@given(st.binary(max_size=50), st.lists(st.integers(1, 50), max_size=5))
def test_asgi_body_comes_back_however_it_is_cut(body, cuts):
    gateway, (start, *rest) = play(echo, body_messages(body, cuts))
    assert gateway.bugs == []
    assert start == {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"text/plain")],
    }
    assert b"".join(message["body"] for message in rest) == body
    assert [message["more_body"] for message in rest][-1] is False
    assert all(message["more_body"] for message in rest[:-1])


def test_asgi_body_in_empty_pieces_is_waited_for():
    messages = [
        {"type": "http.request", "body": b"", "more_body": True},
        {"type": "http.request", "more_body": True},
        {"type": "http.request", "body": b"x"},
    ]
    _, (_, *rest) = play(echo, messages)
    assert b"".join(message["body"] for message in rest) == b"x"


def test_asgi_client_that_leaves_in_its_body_is_answered_nothing():
    messages = [
        {"type": "http.request", "body": b"x", "more_body": True},
        {"type": "http.disconnect"},
    ]
    gateway, written = play(echo, messages)
    assert (gateway.bugs, written) == ([], [])


@pytest.mark.parametrize(
    ("scope", "path"),
    [
        (SCOPE, "/p%20q"),
        ({**SCOPE, "raw_path": None}, "/p%20q"),
        ({**SCOPE, "raw_path": b"/sub/x", "root_path": "/sub"}, "/x"),
        ({**SCOPE, "raw_path": None, "path": "/ä"}, "/%C3%A4"),
    ],
    ids=["raw", "decoded", "below a root", "not ASCII"],
)
def test_asgi_scope_becomes_a_head(scope, path):
    gateway, _ = play(echo, [{"type": "http.request"}], scope)
    (head,) = gateway.heads
    assert (head.path, head.query, head.headers) == (path, "a=b", (("x-one", "1"),))


@pytest.mark.parametrize("call", ["timed_out", "broken"])
def test_asgi_client_that_fails_is_the_clients_fault(call):
    seen = []

    def handler():
        yield from SendHead(FAR, ResponseHead(200))
        try:
            yield from SendBody(FAR, b"x")
        except Exception as error:
            seen.append(type(error).__name__)
            raise

    gateway = Handled(handler)
    machine = Machine(asgi_call(gateway, SCOPE, "server"), gateway.context)
    assert isinstance(machine.start(0.0), Write)
    if call == "timed_out":
        machine.timed_out(1.0)
    else:
        machine.broken(ConnectionResetError(), 1.0)
    assert machine.done
    assert gateway.bugs == []
    assert seen == [{"timed_out": "ClientTimeout", "broken": "ClientBroken"}[call]]


def test_asgi_scope_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="serves http, not websocket"):
        asgi_call(Handled(echo), {"type": "websocket"}, "server")


# -- the rest -------------------------------------------------------------------


def test_attended_gateway_closes_what_it_kept_when_cancelled():
    closed = []

    class Closing(Handled):
        def close_idle(self):
            closed.append(True)

    gateway = Closing(echo)
    machine = Machine(attended(gateway), gateway.context)
    machine.start(0.0)
    assert closed == []
    machine.cancel(1.0)
    assert closed == [True]
    assert Machine(closing(gateway), gateway.context).start(2.0) is None
    assert closed == [True, True]


@given(st.floats(0, 2**38), st.binary(min_size=10, max_size=10))
def test_uuid7_has_its_time_version_and_variant(seconds, noise):
    made = uuid.UUID(uuid7(lambda: seconds, lambda count: noise[:count]))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == math.floor(seconds * 1000)
