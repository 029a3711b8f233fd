"""What is counted, and how it reads."""

from __future__ import annotations

import ast
from decimal import Decimal
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_families,
)
from prometheus_client.parser import text_string_to_metric_families

from tz_protocol.records.exposition import render, render_parts
from tz_protocol.records.families import FAMILIES
from tz_protocol.records.metrics import OTHER, SERIES_LIMIT, UNKNOWN, Metrics
from tz_protocol.records.record import AttemptRecord, Outcome, Record
from tz_protocol.types.usage import Usage

CORE = Path(__file__).parents[3] / "tz_protocol"
CHAT = "POST /v1/chat/completions"


def record(**changes):
    values = {
        "id": "i",
        "request_id": "r",
        "endpoint": CHAT,
        "config_id": "c",
        "started_at": 0.0,
        "started": 0.0,
        "outcome": Outcome.OK,
        "status": 200,
        "model": "m",
        "duration": 0.02,
        "first_content": 0.01,
    }
    return Record(**{**values, **changes})


def attempt(**changes):
    values = {
        "provider": "p",
        "provider_type": "t",
        "model": "m",
        "upstream_model": "u",
        "started": 0.0,
        "ended": 0.015,
    }
    return AttemptRecord(**{**values, **changes})


def samples(text):
    """Return (name, labels) -> value of every sample, as Prometheus reads it."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics, name, gauges=None, **labels):
    return samples(metrics.render(gauges or {})).get(
        (name, tuple(sorted(labels.items())))
    )


# -- the table ------------------------------------------------------------------


def calls_of(path):
    """Yield (name, labels in order) of every count of a family named in the source."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        family = getattr(node.args[0], "value", None)
        if family not in FAMILIES and not str(family).startswith("tz_"):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in ("add", "observe"):
            yield family, tuple(keyword.arg for keyword in node.keywords)
        elif name in ("count", "_count", "_observe"):
            labels = node.args[1]
            if isinstance(labels, ast.Tuple):
                yield family, len(labels.elts)


def test_every_count_has_the_labels_of_its_family_in_order():
    found = [call for path in sorted(CORE.rglob("*.py")) for call in calls_of(path)]
    assert len(found) >= 35
    for name, labels in found:
        declared = FAMILIES[name].labels
        assert labels in (declared, len(declared)), name


def test_families_of_every_kind_are_named_as_prometheus_wants():
    for name, family in FAMILIES.items():
        assert name.endswith("_total") == (family.kind == "counter"), name
        assert name.endswith("_seconds") == (family.kind == "histogram"), name
        assert bool(family.bounds) == (family.kind == "histogram"), name
        assert list(family.bounds) == sorted(family.bounds), name
        assert family.text, name
        assert not family.left or FAMILIES[family.left].kind == "counter", name


# -- counting -------------------------------------------------------------------


def test_metrics_histogram_buckets_are_cumulative_and_hold_their_bound():
    metrics = Metrics()
    for seconds in (0.001, 0.025, 0.02, 999.0):
        metrics.observe("tz_exchange_seconds", seconds, endpoint="e")
    found = {
        bound: value(metrics, "tz_exchange_seconds_bucket", endpoint="e", le=bound)
        for bound in ("0.005", "0.01", "0.025", "120.0", "+Inf")
    }
    assert found == {"0.005": 1, "0.01": 1, "0.025": 3, "120.0": 3, "+Inf": 4}
    assert value(metrics, "tz_exchange_seconds_count", endpoint="e") == 4
    assert value(metrics, "tz_exchange_seconds_sum", endpoint="e") == 999.046


def test_metrics_settle_counts_tokens_by_type_only_if_known():
    metrics = Metrics()
    usage = Usage(
        input_tokens=3,
        output_tokens=4,
        cache_read_tokens=2,
        cache_write_tokens=1,
        reasoning_tokens=3,
    )
    metrics.settle(record(usage=usage))
    metrics.settle(record(usage=None))
    assert value(metrics, "tensorzero_input_tokens_total") == 3
    assert value(metrics, "tensorzero_output_tokens_total") == 4
    found = {
        kind: value(metrics, "tz_tokens_total", model="m", type=kind)
        for kind in ("input", "output", "cache_read", "cache_write", "reasoning")
    }
    assert [*found.values()] == [3, 4, 2, 1, 3]
    assert value(metrics, "tz_usage_unknown_total", model="m") == 1


def test_metrics_settle_counts_requests_as_tensorzero_does():
    metrics = Metrics()
    metrics.settle(record())
    metrics.settle(record(endpoint="POST /v1/embeddings"))
    for name in ("tensorzero_requests_total", "tensorzero_inferences_total"):
        labels = {"function_name": "tensorzero::default", "model_name": "m"}
        assert value(metrics, name, endpoint="inference", **labels) == 1
        assert value(metrics, name, endpoint="POST /v1/embeddings", **labels) == 1


def test_metrics_settle_keeps_cost_exact_however_often_it_is_added():
    metrics = Metrics()
    for _ in range(1_000):
        metrics.settle(record(cost=Decimal("0.0001")))
    figures = metrics.figures({})
    assert figures.counters["tz_cost_total", ("m",)] == Decimal("0.1")
    assert value(metrics, "tz_cost_total", model="m") == 0.1


def test_metrics_settle_hit_costs_nothing_and_uses_no_tokens():
    metrics = Metrics()
    usage = Usage(input_tokens=3, output_tokens=4)
    metrics.settle(record(cache="hit", usage=usage, cost=Decimal(0)))
    assert value(metrics, "tz_tokens_total", model="m", type="input") is None
    assert value(metrics, "tz_usage_unknown_total", model="m") is None
    assert value(metrics, "tz_exchange_seconds_count", endpoint=CHAT) == 1


@pytest.mark.parametrize(
    ("outcome", "status"),
    [(one, 0 if one.value.startswith("c") else 503) for one in Outcome],
)
def test_metrics_settle_counts_every_outcome(outcome, status):
    metrics = Metrics()
    metrics.settle(record(outcome=outcome, status=status or None))
    labels = {"endpoint": CHAT, "model": "m", "outcome": outcome.value}
    assert value(metrics, "tz_exchanges_total", status=str(status), **labels) == 1


def test_metrics_settle_counts_what_a_broken_answer_used():
    metrics = Metrics()
    usage = Usage(input_tokens=3, output_tokens=4)
    metrics.settle(record(outcome=Outcome.PARTIAL, provider="p", usage=usage))
    assert value(metrics, "tz_tokens_total", model="m", type="output") == 4


def test_metrics_settle_first_content_is_of_streams():
    metrics = Metrics()
    metrics.settle(record())
    assert value(metrics, "tz_first_content_seconds_count", model="m") is None
    metrics.settle(record(is_stream=True))
    assert value(metrics, "tz_first_content_seconds_count", model="m") == 1


def test_metrics_settle_overhead_is_what_providers_did_not_take():
    metrics = Metrics()
    metrics.settle(record(attempts=[attempt(ended=0.018)]))
    name = "tz_overhead_seconds_bucket"
    assert value(metrics, name, endpoint=CHAT, le="0.001") == 0
    assert value(metrics, name, endpoint=CHAT, le="0.0025") == 1


def test_metrics_settle_counts_each_attempt_under_a_known_name():
    failed = attempt(model="t::u", error="status_401")
    metrics = Metrics()
    metrics.settle(
        record(attempts=[failed, attempt()], outcome=Outcome.OK),
        lambda model: "t::*" if model == "t::u" else model,
    )
    name = "tz_attempts_total"
    assert value(metrics, name, model="t::*", provider="p", result="status_401") == 1
    assert value(metrics, name, model="m", provider="p", result="ok") == 1


@pytest.mark.parametrize(
    ("changes", "model"),
    [
        ({"asked_model": "m"}, "m"),
        ({"asked_model": "whatever I like"}, UNKNOWN),
        ({"asked_model": None}, "none"),
        ({"asked_model": "alias", "attempts": [attempt(model="n")]}, "n"),
    ],
    ids=["known", "made up", "not said", "tried"],
)
def test_metrics_settle_without_an_answer_names_only_models_that_exist(changes, model):
    metrics = Metrics()
    refused = record(model=None, outcome=Outcome.ERROR, status=404, **changes)
    metrics.settle(refused, asked=lambda name: name if name == "m" else UNKNOWN)
    labels = {"endpoint": CHAT, "outcome": "error", "status": "404"}
    assert value(metrics, "tz_exchanges_total", model=model, **labels) == 1


def test_metrics_past_the_limit_count_the_rest_as_one():
    metrics = Metrics()
    for number in range(SERIES_LIMIT + 7):
        metrics.add("tz_cost_total", model=f"m{number}")
        metrics.observe("tz_first_content_seconds", 1.0, model=f"m{number}")
    metrics.add("tz_cost_total", model="m0")
    figures = metrics.figures({})
    assert len(figures.counters) == len(figures.histograms) == SERIES_LIMIT + 1
    assert figures.counters["tz_cost_total", (OTHER,)] == 7
    assert figures.counters["tz_cost_total", ("m0",)] == 2


# -- the text -------------------------------------------------------------------


def everything():
    """Return metrics that have a figure of every family, and the gauges beside."""
    metrics, gauges = Metrics(), {}
    for name, family in FAMILIES.items():
        labels = dict.fromkeys(family.labels, 'a"b\\c\nd')
        if family.kind == "counter":
            metrics.add(name, 2, **labels)
        elif family.kind == "histogram":
            metrics.observe(name, 0.02, **labels)
        else:
            gauges[name, tuple(labels.items())] = 1.5
    return metrics, gauges


def test_render_every_family_is_read_by_prometheus_as_it_is_meant():
    metrics, gauges = everything()
    text = metrics.render(gauges)
    found = {family.name: family for family in text_string_to_metric_families(text)}
    assert len(found) == len(FAMILIES)
    for name, family in FAMILIES.items():
        read = found[name.removesuffix("_total")]
        assert (read.type, read.documentation) == (family.kind, family.text)
        for sample in read.samples:
            labels = {key: v for key, v in sample.labels.items() if key != "le"}
            assert labels == dict.fromkeys(family.labels, 'a"b\\c\nd')


def test_render_openmetrics_if_that_is_asked_for():
    metrics, gauges = everything()
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    content_type, text = render(metrics.figures(gauges), accept)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    found = {family.name: family for family in open_families(text.decode())}
    assert len(found) == len(FAMILIES)
    assert text.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    "accept",
    ["", "*/*", "text/html", "text/plain;version=0.0.4", "text/plain;version=1.x", ","],
)
def test_render_anything_else_gets_prometheus_own_format(accept):
    content_type, text = render(Metrics().figures({}), accept)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert text == b""


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text"])
def test_render_parts_of_a_large_family_are_one_family(accept):
    metrics = Metrics()
    for number in range(120):
        metrics.observe("tz_first_content_seconds", 0.2, model=f"m{number}")
        metrics.add("tz_cost_total", Decimal("0.5"), model=f"m{number}")
    _, parts = render_parts(metrics.figures({}), accept)
    pieces = [*parts]
    text = b"".join(pieces).decode()
    read = open_families if accept else text_string_to_metric_families
    sizes = {family.name: len(family.samples) for family in read(text)}
    assert sizes == {"tz_first_content_seconds": 120 * 16, "tz_cost": 120}
    assert text.count("# TYPE") == 2
    assert max(map(len, pieces)) < len(text) / 4


def test_render_counter_beside_the_metrics_is_a_counter():
    gauges = {("tz_records_dropped_total", (("reason", "queue_full"),)): 3}
    metrics = Metrics()
    assert value(metrics, "tz_records_dropped_total", gauges, reason="queue_full") == 3
