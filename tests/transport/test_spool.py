"""Batches that are written twice, and files: the real engine and disk, both transports.

The one rule: what ``tests/protocol/flows/test_recorder.py`` shows of a scripted store
and disk is shown here of what they stand for.
"""

from __future__ import annotations

import sys

import msgspec
import pytest

from tests.transport.engine import SECONDS, engine, engine_of_the_session
from tests.transport.loops import NAMES, Transport
from tests.transport.test_records import entry, prepared
from tz_protocol.flows.clickhouse import ClickHouse
from tz_protocol.flows.writing import render, write
from tz_protocol.machine import Context

__all__ = ["engine", "engine_of_the_session"]  # fixtures

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs flock")

encode = msgspec.msgpack.Encoder().encode
TABLES = ("ModelInference", "ChatInference", "Exchange")


@pytest.fixture(params=NAMES)
def transport(request):
    return Transport(request.param)


def written(transport, engine, entries, *, is_repeat=False):
    """Write *entries* as one batch that was never heard of."""
    context = Context()
    store = ClickHouse(prepared(engine), context)

    def flow():
        rows, unread = yield from render([encode(one) for one in entries], context)
        assert not unread
        name = entries[0].record.id
        return (yield from write(store, SECONDS, name, rows, {}, is_repeat=is_repeat))

    return transport.run_flow(flow, context)


def forget(engine):
    """Have the engine know no token of an insert."""
    prepared(engine)
    for table in TABLES:
        sql = f"ALTER TABLE {table} MODIFY SETTING "
        engine.ask(sql + "non_replicated_deduplication_window = 0")


@pytest.mark.parametrize("part", [1, 5, 7], ids="{} of 7".format)
def test_batch_that_is_repeated_without_its_token_adds_what_is_missing(
    transport, engine, part
):
    forget(engine)
    entries = [entry(number=number) for number in range(7)]
    entries[3].record.started_at -= 86_400
    entries[4].record.episode_id = None
    assert written(transport, engine, entries[:part]) == []
    assert written(transport, engine, entries, is_repeat=True) == []
    ids = sorted(one.record.id for one in entries)
    for table in TABLES:
        name = "inference_id" if table == "ModelInference" else "id"
        found = [row[name] for row in engine.query(f"SELECT {name} FROM {table}")]
        assert sorted(found) == ids, table


def test_batch_that_is_repeated_without_asking_is_there_twice(transport, engine):
    # what makes the test above able to fail
    forget(engine)
    entries = [entry()]
    for _ in range(2):
        written(transport, engine, entries)
    assert engine.query("SELECT count() AS n FROM ChatInference") == [{"n": 2}]
