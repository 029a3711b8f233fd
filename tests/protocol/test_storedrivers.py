"""What transports decide of stores: addresses, failures, replies, messages."""

from __future__ import annotations

import math
import socket
import ssl

import pytest
import redis
import redis.connection
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.errors import OperationBroken, OperationTimeout, StoreRefused
from tz_protocol.storedrivers import (
    Inbox,
    Inboxes,
    NoConnection,
    Step,
    broken,
    is_reusable,
    parse_address,
    plain,
    received,
    refused,
    steps,
)
from tz_protocol.storeops import MESSAGE_LIMIT, RedisMessages
from tz_protocol.types.secret import Secret

HOST = [b"10.0.0.9", b"6380"]
NONE = (None,)
EVERYTHING = "ssl_ca_certs=%2Fca&sentinel_username=x&sentinel_password=%26y"


def address_of(url):
    found = parse_address(url)
    return found.url, found.rest, found.sentinels, found.service


# -- addresses --------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["redis://h:1/2?x=1", "rediss://u:p@h", "unix:///path?db=1", "redis://"],
)
def test_address_of_a_server_is_the_librarys_own(url):
    assert address_of(url) == (url, "", (), "")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "redis+sentinel://a:1,b/main",
            (
                "redis://",
                "/?",
                ("redis://a:1?", "redis://b:26379?"),
                "main",
            ),
        ),
        (
            "rediss+sentinel://u:p@a,[::1]:5/main/3?" + EVERYTHING,
            (
                "rediss://u:p@",
                "/3?ssl_ca_certs=%2Fca",
                (
                    "rediss://a:26379?ssl_ca_certs=%2Fca&username=x&password=%26y",
                    "rediss://[::1]:5?ssl_ca_certs=%2Fca&username=x&password=%26y",
                ),
                "main",
            ),
        ),
        (
            "redis+sentinel://[::1]/main?sentinel_password=y",
            (
                "redis://",
                "/?",
                ("redis://[::1]:26379?username=&password=y",),
                "main",
            ),
        ),
    ],
    ids=["plain", "everything", "ipv6"],
)
def test_address_behind_sentinels_is_taken_apart(url, expected):
    assert address_of(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "canary",
        "http://canary",
        "redis:/canary",
        "REDIS+SENTINEL://canary",
        "redis+sentinel://canary",
        "redis+sentinel:///canary",
        "redis+sentinel://canary,/main",
        "redis+sentinel://canary//2",
    ],
)
def test_address_that_points_nowhere_is_refused_without_repeating_it(url):
    with pytest.raises(OperationBroken, match="redis") as caught:
        parse_address(url)
    assert caught.value.kind == "url"
    assert "canary" not in str(caught.value)


def test_address_is_not_shown():
    address = parse_address("redis+sentinel://u:canary@h/main?sentinel_password=canary")
    assert "canary" not in repr(address)


# -- steps ------------------------------------------------------------------------


def test_steps_to_a_server_are_one():
    (step,) = steps(Secret("redis://h"))
    assert (step.is_last, step.commands) == (True, ())
    step.check(())


def test_steps_over_sentinels_end_at_the_master_that_one_names():
    found = steps(Secret("redis+sentinel://u:p@a,b,c/main/2"))
    first = next(found)
    first.fail(ConnectionRefusedError())
    second = next(found)
    second.check(NONE)
    third = next(found)
    assert third.commands == (("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"),)
    third.check((HOST,))
    last = next(found)
    assert [step.is_last for step in (first, second, third, last)] == [False] * 3 + [
        True
    ]
    made = last.connection(redis.connection)
    assert (made.host, made.port, made.db) == ("10.0.0.9", 6380, 2)
    assert (made.username, made.password) == ("u", "p")
    last.check(([b"master", 0, []],))
    assert list(found) == []


def test_steps_over_sentinels_that_name_none_are_refused():
    found = steps(Secret("redis+sentinel://a/main"))
    next(found).check((StoreRefused("NOPERM"),))
    with pytest.raises(OperationBroken) as caught:
        next(found)
    assert caught.value.kind == "refused"


def test_step_to_an_ipv6_master_has_its_address():
    step = Step("redis://a")
    step.check(([b"::1", b"6379"],))
    assert step.host == "[::1]:6379"


def test_master_that_is_a_replica_is_refused_and_one_that_does_not_say_is_not():
    last = Step("redis://a", (("ROLE",),), is_last=True)
    last.check((StoreRefused("NOPERM"),))
    with pytest.raises(OperationBroken) as caught:
        last.check(([b"slave", b"h", 1, b"connected", 0],))
    assert caught.value.kind == "refused"


def test_last_step_fails_with_what_the_core_is_told():
    with pytest.raises(OperationBroken) as caught:
        Step("redis://a", is_last=True).fail(ConnectionRefusedError("canary"))
    assert caught.value.kind == "refused"
    assert "canary" not in str(caught.value)


def test_step_that_nothing_can_help_fails_at_once():
    for error in (OperationBroken("url"), ZeroDivisionError(), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            Step("redis://a").fail(error)


def test_time_of_steps_is_shared_and_never_nothing():
    assert [Step("", parts=n).seconds(10.0, 4.0) for n in (1, 2, 3)] == [6.0, 3.0, 2.0]
    for deadline in (math.inf, 1e12, 0.0, -math.inf):
        assert 0 < Step("").seconds(deadline, 5.0) <= 3_600


def test_connection_has_no_clock_and_no_retries_of_its_own():
    url = "redis://h?socket_timeout=1&retry_on_timeout=1&health_check_interval=3"
    made = Step(url).connection(redis.connection)
    assert (made.socket_timeout, made.socket_connect_timeout) == (None, None)
    assert made.retry.get_retries() == 0
    assert made.health_check_interval == 0
    assert made.protocol == 2


@pytest.mark.parametrize("rest", ["?no_such_option=1", ":port", "/?db=x"])
def test_address_that_the_library_does_not_take_is_told(rest):
    with pytest.raises(OperationBroken) as caught:
        Step(f"redis://:canary@h{rest}").connection(redis.connection)
    assert caught.value.kind == "url"
    assert "canary" not in str(caught.value)


def test_hands_are_shaken_by_whom_the_transport_says_on_the_last_step_only():
    for is_last in (True, False):
        made = Step("redis://h", is_last=is_last).connection(redis.connection, 2.0, id)
        assert made.redis_connect_func is (id if is_last else None)
        assert made.socket_connect_timeout == 2.0


# -- failures and replies ---------------------------------------------------------


def caused(error, cause):
    error.__context__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (redis.AuthenticationError("canary"), "denied"),
        (redis.ResponseError("ERR canary"), "denied"),
        (redis.exceptions.NoPermissionError("canary"), "denied"),
        (redis.BusyLoadingError("canary"), "refused"),
        (redis.exceptions.MasterDownError("canary"), "refused"),
        (redis.ConnectionError("canary"), "reset"),
        (redis.InvalidResponse("canary"), "reset"),
        (redis.TimeoutError("canary"), "timeout"),
        (caused(redis.ConnectionError(), ConnectionRefusedError()), "refused"),
        (caused(redis.ConnectionError(), FileNotFoundError()), "missing"),
        (caused(redis.ConnectionError(), socket.gaierror()), "dns"),
        (caused(redis.ConnectionError(), ssl.SSLError()), "tls"),
        (FileNotFoundError("canary"), "missing"),
        (UnicodeError("canary"), "reset"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_failure_is_told_by_its_kind_and_without_its_text(error, kind):
    told = broken(error)
    assert isinstance(told, OperationBroken)
    assert told.kind == kind
    assert "canary" not in str(told)


def test_what_the_core_said_is_said_again():
    error = OperationTimeout("")
    assert broken(error) is error


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError(), redis.DataError("no such type"), KeyboardInterrupt()],
    ids=lambda error: type(error).__name__,
)
def test_bug_is_no_failure(error):
    with pytest.raises(type(error)):
        broken(error)


def raising(error):
    def read():
        raise error

    return read


def test_error_reply_becomes_its_code():
    error = redis.ResponseError("WRONGTYPE canary")
    assert refused(error).code == "WRONGTYPE"
    assert received(raising(error)).code == "WRONGTYPE"
    error.status_code = "NOSCRIPT"
    assert refused(error).code == "NOSCRIPT"
    assert "canary" not in str(refused(error))


@pytest.mark.parametrize("text", ["canary", "Canary: no", "", "CANARY-1 x"])
def test_error_reply_without_a_code_is_not_repeated(text):
    assert refused(redis.ResponseError(text)).code == "ERR"


def test_lost_connection_is_no_reply():
    with pytest.raises(redis.ConnectionError):
        received(raising(redis.ConnectionError()))


def test_errors_inside_replies_become_their_codes():
    inner = plain([b"a", [redis.ResponseError("ERR x"), 1], None])
    assert inner[1][0].code == "ERR"
    assert (inner[0], inner[1][1], inner[2]) == (b"a", 1, None)
    assert received(lambda: [1]) == [1]


def test_connection_to_a_demoted_master_is_not_used_again():
    assert is_reusable((b"OK", StoreRefused("ERR"), [b"READONLY"]))
    assert not is_reusable((b"OK", StoreRefused("READONLY")))


def test_no_connection_is_never_quiet():
    assert NoConnection().can_read(0)
    NoConnection().disconnect()


# -- messages ---------------------------------------------------------------------


def nobody() -> None:
    """Wait for nothing."""


def confirm(inbox, count=1):
    for n in range(count):
        inbox.receive([b"psubscribe", b"p", n + 1])


def test_inbox_begins_once_every_pattern_is_confirmed():
    inbox = Inbox(2)
    confirm(inbox)
    assert (inbox.is_over, inbox.changed.is_set) == (True, False)
    confirm(inbox)
    assert (inbox.is_over, inbox.changed.is_set) == (False, True)
    assert inbox.take() == ()
    assert not inbox.changed.is_set


@given(st.lists(st.integers(0, 5), max_size=30))
def test_messages_are_taken_once_and_in_order(bursts):
    inbox = Inbox(1)
    confirm(inbox)
    sent = [(b"c", b"%d" % n) for n in range(sum(bursts))]
    waiting = iter(sent)
    assert inbox.take() == ()
    got: list[tuple[bytes, bytes]] = []
    for burst in bursts:
        for _ in range(burst):
            inbox.receive([b"pmessage", b"p", *next(waiting)])
        assert inbox.changed.is_set == bool(burst)
        if burst:
            got += inbox.take()
        assert not inbox.changed.is_set
    assert got == sent


def test_messages_that_came_before_the_first_answer_follow_it():
    inbox = Inbox(1)
    confirm(inbox)
    inbox.receive([b"pmessage", b"p", b"c", b"1"])
    assert inbox.take() == ()
    assert inbox.changed.is_set
    assert inbox.take() == ((b"c", b"1"),)


def test_inbox_that_overflows_is_lost_and_takes_no_more():
    inbox = Inbox(1)
    confirm(inbox)
    for _ in range(MESSAGE_LIMIT + 2):
        inbox.receive([b"pmessage", b"p", b"c", b""])
    assert inbox.is_over
    for _ in range(2):
        with pytest.raises(OperationBroken) as caught:
            inbox.take()
        assert caught.value.kind == "overflow"


def test_inbox_is_lost_with_the_first_failure():
    inbox = Inbox(1)
    inbox.lose(ConnectionRefusedError())
    inbox.lose(OperationBroken("reset"))
    assert inbox.changed.is_set
    with pytest.raises(OperationBroken) as caught:
        inbox.take()
    assert caught.value.kind == "refused"


def test_bug_is_raised_to_whoever_asks():
    inbox = Inbox(1)
    inbox.lose(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        inbox.take()


def test_inboxes_keep_one_for_each_url_and_patterns_until_it_is_over():
    begun, ended = [], []
    inboxes = Inboxes()

    def begin(operation, inbox):
        begun.append(operation.patterns)
        return lambda: ended.append(inbox)

    def ask(*patterns):
        return inboxes.get(RedisMessages(1.0, Secret("redis://h"), patterns), begin)

    first, other = ask("a"), ask("b", "c")
    for inbox in (first, other):
        confirm(inbox, 2)
        inboxes.settle(inbox, nobody)
    assert (ask("a"), ask("b", "c")) == (first, other)
    first.lose(OperationBroken("reset"))
    inboxes.settle(first, nobody)
    inboxes.settle(first, nobody)
    assert ended == [first, first]
    assert ask("a") is not first
    assert begun == [("a",), ("b", "c"), ("a",)]
    inboxes.close()
    assert ended[2:] == [other, ask("a")]


def test_inbox_wakes_nobody_who_has_left():
    woken = []

    def wake():
        woken.append(True)

    inboxes, inbox = Inboxes(), Inbox(1)
    inbox.changed.on_set(wake)
    inboxes.settle(inbox, wake)
    confirm(inbox)
    assert woken == []
