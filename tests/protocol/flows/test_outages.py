"""Requests while the store or the disk fails: what is told, what waits, what is kept.

The one rule: each test is a fault as a caller and an operator see it. What becomes of
batches is ``test_recorder.py``'s, of answers given again ``test_caching.py``'s.
"""

from __future__ import annotations

import json

import pytest

from tests.protocol.flows.recording import Recording
from tests.protocol.flows.serving import answer, chat, good, good_stream, refusal
from tests.protocol.flows.stored import Stored, extras
from tz_protocol.testing import ScriptedClickHouse, ScriptedDisk, ScriptedRequest, cut

DURABILITIES = pytest.mark.parametrize("durability", ["async", "spool", "sync"])
FORMS = pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])


def is_whole(outcome):
    """Return whether the last byte of an answer was sent."""
    return outcome.response.is_complete


def metrics(served):
    """Return what ``/metrics`` shows."""
    return served.gateway.metrics.render(served.gateway.gauges())


def health(served):
    """Return what ``/health`` says is not well."""
    return answer(served.ask(method="GET", path="/health")).get("degraded", [])


# -- the store ------------------------------------------------------------------


@DURABILITIES
@pytest.mark.parametrize("state", ["down", "frozen"])
def test_store_that_is_away_at_the_start_is_told_and_written_to_later(
    state, durability
):
    server = ScriptedClickHouse()
    server.state = state
    served = Stored([good()], server=server, spool=True, durability=durability)
    ids = [answer(served.ask())["id"] for _ in range(3)]
    served.wait(15.0)
    assert health(served) == ["ClickHouse takes no records"]
    assert served.ask(method="GET", path="/readyz").response.head.status == 200
    assert "tz_records_spooled 3.0\n" in metrics(served)
    assert "tz_clickhouse_up 0.0\n" in metrics(served)
    server.state = "up"
    served.wait(20.0)
    assert [row["id"] for row in server.rows("Exchange")] == ids
    assert health(served) == []
    assert not served.sim.world.disk.files


@FORMS
@pytest.mark.parametrize("durability", ["async", "spool"])
@pytest.mark.parametrize(
    ("state", "latency"),
    [("up", 5.0), ("up", 30.0), ("down", 0.0), ("frozen", 0.0)],
    ids=["slow", "too-slow", "down", "frozen"],
)
def test_answers_are_as_fast_whatever_the_store_does(
    state, latency, durability, is_stream
):
    server = ScriptedClickHouse()
    served = Stored(
        [good_stream() if is_stream else good()],
        server=server,
        spool=True,
        durability=durability,
        queue_rows=100,
    )
    server.state, server.latency = state, latency
    late, ids = [], []
    for _ in range(400):
        asked = served.sim.now
        outcome = served.ask(stream=is_stream, run=False)
        served.wait(0.2)
        late.append(outcome.finished_at - asked)
        ids.append(served.sim.records[-1].id)
    assert max(late) == pytest.approx(min(late), abs=1e-6)
    server.state, server.latency = "up", 0.0
    served.wait(90.0)
    assert sorted(row["id"] for row in server.rows("Exchange")) == sorted(ids)
    assert "dropped" not in metrics(served)


def test_killed_while_the_store_is_slow_or_frozen_has_what_waited_long_on_disk():
    for is_frozen in (True, False):
        run = Recording(spool={})
        run.offer()
        run.wait(1)
        run.server.state = "frozen" if is_frozen else "up"
        run.server.latency = 8.0
        run.offer_at_rate(50, 7)
        on_its_way = 50 * 0.2  # what the insert that is stuck began with
        assert run.counts.queued <= on_its_way + 50 * 2.3
        run.sim.kill()
        run.server.state, run.server.latency = "up", 0.0
        later = Recording(
            disk=run.disk, server=run.server, spool={}, start=run.sim.now + 9
        )
        later.wait(20)
        assert len(run.offered) - len(later.written()) <= run.counts.queued


def test_slow_inserts_send_what_memory_cannot_hold_to_the_disk():
    run = Recording(spool={}, queue_rows=100)
    run.offer()
    run.wait(1)
    run.server.latency = 5.0
    run.offer_at_rate(150, 6)
    assert run.counts.queued <= 100
    assert run.counts.spooled >= 700
    assert run.counts.dropped == {}
    run.server.latency = 0.0
    run.wait(30)
    assert sorted(run.written()) == run.offered
    assert run.is_empty()


def test_records_of_now_do_not_wait_for_those_of_a_long_outage():
    run = Recording(spool={})
    run.offer()
    run.wait(1)
    run.server.state = "down"
    run.offer_at_rate(50, 100)
    backlog = len(run.recorder.queue.segments)
    assert backlog > 50
    run.server.state, run.server.latency = "up", 0.3
    while run.recorder.queue.is_failing:
        run.wait(0.1)
    for _ in range(5):
        run.offer()
        latest = run.offered[-1]
        run.wait(1.5)  # the flush, and two inserts: the backlog's one and its own
        assert latest in run.written()
    assert run.recorder.queue.segments


def test_segment_that_is_damaged_gives_all_but_what_is_damaged():
    run = Recording(spool={}, durability="spool")
    run.server.state = "down"
    run.wait(1)
    for _ in range(5):
        run.keep()
    run.wait(0.1)
    run.sim.kill()
    (path,) = run.disk.files
    run.disk.files[path] = run.disk.files[path][:-7]
    run.server.state = "up"
    later = Recording(disk=run.disk, server=run.server, spool={}, start=run.sim.now + 1)
    later.wait(5)
    assert later.written() == run.offered[:4]
    assert "tz_spool_damage_total 1.0\n" in later.metrics.render({})
    assert later.is_empty()


# -- the disk -------------------------------------------------------------------


def suffer(disk: ScriptedDisk, fault: str) -> None:
    """Let the disk fail in this way; ``""``: not any more."""
    disk.capacity = 0 if fault == "full" else 1 << 40
    disk.failure = fault if fault in ("readonly", "denied", "disk") else ""
    disk.latency = 60.0 if fault == "slow" else 0.0


@FORMS
@pytest.mark.parametrize("state", ["up", "down"])
@pytest.mark.parametrize("fault", ["full", "readonly", "denied", "disk", "slow"])
def test_disk_that_fails_costs_no_answer_and_is_told(fault, state, is_stream):
    server = ScriptedClickHouse()
    upstream = good_stream() if is_stream else good()
    served = Stored([upstream], server=server, spool=True, durability="spool")
    served.ask(stream=is_stream)
    server.state = state
    suffer(served.sim.world.disk, fault)
    for number in range(10):
        asked = served.sim.now
        outcome = served.ask(stream=is_stream)
        assert is_whole(outcome)
        waited = outcome.finished_at - asked
        assert waited < (1.1 if fault == "slow" and not number else 0.1)
        served.wait(0.2)
    assert f"the spool cannot be written ({fault})" in health(served)
    assert f'tz_records_unsafe_total{{reason="{fault}"}}' in metrics(served)
    assert f'tz_spool_failures_total{{reason="{fault}"}}' in metrics(served)
    suffer(served.sim.world.disk, "")
    server.state = "up"
    served.wait(40.0)
    ids = [row["id"] for row in server.rows("Exchange")]
    assert sorted(ids) == sorted(record.id for record in served.sim.records[:11])
    assert health(served) == []


# -- before the last byte -------------------------------------------------------


ENDS = {
    "answer": (good(), False, False),
    "error": (refusal(400), False, False),
    "stream": (good_stream(), True, False),
    "error-in-stream": (cut(good_stream(), 900), True, False),
    "answer-again": (good(), False, True),
    "stream-again": (good(), True, True),
}
"""What the provider says; whether a stream is asked for; whether it was said before."""


@pytest.mark.parametrize("durability", ["spool", "sync"])
@pytest.mark.parametrize("end", ENDS)
def test_last_byte_waits_for_the_record(end, durability):
    upstream, is_stream, is_hit = ENDS[end]
    server = ScriptedClickHouse()
    served = Stored([upstream], server=server, spool=True, durability=durability)
    cached = extras(cache_options={"enabled": "on" if is_hit else "off"})
    served.ask(chat(**cached))  # the tables are there, and the answer
    served.wait(1.0)
    before = len(server.rows("Exchange"))
    if durability == "spool":
        server.state = "down"
        served.sim.world.disk.latency = 0.5
    else:
        server.latency = 0.25  # for each of the tables
    outcome = served.ask(chat(stream=is_stream, **cached), run=False)
    wrote, disk = server.rows("Exchange"), served.sim.world.disk
    while not outcome.is_done:
        is_safe = any(disk.files) if durability == "spool" else len(wrote) > before
        assert is_safe or not is_whole(outcome)
        served.wait(0.01)
    assert is_whole(outcome)
    assert outcome.finished_at - outcome.started_at >= 0.25
    assert (served.sim.records[-1].cache == "hit") is is_hit
    if end == "error-in-stream":
        assert b"error" in outcome.response.body


@FORMS
def test_answer_whose_record_the_store_does_not_take_in_time_is_given_and_counted(
    is_stream,
):
    server = ScriptedClickHouse()
    upstream = good_stream() if is_stream else good()
    served = Stored([upstream], server=server, durability="sync", insert_timeout=3.0)
    server.state = "frozen"
    outcome = served.ask(stream=is_stream)
    assert is_whole(outcome)
    assert outcome.response.head.status == 200
    assert outcome.finished_at - outcome.started_at == pytest.approx(3.0, abs=0.1)
    assert 'tz_records_unsafe_total{reason="timeout"} 1.0\n' in metrics(served)
    server.state = "up"
    served.wait(20.0)
    (row,) = server.rows("Exchange")
    assert row["outcome"] == "ok"


@FORMS
def test_answer_whose_record_went_to_the_disk_instead_is_given_and_counted(is_stream):
    server = ScriptedClickHouse()
    upstream = good_stream() if is_stream else good()
    served = Stored([upstream], server=server, spool=True, durability="sync")
    server.state = "down"
    outcome = served.ask(stream=is_stream)
    assert is_whole(outcome)
    assert outcome.finished_at - outcome.started_at < 3.0
    assert "tz_records_spooled 1.0\n" in metrics(served)
    assert 'tz_records_unsafe_total{reason="spooled"} 1.0\n' in metrics(served)


def test_client_that_leaves_while_its_record_is_on_its_way_leaves_one():
    server = ScriptedClickHouse()
    served = Stored([good()], server=server, spool=True, durability="spool")
    served.sim.world.disk.latency = 0.5
    body = json.dumps(chat()).encode()
    outcome = served.ask(request=ScriptedRequest((body,), gone_after=0.2), run=False)
    served.wait(10.0)
    assert not is_whole(outcome)
    assert len(server.rows("Exchange")) == 1
