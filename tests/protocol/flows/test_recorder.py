"""Records reach the store, each once, whatever happens to the store and the disk."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocol.flows.recording import FOLDER, Recording, vars_of
from tz_protocol.errors import OperationBroken
from tz_protocol.flows.spooling import APPEND_SECONDS
from tz_protocol.notices import LogLine
from tz_protocol.testing import ScriptedClickHouse


def test_records_in_good_times_are_written_within_the_flush_interval():
    run = Recording(flush=0.2)
    run.offer(3)
    assert run.counts.queued == 3
    run.wait(0.3)
    assert run.written() == run.offered
    assert run.counts.written == 3
    assert len([i for i in run.server.inserts if i[0] == "Exchange"]) == 1


def test_first_write_migrates_the_database_once():
    run = Recording()
    run.offer()
    run.wait(1)
    assert {"ChatInference", "ModelInference", "Exchange"} <= run.server.created
    count = len(run.server.statements)
    run.offer()
    run.wait(1)
    assert len(run.server.statements) == count


def test_tables_that_the_store_cannot_fill_are_no_reason_to_write_nothing():
    server = ScriptedClickHouse()
    server.functions.clear()
    run = Recording(server=server)
    run.offer()
    run.wait(1)
    assert run.written() == run.offered
    assert "ModelProviderStatistics" not in run.server.created
    assert any("FUNCTION IF NOT EXISTS uint_to" in s for s in run.server.statements)
    lines = [notice for notice in run.sim.notices if isinstance(notice, LogLine)]
    told = [line for line in lines if "left out" in line.message]
    assert [line.level for line in told] == ["info"]
    assert "quantilesTDigest" in str(told[0].fields)


def test_batch_that_is_full_is_written_at_once():
    run = Recording(flush=60.0, batch_rows=2)
    run.offer(5)
    run.wait(0.1)
    assert run.written() == run.offered[:4]
    assert run.counts.queued == 1


def test_store_away_for_thirty_seconds_at_two_hundred_a_second_loses_nothing():
    run = Recording(spool={})
    run.offer_at_rate(200, 1)
    run.server.state = "down"
    run.offer_at_rate(200, 30)
    assert run.counts.spooled > 5_000
    assert run.recorder.problems() == ["ClickHouse takes no records"]
    run.server.state = "up"
    run.offer_at_rate(200, 2)
    run.wait(60)
    assert sorted(run.written()) == run.offered
    assert run.counts.written == len(run.offered)
    assert not run.disk.files
    assert run.is_empty()
    assert run.recorder.problems() == []


def test_store_frozen_spools_after_the_insert_timeout():
    run = Recording(spool={}, insert_timeout=10.0)
    run.server.state = "frozen"
    run.offer(2)
    run.wait(15)
    assert run.counts.spooled == 2
    run.server.state = "up"
    run.wait(10)
    assert run.written() == run.offered


def test_store_slow_by_five_seconds_writes_everything_once():
    run = Recording(spool={}, insert_timeout=10.0)
    run.server.latency = 5.0
    run.offer_at_rate(50, 20)
    run.server.latency = 0.0
    run.wait(60)
    assert sorted(run.written()) == run.offered


def test_store_slower_than_the_timeout_writes_everything_once():
    # every insert is carried out after it was given up
    run = Recording(spool={}, insert_timeout=2.0)
    run.offer()
    run.wait(1)
    run.server.latency = 3.0
    run.offer_at_rate(20, 20)
    run.server.latency = 0.0
    run.wait(60)
    assert sorted(run.written()) == run.offered


def test_acknowledgement_lost_is_no_duplicate():
    run = Recording(spool={})
    run.server.lost_acks = 3
    run.offer(4)
    run.wait(30)
    assert run.written() == run.offered
    assert run.counts.written == 4


def test_acknowledgement_lost_is_no_duplicate_long_after_its_token_is_forgotten():
    run = Recording(spool={})
    run.server.window = 0
    run.server.lost_acks = 3
    run.offer(4, is_chat=True)
    run.wait(30)
    for table in ("ModelInference", "ChatInference", "Exchange"):
        assert len(run.server.rows(table)) == 4
    assert run.is_empty()


def test_killed_before_the_file_is_removed_is_no_duplicate_without_its_token():
    run = Recording(spool={}, durability="spool")
    run.wait(1)
    run.server.window = 0
    run.disk.is_kept = True  # what is removed is there again after the kill
    for _ in range(3):
        run.keep()
        run.wait(1)
    assert len(run.written()) == 3
    run.sim.kill()
    run.disk.is_kept = False
    later = Recording(disk=run.disk, server=run.server, spool={}, start=run.sim.now + 1)
    later.wait(5)
    assert later.counts.recovered == 3
    assert later.written() == run.offered
    assert later.is_empty()


def test_part_of_a_batch_that_is_there_does_not_hide_the_rest():
    # halves were written, one was not acknowledged, and the tokens are forgotten
    for lost in range(1, 6):
        run = Recording(spool={})
        run.offer()
        run.wait(1)
        run.offer(16)
        bad = {run.offered[6]}
        run.server.is_bad = lambda _, row: row["id"] in bad  # noqa: B023 - called here
        run.server.window = 0 if lost % 2 else 10_000
        run.server.lost_acks = lost
        run.wait(60)
        assert sorted(run.written()) == sorted(set(run.offered) - bad)


def test_store_without_a_spool_keeps_what_memory_holds_and_counts_the_rest():
    run = Recording(queue_rows=10)
    run.server.state = "down"
    run.offer(25)
    run.wait(5)
    assert vars_of(run.counts)["dropped"] == {"queue_full": 15}
    run.server.state = "up"
    run.wait(20)
    assert sorted(run.written()) == run.offered[:10]


def test_bytes_bound_the_memory_too():
    run = Recording(queue_bytes=10_000, batch_bytes=100_000)
    run.server.state = "down"
    run.offer(20, size=1_000)
    assert run.counts.dropped["queue_full"] > 10


# -- what the server refuses ----------------------------------------------------


@pytest.mark.parametrize("code", ["252", "241", "243", "159", "202", "497"])
def test_refusal_that_time_mends_is_tried_again(code):
    run = Recording(spool={})
    run.server.refusals = [code, code]
    run.offer(3)
    run.wait(30)
    assert run.written() == run.offered
    assert run.dead() == []


def test_bad_rows_are_halved_out_and_set_aside():
    run = Recording(spool={})
    run.offer(20)
    bad = {run.offered[3], run.offered[11]}
    run.server.is_bad = lambda table, row: table == "Exchange" and row["id"] in bad
    run.wait(5)
    assert set(run.written()) == set(run.offered) - bad
    assert len(run.written()) == 18
    assert {line["row"]["id"] for line in run.dead()} == bad
    assert run.dead()[0]["code"] == "27"
    assert run.counts.dropped == {"rejected": 2}


def test_bad_rows_and_a_lost_acknowledgement_are_no_duplicate():
    run = Recording(spool={})
    run.offer(16)
    bad = {run.offered[5]}
    run.server.is_bad = lambda table, row: row.get("id") in bad
    run.server.lost_acks = 1
    run.wait(30)
    assert sorted(run.written()) == sorted(set(run.offered) - bad)


def test_bad_row_of_one_table_is_set_aside_though_the_next_table_fails():
    run = Recording(spool={})
    run.offer()
    run.wait(1)
    run.offer(4, is_chat=True)
    bad = run.offered[2]
    once = iter([True])
    run.server.is_bad = lambda table, row: table != "Exchange" and row["id"] == bad
    run.server.refuses = lambda table, _: table == "Exchange" and next(once, False)
    run.wait(30)
    assert run.written() == run.offered
    assert [line["row"]["id"] for line in run.dead()] == [bad]
    assert run.counts.dropped == {"rejected": 1}


@pytest.mark.parametrize("spool", [{}, None], ids=["spool", "no-spool"])
def test_batch_that_is_always_refused_does_not_keep_the_others_waiting(spool):
    run = Recording(spool=spool)
    run.offer()
    run.wait(1)
    run.server.refuses = lambda table, row: row["id"] == run.offered[1]
    run.offer()
    run.wait(10)
    for _ in range(40):
        run.offer()
        run.wait(0.5)
    assert len(run.written()) >= 38
    run.server.refuses = lambda table, row: False
    run.wait(40)
    assert sorted(run.written()) == run.offered
    assert run.is_empty()


def test_batch_that_kills_the_server_does_not_keep_the_others_waiting():
    run = Recording(spool={})
    run.offer()
    run.wait(1)

    def crash(_: str, row: dict) -> bool:
        if row["id"] == run.offered[1]:
            raise OperationBroken("reset")
        return False

    run.server.refuses = crash
    run.offer()
    run.wait(10)
    started = run.sim.now
    for _ in range(100):
        run.offer()
        run.wait(0.5)
    told = [line for line in run.sim.notices if isinstance(line, LogLine)]
    assert len([line for line in told if line.level == "error"]) < 10
    assert len(run.written()) >= 99
    assert run.sim.now - started < 60


def test_store_that_comes_back_is_noticed_however_often_it_failed():
    run = Recording()
    run.server.state = "down"
    run.offer()
    run.wait(60)
    run.server.state = "up"
    run.wait(6)
    assert run.written() == run.offered


def test_end_does_not_wait_for_what_was_put_off():
    run = Recording()
    run.offer()
    run.wait(1)
    run.server.refuses = lambda table, row: row["id"] == run.offered[1]
    run.offer()
    run.wait(5)
    for _ in range(10):
        run.offer()
        run.wait(1)
    assert len(run.written()) == 11
    run.server.refuses = lambda table, row: False
    run.finish()
    assert sorted(run.written()) == run.offered


def test_rows_set_aside_have_a_bound_and_are_counted_past_it(monkeypatch):
    monkeypatch.setattr("tz_protocol.flows.spooling.DEAD_BYTES", 3_000)
    run = Recording(spool={})
    run.server.is_bad = lambda table, row: True
    for _ in range(20):
        run.offer()
        run.wait(0.5)
    assert 0 < len(run.dead()) < 5
    assert run.counts.dropped == {"rejected": 20}
    assert run.recorder.problems() == []
    run.sim.kill()
    later = Recording(disk=run.disk, server=run.server, spool={}, start=run.sim.now + 1)
    later.offer()
    later.wait(1)
    assert sum(map(len, run.disk.files.values())) <= 3_000
    told = [line.message for line in later.sim.notices if isinstance(line, LogLine)]
    assert "ClickHouse cannot read some rows; they are lost" in told


@pytest.mark.parametrize("is_later", [False, True], ids=["batch", "segment"])
def test_killed_after_rows_were_refused_has_them_set_aside_or_on_disk_still(is_later):
    for step in range(400):
        run = Recording(spool={}, durability="spool")
        run.server.is_bad = lambda table, row: True
        run.server.state = "down" if is_later else "up"
        run.keep()
        run.wait(0.1)
        run.disk.latency = 0.01
        if is_later:
            run.sim.kill()
            run.server.state, start = "up", run.sim.now + 1
            run = Recording(disk=run.disk, server=run.server, spool={}, start=start)
        run.sim.run_until(run.sim.now + step * 0.001)
        run.sim.kill()
        if run.counts.dropped or not run.disk_bytes_kept():
            break
    assert run.dead()


def test_tables_of_an_older_version_keep_records_waiting_until_they_are_migrated():
    run = Recording(spool={}, migrate=False)
    run.server.created |= {"Exchange"}
    run.server.lacks = {"attempts.connect_ms"}
    run.offer(4)
    run.wait(20)
    assert run.written() == []
    assert run.dead() == []
    assert run.counts.dropped == {}
    run.server.lacks.clear()
    run.wait(10)
    assert run.written() == run.offered
    assert run.is_empty()


def test_member_that_no_version_has_is_about_its_row():
    run = Recording(spool={})
    run.offer()
    run.wait(1)
    run.server.refusals = ["117", "117"]
    run.offer(2)
    run.wait(5)
    assert len(run.written()) == 2
    assert run.counts.dropped == {"rejected": 1}


def test_tables_that_vanish_are_made_again():
    run = Recording(spool={})
    run.offer()
    run.wait(1)
    run.server.created.clear()
    run.server.tables.pop("TzMigration")
    run.offer()
    run.wait(20)
    assert run.written() == run.offered


# -- the disk -------------------------------------------------------------------


def test_disk_full_keeps_records_in_memory_and_recovers():
    run = Recording(spool={})
    run.disk.capacity = 0
    run.server.state = "down"
    run.offer_at_rate(10, 10)
    assert run.counts.queued == 100
    assert "the spool cannot be written (full)" in run.recorder.problems()
    run.disk.capacity = 1 << 30
    run.wait(10)
    assert run.counts.spooled == 100
    run.server.state = "up"
    run.wait(20)
    assert sorted(run.written()) == run.offered


def test_disk_read_only_at_start_is_told_and_costs_nothing_while_the_store_is_up():
    run = Recording(spool={})
    run.disk.failure = "readonly"
    run.wait(40)
    run.offer(3)
    run.wait(1)
    assert run.written() == run.offered
    assert "the spool cannot be written (readonly)" in run.recorder.problems()


def test_spool_over_its_bound_drops_the_newest():
    run = Recording(spool={"bytes": 20_000}, queue_bytes=20_000, batch_bytes=5_000)
    run.server.state = "down"
    run.wait(1)
    for _ in range(100):
        run.offer(size=1_000)
        run.wait(0.2)
    assert run.disk_bytes_kept() <= 20_000
    assert run.counts.dropped["spool_full"] > 30
    run.server.state = "up"
    run.wait(60)
    assert sorted(run.written()) == run.offered[: len(run.written())]


def test_spool_over_its_bound_drops_the_oldest_if_told_to():
    run = Recording(
        spool={"bytes": 20_000, "when_full": "drop_oldest"},
        queue_bytes=20_000,
        batch_bytes=5_000,
    )
    run.server.state = "down"
    run.wait(1)
    for _ in range(100):
        run.offer(size=1_000)
        run.wait(0.2)
    assert run.counts.dropped["spool_full"] > 30
    run.server.state = "up"
    run.wait(60)
    assert run.offered[-1] in run.written()
    assert run.offered[0] not in run.written()
    assert len(set(run.written())) == len(run.written())


def test_no_room_rejects_requests_if_told_to():
    run = Recording(
        spool={"bytes": 5_000, "when_full": "reject_requests"}, queue_bytes=10_000
    )
    run.server.state = "down"
    found = [run.recorder.rejects_requests]
    for _ in range(20):
        run.offer(size=1_000)
        run.wait(1)
    found.append(run.recorder.rejects_requests)
    run.server.state = "up"
    run.wait(60)
    found.append(run.recorder.rejects_requests)
    assert found == [False, True, False]


# -- requests that wait ---------------------------------------------------------


def test_spool_durability_waits_for_the_disk_only():
    run = Recording(spool={}, durability="spool")
    run.server.state = "down"
    outcome = run.keep()
    run.wait(0.0)
    assert outcome.is_done
    assert run.counts.spooled == 1
    assert run.counts.queued == 0


def test_requests_at_one_moment_share_an_append():
    run = Recording(spool={}, durability="spool")
    outcomes = [run.keep() for _ in range(50)]
    run.wait(0.01)
    assert all(outcome.is_done for outcome in outcomes)
    assert run.disk.appends <= 2


def test_spool_that_works_for_one_is_not_what_another_is_told():
    # two batches at one moment: the disk has room for the first only
    run = Recording(spool={}, durability="spool", batch_rows=1)
    run.server.state = "down"
    run.disk.capacity = 600
    first, second = run.keep(), run.keep()
    run.wait(0.1)
    assert first.is_done
    assert second.is_done
    assert run.counts.spooled == 1
    assert 'tz_records_unsafe_total{reason="full"} 1.0\n' in run.metrics.render({})


def test_record_that_nobody_waits_for_is_on_disk_at_once_all_the_same():
    run = Recording(spool={}, durability="spool", flush=60.0)
    run.offer()
    run.wait(0.01)
    assert run.counts.spooled == 1
    assert run.disk_bytes_kept() > 0


def test_spool_is_as_empty_in_its_books_as_on_its_disk():
    run = Recording(spool={"bytes": 3_000}, durability="spool")
    for _ in range(100):
        run.keep()
        run.wait(0.5)
    assert run.is_empty()
    assert "unsafe" not in run.metrics.render({})


def test_slow_disk_delays_a_request_once_and_no_more():
    run = Recording(spool={}, durability="spool")
    run.disk.latency = 30.0
    first = run.keep()
    run.wait(APPEND_SECONDS + 0.01)
    assert first.is_done
    started = run.sim.now
    second = run.keep()
    run.wait(0.01)
    assert second.finished_at == started
    run.disk.latency = 0.0
    run.wait(60)
    assert sorted(run.written()) == run.offered


def test_disk_that_was_slow_once_is_used_as_soon_as_it_has_answered():
    run = Recording(spool={}, durability="spool")
    run.server.state = "down"
    run.disk.latency = 1.5
    kept: list[str] = []
    run.keep(kept)
    run.wait(0.1)
    run.disk.latency = 0.0
    run.wait(1.5)
    assert kept == []
    run.keep(kept)
    run.wait(0.01)
    assert kept == run.offered[1:]
    assert run.counts.spooled == 2


def test_sync_durability_waits_for_the_store():
    run = Recording(durability="sync", flush=60.0)
    run.server.latency = 0.5
    run.offer()
    run.wait(70)
    outcome = run.keep()
    run.wait(0.4)
    assert not outcome.is_done
    run.wait(0.7)
    assert outcome.is_done
    assert run.written() == run.offered


def test_sync_durability_gives_up_after_its_timeout():
    run = Recording(durability="sync", insert_timeout=3.0)
    run.server.state = "down"
    outcome = run.keep()
    run.wait(2.9)
    assert not outcome.is_done
    run.wait(0.2)
    assert outcome.is_done
    assert 'reason="timeout"' in run.metrics.render({})


# -- the end --------------------------------------------------------------------


def test_end_in_good_times_writes_everything():
    run = Recording(flush=60.0)
    run.offer(5)
    run.finish()
    assert run.written() == run.offered
    assert run.counts.queued == 0


@pytest.mark.parametrize("durability", ["async", "spool", "sync"])
def test_end_in_good_times_leaves_nothing_to_whoever_comes_next(durability):
    run = Recording(spool={}, durability=durability, flush=60.0)
    run.wait(1)
    for _ in range(5):
        run.keep()
    run.wait(0.1)
    run.server.latency = 0.1
    run.finish()
    assert run.written() == run.offered
    assert run.is_empty()


@pytest.mark.parametrize("durability", ["async", "spool", "sync"])
def test_end_while_the_store_is_away_spools_everything(durability):
    run = Recording(spool={}, durability=durability)
    run.server.state = "down"
    run.offer(5)
    run.finish()
    assert run.counts.queued == 0
    assert run.counts.spooled == 5


def test_end_while_the_store_is_frozen_spools_everything():
    run = Recording(spool={}, insert_timeout=60.0)
    run.server.state = "frozen"
    run.offer(5)
    run.wait(1)
    run.finish(2.0)
    assert run.counts.queued == 0


@pytest.mark.parametrize("latency", [0.0, 2.2], ids=["away", "slow"])
@pytest.mark.parametrize("disk", [0.0, 0.5, 3.0])
def test_end_while_disk_and_store_are_busy_spools_everything(latency, disk):
    run = Recording(spool={}, insert_timeout=60.0)
    run.offer()
    run.wait(1)
    run.server.latency = latency
    run.server.state = "up" if latency else "down"
    run.disk.latency = disk
    run.wait(4)
    run.offer(5)
    run.finish(2.0)
    assert run.counts.queued == 0
    run.sim.kill()
    run.server.state, run.server.latency, run.disk.latency = "up", 0.0, 0.0
    later = Recording(disk=run.disk, server=run.server, spool={}, start=run.sim.now + 9)
    later.wait(20)
    assert sorted(later.written()) == run.offered
    assert later.is_empty()


def test_end_tries_a_disk_once_more_that_failed_a_moment_ago():
    run = Recording(spool={}, durability="spool")
    run.server.state = "frozen"
    run.disk.failure = "disk"
    run.keep()
    run.wait(0.1)
    run.disk.failure = ""
    run.finish(1.0)
    assert run.counts.queued == 0
    assert run.disk_bytes_kept() > 0


def test_end_with_neither_says_how_many_are_lost():
    run = Recording()
    run.server.state = "down"
    run.offer(5)
    run.finish(1.0)
    assert run.counts.queued == 5


@pytest.mark.parametrize("spool", [{}, None], ids=["spool", "no-spool"])
def test_killed_in_async_mode_loses_only_what_was_in_memory(spool):
    run = Recording(spool=spool)
    run.offer_at_rate(200, 2)
    queued = run.counts.queued
    run.sim.kill()
    assert len(run.offered) - len(run.written()) == queued <= 50


def test_killed_in_spool_mode_every_kept_record_is_there_once():
    kept: list[str] = []
    run = Recording(spool={}, durability="spool")
    for second in range(40):
        run.server.state = "down" if 5 <= second < 35 else "up"
        for _ in range(200):
            run.keep(kept)
            run.wait(1 / 200)
        if second == 20:
            run.sim.kill()
            later = Recording(
                disk=run.disk,
                server=run.server,
                spool={},
                durability="spool",
                start=run.sim.now + 3.0,
            )
            run = later
    run.wait(60)
    assert len(kept) >= 39 * 200
    written = run.written()
    assert len(written) == len(set(written))
    assert set(kept) <= set(written)
    assert [name for name in run.disk.files if name != f"{FOLDER}/dead.jsonl"] == []


@given(
    kill_after=st.integers(0, 400),
    faults=st.lists(
        st.sampled_from(["down", "up", "lost", "slow", "fast", "full", "room"]),
        max_size=12,
    ),
)
@settings(max_examples=25, deadline=None)
def test_killed_anywhere_among_faults_every_kept_record_is_there_once(
    kill_after, faults
):
    kept: list[str] = []
    run = Recording(spool={}, durability="spool", insert_timeout=1.0, batch_rows=30)
    for step in range(400):
        if step % 30 == 0 and faults:
            _suffer(run, faults.pop())
        run.keep(kept)
        run.wait(0.01)
        if step == kill_after:
            run.sim.kill()
            run = Recording(
                disk=run.disk,
                server=run.server,
                spool={},
                durability="spool",
                insert_timeout=1.0,
                batch_rows=30,
                start=run.sim.now + 1.0,
            )
    for fault in ("up", "fast", "room"):
        _suffer(run, fault)
    run.wait(120)
    written = run.written()
    assert len(written) == len(set(written))
    assert set(kept) <= set(written)
    assert run.is_empty()


def _suffer(run: Recording, fault: str) -> None:
    if fault in ("down", "up"):
        run.server.state = "up" if fault == "up" else "down"
    elif fault == "lost":
        run.server.lost_acks = 2
    elif fault in ("slow", "fast"):
        run.server.latency = 1.5 if fault == "slow" else 0.0
    else:
        run.disk.capacity = 0 if fault == "full" else 1 << 30
