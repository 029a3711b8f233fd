"""What a request leaves in the figures, however it ends, and in debug mode."""

from __future__ import annotations

import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.protocol.flows.serving import (
    KEY,
    Served,
    chat,
    error_of,
    good,
    good_stream,
    refusal,
    snapshot,
)
from tests.protocol.flows.stored import extras
from tz_protocol.flows.figures import SECONDS, Sharing
from tz_protocol.records.figures import Figures, Report
from tz_protocol.testing import Close, ScriptedRequest, Simulator, Stall, cut, refuse
from tz_protocol.types.policy import Policy, Retries
from tz_protocol.types.settings import Limits

CHAT = "POST /v1/chat/completions"
ONE_TRY = Policy(retries=Retries(count=0))


def figures(served):
    """Return (name, labels) -> value of every sample that the page shows."""
    text = served.ask(method="GET", path="/metrics").response.body.decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(served, name, **labels):
    return figures(served).get((name, tuple(sorted(labels.items()))))


def ended(served):
    """Return {(model, outcome, status): count} of all requests."""
    found = {}
    for (name, labels), count in figures(served).items():
        if name == "tz_exchanges_total":
            of = dict(labels)
            found[of["model"], of["outcome"], of["status"]] = count
    return found


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_good_answer_is_counted_with_its_times_and_tokens(stream):
    served = Served([good_stream() if stream else good()])
    served.ask(stream=stream)
    assert ended(served) == {("m", "ok", "200"): 1}
    assert value(served, "tz_exchange_seconds_count", endpoint=CHAT) == 1
    assert value(served, "tz_overhead_seconds_count", endpoint=CHAT) == 1
    first = value(served, "tz_first_content_seconds_count", model="m")
    assert first == (1 if stream else None)
    used = served.record.usage
    shown = value(served, "tz_tokens_total", model="m", type="output")
    assert shown == value(served, "tensorzero_output_tokens_total")
    assert shown == used.output_tokens > 0


def test_fallback_is_counted_for_the_model_that_answered_and_each_attempt():
    config = snapshot(("a.test", "b.test"), fallback=1)
    served = Served([refuse()], [good()], config=config, repeat=True)
    served.ask()
    assert ended(served) == {("n", "ok", "200"): 1}
    name = "tz_attempts_total"
    assert value(served, name, model="n", provider="b", result="ok") == 1
    failed = {"model": "m", "provider": "a", "result": "upstream_unreachable"}
    assert value(served, name, **failed) >= 1


def test_failure_of_all_is_counted_for_the_model_that_was_tried():
    config = snapshot(("a.test",), policy=ONE_TRY)
    served = Served([refusal(500, "no")], config=config, repeat=True)
    served.ask()
    assert ended(served) == {("m", "error", "502"): 1}
    failed = {"model": "m", "provider": "a", "result": "status_500"}
    assert value(served, "tz_attempts_total", **failed) == 1
    assert value(served, "tz_overhead_seconds_count", endpoint=CHAT) is None


def test_names_that_callers_make_up_are_one_model():
    served = Served([good()])
    for name in ("x", "y", "nothing::z"):
        served.ask(chat(model=name))
    served.ask(b"{")
    assert ended(served) == {
        ("unknown", "error", "404"): 3,
        ("none", "error", "400"): 1,
    }


def test_client_that_leaves_is_counted_and_nothing_stays_in_flight():
    served = Served([[Stall()]])
    body = json.dumps(chat()).encode()
    served.ask(request=ScriptedRequest((body,), gone_after=2.5))
    assert ended(served) == {("m", "client_gone", "0"): 1}
    for name in ("tz_requests_in_flight", "tz_requests_queued", "tz_body_bytes"):
        assert value(served, name) == 0
    assert value(served, "tz_pool_connections", state="busy") == 0


def test_cut_stream_is_counted_as_partial():
    served = Served([cut(good_stream(), 1_200, Close())])
    served.ask(stream=True)
    assert ended(served) == {("m", "partial", "200"): 1}
    failed = {"result": "upstream_stream_interrupted", "provider": "a", "model": "m"}
    assert value(served, "tz_attempts_total", **failed) == 1


def test_shed_request_is_counted_while_others_are_in_flight():
    limits = Limits(requests=1, queue=0)
    config = snapshot(("a.test",), limits=limits)
    served = Served([[Stall()]], config=config)
    served.ask(run=False)
    served.sim.run_until(served.sim.now + 1.0)
    served.ask(run=False)
    served.sim.run_until(served.sim.now + 1.0)
    page = served.ask(method="GET", path="/metrics", run=False)
    served.sim.run_until(served.sim.now + 1.0)
    text = page.response.body.decode()
    assert 'outcome="shed",status="503"} 1.0' in text
    assert "tz_requests_in_flight 1.0" in text
    assert 'tz_pool_connections{state="busy"} 1.0' in text


def test_hit_in_the_cache_is_a_request_without_tokens():
    served = Served([good()])
    request = chat(**extras(cache_options={"enabled": "on"}))
    served.ask(request)
    used = value(served, "tz_tokens_total", model="m", type="input")
    served.ask(request)
    assert ended(served) == {("m", "ok", "200"): 2}
    assert value(served, "tz_tokens_total", model="m", type="input") == used
    hit = {"result": "hit", "tier": "memory"}
    assert value(served, "tz_cache_lookups_total", **hit) == 1
    assert value(served, "tz_cache_entries") == 1


def test_breaker_that_opened_stays_counted_when_its_target_is_gone():
    served = Served([refuse()], [good()], repeat=True)
    for _ in range(3):
        served.ask()
    labels = {"model": "m", "provider": "a"}
    assert value(served, "tz_breaker_opened_total", **labels) == 1
    served.gateway.breakers.keep({})
    assert value(served, "tz_breaker_opened_total", **labels) == 1
    assert value(served, "tz_breaker_state", **labels) is None


def test_one_process_is_one_worker():
    assert value(Served([good()]), "tz_workers") == 1


def test_figures_of_a_process_that_writes_none_are_not_waited_for_without_end():
    sim = Simulator()
    report = Report("id", Figures({}, {}, {}))
    sharing = Sharing("/folder", "1", sim.context, lambda: report)
    outcome = sim.run(sharing.refresh())
    assert outcome.result is False
    assert outcome.finished_at - outcome.started_at == 2 * SECONDS


def test_page_speaks_openmetrics_to_whom_wants_it():
    headers = (("accept", "application/openmetrics-text;version=1.0.0;q=0.5,*/*"),)
    served = Served([good()])
    outcome = served.ask(method="GET", path="/metrics", headers=headers)
    head = outcome.response.head
    assert head.get("content-type").startswith("application/openmetrics-text")
    assert outcome.response.body.endswith(b"# EOF\n")


@pytest.mark.parametrize("debug", [False, True])
def test_debug_mode_shows_attempts_and_neither_key_nor_place(debug):
    config = snapshot(("a.test",), policy=ONE_TRY, debug=debug)
    served = Served([refusal(500, "no")], config=config, repeat=True)
    outcome = served.ask(chat(user="canary"))
    _, error = error_of(outcome)
    assert ("attempts" in error) == debug
    if debug:
        (attempt,) = error["attempts"]
        assert (attempt["provider"], attempt["status"]) == ("a", 500)
    for word in (KEY, "a.test", "canary"):
        assert word not in json.dumps(error)
