"""How exchanges on a connection end: too late, too large, broken off, with a word."""

from __future__ import annotations

import pytest

from tests.protocol.flows.stepping import (
    CHUNKED,
    FAR,
    GET,
    POST,
    Client,
    echo,
    ok,
    receive,
)
from tz_protocol.errors import ClientError, Interrupted, RateLimited
from tz_protocol.machine import ClientGone, Shutdown
from tz_protocol.notices import LogLine
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
from tz_protocol.types.settings import Limits

# -- the end of an exchange -------------------------------------------------------


@pytest.mark.parametrize("begun", [b"", GET[:9]], ids=["idle", "within a head"])
def test_shutdown_without_a_request_ends_the_connection_without_a_word(begun):
    client = Client()
    if begun:
        client.say(begun)
    assert client.machine.tell(Shutdown(), 0.0)
    client.machine.interrupted(0.0)
    assert client.machine.done
    assert not client.written


def test_last_words_are_read_through_a_shutdown_and_end_with_the_client():
    client = Client()
    client.say(b"nonsense\r\n\r\n")
    assert type(client.operation) is Read
    assert not client.machine.tell(Shutdown(), 0.0)
    client.say(b"more")
    assert client.machine.tell(ClientGone(), 0.0)
    client.machine.interrupted(0.0)
    assert client.machine.done
    assert [status for status, _ in client.answers()] == [400]


@pytest.mark.parametrize("way", ["end", "lost", "late"])
def test_last_words_end_when_the_client_has_or_its_time_is_over(way):
    def handler(head):
        yield from Sleep(FAR)

    client = Client(handler)
    client.machine.resume(GET, 0.0)
    client.machine.tell(Shutdown(), 0.0)
    client.machine.interrupted(0.0)
    assert type(client.take()) is Read
    if way == "end":
        client.say(b"")
    elif way == "lost":
        client.machine.broken(ConnectionResetError(), 1.0)
    else:
        client.machine.timed_out(client.operation.deadline)
    assert client.machine.done
    assert [status for status, _ in client.answers()] == [503]


def test_client_gone_before_its_request_was_read_ends_that_at_its_first_wait():
    seen = []

    def handler(head):
        try:
            yield from Sleep(FAR)
        except Interrupted as error:
            seen.append(type(error.event))
            raise

    client = Client(handler)
    assert not client.machine.tell(ClientGone(), 0.0)
    client.machine.resume(GET, 0.0)
    assert seen == [ClientGone]
    assert client.machine.done
    assert not client.written


def test_shutdown_during_the_last_write_is_the_last_of_the_connection():
    client = Client()
    client.machine.resume(GET + GET, 0.0)
    assert not client.machine.tell(Shutdown(), 0.0)
    client.take()
    assert client.machine.done
    assert client.answers() == [(200, b"OK")]


def test_handler_that_does_not_end_its_answer_has_it_broken_off():
    def handler(head):
        yield from SendHead(FAR, ResponseHead(200))
        yield from SendBody(FAR, b"begun")

    client = Client(handler)
    client.say(GET + GET)
    assert client.machine.done
    assert client.written.endswith(b"begun\r\n")
    assert client.written.count(b"HTTP/1.1 200") == 1


def test_handler_that_answers_twice_is_a_bug_that_breaks_off():
    def handler(head):
        yield from SendHead(FAR, ResponseHead(200))
        yield from SendBody(FAR, b"begun")
        yield from SendHead(FAR, ResponseHead(200))

    client = Client(handler)
    client.say(GET)
    (line,) = [n for n in client.notices if isinstance(n, LogLine)]
    assert line.fields["kind"] == "RuntimeError"
    assert client.machine.done
    assert client.written.endswith(b"begun\r\n")


def test_abort_sends_the_head_that_still_waits():
    def handler(head):
        yield from SendHead(FAR, ResponseHead(200, (("content-length", "9"),)))
        yield from AbortBody(FAR)

    client = Client(handler)
    client.say(GET)
    assert client.written.startswith(b"HTTP/1.1 200")
    assert client.machine.done


@pytest.mark.parametrize(
    ("fail", "name"),
    [
        (lambda m: m.broken(ConnectionResetError(), 1.0), "ClientBroken"),
        (lambda m: m.timed_out(1.0), "ClientTimeout"),
    ],
    ids=["lost", "stalled"],
)
def test_write_that_fails_reaches_the_handler_and_nothing_is_sent_after_it(fail, name):
    seen = []

    def handler(head):
        yield from SendHead(FAR, ResponseHead(200))
        try:
            yield from SendBody(FAR, b"begun")
        except Exception as error:
            seen.append(type(error).__name__)
        yield from AbortBody(FAR)

    client = Client(handler)
    client.machine.resume(GET, 0.0)
    assert type(client.operation) is Write
    fail(client.machine)
    assert seen == [name]
    assert client.machine.done


@pytest.mark.parametrize("error", [ValueError, RateLimited], ids=["bug", "refusal"])
def test_error_after_the_client_was_lost_is_told_to_nobody(error):
    def handler(head):
        try:
            yield from ReceiveBody(FAR)
        except ClientError:
            raise error("x") from None

    client = Client(handler)
    client.say(POST)
    client.machine.broken(ConnectionResetError(), 1.0)
    assert client.machine.done
    assert not client.written


def test_answer_without_a_body_is_its_head_alone():
    def handler(head):
        yield from SendHead(FAR, ResponseHead(204))
        yield from SendBody(FAR, b"")
        yield from SendBody(FAR, b"", end=True)

    client = Client(handler)
    client.say(GET + GET)
    assert client.answers() == [(204, b""), (204, b"")]


def test_refusal_that_states_its_length_keeps_it():
    def render(error, head):
        return ResponseHead(error.status, (("content-length", "4"),)), b"mine"

    client = Client(render_error=render)
    client.say(b"nonsense\r\n\r\n")
    assert client.answers() == [(400, b"mine")]


# -- bodies -----------------------------------------------------------------------


def test_body_that_is_asked_for_too_late_is_told_408():
    def handler(head):
        yield from ReceiveBody(5.0)

    client = Client(handler)
    client.now = 6.0
    client.say(POST)
    assert [status for status, _ in client.answers()] == [408]


@pytest.mark.parametrize("is_split", [False, True], ids=["whole", "split"])
def test_body_without_a_length_is_refused_once_it_is_over_the_limit(is_split):
    client = Client(receive, limits=Limits(body_bytes=8))
    pieces = [b"5\r\nhello\r\n", b"5\r\nworld\r\n"]
    client.say(CHUNKED)
    for piece in pieces if is_split else [b"".join(pieces)]:
        client.say(piece)
    assert [status for status, _ in client.answers()] == [413]


def test_body_at_the_limit_is_received():
    client = Client(echo, limits=Limits(body_bytes=10))
    client.say(CHUNKED + b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n")
    assert client.answers() == [(200, b"helloworld")]


def test_malformed_body_that_nobody_asked_for_ends_the_connection_after_the_answer():
    client = Client()
    client.say(CHUNKED + b"zz\r\n")
    assert client.answers() == [(200, b"OK")]
    assert b"connection: close" in client.written.lower()
    client.say(b"")
    assert client.machine.done


def test_body_may_be_asked_for_again_after_its_end():
    ends = []

    def handler(head):
        while (yield from ReceiveBody(FAR)):
            pass
        ends.append((yield from ReceiveBody(FAR)))
        yield from ok(head)

    client = Client(handler)
    client.say(POST + b"hello")
    assert ends == [b""]
    assert client.answers() == [(200, b"OK")]


@pytest.mark.parametrize("data", [POST + b"hel", CHUNKED + b"3\r\nhel\r\n"])
def test_body_that_is_cut_is_no_request(data):
    seen = []

    def handler(head):
        try:
            yield from receive(head)
        except ClientError as error:
            seen.append(type(error).__name__)
            raise

    client = Client(handler)
    client.say(data)
    client.say(b"")
    assert seen == ["ClientBroken"]
    assert client.machine.done
    assert not client.written


@pytest.mark.parametrize("begun", [b"", GET[:9]], ids=["idle", "within a head"])
def test_client_that_has_ended_ends_the_connection_without_a_word(begun):
    client = Client()
    if begun:
        client.say(begun)
    client.say(b"")
    assert client.machine.done
    assert not client.written
