"""Each fault of a provider once over real sockets, on both transports."""

from __future__ import annotations

import json
import time

import httpx
import pytest

from tests.protocol.flows.serving import (
    EVENTS,
    WORDS,
    good,
    good_stream,
    refusal,
    text_of,
)
from tests.transport.faulty import Upstream, before, faulty
from tests.transport.loops import BOUND, NAMES, Transport
from tz_protocol.testing import Close, ReceiveRequest, Reset, Stall, cut, sse
from tz_protocol.types.policy import (
    BreakerPolicy,
    Hedge,
    HedgeShare,
    Policy,
    Retries,
    StreamPolicy,
)
from tz_protocol.types.settings import GatewaySettings, Limits, Timeouts

BRIEF = Timeouts(connect=5.0, first_content=0.75, idle=0.75)
SILENT = (ReceiveRequest(), Stall())


@pytest.fixture(params=NAMES)
def transport(request):
    return Transport(request.param)


def events(message):
    """Return what each event of a streamed answer carries, without comments."""
    blocks = message.body.decode().split("\n\n")
    data = [block.removeprefix("data: ") for block in blocks if block]
    kept = [one for one in data if not one.startswith(":")]
    return [one if one == "[DONE]" else json.loads(one) for one in kept]


def error_of(message):
    return json.loads(message.body)["error"]


INVISIBLE = {
    "429": refusal(429),
    "429 with Retry-After": refusal(429, "later", (("retry-after", "30"),)),
    "500": refusal(500),
    "503": refusal(503),
    "401": refusal(401),
    "reset before the head": (ReceiveRequest(), Reset()),
    "closed before the head": (ReceiveRequest(), Close()),
    "silence": SILENT,
    "context length": refusal(400, "maximum context length is 10 tokens"),
}


@pytest.mark.parametrize("fault", INVISIBLE.values(), ids=INVISIBLE.keys())
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_fault_before_content_is_invisible(transport, fault, stream):
    well = good_stream() if stream else good()
    with faulty(transport, Upstream(fault), Upstream(well), timeouts=BRIEF) as world:
        message = world.ask(stream=stream)
        assert message.status == 200
        headers = dict(message.headers)
        assert (headers["x-tz-model"], headers["x-tz-provider"]) == ("n", "b")
        if stream:
            assert text_of(events(message)) == "".join(WORDS)
            assert events(message)[-1] == "[DONE]"
        assert [name for name, _ in world.tried()] == ["a", "b"]
        assert world.records[-1].model == "n"
        assert world.records[-1].usage.total_tokens == (7 if stream else 4)


def test_429_of_the_only_one_is_waited_for(transport):
    steps = refusal(429, "later", (("retry-after-ms", "50"),)) + good()
    with faulty(transport, Upstream(steps)) as world:
        assert world.ask().status == 200
        assert world.tried() == [("a", "status_429"), ("a", None)]


def test_503_that_lasts_is_told_and_then_left_alone(transport):
    down = refusal(503, "down", (("retry-after", "60"),))
    with faulty(transport, Upstream(down)) as world:
        message = world.ask()
        assert (message.status, error_of(message)["message"]) == (503, "down")
        assert dict(message.headers)["x-should-retry"] == "false"
        assert world.ask().status == 503
        assert world.records[-1].attempts == []
        assert len(world.upstreams[0].requests) == 1


def test_late_first_token_is_given_up(transport):
    head = sse(EVENTS[0], end=b"")[:-1]
    late, well = Upstream((*head, Stall())), Upstream(good_stream())
    with faulty(transport, late, well, timeouts=BRIEF) as world:
        assert text_of(events(world.ask(stream=True))) == "".join(WORDS)
        assert world.tried() == [("a", "timeout_first_content"), ("b", None)]


@pytest.mark.parametrize("then", [Close(), Reset()], ids=["closed", "reset"])
def test_cut_after_tokens_ends_in_band(transport, then):
    # Up to the end of the second word: a reset may overtake what was sent before it.
    steps = (*sse(*EVENTS[:3], end=b"")[:-1], then)
    with faulty(transport, Upstream(steps), Upstream(good_stream())) as world:
        message = world.ask(stream=True)
        if isinstance(then, Reset) and dict(message.headers)["x-tz-provider"] == "b":
            return  # it came before any content, and so nobody saw it
        found = events(message)
        assert found[-1]["error"]["message"]
        assert "[DONE]" not in found
        assert world.records[-1].outcome == "partial"
        assert [name for name, _ in world.tried()] == ["a"]


def test_stall_within_a_stream_ends_in_band(transport):
    steps = (*sse(*EVENTS[:3], end=b"")[:-1], Stall())
    with faulty(transport, Upstream(steps), timeouts=BRIEF) as world:
        found = events(world.ask(stream=True))
        assert text_of(found) == "".join(WORDS[:2])
        assert found[-1]["error"]["code"] == "upstream_timeout"
        assert "[DONE]" not in found


@pytest.mark.parametrize("policy", ["skip", "error"])
def test_malformed_event_is_left_out_or_ends_the_stream(transport, policy):
    steps = sse(*EVENTS[:3], b'{"choices": [{', *EVENTS[3:])
    stream = StreamPolicy(on_malformed_event=policy)
    with faulty(transport, Upstream(steps), policy=Policy(stream=stream)) as world:
        found = events(world.ask(stream=True))
        if policy == "skip":
            assert text_of(found) == "".join(WORDS)
            assert found[-1] == "[DONE]"
            assert world.records[-1].skipped_events == 1
        else:
            assert found[-1]["error"]["code"] == "upstream_malformed_event"


def test_missing_done_is_completed_without_waiting_for_the_provider(transport):
    steps = (*sse(*EVENTS, end=b"")[:-1], Stall())
    with faulty(transport, Upstream(steps)) as world:
        # The idle deadline is a minute away, and the client waits a third of that.
        found = events(world.ask(stream=True))
        assert found[-1] == "[DONE]"
        assert world.records[-1].outcome == "ok"


@pytest.mark.parametrize(
    ("status", "message", "told"),
    [
        (400, "Your input was flagged", 400),
        (403, "Your input was flagged", 400),
        (422, "no", 422),
    ],
)
def test_refused_request_goes_back_at_once(transport, status, message, told):
    fault = Upstream(refusal(status, message))
    with faulty(transport, fault, Upstream(good())) as world:
        assert world.ask().status == told
        assert [name for name, _ in world.tried()] == ["a"]


def test_fallback_that_refuses_a_prefill_leads_back(transport):
    refuses = refusal(400, "This model does not support assistant message prefill.")
    first = Upstream(refusal(503) + good())
    with faulty(transport, first, Upstream(refuses)) as world:
        assert world.ask().status == 200
        assert [name for name, _ in world.tried()] == ["a", "b", "a"]


def test_outage_is_left_alone_and_recovers(transport):
    breaker = BreakerPolicy(rest=0.2, rest_max=0.4, ramp=0.0)
    first = Upstream((ReceiveRequest(), Reset()))
    policy = Policy(breaker=breaker)
    with faulty(transport, first, Upstream(good()), policy=policy) as world:
        for _ in range(20):
            assert world.ask().status == 200
        states = {one.provider: facts.state for one, facts in world.gateway.targets()}
        assert states == {"a": "open", "b": "closed"}
        first.become(good())
        end = time.monotonic() + BOUND
        while world.ask() and world.records[-1].provider != "a":
            assert time.monotonic() < end, "never tried again"
        ((_, facts), _) = world.gateway.targets()
        assert facts.state == "closed"


def test_hedge_wins_and_the_loser_is_closed(transport):
    slow = Upstream(SILENT)
    policy = Policy(hedge=Hedge(after=0.05))
    share = HedgeShare(share=1.0)
    with faulty(
        transport, slow, Upstream(good()), policy=policy, hedge_share=share
    ) as world:
        assert world.ask().status == 200
        assert world.tried() == [("a", "cancelled"), ("b", None)]
        assert world.gateway.pool.counts() == (0, 1)


def test_hedge_streams(transport):
    policy = Policy(hedge=Hedge(after=0.05))
    share = HedgeShare(share=1.0)
    with faulty(
        transport,
        Upstream(SILENT),
        Upstream(good_stream()),
        policy=policy,
        hedge_share=share,
    ) as world:
        assert text_of(events(world.ask(stream=True))) == "".join(WORDS)
        assert world.tried() == [("a", "cancelled"), ("b", None)]


def test_pings_go_out_while_candidates_are_tried(transport):
    policy = Policy(stream=StreamPolicy(ping_after=0.1))
    with faulty(
        transport,
        Upstream(SILENT),
        Upstream(good_stream()),
        policy=policy,
        timeouts=BRIEF,
    ) as world:
        message = world.ask(stream=True)
        assert message.body.startswith(b": ping\n\n")
        assert text_of(events(message)) == "".join(WORDS)
        assert events(message)[-1] == "[DONE]"


def test_pings_give_up_the_status(transport):
    policy = Policy(stream=StreamPolicy(ping_after=0.1), retries=Retries(count=0))
    with faulty(transport, Upstream(SILENT), policy=policy, timeouts=BRIEF) as world:
        message = world.ask(stream=True)
        assert message.status == 200
        (last,) = events(message)
        assert last["error"]["code"] == "upstream_first_content_timeout"


def test_hold_makes_a_cut_invisible(transport):
    policy = Policy(stream=StreamPolicy(hold_events=3))
    broken = (*sse(*EVENTS[:3], end=b"")[:-1], Close())
    with faulty(
        transport, Upstream(broken), Upstream(good_stream()), policy=policy
    ) as world:
        found = events(world.ask(stream=True))
        assert text_of(found) == "".join(WORDS)
        assert found[-1] == "[DONE]"


def test_garbage_is_invisible(transport):
    garbled = cut(good(), 25, Close())
    with faulty(transport, Upstream(garbled), Upstream(good())) as world:
        assert world.ask().status == 200
        assert [name for name, _ in world.tried()] == ["a", "b"]


def test_pings_and_hedges_work_in_process(transport):
    policy = Policy(hedge=Hedge(after=0.15), stream=StreamPolicy(ping_after=0.1))
    settings = GatewaySettings(policy=policy, hedge_share=HedgeShare(share=1.0))
    upstreams = [Upstream(SILENT), Upstream(good_stream())]
    request = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    with before(upstreams, settings) as snapshot:
        gateway = transport.embed.make_gateway(snapshot)
        with (
            transport.embed.SyncGatewayTransport(gateway) as inside,
            httpx.Client(transport=inside, base_url="http://gateway") as client,
        ):
            path = "/v1/chat/completions"
            message = client.post(path, json={**request, "stream": True})
    assert message.content.startswith(b": ping\n\n")
    assert message.content.endswith(b"data: [DONE]\n\n")


def test_pings_go_out_of_an_asgi_application_one_by_one(transport):
    """The client reads the first comment before the provider is given up."""
    policy = Policy(stream=StreamPolicy(ping_after=0.1), retries=Retries(count=0))
    # Nobody is there afterwards to close what would be kept.
    limits = Limits(pool_idle=0)
    settings = GatewaySettings(policy=policy, timeouts=BRIEF, limits=limits)
    sent = []

    async def send(message):
        sent.append((message, len(upstreams[1].requests)))

    with before(
        upstreams := [Upstream(SILENT), Upstream(good_stream())], settings
    ) as s:
        app = transport.embed.asgi(transport.embed.make_gateway(s))
        transport.run(lambda: call(transport, app, send))
    start, first = sent[0], sent[1]
    assert start[0]["status"] == 200
    assert (first[0]["body"], first[1]) == (b": ping\n\n", 0)
    assert b"".join(m["body"] for m, _ in sent[1:]).endswith(b"data: [DONE]\n\n")


async def call(transport, app, send):
    """Send one request for a stream to an ASGI application."""
    request = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    body = json.dumps({**request, "stream": True}).encode()
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        if messages:
            return messages.pop()
        await transport.sleep(BOUND)
        return {"type": "http.disconnect"}

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    await app(scope, receive, send)
