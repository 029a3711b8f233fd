"""One try at one candidate: what goes out, what is held, and how it fails."""

from __future__ import annotations

import pytest

from tests.protocol.flows.serving import (
    EVENTS,
    WORDS,
    Served,
    chunk,
    error_of,
    events,
    good,
    good_stream,
    header,
    refusal,
    snapshot,
    text_of,
)
from tz_protocol.flows.attempt import HELD_PARTS_LIMIT
from tz_protocol.testing import Close, Reset, Stall, cut, reply, sse
from tz_protocol.types.policy import Policy, Retries, StreamPolicy
from tz_protocol.types.settings import Timeouts

ONCE = Policy(retries=Retries(count=0))
ROLE = chunk(None, role=True)


def served_by(*upstreams, timeouts=None, have=None, **stream):
    policy = Policy(retries=Retries(count=0), stream=StreamPolicy(**stream))
    config = snapshot(
        ("a.test", "b.test")[: len(upstreams)],
        policy=policy,
        timeouts=timeouts,
        providers_have=have,
    )
    return Served(*upstreams, config=config, repeat=True)


def lines(served):
    """Return the header lines of the one request to a provider."""
    ((_, _, message),) = served.sim.requests
    return list(message.headers)


def test_headers_of_the_configuration_replace_those_of_the_same_name():
    extra = (("authorization", "Custom k"), ("x-other", "2"))
    served = served_by([good()], have={"a": {"extra_headers": extra}})
    assert served.ask().response.status == 200
    found = [value for name, value in lines(served) if name == "authorization"]
    assert found == ["Custom k"]
    assert ("x-other", "2") in lines(served)
    assert "user-agent" in dict(lines(served))


@pytest.mark.parametrize("status", [301, 302, 307, 399])
def test_redirect_is_never_followed(status):
    answer = reply(status, (("location", "http://elsewhere.test/"),))
    served = served_by([answer], [good()])
    assert served.ask().response.status == 200
    assert [one.error for one in served.record.attempts] == ["upstream_redirect", None]
    assert len(served.sim.opened) == 2


@pytest.mark.parametrize(
    "end", [Close(), Reset(), Stall()], ids=["cut", "reset", "stall"]
)
def test_status_is_told_though_its_body_breaks(end):
    served = served_by(
        [cut(refusal(404, "no such model"), 150, end)],
        timeouts=Timeouts(first_content=5.0),
    )
    assert error_of(served.ask())[0] == 404
    assert served.record.attempts[0].status == 404
    assert served.gateway.pool.counts() == (0, 0)


def test_error_body_without_end_is_not_read():
    served = served_by([reply(400, body=b"x" * 200_000)])
    assert error_of(served.ask())[0] == 400
    assert served.gateway.pool.counts() == (0, 0)


# -- what is held ---------------------------------------------------------------


def test_stream_of_frames_without_content_is_given_up_within_bounds():
    endless = sse(*[ROLE] * (HELD_PARTS_LIMIT + 50), end=b"")
    served = served_by([(*endless[:-1], Stall())], [good_stream()])
    outcome = served.ask(stream=True)
    assert header(outcome, "x-tz-provider") == "b"
    assert outcome.finished_at - outcome.started_at < 1.0
    assert served.record.attempts[0].error is not None
    assert served.record.attempts[0].first_content is None


def test_hold_does_not_go_on_over_the_bound_of_frames():
    many = sse(chunk(WORDS[0]), *[ROLE] * (HELD_PARTS_LIMIT + 50), end=b"")
    served = served_by(
        [(*many[:-1], Stall())], hold_events=5, timeouts=Timeouts(idle=9.0)
    )
    outcome = served.ask(stream=True)
    assert outcome.response.head_at == outcome.started_at
    assert text_of(events(outcome)) == WORDS[0]


@pytest.mark.parametrize(
    ("timeouts", "phase", "code"),
    [
        (Timeouts(idle=3.0), "idle", "upstream_idle_timeout"),
        (Timeouts(idle=30.0, stream_total=5.0), "total", "timeout"),
    ],
    ids=["idle", "total"],
)
def test_hold_that_runs_out_of_time_says_of_which(timeouts, phase, code):
    stalled = (*sse(*EVENTS[:2], end=b"")[:-1], Stall())
    served = served_by([stalled], hold_events=5, timeouts=timeouts)
    status, error = error_of(served.ask(stream=True))
    assert status == 504
    assert served.record.attempts[0].error == f"timeout_{phase}"
    assert error["code"] == code


# -- a provider that lives in the core --------------------------------------------


def test_provider_in_the_core_that_says_nothing_is_a_timeout():
    have = {"a": {"type": "dummy", "model": "slow", "url": None}}
    served = served_by([good()], have=have, timeouts=Timeouts(first_content=0.5))
    outcome = served.ask()
    assert outcome.error is None
    assert error_of(outcome)[0] == 504
    assert outcome.finished_at - outcome.started_at == pytest.approx(0.5)
