"""What the conformance suite does not show: words, moments and orders of events."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.flows.stepping import (
    CHUNKED,
    FAR,
    GET,
    POST,
    Client,
    echo,
    ok,
)
from tz_protocol.errors import GatewayError, Interrupted, RateLimited
from tz_protocol.flows.clientstream import WRITE_LIMIT, http_date
from tz_protocol.flows.connection import describe_bug
from tz_protocol.machine import ClientGone, Drain, Shutdown
from tz_protocol.notices import Close, LogLine
from tz_protocol.operations import (
    AbortBody,
    Read,
    ReceiveBody,
    SendBody,
    SendHead,
    Sleep,
    Write,
)
from tz_protocol.types.http import ResponseHead
from tz_protocol.types.settings import Limits, ServerTimeouts

INTERNAL = b"The gateway made a mistake. It has been logged."


def test_date_follows_the_wall_clock():
    client = Client()
    client.say(GET)
    client.clock += 1
    client.say(GET)
    assert client.written.count(b"date: Sun, 15 Jun 2025 15:06:40 GMT\r\n") == 1
    assert client.written.count(b"date: Sun, 15 Jun 2025 15:06:41 GMT\r\n") == 1


@given(st.integers(0, 253_402_300_799))
def test_date_is_what_the_standard_library_makes_of_it(second):
    assert http_date(second) == formatdate(second, usegmt=True)


def test_deadlines_of_idle_and_head_are_apart():
    timeouts = ServerTimeouts(idle=75.0, head=10.0)
    client = Client(timeouts=timeouts)
    assert client.operation.deadline == 75.0
    client.now = 70.0
    assert client.say(GET[:5]).deadline == 80.0
    client.now = 79.0
    assert client.say(GET[5:7]).deadline == 80.0


def test_head_that_is_too_slow_is_told_408():
    client = Client()
    client.say(GET[:-2])
    client.machine.timed_out(client.now)
    client.take()
    assert [status for status, _ in client.answers()] == [408]


def test_idle_connection_ends_without_a_word():
    client = Client()
    client.machine.timed_out(client.now)
    assert client.machine.done
    assert not client.written


def test_drain_while_idle_ends_the_connection():
    client = Client()
    assert client.machine.tell(Drain(), 0.0)
    client.machine.interrupted(0.0)
    assert client.machine.done


def test_drain_within_a_head_serves_that_request_as_the_last():
    client = Client()
    client.say(GET[:10])
    assert not client.machine.tell(Drain(), 0.0)
    client.say(GET[10:])
    assert client.machine.done
    assert b"connection: close" in client.written.lower()
    assert client.answers() == [(200, b"OK")]


def test_drain_while_serving_lets_the_answer_end():
    client = Client(echo)
    client.say(POST)
    assert not client.machine.tell(Drain(), 0.0)
    client.say(b"hello")
    assert client.machine.done
    assert client.answers() == [(200, b"hello")]


def test_shutdown_during_a_write_waits_for_its_end():
    interrupts = []

    def handler(head):
        yield from SendHead(FAR, ResponseHead(200))
        yield from SendBody(FAR, b"begun")
        try:
            yield from Sleep(FAR)
        except Interrupted as error:
            interrupts.append(type(error.event))
            yield from SendBody(FAR, b" bye", end=True)

    client = Client(handler)
    client.machine.resume(GET, 0.0)
    assert type(client.operation) is Write
    assert not client.machine.tell(Shutdown(), 0.0)
    assert interrupts == []
    client.take()
    assert interrupts == [Shutdown]
    assert client.answers() == [(200, b"begun bye")]
    assert client.machine.done


def test_shutdown_while_serving_is_answered_503_once():
    def handler(head):
        yield from Sleep(FAR)

    client = Client(handler)
    client.machine.resume(GET, 0.0)
    assert client.machine.tell(Shutdown(), 0.0)
    client.machine.interrupted(0.0)
    client.take()
    assert [status for status, _ in client.answers()] == [503]


def test_client_gone_while_serving_ends_without_a_word():
    def handler(head):
        yield from Sleep(FAR)

    client = Client(handler)
    client.machine.resume(GET, 0.0)
    assert client.machine.tell(ClientGone(), 0.0)
    client.machine.interrupted(0.0)
    assert client.machine.done
    assert not client.written


def test_client_gone_during_a_read_of_its_body_is_seen_after_what_came():
    seen = []

    def handler(head):
        seen.append((yield from ReceiveBody(FAR)))
        yield from Sleep(FAR)

    client = Client(handler)
    client.say(POST)
    assert not client.machine.tell(ClientGone(), 0.0)
    client.machine.resume(b"hello", 0.0)
    assert seen == [b"hello"]
    assert client.machine.done


def test_half_close_is_ignored_if_it_is_to_be_answered():
    client = Client(echo, half_close="answer")
    client.say(POST)
    assert not client.machine.tell(ClientGone(), 0.0)
    client.say(b"hello")
    assert client.answers() == [(200, b"hello")]


def test_large_body_is_written_in_pieces_with_deadlines_of_their_own():
    body = bytes(3 * WRITE_LIMIT)

    def handler(head):
        length = (("content-length", str(len(body))),)
        yield from SendHead(FAR, ResponseHead(200, length))
        yield from SendBody(FAR, body, end=True)

    client = Client(handler, timeouts=ServerTimeouts(write=30.0))
    client.machine.resume(GET, 0.0)
    deadlines = []
    while type(client.operation) is Write:
        assert len(client.operation.data) <= WRITE_LIMIT
        deadlines.append(client.operation.deadline)
        client.written += client.operation.data
        client.now += 20.0
        client.machine.resume(None, client.now)
    assert deadlines == [30.0, 50.0, 70.0, 90.0]
    assert client.answers() == [(200, body)]


def test_continue_is_sent_only_when_the_body_is_asked_for():
    request = POST.replace(b"Host: a", b"Host: a\r\nExpect: 100-continue")

    def ask(head):
        yield from ReceiveBody(FAR)

    refusing, asking = Client(ok), Client(ask)
    refusing.say(request)
    asking.say(request)
    assert not refusing.written.startswith(b"HTTP/1.1 100")
    assert b"connection: close" in refusing.written.lower()
    assert asking.written.startswith(b"HTTP/1.1 100")


def test_continue_is_not_sent_for_a_body_over_the_limit():
    def handler(head):
        yield from ReceiveBody(FAR)

    client = Client(handler, limits=Limits(body_bytes=4))
    client.say(POST.replace(b"Host: a", b"Host: a\r\nExpect: 100-continue"))
    assert [status for status, _ in client.answers()] == [413]


def test_body_that_the_handler_ignored_is_dropped_before_the_next_request():
    client = Client()
    client.say(POST + b"hello" + GET)
    assert client.answers() == [(200, b"OK"), (200, b"OK")]
    assert not client.machine.done


def test_body_that_still_comes_after_the_answer_ends_the_connection_gently():
    client = Client()
    client.say(POST + b"hel")
    assert b"connection: close" in client.written.lower()
    assert type(client.operation) is Read
    client.say(b"lo")
    client.say(b"")
    assert client.machine.done


def test_body_asked_for_after_the_head_is_whole():
    client = Client(echo)
    client.say(POST + b"he")
    client.say(b"llo")
    assert client.answers() == [(200, b"hello")]


def test_malformed_chunk_reaches_the_handler_as_an_invalid_request():
    seen = []

    def handler(head):
        try:
            yield from ReceiveBody(FAR)
        except GatewayError as error:
            seen.append(error.status)
            raise

    client = Client(handler)
    client.say(CHUNKED + b"zz\r\n")
    assert seen == [400]
    assert [status for status, _ in client.answers()] == [400]


def test_error_without_a_handler_is_rendered_by_the_embedder():
    def render(error, head):
        assert head is None
        return ResponseHead(error.status, (("x-mine", "1"),)), b"mine"

    client = Client(render_error=render)
    client.say(b"\x16\x03\x01\r\n\r\n")
    assert client.answers() == [(400, b"mine")]
    assert b"x-mine: 1" in client.written


def test_error_that_a_handler_lets_escape_keeps_status_and_headers():
    def handler(head):
        yield from ReceiveBody(FAR)
        raise RateLimited("slow down", headers=(("x-a", "b"),))

    client = Client(handler)
    client.say(GET)
    assert client.answers() == [(429, b"slow down")]
    assert b"x-a: b" in client.written


def test_bug_is_logged_without_its_message():
    def handler(head):
        yield from ReceiveBody(FAR)
        raise ZeroDivisionError("sk-secret")

    client = Client(handler)
    client.say(GET)
    (line,) = [n for n in client.notices if isinstance(n, LogLine)]
    assert client.answers()[0][0] == 500
    assert line.fields["kind"] == "ZeroDivisionError"
    assert "test_connection.py" in line.fields["trace"][-1]
    assert "sk-secret" not in repr(line) + client.written.decode()


def test_bug_that_answers_nothing_is_a_500():
    def handler(head):
        yield from ReceiveBody(FAR)

    client = Client(handler)
    client.say(GET + GET)
    client.say(b"")
    assert client.answers() == [(500, INTERNAL)]
    assert client.machine.done


def test_description_of_a_bug_is_bounded():
    def deep(n):
        if n:
            deep(n - 1)
        raise ValueError

    with pytest.raises(ValueError) as raised:
        deep(100)
    assert len(describe_bug(raised.value).fields["trace"]) == 20


def test_abort_where_the_end_of_the_connection_ends_the_body_resets():
    def handler(head):
        yield from SendHead(FAR, ResponseHead(200))
        yield from SendBody(FAR, b"begun")
        yield from AbortBody(FAR)

    old = Client(handler)
    old.say(GET.replace(b"1.1", b"1.0"))
    new = Client(handler)
    new.say(GET)
    assert old.notices == [Close(old.handle)]
    assert new.notices == []
    assert old.machine.done
    assert new.machine.done
    assert not new.written.endswith(b"0\r\n\r\n")
