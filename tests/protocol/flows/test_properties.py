"""What holds for every policy and every sequence of faults, splits and endings."""

from __future__ import annotations

import json
import math

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.protocol.flows.serving import (
    EVENTS,
    Served,
    chat,
    good,
    good_stream,
    refusal,
    snapshot,
)
from tz_protocol.machine import ClientGone, Shutdown
from tz_protocol.operations import Connect, SendBody, SendHead
from tz_protocol.testing import (
    Close,
    Reset,
    Script,
    ScriptedRequest,
    Stall,
    cut,
    dns_error,
    garbage,
    hang,
    refuse,
    sse,
    tls_error,
)
from tz_protocol.types.policy import (
    BreakerPolicy,
    Hedge,
    HedgeShare,
    Policy,
    Retries,
    StreamPolicy,
)
from tz_protocol.types.settings import Timeouts

TIMEOUTS = Timeouts(
    connect=1.0, first_content=3.0, idle=2.0, total=6.0, stream_total=8.0
)
SECONDS = st.sampled_from((0.0, 0.0, 0.5, 1.5, 2.5, 5.0))


def served_by(steps, connect_after=0.0):
    """Return a provider that does *steps* for every request that it gets."""
    return Script(tuple(steps), connect_after=connect_after, repeat=True)


BEHAVIOURS = st.one_of(
    st.sampled_from(
        (refuse(), hang(), dns_error(), tls_error(), refuse(0.5), dns_error(2.0))
    ),
    st.builds(
        lambda after, connect: served_by(good(after=after), connect), SECONDS, SECONDS
    ),
    st.builds(
        lambda first, every: served_by(good_stream(first=first, every=every)),
        SECONDS,
        SECONDS,
    ),
    st.builds(
        lambda status: served_by(refusal(status)),
        st.sampled_from((400, 401, 404, 408, 413, 429, 500, 503, 529, 302)),
    ),
    st.builds(
        lambda seconds: served_by(
            refusal(429, headers=(("retry-after", str(seconds)),))
        ),
        st.sampled_from((0, 1, 60)),
    ),
    st.builds(
        lambda steps, count, then: served_by(cut(steps, count, then)),
        st.sampled_from((good(), good_stream(every=0.2))),
        st.integers(0, 2_500),
        st.sampled_from((Close(), Reset(), Stall())),
    ),
    st.just(served_by(garbage())),
    st.just(served_by(sse(*EVENTS[:3], end=b"", every=0.1))),
    st.just(served_by(sse(*EVENTS[:-1], end=b"")[:-1])),
    st.just(served_by(sse(b"{not json", *EVENTS, every=0.1))),
    st.just(served_by(sse(EVENTS[0], EVENTS[1], b"{not json", *EVENTS[2:]))),
    st.just(served_by(sse(b'{"error":{"message":"late","code":"x"}}'))),
)

WORLDS = st.lists(st.lists(BEHAVIOURS, min_size=1, max_size=3), min_size=1, max_size=3)
"""For each provider what its connections find, the last one for ever."""
SPLITS = st.lists(st.integers(1, 400), max_size=3).map(tuple)
POLICIES = st.builds(
    Policy,
    retries=st.builds(
        Retries,
        count=st.integers(0, 3),
        base=st.sampled_from((0.1, 1.0)),
        retry_after_cap=st.sampled_from((0.0, 2.0)),
        within=st.sampled_from((0.5, 30.0)),
    ),
    breaker=st.builds(
        BreakerPolicy,
        is_enabled=st.booleans(),
        failures=st.integers(1, 2),
        failures_alone=st.integers(1, 3),
        rest=st.sampled_from((0.5, 10.0)),
    ),
    hedge=st.sampled_from((None, None, Hedge(after=0.2), Hedge(after=1.0))),
    stream=st.builds(
        StreamPolicy,
        hold_events=st.sampled_from((0, 0, 1, 3)),
        hold=st.sampled_from((0.0, 0.0, 0.5)),
        on_malformed_event=st.sampled_from(("skip", "error")),
        ping_after=st.sampled_from((None, None, 0.3, 1.0)),
    ),
)
PLAIN = Policy()


def run(world, *, stream, policy=PLAIN, takes=0.0, fallback=0, **options):
    """Run one exchange in *world*.

    Args:
        world: What the connections of each provider find.
        stream: Whether the caller wants a stream.
        policy: The gateway's.
        takes: Seconds that the caller needs for each piece.
        fallback: How many of the last providers belong to the model to fall back to.
        options: Of the simulator, and of ``spawn``.
    """
    hosts = ("a.test", "b.test", "c.test")[: len(world)]
    served = Served(
        *world,
        config=snapshot(
            hosts,
            timeouts=TIMEOUTS,
            policy=policy,
            fallback=min(fallback, len(world) - 1),
            hedge_share=HedgeShare(share=1.0),
        ),
        seed=options.pop("seed", 0),
        splits=options.pop("splits", ()),
    )
    body = json.dumps(chat(stream=stream)).encode()
    request = ScriptedRequest((body,), takes=takes)
    return served, served.ask(request=request, **options)


def check(served, outcome, *, stream, is_cut_short=False):
    """Assert everything that holds for every exchange."""
    assert outcome.is_done
    record = served.record
    assert record.outcome is not None
    operations = [operation for _, operation in outcome.operations]
    heads = [op for op in operations if isinstance(op, SendHead)]
    assert len(heads) <= 1
    policy = served.gateway.snapshot.gateway.policy
    if heads and policy.stream.ping_after is None:
        position = operations.index(heads[0])
        assert not any(isinstance(op, Connect) for op in operations[position:])
    model = served.gateway.snapshot.models["m"]
    reachable = {
        (one.name, provider)
        for one in served.gateway.snapshot.models.values()
        if one.name == "m" or one.name in model.fallback_models
        for provider in one.routing
    }
    tried = [(attempt.model, attempt.provider) for attempt in record.attempts]
    assert set(tried) <= reachable
    # A pause of its own may keep a candidate out of a round: one more for those.
    for target in reachable:
        assert tried.count(target) <= policy.retries.count + 1
    total = TIMEOUTS.stream_total if stream else TIMEOUTS.total
    goodbye = served.gateway.snapshot.gateway.server.goodbye
    # What was decided by the total time may still be told to a slow reader.
    assert outcome.finished_at - outcome.started_at <= total + goodbye
    check_books(served)
    for attempt in record.attempts:
        assert attempt.ended is not None
    if not is_cut_short:
        assert heads, "an exchange that ran to its end answered nothing"
        response = outcome.response
        assert response.is_complete or response.is_aborted
        if stream and heads[0].head.status == 200:
            is_whole = response.body.endswith(b"data: [DONE]\n\n")
            assert is_whole == (record.outcome == "ok")
            assert (b'"error"' in response.body) == (not is_whole)


def check_books(served):
    """Assert that nothing is held, open or counted any more."""
    gateway = served.gateway
    assert gateway.admission.in_flight == 0
    assert gateway.memory.held == 0
    assert gateway.retry_budget.exchanges == 0
    assert gateway.retry_budget.retrying == 0
    busy, _ = gateway.pool.counts()
    assert busy == 0
    open_handles = {id(handle) for handle in served.sim.open_handles}
    kept = gateway.pool.expire(served.sim.now, everything=True)
    assert {id(handle) for handle in kept} == open_handles


@settings(deadline=None)
@given(
    WORLDS,
    st.booleans(),
    POLICIES,
    st.sampled_from((0.0, 0.1)),
    st.integers(0, 9),
    st.integers(0, 1),
)
@example([[Script(cut(good(), 30, Close()))]], False, PLAIN, 0.0, 0, 0)
@example(  # the last word is said at the end of the total time
    [[Script(good_stream(every=1.5))], [Script(good_stream(first=1.5, every=0.5))]],
    True,
    Policy(retries=Retries(count=0)),
    0.0,
    0,
    0,
)
def test_exchange_whatever_happens_keeps_its_promises(
    world, stream, policy, takes, seed, fallback
):
    served, outcome = run(
        world,
        stream=stream,
        policy=policy,
        takes=takes,
        seed=seed,
        fallback=fallback,
    )
    assert outcome.error is None
    check(served, outcome, stream=stream)


@settings(deadline=None)
@given(WORLDS, st.booleans(), POLICIES, st.integers(1, 40))
def test_exchange_cancelled_at_any_step_settles_once(world, stream, policy, step):
    served, outcome = run(world, stream=stream, policy=policy, cancel_at=step)
    check(served, outcome, stream=stream, is_cut_short=outcome.is_cancelled)
    if outcome.is_cancelled:
        assert len(outcome.operations) == step


@settings(deadline=None)
@given(
    WORLDS,
    st.booleans(),
    POLICIES,
    st.integers(1, 40),
    st.sampled_from((ClientGone(), Shutdown())),
)
def test_exchange_interrupted_at_any_step_settles_once(
    world, stream, policy, step, event
):
    served, outcome = run(
        world, stream=stream, policy=policy, interrupt_at=(step, event)
    )
    check(served, outcome, stream=stream, is_cut_short=True)
    if isinstance(event, ClientGone) and len(outcome.operations) == step:
        # Whoever leaves while the last words are sent does not change what they were.
        told = any(isinstance(op, SendHead) for _, op in outcome.operations)
        assert told or served.record.outcome == "client_gone"


@settings(deadline=None)
@given(
    WORLDS,
    st.lists(st.booleans(), min_size=2, max_size=8),
    POLICIES,
    st.sampled_from((0.0, 0.05, 0.5)),
    st.integers(0, 9),
)
def test_exchanges_side_by_side_settle_once_each_within_their_budgets(
    world, streams, policy, share, seed
):
    config = snapshot(
        ("a.test", "b.test", "c.test")[: len(world)],
        timeouts=TIMEOUTS,
        policy=policy,
        fallback=len(world) - 1,
        hedge_share=HedgeShare(share=share, burst=1),
    )
    served = Served(*world, config=config, seed=seed)
    outcomes = [served.ask(stream=stream, run=False) for stream in streams]
    served.sim.run_until_idle()
    assert [outcome.error for outcome in outcomes] == [None] * len(outcomes)
    assert all(outcome.response.head for outcome in outcomes)
    records = served.sim.records
    assert len({record.id for record in records}) == len(records) == len(streams)
    check_books(served)
    hedges = [one for record in records for one in record.attempts if one.is_hedge]
    assert len(hedges) <= math.ceil(share * len(streams))
    for _, facts in served.gateway.targets():
        assert facts.state in ("closed", "open", "half_open")


@settings(deadline=None)
@given(WORLDS, st.booleans(), POLICIES, SPLITS)
def test_exchange_with_any_split_answers_the_same_bytes(world, stream, policy, splits):
    # Whether a connection is kept depends on the splits: each must be like the first.
    world = [connections[:1] for connections in world]
    # What comes at the instant of a comment comes before it or after it.
    silent = msgspec.structs.replace(policy.stream, ping_after=None)
    policy = msgspec.structs.replace(policy, stream=silent)
    _, whole = run(world, stream=stream, policy=policy)
    _, split = run(world, stream=stream, policy=policy, splits=splits)
    assert whole.response.body == split.response.body
    assert whole.response.is_complete == split.response.is_complete


@settings(deadline=None)
@given(WORLDS, st.booleans(), POLICIES, st.integers(0, 99))
def test_exchange_with_the_same_seed_leaves_the_same_trace(world, stream, policy, seed):
    traces = [
        run(world, stream=stream, policy=policy, seed=seed)[0].sim.trace_text()
        for _ in range(2)
    ]
    assert traces[0] == traces[1]


@settings(deadline=None)
@given(WORLDS, st.booleans(), POLICIES)
def test_exchange_whatever_happens_tells_no_secret(world, stream, policy):
    served, outcome = run(world, stream=stream, policy=policy)
    told = repr(served.sim.notices) + repr(outcome.response)
    assert "sk-provider-canary" not in told
    assert ".test" not in outcome.response.body.decode()


def test_bodies_of_the_model_are_sent_in_pieces():
    _, outcome = run([[Script(good_stream(every=0.1))]], stream=True)
    sent = [op for _, op in outcome.operations if isinstance(op, SendBody)]
    assert len(sent) > len(EVENTS) - 2
