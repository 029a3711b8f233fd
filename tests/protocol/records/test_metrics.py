"""Prometheus text of counters, histograms and gauges."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tz_protocol.records.metrics import Metrics
from tz_protocol.records.record import AttemptRecord, Outcome, Record
from tz_protocol.types.usage import Usage


def record(**changes):
    values = {
        "id": "i",
        "request_id": "r",
        "endpoint": "POST /v1/chat/completions",
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


def test_metrics_counter_labels_are_escaped():
    metrics = Metrics()
    metrics.add("tz_x_total", reason='a"b\\c\nd')
    assert 'tz_x_total{reason="a\\"b\\\\c\\nd"} 1' in metrics.render({}).splitlines()


def test_metrics_histogram_buckets_are_cumulative():
    metrics = Metrics()
    for seconds in (0.001, 0.02, 0.02, 999.0):
        metrics.observe("tz_exchange_seconds", seconds, endpoint="e")
    lines = metrics.render({}).splitlines()
    assert 'tz_exchange_seconds_bucket{endpoint="e",le="0.005"} 1' in lines
    assert 'tz_exchange_seconds_bucket{endpoint="e",le="0.025"} 3' in lines
    assert 'tz_exchange_seconds_bucket{endpoint="e",le="+Inf"} 4' in lines
    assert 'tz_exchange_seconds_count{endpoint="e"} 4' in lines
    assert "# TYPE tz_exchange_seconds histogram" in lines


def test_metrics_settle_counts_tokens_only_if_known():
    metrics = Metrics()
    metrics.settle(record(usage=Usage(input_tokens=3, output_tokens=4)))
    metrics.settle(record(usage=None))
    lines = metrics.render({}).splitlines()
    assert 'tensorzero_input_tokens_total{model="m"} 3' in lines
    assert 'tensorzero_output_tokens_total{model="m"} 4' in lines
    assert 'tz_usage_unknown_total{model="m"} 1' in lines


def test_metrics_settle_counts_each_attempt_under_a_known_name():
    failed = AttemptRecord(
        provider="p", provider_type="t", model="t::u", upstream_model="u", started=0.0
    )
    failed.status, failed.error = 401, "status_401"
    metrics = Metrics()
    metrics.settle(
        record(attempts=[failed], outcome=Outcome.ERROR, status=502),
        lambda model: "t::*" if model == "t::u" else model,
    )
    text = metrics.render({("tz_connections", ()): 2.0})
    assert 'tz_attempts_total{model="t::*",provider="p",result="status_401"} 1' in text
    assert "tz_connections 2" in text


def test_metrics_are_read_by_prometheus_as_they_are_meant():
    metrics = Metrics()
    for _ in range(2):
        metrics.settle(record(usage=Usage(input_tokens=3, output_tokens=4)))
    metrics.add("tz_limited_total", limit='a"b\\c\nd')
    text = metrics.render({("tz_pool_connections", (("state", "idle"),)): 2.0})
    found = {family.name: family for family in text_string_to_metric_families(text)}
    assert found["tz_exchanges"].type == "counter"
    assert found["tz_exchanges"].samples[0].value == 2.0
    assert found["tz_exchange_seconds"].type == "histogram"
    assert found["tz_limited"].samples[0].labels == {"limit": 'a"b\\c\nd'}
    assert found["tz_pool_connections"].type == "gauge"
    assert all(family.documentation for family in found.values())
