"""When each attempt began, was connected and answered, and what it used."""

from __future__ import annotations

import json

import pytest

from tests.protocol.flows.serving import (
    COMPLETION,
    JSON,
    chat,
    good,
    good_stream,
    refusal,
    snapshot,
)
from tests.protocol.flows.stored import URL, Stored
from tests.protocol.flows.test_choices import whole
from tz_protocol.testing import (
    Close,
    Pause,
    ProxiedReply,
    ReceiveRequest,
    Script,
    ScriptedClickHouse,
    Send,
    Stall,
    hang,
    refuse,
    reply,
)
from tz_protocol.types.policy import Hedge, HedgeShare, Policy, Retries
from tz_protocol.types.records import RecordSettings
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Timeouts

TIMES = ("started_ms", "connect_ms", "head_ms", "first_content_ms", "total_ms")
TOKENS = ("input_tokens", "output_tokens")
TWO = ("a.test", "b.test")
COHERE = {"a": {"type": "cohere", "model": "command-a-03-2025"}}
PROXIED = {"a": {"proxy": Secret("http://u:p@proxy.test:1")}}


def slow(steps, seconds):
    """Return *steps* of a peer whom it takes some seconds to connect to."""
    return Script(tuple(steps), connect_after=seconds)


def stored(*upstreams, **settings):
    """Return a gateway that writes records."""
    records = RecordSettings(url=Secret(URL))
    config = snapshot(TWO[: len(upstreams)], records=records, **settings)
    server = ScriptedClickHouse()
    return Stored(*upstreams, server=server, config=config, repeat=False)


def attempts(row, *names):
    """Return the columns *names* of the row's attempts, an attempt in each tuple."""
    return list(zip(*(row[f"attempts.{name}"] for name in names), strict=True))


def found(served, *names):
    """Return columns of the attempts of the one row there is."""
    (row,) = served.rows("Exchange")
    return attempts(row, *names)


# -- connections ----------------------------------------------------------------


def test_connection_of_a_stream_is_there_before_its_content():
    served = stored([slow(good_stream(first=1.0, every=0.25), 0.5)])
    served.ask(stream=True)
    ((started, connected, head, first, total),) = found(served, *TIMES)
    assert (started, connected) == (0.0, 500.0)
    assert connected < head <= first < total


def test_retry_has_a_start_and_a_connection_of_its_own():
    closing = (("connection", "close"),)
    served = stored(
        [
            slow(refusal(500, after=1.0, headers=closing), 0.5),
            slow(good(after=1.0), 0.25),
        ],
        policy=Policy(retries=Retries(count=1)),
    )
    served.ask()
    first, second = found(served, *TIMES)
    assert first == (0.0, 500.0, 1500.0, None, 1500.0)
    assert second[0] > 1500.0
    assert second[1:] == (250.0, 1250.0, 1250.0, 1250.0)


def test_attempt_that_lost_to_a_hedge_keeps_its_connection_and_used_nobody_knows_what():
    served = stored(
        [slow(good(after=5.0), 0.5)],
        [slow(good(after=0.5), 0.25)],
        policy=Policy(hedge=Hedge(after=1.0)),
        hedge_share=HedgeShare(share=1.0),
    )
    served.ask()
    names = ("error", "is_hedge", "started_ms", "connect_ms", *TOKENS)
    assert found(served, *names) == [
        ("cancelled", False, 0.0, 500.0, None, None),
        ("", True, 1000.0, 250.0, 3, 1),
    ]


def test_attempt_that_nobody_answered_was_never_connected():
    served = stored([hang()], [good()], timeouts=Timeouts(connect=2.0))
    served.ask()
    assert found(served, "connect_ms", "head_ms")[0] == (None, None)


def test_kept_connection_that_dies_under_the_request_is_not_the_one_that_is_told():
    dies = Script((*good(), ReceiveRequest(), Pause(1.0), Close()))
    served = stored([dies, slow(good(after=0.25), 0.5)])
    served.ask()
    served.ask()
    _, second = served.rows("Exchange")
    names = ("connect_ms", "head_ms", "is_reused")
    assert attempts(second, *names) == [(1500.0, 1750.0, False)]


def test_kept_connection_that_was_dead_and_could_not_be_replaced_is_none():
    dies = Script((*good(), ReceiveRequest(), Close()))
    served = stored([dies, refuse()], policy=Policy(retries=Retries(count=0)))
    served.ask()
    served.ask()
    _, second = served.rows("Exchange")
    assert attempts(second, "connect_ms", "error") == [(None, "upstream_unreachable")]


# -- through an egress proxy ----------------------------------------------------


def proxied(answer, **settings):
    served = stored([refuse()], providers_have=PROXIED, **settings)
    served.sim.world.proxied("http://a.test/v1/chat/completions", answer)
    return served


def test_connection_through_a_proxy_is_told_apart_from_the_wait_for_the_head():
    script = Script((Send(json.dumps(COMPLETION).encode()), Close()), connect_after=0.5)
    served = proxied(ProxiedReply(200, JSON, script, head_after=1.0))
    served.ask()
    assert found(served, *TIMES[:3]) == [(0.0, 500.0, 1500.0)]


def test_connection_through_a_proxy_is_told_though_no_head_came():
    script = Script((Stall(),), connect_after=0.5)
    timeouts = Timeouts(first_content=2.0, total=3.0)
    served = proxied(
        ProxiedReply(200, JSON, script, head_after=60.0), timeouts=timeouts
    )
    served.ask()
    assert found(served, "connect_ms", "head_ms")[0] == (500.0, None)


# -- tokens ---------------------------------------------------------------------


def test_attempt_of_several_calls_is_connected_with_the_last_of_them():
    served = stored(
        [slow(whole("cohere", "x"), 0.5), slow(whole("cohere", "y", after=1.0), 0.25)],
        providers_have=COHERE,
    )
    served.ask(chat(n=2))
    names = ("calls", "connect_ms", "head_ms", *TOKENS)
    assert found(served, *names) == [(2, 500.0, 1250.0, 6, 4)]


def test_calls_that_were_answered_in_vain_are_what_the_attempt_used():
    served = stored(
        [whole("cohere", "x"), refusal(503, after=1.0)],
        [good()],
        providers_have=COHERE,
    )
    served.ask(chat(n=2))
    assert found(served, "error", "calls", *TOKENS) == [
        ("status_503", 2, 3, 2),
        ("", 1, 3, 1),
    ]


def test_tokens_that_nobody_said_are_not_zero():
    silent = {name: value for name, value in COMPLETION.items() if name != "usage"}
    served = stored([reply(200, JSON, json.dumps(silent).encode())])
    served.ask()
    assert found(served, *TOKENS) == [(None, None)]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_tokens_are_those_of_the_attempt_that_answered(stream):
    answer = good_stream() if stream else good()
    served = stored([refusal(500)], [answer])
    served.ask(stream=stream)
    assert found(served, *TOKENS) == [(None, None), (3, 4 if stream else 1)]
