"""Lookup tables and statistics: made on any engine, and each row counted once."""

from __future__ import annotations

import time

import pytest

from tests.transport.engine import (
    SECONDS,
    Engine,
    each_engine,
    engine_of_the_session,
    full_engine_of_the_session,
    full_library,
)
from tests.transport.loops import Transport
from tests.transport.traffic import Request, day, entry_of
from tz_protocol.errors import StoreRefused
from tz_protocol.flows.clickhouse import ClickHouse
from tz_protocol.flows.migrate import Migrated, migrate
from tz_protocol.flows.writing import MISSING_TABLE
from tz_protocol.machine import Context
from tz_protocol.operations import All
from tz_protocol.recordops import ClickHouseInsert
from tz_protocol.records.rows import TABLES, rows_of
from tz_protocol.records.schema import MIGRATIONS

__all__ = ["each_engine", "engine_of_the_session", "full_engine_of_the_session"]

REQUESTS = day(count=200)
INFERENCES = [request for request in REQUESTS if request.is_inference]
TOKENS = sum(request.input_tokens or 0 for request in INFERENCES)
TAGS = sum(len(r.tags) + (r.key is not None) for r in INFERENCES)
EPISODES = {request.episode_id for request in INFERENCES}


def migrated(engine: Engine, times: int = 1) -> Migrated:
    """Have so many gateways migrate the database at once; return what one did."""
    context = Context()
    store = ClickHouse(engine.url, context)

    def flow():
        flows = tuple(migrate(store, None) for _ in range(times))
        return (yield from All(context.now + SECONDS, flows))

    found: tuple[Migrated, ...] = Transport("asyncio").run_flow(flow, context)
    return found[0]


def write(engine: Engine, requests: list[Request] = REQUESTS, token: str = "") -> None:
    rows = [pair for request in requests for pair in rows_of(entry_of(request))]
    for table in TABLES:
        data = b"\n".join(row for name, row in rows if name == table)
        deadline = time.monotonic() + SECONDS
        engine.perform(ClickHouseInsert(deadline, engine.url, table, data, token))


def check(engine: Engine, *, has_statistics: bool) -> None:
    """Compare what the tables add up to with what was written."""
    (found,) = engine.query(
        "SELECT (SELECT count() FROM InferenceById FINAL) AS by_id, "
        "(SELECT count() FROM InferenceByEpisodeId FINAL) AS by_episode, "
        "(SELECT count() FROM InferenceTag) AS tags, "
        "(SELECT count() FROM TagInference FINAL) AS by_tag, "
        "(SELECT sum(count) FROM EpisodeById) AS in_episodes, "
        "(SELECT uniqExact(episode_id_uint) FROM EpisodeById) AS episodes, "
        "(SELECT sum(count) FROM CumulativeUsage WHERE type = 'input_tokens') AS tokens"
    )
    assert {name: int(value) for name, value in found.items()} == {
        "by_id": len(INFERENCES),
        "by_episode": len(INFERENCES),
        "tags": TAGS,
        "by_tag": TAGS,
        "in_episodes": len(INFERENCES),
        "episodes": len(EPISODES),
        "tokens": TOKENS,
    }
    if not has_statistics:
        return
    for table in ("ModelProviderStatistics", "VariantStatistics"):
        (row,) = engine.query(
            "SELECT countMerge(count) AS count, "
            f"sumMerge(total_input_tokens) AS tokens FROM {table}"
        )
        assert row == {"count": len(INFERENCES), "tokens": TOKENS}


def has_statistics(engine: Engine) -> bool:
    sql = "SELECT name FROM system.functions WHERE name = 'quantilesTDigest'"
    return bool(engine.query(sql))


def test_batch_that_is_repeated_is_counted_once(each_engine):
    migrated(each_engine)
    for _ in range(3):
        write(each_engine, token="batch")
    check(each_engine, has_statistics=has_statistics(each_engine))


def test_batch_that_a_view_failed_to_take_is_whole_once_it_is_repeated(each_engine):
    migrated(each_engine)
    for table in ("EpisodeById", "InferenceTag", "CumulativeUsage"):
        each_engine.query(f"RENAME TABLE {table} TO {table}Away")
        with pytest.raises(StoreRefused) as refused:
            write(each_engine, token="batch")
        assert refused.value.code in MISSING_TABLE
        each_engine.query(f"RENAME TABLE {table}Away TO {table}")
    write(each_engine, token="batch")
    check(each_engine, has_statistics=has_statistics(each_engine))


def test_batches_with_the_same_rows_in_two_tables_do_not_hide_each_other(each_engine):
    migrated(each_engine)
    for number in range(0, len(REQUESTS), 40):
        write(each_engine, REQUESTS[number : number + 40], f"batch{number}")
    check(each_engine, has_statistics=has_statistics(each_engine))


@pytest.mark.parametrize("gateways", [1, 3])
def test_rows_that_were_there_before_the_views_are_counted_once(each_engine, gateways):
    engine = each_engine
    name = engine.url.reveal().rpartition("/")[2]
    engine.url, url = engine.address, engine.url
    engine.query(f"CREATE DATABASE {name}")
    engine.url = url
    for migration in (MIGRATIONS[0], *MIGRATIONS[3:]):
        for statement in migration.statements:
            engine.query(statement)
    # As a gateway wrote them that knew of no other tables.
    for column in ("function_name", "variant_name"):
        engine.query(f"ALTER TABLE ModelInference ADD COLUMN {column} String")
    write(engine, REQUESTS[:150])
    migrated(engine, gateways)
    write(engine, REQUESTS[150:])
    migrated(engine, gateways)
    check(engine, has_statistics=has_statistics(engine))


def test_views_that_somebody_else_made_are_left_as_they_are(each_engine):
    engine = each_engine
    migrated(engine)
    write(engine)
    engine.query("DROP VIEW EpisodeByIdChatView")
    engine.query(
        "CREATE MATERIALIZED VIEW EpisodeByIdChatView TO EpisodeById AS SELECT "
        "toUInt128(episode_id) AS episode_id_uint, count() AS count "
        "FROM ChatInference GROUP BY episode_id_uint"
    )
    engine.query("TRUNCATE TABLE TzMigration")
    migrated(engine)
    found = engine.query("SELECT sum(count) AS n FROM EpisodeById")
    assert found == [{"n": len(INFERENCES)}]


def test_small_engine_leaves_out_what_the_full_one_then_makes(tmp_path):
    library = full_library()
    small = Engine(tmp_path)
    assert "ModelProviderStatistics" in migrated(small).left_out[0]
    write(small)
    check(small, has_statistics=False)
    small.close()
    until = time.monotonic() + SECONDS
    while (tmp_path / "endpoint.json").exists() and time.monotonic() < until:
        time.sleep(0.05)
    full = Engine(tmp_path, library)
    try:
        assert migrated(full) == Migrated(("statistics",), ())
        check(full, has_statistics=True)
        one = INFERENCES[7]
        found = full.query(
            "SELECT uint_to_uuid(id_uint) AS id FROM InferenceById "
            "WHERE id_uint = toUInt128({id:UUID})",
            id=one.id,
        )
        assert found == [{"id": one.id}]
    finally:
        full.close()
