from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.testing.flows import HOSTS, fetch, serve
from tz_protocol.errors import (
    Cancelled,
    ClientBroken,
    ClientTimeout,
    Interrupted,
    OperationBroken,
    OperationTimeout,
)
from tz_protocol.machine import ClientGone, Drain, Shutdown
from tz_protocol.notices import Close, LogLine
from tz_protocol.operations import (
    CHUNK_LIMIT,
    All,
    Bind,
    Connect,
    HttpCall,
    IsQuiet,
    Listen,
    NextSignal,
    Print,
    ProcessExit,
    Race,
    Read,
    ReadFiles,
    ReceiveBody,
    ResolveSecret,
    SendBody,
    SendHead,
    SendSignal,
    Signal,
    Sleep,
    Spawn,
    StopListening,
    Wait,
    Write,
    WriteFile,
    WriteRead,
)
from tz_protocol.testing import (
    LAST_CHUNK,
    Arrival,
    AwaitFact,
    HalfClose,
    Pause,
    ProcessScript,
    ProxiedReply,
    Receive,
    ReceiveBytes,
    ReceiveEof,
    Reset,
    Script,
    ScriptedRequest,
    Send,
    Simulator,
    Stall,
    Tell,
    World,
    cut,
    dns_error,
    garbage,
    hang,
    refuse,
    reply,
    sse,
    tls_error,
)
from tz_protocol.testing import Close as CloseStep
from tz_protocol.types.http import ResponseHead


def sleeper(sim, seconds):
    yield from Sleep(sim.context.now + seconds)
    return seconds


# -- time -----------------------------------------------------------------------


def test_clock_sleep_of_an_hour_jumps_to_the_deadline():
    sim = Simulator(start=5.0)
    outcome = sim.run(sleeper(sim, 3600.0))
    assert outcome.result == 3600.0
    assert outcome.finished_at == 3605.0


def test_clock_two_machines_advance_together():
    sim = Simulator(start=0.0)
    slow, fast = sim.spawn(sleeper(sim, 2.0)), sim.spawn(sleeper(sim, 1.0))
    sim.run_until_idle()
    assert (fast.finished_at, slow.finished_at) == (1.0, 2.0)


def test_clock_run_until_stops_at_that_time():
    sim = Simulator(start=0.0)
    outcome = sim.spawn(sleeper(sim, 2.0))
    sim.run_until(1.5)
    assert sim.now == 1.5
    assert not outcome.is_done
    sim.run_until(2.0)
    assert outcome.is_done


def test_run_flow_that_waits_for_ever_says_where():
    sim = Simulator()

    def flow():
        yield from Wait(math.inf, Signal())

    with pytest.raises(AssertionError, match=r"waits for ever: machine 1 in Wait"):
        sim.run(flow())


@pytest.mark.parametrize(
    "make",
    [
        lambda h: Read(0.0, h),
        lambda h: Write(0.0, h, b"x"),
        lambda h: WriteRead(0.0, h, b"x"),
        lambda h: IsQuiet(0.0, h),
        lambda h: Connect(0.0, "one.test", 80),
        lambda h: Wait(0.0, Signal()),
        lambda h: Race(0.0, (iter(Sleep(0.0)),)),
        lambda h: All(0.0, (iter(Sleep(0.0)),)),
        lambda h: Print(0.0, "x"),
    ],
    ids=lambda make: type(make(None)).__name__,
)
def test_past_deadline_times_out_at_once_and_spoils_nothing(make):
    world = World()
    world.upstream("one.test", 80, [Send(b"hello"), Stall()])
    sim = Simulator(world)

    def flow():
        handle = yield from Connect(math.inf, "one.test", 80)
        try:
            yield from make(handle)
        except OperationTimeout:
            data = yield from Read(math.inf, handle)
            return data
        finally:
            sim.context.tell(Close(handle))

    outcome = sim.run(flow())
    assert outcome.result == b"hello"
    assert outcome.finished_at == outcome.started_at
    assert sim.open_handles == []


def test_past_deadline_of_sleep_resumes():
    sim = Simulator()
    assert sim.run(sleeper(sim, -1.0)).finished_at == sim.start


# -- peers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (refuse(2.0), "refused"),
        (dns_error(2.0), "dns"),
        (tls_error(2.0), "tls"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_connect_failure_has_its_kind_and_its_time(behaviour, kind):
    world = World()
    world.upstream("one.test", 80, behaviour)
    sim = Simulator(world, start=0.0)
    outcome = sim.run(fetch(sim.context, "one.test", 9.0))
    assert isinstance(outcome.error, OperationBroken)
    assert outcome.error.kind == kind
    assert outcome.finished_at == 2.0


def test_connect_to_a_host_that_hangs_times_out():
    world = World()
    world.upstream("one.test", 80, hang())
    sim = Simulator(world, start=0.0)
    outcome = sim.run(fetch(sim.context, "one.test", 9.0))
    assert isinstance(outcome.error, OperationTimeout)
    assert outcome.finished_at == 9.0


def test_connect_to_what_the_world_lacks_is_a_mistake_of_the_test():
    sim = Simulator()
    with pytest.raises(AssertionError, match=r"no upstream one\.test:80"):
        sim.run(fetch(sim.context, "one.test", 2_000.0))


def test_connections_successive_find_successive_behaviours():
    world = World()
    world.upstream("one.test", 80, refuse(), reply(body=b"b"), reply(body=b"c"))
    sim = Simulator(world)
    answers = [sim.run(fetch(sim.context, "one.test", 2_000.0)) for _ in range(4)]
    assert isinstance(answers[0].error, OperationBroken)
    assert [a.result for a in answers[1:]] == [b"b", b"c", b"c"]
    assert [message.target for _, _, message in sim.requests] == ["/"] * 3


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_reply_framing_gives_the_body(framing):
    world = World()
    world.upstream("one.test", 80, reply(body=b"hello", framing=framing))
    sim = Simulator(world)
    assert sim.run(fetch(sim.context, "one.test", 2_000.0)).result == b"hello"


def test_sse_events_come_at_their_times():
    world = World()
    world.upstream("one.test", 80, sse("a", "b", first=1.0, every=0.5))
    sim = Simulator(world, start=0.0)
    outcome = sim.run(fetch(sim.context, "one.test", 9.0))
    assert outcome.result == b"data: a\n\ndata: b\n\ndata: [DONE]\n\n"
    assert outcome.finished_at == 2.0


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        (cut(reply(body=b"hello"), 0), "cut"),
        (cut(reply(body=b"hello"), 40), "cut"),
        (cut(reply(body=b"hello"), 0, Reset()), "reset"),
        (cut(reply(body=b"hello"), 40, Reset()), "reset"),
    ],
    ids=["closed before head", "closed in body", "reset before head", "reset in body"],
)
def test_cut_answer_breaks(steps, kind):
    world = World()
    world.upstream("one.test", 80, steps)
    sim = Simulator(world)
    error = sim.run(fetch(sim.context, "one.test", 2_000.0)).error
    assert isinstance(error, OperationBroken)
    assert error.kind == kind


def test_cut_then_stall_times_out_in_the_read():
    world = World()
    world.upstream("one.test", 80, cut(reply(), 0, Stall()))
    sim = Simulator(world, start=0.0)
    outcome = sim.run(fetch(sim.context, "one.test", 9.0))
    assert isinstance(outcome.error, OperationTimeout)
    assert outcome.error.stage == "read"


def test_garbage_reaches_the_flow():
    world = World()
    world.upstream("one.test", 80, garbage(b"\x00\xff"))
    sim = Simulator(world)
    error = sim.run(fetch(sim.context, "one.test", 2_000.0)).error
    assert isinstance(error, OperationBroken)


def test_keep_alive_server_answers_again_on_one_connection():
    world = World()
    world.upstream("one.test", 80, reply(body=b"x"), repeat=True)
    sim = Simulator(world)
    request = b"GET / HTTP/1.1\r\n\r\n"

    def flow():
        handle = yield from Connect(math.inf, "one.test", 80)
        first = yield from WriteRead(math.inf, handle, request)
        quiet = yield from IsQuiet(math.inf, handle)
        second = yield from WriteRead(math.inf, handle, request)
        return first == second, quiet

    assert sim.run(flow()).result == (True, True)
    assert len(sim.requests) == 2
    assert len(sim.open_handles) == 1


def test_is_quiet_after_the_peer_closed_is_false():
    world = World()
    world.upstream("one.test", 80, [CloseStep()])
    sim = Simulator(world)

    def flow():
        handle = yield from Connect(math.inf, "one.test", 80)
        yield from Sleep(sim.context.now + 1)
        return (yield from IsQuiet(math.inf, handle))

    assert sim.run(flow()).result is False


def test_script_step_after_the_end_is_refused():
    with pytest.raises(ValueError, match="follows the end of the connection"):
        Script((CloseStep(), Send(b"x")))


def test_write_to_a_peer_that_does_not_read_is_held_back():
    sim = Simulator(start=0.0)
    client = sim.accept(Script((Stall(),), window=1_000))
    written = []

    def flow():
        while True:
            yield from Write(sim.context.now + 5.0, client, bytes(10_000))
            written.append(10_000)

    outcome = sim.run(flow(), client=client)
    assert isinstance(outcome.error, OperationTimeout)
    assert outcome.finished_at == 5.0
    assert sum(written) <= CHUNK_LIMIT + 1_000
    assert len(outcome.client.received) == 1_000


def test_write_goes_on_when_the_peer_reads_slowly():
    sim = Simulator(start=0.0)
    total = 200_000
    client = sim.accept(
        Script((Pause(3.0), ReceiveBytes(1), Pause(4.0), ReceiveEof()), window=50_000)
    )

    def flow():
        yield from Write(math.inf, client, bytes(total))

    outcome = sim.run(flow(), client=client)
    assert outcome.finished_at == 7.0
    sim.run_until_idle()
    assert len(outcome.client.received) == total
    assert outcome.client.unfinished == ()


def test_upstream_that_sends_faster_than_is_read_is_held_back():
    world = World()
    world.upstream("one.test", 80, [Send(bytes(1_000_000))])
    sim = Simulator(world)

    def flow():
        handle = yield from Connect(math.inf, "one.test", 80)
        yield from Sleep(sim.context.now + 1.0)
        data = yield from Read(math.inf, handle)
        return handle, len(data)

    handle, count = sim.run(flow()).result
    assert count == CHUNK_LIMIT
    assert handle.peer.bytes_sent == 2 * CHUNK_LIMIT


def test_client_eof_is_told_and_then_read():
    sim = Simulator(start=0.0)
    client = sim.accept([Send(b"hi", after=1.0), HalfClose()])
    told = []

    def flow():
        yield from Sleep(2.0)
        first = yield from Read(math.inf, client)
        rest = yield from Read(math.inf, client)
        return first, rest

    def listener(event):
        told.append(event)
        return False

    outcome = sim.run(flow(), client=client, listener=listener)
    assert outcome.result == (b"hi", b"")
    assert [type(event) for event in told] == [ClientGone]


@pytest.mark.parametrize("seed", range(8))
def test_client_reset_interrupts_whatever_is_outstanding(seed):
    sim = Simulator(seed=seed)
    client = sim.accept([Reset()])

    def flow():
        try:
            yield from Wait(math.inf, Signal())
        except Interrupted as interrupt:
            return type(interrupt.event)

    assert sim.run(flow(), client=client).result is ClientGone


def test_script_waits_for_facts_and_tells_events():
    sim = Simulator(start=0.0)
    client = sim.accept([AwaitFact("ready"), Tell(Drain()), Tell(Shutdown())])

    def flow():
        yield from Sleep(3.0)
        sim.facts.record("ready", 1)
        try:
            yield from Sleep(math.inf)
        except Interrupted as interrupt:
            return type(interrupt.event)

    outcome = sim.run(flow(), client=client)
    assert outcome.result is Shutdown
    assert outcome.finished_at == 3.0


def test_client_script_that_cannot_go_on_names_its_step():
    sim = Simulator()
    client = sim.accept([Receive(b"never"), ReceiveEof()])

    def flow():
        yield from Write(math.inf, client, b"something else")

    outcome = sim.run(flow(), client=client)
    assert outcome.client.unfinished == (Receive(b"never"), ReceiveEof())


# -- Race, All, Wait ------------------------------------------------------------


def test_race_first_to_finish_wins_and_others_are_cancelled():
    sim = Simulator(start=0.0)
    seen = []

    def loser():
        try:
            yield from Sleep(9.0)
        except Cancelled:
            seen.append("cancelled")
            raise

    def flow():
        return (yield from Race(5.0, (loser(), sleeper(sim, 1.0))))

    outcome = sim.run(flow())
    assert outcome.result == (1, 1.0)
    assert outcome.finished_at == 1.0
    assert seen == ["cancelled"]


def test_race_arm_that_fails_ends_it_with_its_error():
    sim = Simulator()

    def failing():
        yield from Sleep(sim.context.now + 1.0)
        raise ClientBroken("told as it is")

    def flow():
        yield from Race(math.inf, (failing(), sleeper(sim, 5.0)))

    with pytest.raises(ClientBroken, match="told as it is"):
        _ = sim.run(flow()).result


def test_all_returns_values_in_the_order_of_the_flows():
    sim = Simulator(start=0.0)

    def flow():
        flows = (sleeper(sim, 3.0), sleeper(sim, 1.0), sleeper(sim, 2.0))
        return (yield from All(5.0, flows)), (yield from All(5.0, ()))

    outcome = sim.run(flow())
    assert outcome.result == ((3.0, 1.0, 2.0), ())
    assert outcome.finished_at == 3.0


def test_arm_with_a_bug_ends_its_machine_with_that_bug():
    sim = Simulator()
    settled = []

    def buggy():
        yield from Sleep(sim.context.now + 1.0)
        raise ZeroDivisionError

    def flow():
        try:
            yield from All(math.inf, (buggy(), sleeper(sim, 5.0)))
        except Cancelled:
            settled.append(True)
            raise

    assert isinstance(sim.run(flow()).error, ZeroDivisionError)
    assert settled == [True]


def test_race_deadline_cancels_the_arms():
    sim = Simulator(start=0.0)

    def flow():
        try:
            yield from Race(2.0, (sleeper(sim, 5.0),))
        except OperationTimeout:
            yield from Sleep(3.0)
            return "went on"

    outcome = sim.run(flow())
    assert outcome.result == "went on"
    assert outcome.finished_at == 3.0


def test_wait_machines_meet_in_a_signal():
    sim = Simulator(start=0.0)
    signal = Signal()

    def setter():
        yield from Sleep(2.0)
        signal.set()

    def waiter():
        yield from Wait(5.0, signal)
        yield from Wait(5.0, signal)

    waiting = [sim.spawn(waiter()) for _ in range(3)]
    sim.spawn(setter())
    sim.run_until_idle()
    assert [outcome.finished_at for outcome in waiting] == [2.0, 2.0, 2.0]


# -- the surroundings -----------------------------------------------------------


def test_surroundings_are_dictionaries():
    world = World(
        environment={"KEY": "v"},
        files={"/a/1.toml": "one", "/a/2.toml": "two", "/a/b/3.toml": "three"},
    )
    sim = Simulator(world)

    def flow():
        key = yield from ResolveSecret(math.inf, "env::KEY")
        text = yield from ResolveSecret(math.inf, "path::/a/1.toml")
        found = yield from ReadFiles(math.inf, "/a/*.toml")
        yield from WriteFile(math.inf, "/new", "text")
        yield from Print(math.inf, "out\n")
        yield from Print(math.inf, "err\n", is_error=True)
        try:
            yield from ResolveSecret(math.inf, "env::NONE")
        except OperationBroken as error:
            return key.reveal(), text.reveal(), found, error.kind

    assert sim.run(flow()).result == (
        "v",
        "one",
        (("/a/1.toml", "one"), ("/a/2.toml", "two")),
        "missing",
    )
    assert world.files["/new"] == "text"
    assert sim.surroundings.output == [("out\n", False), ("err\n", True)]


def test_processes_signals_and_listeners_follow_their_scripts():
    world = World(
        signals=[(1.0, "SIGHUP"), (4.0, "SIGTERM")],
        processes=[ProcessScript(after=2.0, status=3), ProcessScript()],
    )
    sim = Simulator(world, start=0.0)

    def flow():
        listening = yield from Listen(9.0, None, ("127.0.0.1:0", "unix:/s"))
        bound = yield from Bind(9.0, ("127.0.0.1:3000",))
        names = [(yield from NextSignal(9.0))]
        first = yield from Spawn(9.0, ("serve",))
        second = yield from Spawn(9.0, ())
        status = yield from ProcessExit(9.0, first)
        yield from SendSignal(9.0, second, "SIGTERM")
        killed = yield from ProcessExit(9.0, second)
        names.append((yield from NextSignal(9.0)))
        yield from StopListening(9.0)
        return listening, bound, names, status, killed

    outcome = sim.run(flow())
    assert outcome.result == (
        ("127.0.0.1:40001", "unix:/s"),
        ("fd:3",),
        ["SIGHUP", "SIGTERM"],
        3,
        -15,
    )
    assert outcome.finished_at == 4.0
    assert sim.surroundings.addresses == []


def test_http_call_returns_head_and_raw_body():
    world = World()
    found = ProxiedReply(200, (("a", "b"),), Script((Send(b"raw"), CloseStep())))
    world.proxied("https://x.test/v1", refuse(), found)
    sim = Simulator(world)

    def call():
        return HttpCall(math.inf, "POST", "https://x.test/v1", (), b"", "http://p")

    def flow():
        try:
            yield from call()
        except OperationBroken:
            status, headers, handle = yield from call()
            return status, headers, (yield from Read(math.inf, handle))

    assert sim.run(flow()).result == (200, (("a", "b"),), b"raw")


# -- bare exchange machines -----------------------------------------------------


def test_exchange_body_and_response_have_their_times():
    sim = Simulator(start=0.0)

    def flow():
        body = []
        while piece := (yield from ReceiveBody(9.0)):
            body.append(piece)
        yield from SendHead(9.0, ResponseHead(201))
        yield from SendBody(9.0, b"one")
        yield from SendBody(9.0, b"two", end=True)
        return body

    request = ScriptedRequest((b"a", Arrival(b"b", 2.0)), takes=1.5)
    outcome = sim.run(flow(), request=request)
    assert outcome.result == [b"a", b"b"]
    assert outcome.response.head == ResponseHead(201)
    assert outcome.response.pieces == [(2.0, b"one"), (3.5, b"two")]
    assert outcome.response.is_complete
    assert outcome.finished_at == 5.0


def test_exchange_client_errors_are_client_errors():
    sim = Simulator(start=0.0)

    def flow():
        try:
            yield from ReceiveBody(1.0)
        except ClientTimeout:
            yield from ReceiveBody(9.0)
            yield from ReceiveBody(9.0)

    request = ScriptedRequest((Arrival(b"late", 2.0),), is_cut=True)
    assert isinstance(sim.run(flow(), request=request).error, ClientBroken)


def test_exchange_second_head_is_a_broken_rule():
    sim = Simulator()

    def flow():
        yield from SendHead(math.inf, ResponseHead(200))
        yield from SendHead(math.inf, ResponseHead(500))

    with pytest.raises(AssertionError, match="a second head"):
        sim.run(flow(), request=ScriptedRequest())


def test_exchange_client_gone_after_some_seconds_interrupts():
    sim = Simulator(start=0.0)
    request = ScriptedRequest((Arrival(b"late", 5.0),), gone_after=1.0)
    outcome = sim.run(serve(sim.context), request=request)
    assert outcome.error is None
    assert outcome.finished_at == 1.0
    assert sim.records == ["lost"]


# -- broken rules ---------------------------------------------------------------


def test_handle_used_after_close_is_a_broken_rule():
    world = World()
    world.upstream("one.test", 80, reply())
    sim = Simulator(world)

    def flow():
        handle = yield from Connect(math.inf, "one.test", 80)
        sim.context.tell(Close(handle))
        yield from Sleep(sim.context.now)
        yield from Read(math.inf, handle)

    with pytest.raises(AssertionError, match="is used after Close"):
        sim.run(flow())


def test_cleanup_that_asks_for_something_is_a_broken_rule():
    sim = Simulator()

    def flow():
        try:
            yield from Sleep(math.inf)
        finally:
            yield from Sleep(math.inf)

    with pytest.raises(AssertionError, match="a cancelled flow asked for Sleep"):
        sim.run(flow(), cancel_at=1)


def test_notices_other_than_close_are_kept_in_order():
    sim = Simulator()

    def flow():
        sim.context.tell(LogLine("info", "one"))
        yield from Sleep(sim.context.now)
        sim.context.tell(LogLine("info", "two"))

    sim.run(flow())
    assert sim.notices == [LogLine("info", "one"), LogLine("info", "two")]


# -- any world, any split, any cancel -------------------------------------------

ANSWER = reply(body=b"the answer", after=0.5)
BEHAVIOURS = st.sampled_from(
    [
        ANSWER,
        sse("the", "answer", every=0.4),
        cut(ANSWER, 20),
        cut(ANSWER, 50, Reset()),
        cut(ANSWER, 0, Stall()),
        garbage(),
        refuse(0.3),
        hang(),
        tls_error(),
    ]
)
SPLITS = st.lists(st.integers(1, 40), max_size=4)


def make_world(behaviours):
    world = World()
    for host, behaviour in zip(HOSTS, behaviours, strict=True):
        world.upstream(host, 80, behaviour)
    return world


def run_serve(behaviours, *, seed=0, splits=(), **options):
    sim = Simulator(make_world(behaviours), seed=seed, splits=splits)
    request = ScriptedRequest((b"some", Arrival(b"thing", 0.2)))
    return sim, sim.run(serve(sim.context), request=request, **options)


@given(st.tuples(BEHAVIOURS, BEHAVIOURS), st.integers(0, 5), SPLITS)
def test_same_seed_gives_the_same_trace(behaviours, seed, splits):
    one, _ = run_serve(behaviours, seed=seed, splits=splits)
    two, _ = run_serve(behaviours, seed=seed, splits=splits)
    assert one.trace_text() == two.trace_text()


@given(st.tuples(BEHAVIOURS, BEHAVIOURS), st.integers(0, 5), SPLITS)
def test_any_split_and_order_gives_the_same_result(behaviours, seed, splits):
    _, whole = run_serve(behaviours)
    sim, split = run_serve(behaviours, seed=seed, splits=splits)
    assert whole.result == split.result
    assert whole.response == split.response
    assert whole.finished_at == split.finished_at
    assert sim.open_handles == []


@given(
    st.tuples(BEHAVIOURS, BEHAVIOURS),
    st.integers(0, 5),
    SPLITS,
    st.integers(1, 30),
    st.sampled_from([None, ClientGone(), Shutdown(), Drain()]),
)
def test_cancel_or_interrupt_at_any_step_leaves_nothing_open(
    behaviours, seed, splits, step, event
):
    how = {"cancel_at": step} if event is None else {"interrupt_at": (step, event)}
    sim, outcome = run_serve(behaviours, seed=seed, splits=splits, **how)
    assert outcome.error is None
    assert outcome.finished_at <= outcome.started_at + 10.0
    assert len(sim.records) == 1
    assert sim.open_handles == []
    if event is None:
        assert len(outcome.operations) <= step
        assert outcome.is_cancelled == (len(outcome.operations) == step)


def test_seeds_reach_different_orders():
    def order(seed):
        sim = Simulator(seed=seed)
        done = []

        def flow(name):
            yield from Sleep(sim.start + 1.0)
            done.append(name)

        for name in "abcd":
            sim.spawn(flow(name))
        sim.run_until_idle()
        return "".join(done)

    assert order(0) == "abcd"
    assert len({order(seed) for seed in range(20)}) > 5


def test_stream_of_last_chunk_only_is_an_empty_body():
    world = World()
    world.upstream("one.test", 80, sse(end=b""))
    sim = Simulator(world)
    assert sim.run(fetch(sim.context, "one.test", 2_000.0)).result == b""
    assert LAST_CHUNK == b"0\r\n\r\n"
