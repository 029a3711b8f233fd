"""One ``/metrics`` for several workers, each a simulated process on one disk."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tests.protocol.cli.running import config, start
from tz_protocol.cli.arguments import parse_arguments
from tz_protocol.cli.options import Worker
from tz_protocol.flows.figures import INTERVAL, SECONDS, SUPERVISOR
from tz_protocol.records.figures import Figures, Report, decode_report, encode_report
from tz_protocol.testing import (
    ProcessScript,
    ReceiveResponse,
    Send,
    World,
    http_request,
)
from tz_protocol.testing.disk import ScriptedDisk

FOLDER = "/tmp/folder-1"
GOOD = config("one", gateway='bind_address = "127.0.0.1:0"')
SUPERVISE = "--config-file gateway.toml --workers 2"
ASK = http_request(
    "POST",
    "/v1/chat/completions",
    body=b'{"model":"one","messages":[{"role":"user","content":"Hi"}]}',
)
COUNTED = "tz_exchanges_total"


def worker(number, disk, **changes):
    """Start worker *number* of 2, whose figures are on *disk*."""
    option = f"--worker {number}/2@fd:3@{FOLDER}"
    world = World(disk=disk, **changes)
    process = start(f"--config-file gateway.toml {option}", world, gateway=GOOD)
    process.until(0.5)
    return process


def spend(process, seconds):
    process.sim.run_until(process.sim.now + seconds)


def ask(process, request=ASK):
    """Send a request, and let some time pass; return the body of the answer."""
    client = process.connect(Send(request), ReceiveResponse("POST"))
    spend(process, 0.1)
    return client.client.received.partition(b"\r\n\r\n")[2].decode()


def scrape(process, seconds=0.1):
    """Return name -> the sum of the samples of one scrape."""
    request = http_request("GET", "/metrics")
    client = process.connect(Send(request), ReceiveResponse("GET"))
    spend(process, seconds)
    text = client.client.received.partition(b"\r\n\r\n")[2].decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def test_worker_option_carries_the_folder():
    option = Worker(2, 3, ("fd:3",), "/tmp/a folder")
    assert parse_arguments(["--worker", str(option)]).command.worker == option


def test_scrape_of_one_worker_shows_both():
    disk = ScriptedDisk()
    first, second = worker(1, disk), worker(2, disk)
    for process in (first, second, second):
        ask(process)
    spend(first, INTERVAL)
    spend(second, INTERVAL)
    for process in (first, second):
        found = scrape(process)
        assert found[COUNTED] == 3
        assert found["tz_exchange_seconds_count"] == 3
        assert found["tz_connections"] >= 1


def test_scrape_counts_what_has_just_been_and_shows_it_to_the_next():
    disk = ScriptedDisk()
    first, second = worker(1, disk), worker(2, disk)
    ask(first)
    assert scrape(first)[COUNTED] == 1
    assert scrape(second)[COUNTED] == 1


def test_scrape_leaves_out_what_the_supervisor_has_taken_over():
    disk = ScriptedDisk()
    process = worker(1, disk)
    gone = Figures({(COUNTED, ("e", "m", "ok", "200")): 5}, {}, {})
    disk.files[f"{FOLDER}/2"] = encode_report(Report("two", gone))
    assert scrape(process)[COUNTED] == 5
    taken = Report(SUPERVISOR, gone, ["two"])
    disk.files[f"{FOLDER}/{SUPERVISOR}"] = encode_report(taken)
    assert scrape(process)[COUNTED] == 5
    del disk.files[f"{FOLDER}/2"]
    assert scrape(process)[COUNTED] == 5


@pytest.mark.parametrize("data", [b"", b"\x00", b"{}"])
def test_scrape_passes_over_what_is_no_report(data):
    disk = ScriptedDisk()
    process = worker(1, disk)
    ask(process)
    disk.files[f"{FOLDER}/2"] = data
    assert scrape(process)[COUNTED] == 1


@pytest.mark.parametrize(
    ("failure", "latency"), [("disk", 0.0), ("", 60.0)], ids=["broken", "hanging"]
)
def test_scrape_answers_with_its_own_if_the_folder_fails(failure, latency):
    disk = ScriptedDisk()
    process = worker(1, disk)
    ask(process)
    disk.failure, disk.latency = failure, latency
    assert scrape(process, 4 * SECONDS)[COUNTED] == 1
    assert len(process.logged("the workers' folder fails")) == 1
    disk.failure, disk.latency = "", 0.0
    ask(process)
    spend(process, 70.0)
    report = decode_report(disk.files[f"{FOLDER}/1"])
    assert report is not None
    assert sum(n for (name, _), n in report.figures.counters.items() if name == COUNTED)


def test_idle_worker_writes_nothing():
    disk = ScriptedDisk()
    process = worker(1, disk)
    spend(process, 5.0)
    disk.files.clear()
    spend(process, 60.0)
    assert not disk.files


def test_worker_that_ends_leaves_its_last_figures():
    disk = ScriptedDisk()
    process = worker(1, disk, signals=[(2.0, "SIGTERM")])
    process.until(1.99)
    process.connect(Send(ASK), ReceiveResponse("POST"))
    assert process.finish() == 0
    report = decode_report(disk.files[f"{FOLDER}/1"])
    assert report is not None
    assert {n for (name, _), n in report.figures.counters.items() if name == COUNTED}


# -- the supervisor -------------------------------------------------------------


def counted_by(disk):
    """Return what the supervisor says of those that are gone, and of itself."""
    report = decode_report(disk.files[f"{FOLDER}/{SUPERVISOR}"])
    assert report is not None
    return report


def test_supervisor_takes_over_what_a_dead_worker_had_counted():
    disk, died = ScriptedDisk(), ProcessScript(after=2.0, status=-9)
    world = World(
        disk=disk,
        processes=[died, ProcessScript()],
        signals=[(9.0, "SIGTERM")],
    )
    process = start(SUPERVISE, world, gateway=GOOD)
    process.until(1.5)
    assert counted_by(disk).figures.gauges == {("tz_workers", ()): 2}
    series = (COUNTED, ("e", "m", "ok", "200"))
    figures = Figures({series: 5}, {("tz_records_queued", ()): 3.0}, {})
    disk.files[f"{FOLDER}/1"] = encode_report(Report("a", figures))
    process.until(2.2)
    report = counted_by(disk)
    assert f"{FOLDER}/1" not in disk.files
    assert report.includes == ["a"]
    assert report.figures.gauges == {("tz_workers", ()): 1}
    assert report.figures.counters == {
        series: 5,
        ("tz_records_left_total", ()): 3,
        ("tz_worker_ends_total", ("signal 9",)): 1,
    }
    process.until(4.0)
    assert counted_by(disk).figures.gauges == {("tz_workers", ()): 2}
    assert process.finish() == 0
    assert not disk.files


def test_supervisor_however_many_die_there_is_one_report_for_each_place():
    disk = ScriptedDisk()
    died = ProcessScript(after=1.0, status=1)
    world = World(disk=disk, processes=[died], signals=[(900.0, "SIGTERM")])
    process = start(SUPERVISE, world, gateway=GOOD)
    series = (COUNTED, ("e", "m", "ok", "200"))
    seen = 0
    for step in range(1, 60):
        process.until(step * 0.4)
        for number in (1, 2):
            seen += 1
            report = Report(str(seen), Figures({series: 1}, {}, {}))
            disk.files.setdefault(f"{FOLDER}/{number}", encode_report(report))
        assert len(disk.files) <= 3
        if f"{FOLDER}/{SUPERVISOR}" in disk.files:
            assert len(counted_by(disk).includes) <= 2
        if process.outcome.is_done:
            break
    assert process.finish() == 1


def test_supervisor_without_a_folder_says_so_and_serves():
    disk = ScriptedDisk()
    disk.failure = "readonly"
    world = World(disk=disk, signals=[(5.0, "SIGTERM")])
    process = start(SUPERVISE, world, gateway=GOOD)
    process.until(1.0)
    assert len(process.logged("each worker shows /metrics of its own")) == 1
    arguments = [child.arguments[2] for child in process.sim.surroundings.processes]
    assert arguments == ["1/2@fd:3", "2/2@fd:3"]
    assert process.finish() == 0


def test_supervisor_that_cannot_keep_a_report_leaves_it_where_it_is():
    disk = ScriptedDisk()
    died = ProcessScript(after=2.0, status=-9)
    world = World(
        disk=disk, processes=[died, ProcessScript()], signals=[(90.0, "SIGTERM")]
    )
    process = start(SUPERVISE, world, gateway=GOOD)
    process.until(1.5)
    report = Report("a", Figures({("tz_hedges_total", ()): 5}, {}, {}))
    disk.files[f"{FOLDER}/1"] = encode_report(report)
    disk.failure = "full"
    process.until(30.0)
    assert disk.files[f"{FOLDER}/1"] == encode_report(report)
    assert process.logged("the workers' folder fails")


@given(st.lists(st.sampled_from(["ask 1", "ask 2", "scrape 1", "scrape 2", "wait"])))
@settings(max_examples=25, deadline=None)
def test_totals_of_scrapes_never_fall_whoever_answers(steps):
    disk = ScriptedDisk()
    workers = {"1": worker(1, disk), "2": worker(2, disk)}
    asked, before = 0, 0.0
    for step in steps:
        action, _, number = step.partition(" ")
        if action == "ask":
            ask(workers[number])
            asked += 1
        elif action == "scrape":
            total = scrape(workers[number]).get(COUNTED, 0.0)
            assert before <= total <= asked
            before = total
        else:
            for process in workers.values():
                spend(process, 2 * INTERVAL)
            assert all(scrape(one).get(COUNTED, 0) == asked for one in workers.values())
            before = asked


# -- a supervisor that is killed ------------------------------------------------


def test_worker_whose_supervisor_was_killed_ends_in_good_order():
    disk = ScriptedDisk()
    supervisor = start(SUPERVISE, World(disk=disk), gateway=GOOD)
    supervisor.until(0.2)
    process = worker(1, disk)
    client = process.connect(Send(ASK), ReceiveResponse("POST"))
    spend(process, 30.0)
    assert not process.outcome.is_done
    assert client.client.received
    disk.killed(supervisor.sim)
    killed = process.sim.now
    assert process.finish() == 0
    assert process.sim.now - killed < 20.0
    assert len(process.logged("the supervisor was killed")) == 1
    assert len(process.logged("drained")) == 1


def test_worker_that_cannot_see_its_supervisor_serves_on():
    disk = ScriptedDisk()
    process = worker(1, disk, signals=[(60.0, "SIGTERM")])
    disk.failure = "denied"
    process.until(59.0)
    assert not process.outcome.is_done
    assert process.finish() == 0
