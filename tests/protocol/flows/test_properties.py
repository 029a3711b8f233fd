"""What holds for every sequence of outcomes, latencies, splits and cancellations."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.protocol.flows.serving import (
    EVENTS,
    Served,
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
from tz_protocol.types.settings import Timeouts

TIMEOUTS = Timeouts(
    connect=1.0, first_content=3.0, idle=2.0, total=6.0, stream_total=8.0
)
SECONDS = st.sampled_from((0.0, 0.0, 0.5, 1.5, 2.5, 5.0))


BEHAVIOURS = st.one_of(
    st.sampled_from(
        (refuse(), hang(), dns_error(), tls_error(), refuse(0.5), dns_error(2.0))
    ),
    st.builds(
        lambda after, connect: Script(good(after=after), connect_after=connect),
        SECONDS,
        SECONDS,
    ),
    st.builds(
        lambda first, every: Script(good_stream(first=first, every=every)),
        SECONDS,
        SECONDS,
    ),
    st.builds(
        lambda status: Script(refusal(status)),
        st.sampled_from((400, 401, 404, 408, 413, 429, 500, 503, 529, 302)),
    ),
    st.builds(
        lambda steps, count, then: Script(cut(steps, count, then)),
        st.sampled_from((good(), good_stream(every=0.2))),
        st.integers(0, 2_500),
        st.sampled_from((Close(), Reset(), Stall())),
    ),
    st.just(Script(garbage())),
    st.just(Script(sse(*EVENTS[:3], end=b"", every=0.1))),
    st.just(Script(sse(b"{not json", *EVENTS, every=0.1))),
    st.just(Script(sse(b'{"error":{"message":"late","code":"x"}}'))),
)

WORLDS = st.lists(BEHAVIOURS, min_size=1, max_size=3)
SPLITS = st.lists(st.integers(1, 400), max_size=3).map(tuple)


def run(world, *, stream, takes=0.0, seed=0, splits=(), **options):
    hosts = ("a.test", "b.test", "c.test")[: len(world)]
    served = Served(
        *[[behaviour] for behaviour in world],
        config=snapshot(hosts, timeouts=TIMEOUTS),
        seed=seed,
        splits=splits,
    )
    body = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]%s}' % (
        b',"stream":true' if stream else b""
    )
    request = ScriptedRequest((body,), takes=takes)
    outcome = served.ask(request=request, **options)
    return served, outcome


def check(served, outcome, *, stream, is_cut_short=False):
    """Assert everything that holds for every exchange."""
    assert outcome.is_done
    record = served.record
    assert record.outcome is not None
    operations = [operation for _, operation in outcome.operations]
    heads = [op for op in operations if isinstance(op, SendHead)]
    assert len(heads) <= 1
    times = [time for time, op in outcome.operations if isinstance(op, SendHead)]
    opened = [time for time, op in outcome.operations if isinstance(op, Connect)]
    if heads:
        position = operations.index(heads[0])
        assert not any(isinstance(op, Connect) for op in operations[position:])
        assert all(time <= times[0] for time in opened)
    total = TIMEOUTS.stream_total if stream else TIMEOUTS.total
    goodbye = served.gateway.snapshot.gateway.server.goodbye
    # What was decided by the total time may still be told to a slow reader.
    assert outcome.finished_at - outcome.started_at <= total + goodbye
    assert len(record.attempts) <= 3
    assert served.gateway.admission.in_flight == 0
    assert served.gateway.memory.held == 0
    busy, _ = served.gateway.pool.counts()
    assert busy == 0
    open_handles = {id(handle) for handle in served.sim.open_handles}
    kept = served.gateway.pool.expire(served.sim.now, everything=True)
    assert {id(handle) for handle in kept} == open_handles
    if not is_cut_short:
        assert heads, "an exchange that ran to its end answered nothing"
        response = outcome.response
        assert response.is_complete or response.is_aborted
        if stream and heads[0].head.status == 200:
            is_whole = response.body.endswith(b"data: [DONE]\n\n")
            assert is_whole == (record.outcome == "ok")
            assert (b'"error"' in response.body) == (not is_whole)


@settings(deadline=None)
@given(WORLDS, st.booleans(), st.sampled_from((0.0, 0.1)), st.integers(0, 9))
@example([Script(cut(good(), 30, Close()))], False, 0.0, 0)
def test_exchange_whatever_happens_keeps_its_promises(world, stream, takes, seed):
    served, outcome = run(world, stream=stream, takes=takes, seed=seed)
    assert outcome.error is None
    check(served, outcome, stream=stream)


@settings(deadline=None)
@given(WORLDS, st.booleans(), st.integers(1, 40))
def test_exchange_cancelled_at_any_step_settles_once(world, stream, step):
    served, outcome = run(world, stream=stream, cancel_at=step)
    check(served, outcome, stream=stream, is_cut_short=outcome.is_cancelled)
    if outcome.is_cancelled:
        assert len(outcome.operations) == step


@settings(deadline=None)
@given(
    WORLDS,
    st.booleans(),
    st.integers(1, 40),
    st.sampled_from((ClientGone(), Shutdown())),
)
def test_exchange_interrupted_at_any_step_settles_once(world, stream, step, event):
    served, outcome = run(world, stream=stream, interrupt_at=(step, event))
    check(served, outcome, stream=stream, is_cut_short=True)
    if isinstance(event, ClientGone) and len(outcome.operations) == step:
        # Whoever leaves while the last words are sent does not change what they were.
        told = any(isinstance(op, SendHead) for _, op in outcome.operations)
        assert told or served.record.outcome == "client_gone"


@settings(deadline=None)
@given(WORLDS, st.booleans(), SPLITS)
def test_exchange_with_any_split_answers_the_same_bytes(world, stream, splits):
    _, whole = run(world, stream=stream)
    _, split = run(world, stream=stream, splits=splits)
    assert whole.response.body == split.response.body
    assert whole.response.is_complete == split.response.is_complete


@settings(deadline=None)
@given(WORLDS, st.booleans(), st.integers(0, 99))
def test_exchange_with_the_same_seed_leaves_the_same_trace(world, stream, seed):
    traces = [
        run(world, stream=stream, seed=seed)[0].sim.trace_text() for _ in range(2)
    ]
    assert traces[0] == traces[1]


@settings(deadline=None)
@given(WORLDS, st.booleans())
def test_exchange_whatever_happens_tells_no_secret(world, stream):
    served, outcome = run(world, stream=stream)
    told = repr(served.sim.notices) + repr(outcome.response)
    assert "sk-provider-canary" not in told
    assert ".test" not in outcome.response.body.decode()


def test_bodies_of_the_model_are_sent_in_pieces():
    _, outcome = run([Script(good_stream(every=0.1))], stream=True)
    sent = [op for _, op in outcome.operations if isinstance(op, SendBody)]
    assert len(sent) > len(EVENTS) - 2
