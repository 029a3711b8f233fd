"""Answers in the store: whom they serve, and what becomes of them when it fails."""

from __future__ import annotations

import json

import pytest

from tests.protocol.flows.serving import (
    COMPLETION,
    JSON,
    answer,
    events,
    good,
    good_stream,
    header,
    text_of,
)
from tests.protocol.flows.stored import Stored, asked
from tz_protocol.flows.caching import (
    BATCH_PAUSE,
    BATCH_ROWS,
    REST,
    TABLE,
    WAITING_LIMIT,
    WRITE_SECONDS,
)
from tz_protocol.testing import ScriptedClickHouse, reply


def test_answer_in_the_store_serves_another_process():
    server = ScriptedClickHouse()
    served = Stored([good()], server=server)
    first = answer(served.ask(asked()))
    served.wait(5.0)
    (row,) = server.rows(TABLE)
    assert len(row["long_cache_key"]) == 64
    assert row["finish_reason"] == "stop"
    later = Stored([good()], server=server)
    outcome = later.ask(asked())
    assert answer(outcome)["choices"] == first["choices"]
    assert later.upstream_calls() == 0
    # and from now on it is in memory
    server.state = "down"
    assert header(later.ask(asked()), "x-tz-cache") == "hit"


def test_store_that_is_slow_is_a_miss_after_the_deadline():
    server = ScriptedClickHouse()
    served = Stored([good()], server=server, cache={"lookup_timeout": 0.05})
    server.latency = 5.0
    started = served.sim.now
    outcome = served.ask(asked("read_only"))
    assert header(outcome, "x-tz-cache") == "miss"
    assert outcome.finished_at - started < 0.06


def test_store_that_is_slow_again_and_again_is_left_alone():
    server = ScriptedClickHouse()
    served = Stored([good()], server=server)
    server.state = "frozen"
    for _ in range(5):
        served.ask(asked("read_only"))
    started = served.sim.now
    served.ask(asked("read_only"))
    assert served.sim.now - started < 0.01
    server.state = "up"
    served.wait(6.0)
    count = len(server.statements)
    served.ask(asked("read_only"))
    assert len(server.statements) == count + 1


def test_row_that_somebody_else_wrote_is_a_miss():
    server = ScriptedClickHouse()
    served = Stored([good()], server=server)
    served.ask(asked())
    served.wait(5.0)
    server.tables[TABLE][0]["output"] = '[{"type":"text","text":"x"}]'
    later = Stored([good()], server=server)
    assert header(later.ask(asked()), "x-tz-cache") == "miss"


def cache_count(served, name, **labels):
    """Return a figure of the cache, as /metrics shows it."""
    pairs = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    for line in served.gateway.metrics.render({}).splitlines():
        if line.startswith(f"{name}{{{pairs}}} "):
            return float(line.rpartition(" ")[2])
    return 0.0


def test_answer_in_the_store_that_is_too_old_is_a_miss():
    server = ScriptedClickHouse()
    served = Stored([good()], server=server)
    served.ask(asked())
    served.wait(20.0)
    later = Stored([good()], server=server)
    later.wait(20.0)
    assert header(later.ask(asked("read_only", max_age=15)), "x-tz-cache") == "miss"
    misses = cache_count(later, "tz_cache_lookups_total", result="miss", tier="store")
    assert misses == 1
    assert header(later.ask(asked("read_only", max_age=60)), "x-tz-cache") == "hit"


def test_whole_answer_over_the_limit_is_not_stored_and_counted():
    served = Stored([good()], server=ScriptedClickHouse(), cache={"entry_bytes": 500})
    served.ask(asked())
    assert len(served.gateway.cache.memory) == 0
    assert served.rows(TABLE) == []
    assert cache_count(served, "tz_cache_writes_total", result="too_large") == 1


def test_answers_that_wait_for_the_store_are_bounded_and_the_rest_counted():
    server = ScriptedClickHouse()
    content = "x" * (WAITING_LIMIT // 10)
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps({**COMPLETION, "choices": [choice]}).encode()
    cache = {"entry_bytes": WAITING_LIMIT, "memory_bytes": 4 * WAITING_LIMIT}
    served = Stored([reply(200, JSON, body)], server=server, cache=cache)
    for number in range(12):
        served.ask(asked("on", seed=number))
    stored = len(served.rows(TABLE))
    assert 0 < stored < 12
    dropped = cache_count(served, "tz_cache_writes_total", result="dropped")
    assert (stored + dropped, len(served.gateway.cache.memory)) == (12, 12)
    # What has been written makes room again.
    served.ask(asked("on", seed=12))
    assert len(served.rows(TABLE)) == stored + 1


def test_more_answers_than_a_batch_holds_are_written_one_batch_after_the_other():
    server = ScriptedClickHouse()
    served = Stored([good()], server=server)
    for number in range(BATCH_ROWS + 7):
        served.ask(asked("write_only", seed=number))
    assert len(served.rows(TABLE)) == BATCH_ROWS + 7
    sizes = [rows for table, _, rows in server.inserts if table == TABLE]
    assert sizes == [BATCH_ROWS, 7]


@pytest.mark.parametrize("state", ["down", "frozen"])
def test_answers_that_could_not_be_stored_are_counted_and_later_ones_are(state):
    server = ScriptedClickHouse()
    served = Stored([good()], server=server)
    served.ask(asked("write_only", seed=1))
    server.state = state
    served.wait(BATCH_PAUSE + (WRITE_SECONDS if state == "frozen" else 0.0) + 0.1)
    assert cache_count(served, "tz_cache_writes_total", result="failed") == 1
    server.state = "up"
    served.ask(asked("write_only", seed=2))
    served.wait(1.0)
    assert server.rows(TABLE) == []
    served.wait(REST)
    assert len(server.rows(TABLE)) == 1
    assert cache_count(served, "tz_cache_writes_total", result="ok") == 1


def test_answer_whose_usage_is_not_known_is_given_again_without():
    server = ScriptedClickHouse()
    unknown = {name: COMPLETION[name] for name in COMPLETION if name != "usage"}
    whole = reply(200, JSON, json.dumps(unknown).encode())
    served = Stored([whole], server=server)
    served.ask(asked())
    (row,) = served.rows(TABLE)
    assert {"input_tokens", "output_tokens"}.isdisjoint(row)
    later = Stored([whole], server=server)
    assert header(later.ask(asked()), "x-tz-cache") == "hit"


def test_answer_without_a_choice_is_asked_for_again_as_a_stream():
    empty = reply(200, JSON, json.dumps({**COMPLETION, "choices": []}).encode())
    served = Stored([empty + good_stream()])
    served.ask(asked())
    outcome = served.ask(asked(stream=True))
    assert text_of(events(outcome)) == "Hello there, you"
    assert header(outcome, "x-tz-cache") == "miss"
