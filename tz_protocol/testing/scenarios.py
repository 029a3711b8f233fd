"""What clients do to a served connection, and what must come of it: a table.

The one rule: a check judges bytes and facts and knows nothing of the transport. What
a scenario is stands in ``observing.py``, what is served in ``served.py``.
"""

from __future__ import annotations

from collections.abc import Callable

from tz_protocol.machine import Drain, Shutdown
from tz_protocol.testing.messages import (
    LAST_CHUNK,
    chunk,
    http_request,
)
from tz_protocol.testing.observing import Observed, Scenario
from tz_protocol.testing.served import PIECES
from tz_protocol.testing.worlds import (
    AwaitFact,
    Close,
    HalfClose,
    Receive,
    ReceiveEof,
    ReceiveResponse,
    Reset,
    Send,
    Tell,
)
from tz_protocol.types.settings import Limits, ServerTimeouts

__all__ = ["SCENARIOS"]

_UNSENT_BOUND = 262_144
"""Bytes that we may hold for a client beside the kernel: 64 KiB unsent, the piece that
is being written, and as much again."""


def _get(target: str, *headers: tuple[str, str]) -> Send:
    return Send(http_request("GET", target, headers))


def _post(target: str, body: bytes, *headers: tuple[str, str]) -> Send:
    return Send(http_request("POST", target, headers, body))


def _in_bytes(step: Send, every: float = 0.001) -> Send:
    return Send(step.data, piece=1, every=every)


def _expect(*bodies: tuple[int, bytes]) -> Callable[[Observed], None]:
    """Return a check for exactly these responses, and for a script done to its end."""

    def check(observed: Observed) -> None:
        assert observed.bodies() == list(bodies)
        assert observed.unfinished == ()

    return check


def _expect_ended(path: str, how: str) -> Callable[[Observed], None]:
    """Return a check that the handler of *path* ended once, in this way."""

    def check(observed: Observed) -> None:
        assert observed.endings() == [(path, how)]
        assert observed.unfinished == ()

    return check


_STREAMED = b"".join(PIECES)
_ANSWER = ReceiveResponse()
_EOF = ReceiveEof()
_BODY = b"0123456789" * 20
_LARGE = bytes(range(256)) * 4_096
_LAST = ("connection", "close")
_GONE = "Interrupted ClientGone"

_KEPT = (
    Scenario(
        name="keep-alive",
        client=(
            *(_get("/"), _ANSWER, _post("/echo", _BODY), _ANSWER),
            *(_get("/stream"), _ANSWER, _get("/"), _ANSWER, Close()),
        ),
        check=_expect((200, b"OK"), (200, _BODY), (200, _STREAMED), (200, b"OK")),
    ),
    Scenario(
        name="connection close",
        client=(_get("/", _LAST), _ANSWER, _EOF),
        check=_expect((200, b"OK")),
    ),
    Scenario(
        name="connection limit of requests",
        client=(_get("/"), _ANSWER, _get("/"), _ANSWER, _EOF),
        limits=Limits(requests_per_connection=2),
        check=_expect((200, b"OK"), (200, b"OK")),
    ),
    Scenario(
        name="pipelining",
        client=(
            Send(
                _get("/").data
                + _post("/echo", _BODY).data
                + _get("/stream").data
                + _get("/", _LAST).data
            ),
            *(_ANSWER, _ANSWER, _ANSWER, _ANSWER, _EOF),
        ),
        check=_expect((200, b"OK"), (200, _BODY), (200, _STREAMED), (200, b"OK")),
    ),
    Scenario(
        name="pipelining byte by byte",
        client=(
            _in_bytes(Send(_post("/echo", b"abc").data + _get("/", _LAST).data)),
            *(_ANSWER, _ANSWER, _EOF),
        ),
        check=_expect((200, b"abc"), (200, b"OK")),
    ),
    Scenario(
        name="HEAD",
        client=(
            Send(http_request("HEAD", "/")),
            ReceiveResponse("HEAD"),
            *(_get("/", _LAST), _ANSWER, _EOF),
        ),
        methods=("HEAD", "GET"),
        check=_expect((200, b""), (200, b"OK")),
    ),
    Scenario(
        name="idle connection is closed",
        client=(_get("/"), _ANSWER, _EOF),
        timeouts=ServerTimeouts(idle=0.1),
        check=_expect((200, b"OK")),
    ),
)


def _check_continue(observed: Observed) -> None:
    statuses = [message.status for message in observed.responses()]
    assert statuses == [100, 200]
    assert observed.responses()[1].body == _BODY
    assert observed.unfinished == ()


def _check_first_status(status: int) -> Callable[[Observed], None]:
    def check(observed: Observed) -> None:
        assert [message.status for message in observed.responses()] == [status]
        assert observed.unfinished == ()

    return check


_EXPECTING = http_request("POST", "/echo", (("expect", "100-continue"), _LAST), _BODY)
_EXPECTING_HEAD = _EXPECTING[: -len(_BODY)]

_BODIES = (
    Scenario(
        name="chunked in",
        client=(
            Send(
                http_request("POST", "/echo", is_chunked=True, body=b"")[
                    : -len(LAST_CHUNK)
                ]
                + chunk(b"one")
                + chunk(b"two" * 1_000)
                + LAST_CHUNK
            ),
            *(_ANSWER, Close()),
        ),
        check=_expect((200, b"one" + b"two" * 1_000)),
    ),
    Scenario(
        name="chunked in and out, a large body relayed",
        client=(
            Send(
                http_request(
                    "POST", "/relay", (_LAST,), _LARGE[:60_000], is_chunked=True
                )
            ),
            *(_ANSWER, _EOF),
        ),
        check=_expect((200, _LARGE[:60_000])),
    ),
    Scenario(
        name="large body",
        client=(_post("/echo", _LARGE, _LAST), _ANSWER, _EOF),
        check=_expect((200, _LARGE)),
    ),
    Scenario(
        name="large body that nobody reads for a while",
        client=(_post("/late", _LARGE, _LAST), _ANSWER, _EOF),
        check=_expect((200, str(len(_LARGE)).encode())),
    ),
    Scenario(
        name="slow client",
        client=(_in_bytes(_post("/echo", _BODY)), _ANSWER, _get("/"), _ANSWER, Close()),
        check=_expect((200, _BODY), (200, b"OK")),
    ),
    Scenario(
        name="Expect 100-continue",
        client=(
            *(Send(_EXPECTING_HEAD), ReceiveResponse(), Send(_BODY)),
            *(_ANSWER, _EOF),
        ),
        check=_check_continue,
    ),
    Scenario(
        name="Expect 100-continue refused",
        client=(
            Send(_EXPECTING_HEAD.replace(b"/echo", b"/refuse")),
            *(_ANSWER, _EOF),
        ),
        check=_expect((401, b"who are you?")),
    ),
    Scenario(
        name="body over the limit by its length",
        client=(Send(http_request("POST", "/echo", body=_LARGE)[:100]), _ANSWER, _EOF),
        limits=Limits(body_bytes=1_000),
        check=_check_first_status(413),
    ),
    Scenario(
        name="body over the limit in chunks",
        client=(
            Send(
                http_request("POST", "/echo", is_chunked=True, body=b"")[
                    : -len(LAST_CHUNK)
                ]
                + chunk(bytes(600))
                + chunk(bytes(600))
            ),
            *(_ANSWER, _EOF),
        ),
        limits=Limits(body_bytes=1_000),
        check=_check_first_status(413),
    ),
    Scenario(
        name="garbage",
        client=(Send(b"\x16\x03\x01\x00\xff\r\n\r\n"), _ANSWER, _EOF),
        check=_check_first_status(400),
    ),
    Scenario(
        name="head that does not come to its end",
        client=(Send(b"GET / HTTP/1.1\r\nhost: a"), _EOF),
        timeouts=ServerTimeouts(head=0.1),
        check=lambda observed: _check_refused_or_closed(observed, 408),
    ),
    Scenario(
        name="body that does not come to its end",
        client=(Send(http_request("POST", "/echo", body=_BODY)[:-1]), _EOF),
        timeouts=ServerTimeouts(body=0.1),
        check=lambda observed: _check_refused_or_closed(observed, 408),
    ),
)


def _check_refused_or_closed(observed: Observed, status: int) -> None:
    """Check that nothing but one refusal came, if anything did."""
    assert [message.status for message in observed.responses()] in ([], [status])
    assert observed.unfinished == ()


def _check_one_segment(observed: Observed) -> None:
    first = next(iter(observed.segments), b"")
    assert b"\r\n\r\n" in first, "the head came alone or in pieces"
    assert b"begun\n" in first, "the first bytes of the body came after the head"


def _check_cut(observed: Observed) -> None:
    """Check for a head, the first bytes, and an end that a client can tell from one."""
    assert observed.responses(is_whole=False) == []
    assert observed.received.startswith(b"HTTP/1.1 200 ")
    assert observed.received.count(b"HTTP/1.1 ") == 1
    assert b"begun\n" in observed.received
    assert observed.unfinished == ()


_ANSWERS = (
    Scenario(
        name="head and first body bytes in one segment",
        client=(_get("/goodbye"), Receive(b"begun\n"), Reset(), AwaitFact("ended")),
        check=_check_one_segment,
    ),
    Scenario(
        name="handler that breaks the body off",
        client=(_get("/abort"), _EOF),
        check=_check_cut,
    ),
    Scenario(
        name="handler with a bug",
        client=(_get("/bug"), _ANSWER),
        check=_check_first_status(500),
    ),
    Scenario(
        name="handler with a bug after the head",
        client=(_get("/late-bug"), _EOF),
        check=_check_cut,
    ),
    Scenario(
        name="Race",
        client=(_get("/race", _LAST), _ANSWER, _EOF),
        check=lambda observed: _check_race(observed),
    ),
    Scenario(
        name="All",
        client=(_get("/all", _LAST), _ANSWER, _EOF),
        check=_expect((200, b"1 2 3")),
    ),
    Scenario(
        name="past deadlines",
        client=(_get("/past"), _ANSWER, _get("/", _LAST), _ANSWER, _EOF),
        check=lambda observed: _check_past(observed),
    ),
    Scenario(
        name="timeouts that poison nothing",
        client=(_get("/timeouts"), _ANSWER, _get("/", _LAST), _ANSWER, _EOF),
        check=lambda observed: _check_timeouts(observed),
    ),
    Scenario(
        name="timeouts of the body that poison nothing",
        client=(
            Send(http_request("POST", "/patient", (_LAST,), _BODY)[: -len(_BODY)]),
            *(AwaitFact("timed out", 2), Send(_BODY), _ANSWER, _EOF),
        ),
        check=_expect((200, _BODY)),
    ),
)


def _check_race(observed: Observed) -> None:
    assert observed.bodies() == [(200, b"1 winner")]
    assert observed.facts.values("loser") == ["Cancelled", "Cancelled"]


def _check_past(observed: Observed) -> None:
    assert observed.bodies() == [(200, b"still here"), (200, b"OK")]
    assert observed.facts.values("timed out") == ["Wait", "Race", "All"]


def _check_timeouts(observed: Observed) -> None:
    assert observed.bodies() == [(200, b"still here"), (200, b"OK")]
    assert observed.facts.values("timed out") == ["Wait", "Race"] * 5


def _check_stalled(observed: Observed) -> None:
    """Check that the stalled client was given up and that little was held for it."""
    assert observed.endings() == [("/stalled", "ClientTimeout")]
    assert observed.bytes_out() <= observed.kernel_bytes + _UNSENT_BOUND


def _check_endless(observed: Observed) -> None:
    assert observed.endings() in (
        [("/endless", _GONE)],
        [("/endless", "ClientBroken")],
    )
    assert observed.bytes_out() <= observed.kernel_bytes + _UNSENT_BOUND


_GOING = (
    Scenario(
        name="half-close while waiting aborts",
        client=(
            *(_get("/wait"), AwaitFact("waiting"), HalfClose()),
            *(_EOF, AwaitFact("ended")),
        ),
        check=_expect_ended("/wait", _GONE),
    ),
    Scenario(
        name="half-close is answered",
        client=(_get("/stream"), HalfClose(), _ANSWER, _EOF),
        half_close="answer",
        check=_expect((200, _STREAMED)),
    ),
    Scenario(
        name="half-close of a pipeline is answered",
        client=(
            Send(_get("/stream").data + _post("/echo", _BODY).data),
            *(HalfClose(), _ANSWER, _ANSWER, _EOF),
        ),
        half_close="answer",
        check=_expect((200, _STREAMED), (200, _BODY)),
    ),
    Scenario(
        name="client closes while waiting",
        client=(_get("/wait"), AwaitFact("waiting"), Close(), AwaitFact("ended")),
        check=_expect_ended("/wait", _GONE),
    ),
    Scenario(
        name="client leaves right after its request",
        client=(_get("/wait"), Close(), AwaitFact("ended")),
        check=_expect_ended("/wait", _GONE),
    ),
    Scenario(
        name="client resets while waiting",
        client=(_get("/wait"), AwaitFact("waiting"), Reset(), AwaitFact("ended")),
        check=_expect_ended("/wait", _GONE),
    ),
    Scenario(
        name="client closes while streaming",
        client=(
            *(_get("/dripping"), Receive(b"drip\n"), Close()),
            AwaitFact("ended"),
        ),
        check=_expect_ended("/dripping", _GONE),
    ),
    Scenario(
        name="client resets while streaming to a full window",
        client=(_get("/endless"), AwaitFact("streaming"), Reset(), AwaitFact("ended")),
        check=_check_endless,
    ),
    Scenario(
        name="client leaves in the middle of its body",
        client=(
            Send(http_request("POST", "/relay", body=_BODY)[:-1]),
            *(Receive(_BODY[:-1]), Reset(), AwaitFact("ended")),
        ),
        check=lambda observed: _check_left_in_body(observed),
    ),
    Scenario(
        name="client never reads",
        client=(_get("/stalled"), AwaitFact("ended"), Close()),
        check=_check_stalled,
    ),
)


def _check_left_in_body(observed: Observed) -> None:
    assert observed.endings() in (
        [("/relay", "ClientBroken")],
        [("/relay", _GONE)],
    )


def _check_goodbye(observed: Observed) -> None:
    assert observed.bodies() == [(200, b"begun\ngoodbye\n")]
    assert observed.unfinished == ()


def _check_waiting_at_shutdown(observed: Observed) -> None:
    assert observed.endings() == [("/wait", "Interrupted Shutdown")] * 4
    assert [message.status for message in observed.responses()] in ([], [503])
    assert observed.unfinished == ()


_ENDINGS = (
    Scenario(
        name="drain of idle connections",
        client=(_get("/"), _ANSWER, _EOF),
        clients=4,
        control=(AwaitFact("ended", 4), Tell(Drain())),
        check=_expect((200, b"OK")),
    ),
    Scenario(
        name="drain before the first request",
        client=(_EOF,),
        control=(AwaitFact("connected"), Tell(Drain())),
        check=_expect(),
    ),
    Scenario(
        name="drain with streams running",
        client=(_get("/stream"), _ANSWER, _EOF),
        clients=8,
        control=(AwaitFact("streaming", 8), Tell(Drain())),
        check=_expect((200, _STREAMED)),
    ),
    Scenario(
        name="drain, then shutdown with a goodbye",
        client=(_get("/goodbye"), _ANSWER, _EOF),
        clients=8,
        control=(AwaitFact("streaming", 8), Tell(Drain()), Tell(Shutdown())),
        check=_check_goodbye,
    ),
    Scenario(
        name="shutdown of what waits",
        client=(_get("/wait"), _EOF, AwaitFact("ended", 4)),
        clients=4,
        control=(AwaitFact("waiting", 4), Tell(Drain()), Tell(Shutdown())),
        check=_check_waiting_at_shutdown,
    ),
)

SCENARIOS: tuple[Scenario, ...] = (*_KEPT, *_BODIES, *_ANSWERS, *_GOING, *_ENDINGS)
"""Everything that a served connection is put through."""
