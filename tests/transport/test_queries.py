"""TensorZero's own queries, unchanged, over a seeded day that the recorder wrote."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.transport.engine import (
    Engine,
    engine_of_the_session,
    full_engine_of_the_session,
)
from tests.transport.recorded import (
    FUNCTION,
    INFERENCES,
    ONE,
    REQUESTS,
    at,
    check_quantiles,
    cost_of,
    episodes,
    grouped,
    known,
    newest,
    record_day,
    row_of,
    tags_of,
    total,
)
from tests.transport.statements import LOOKUPS, STATISTICS, windowed
from tests.transport.traffic import DAY, DAY_START

__all__ = ["engine_of_the_session", "full_engine_of_the_session"]  # fixtures


@pytest.fixture(scope="module")
def small(engine_of_the_session) -> Engine:
    """Return the engine that users get."""
    return record_day(engine_of_the_session)


@pytest.fixture(scope="module")
def full(full_engine_of_the_session) -> Engine:
    """Return the engine that has everything."""
    return record_day(full_engine_of_the_session)


@pytest.fixture(params=["small", "full"])
def engine(request) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    return found


# -- the rows themselves --------------------------------------------------------


def test_rows_are_what_happened(engine):
    rows = engine.query(
        "SELECT id, inference_id, model_name, model_provider_name, function_name, "
        "variant_name, input_tokens, output_tokens, cost, cached, response_time_ms, "
        "ttft_ms, provider_cache_read_input_tokens AS cache_read, "
        "toUnixTimestamp(timestamp) AS at FROM ModelInference"
    )
    found = {row.pop("inference_id"): row for row in rows}
    assert len(rows) == len(found) == len(INFERENCES)
    for request in INFERENCES:
        assert found[request.id] == {
            "id": request.inference_id,
            "model_name": request.model,
            "model_provider_name": request.provider,
            "function_name": FUNCTION,
            "variant_name": request.model,
            "input_tokens": request.input_tokens,
            "output_tokens": request.output_tokens,
            "cost": cost_of(request),
            "cached": request.is_cached,
            "response_time_ms": request.response_time,
            "ttft_ms": request.ttft,
            "cache_read": request.cache_read,
            "at": request.answered // 1000,
        }
    tokens = {request.input_tokens for request in INFERENCES}
    assert {None, 0} < tokens  # unknown is not nothing
    assert sum(request.is_cached for request in INFERENCES) > 100


def test_what_was_said_is_there_to_the_last_character(engine):
    rows = engine.query(
        "SELECT id, episode_id, input, output, tags, processing_time_ms, ttft_ms, "
        "toUnixTimestamp(timestamp) AS at FROM ChatInference"
    )
    found = {row.pop("id"): row for row in rows}
    assert len(rows) == len(found) == len(INFERENCES)
    for request in INFERENCES:
        row = found[request.id]
        (message,) = json.loads(row["input"])["messages"]
        assert message["content"] == [{"type": "text", "text": request.text}]
        (block,) = json.loads(row["output"])
        assert block == {"type": "text", "text": f"Hello {request.text}"}
        assert row["episode_id"] == request.episode_id
        assert row["tags"] == tags_of(request)
        assert row["processing_time_ms"] == request.duration
        assert row["ttft_ms"] == request.first_content
        assert row["at"] == request.at // 1000
    assert max(len(request.text) for request in INFERENCES) >= 20_000


# -- lookups --------------------------------------------------------------------
#
# The engine that users get has no comparison of 128-bit numbers: what asks for one id,
# or for those before it, needs the full one.


def ask(engine: Engine, name: str, **parameters: Any) -> list[dict[str, Any]]:
    return engine.ask(LOOKUPS[name].strip(), **parameters)


def test_model_inferences_of_an_inference_are_found(engine):
    (found,) = ask(engine, "model inferences of an inference", inference_id=ONE.id)
    (whole,) = ask(engine, "model inferences of an inference, whole", id=ONE.id)
    expected = {
        "id": ONE.inference_id,
        "inference_id": ONE.id,
        "model_name": ONE.model,
        "model_provider_name": ONE.provider,
        "input_tokens": ONE.input_tokens,
        "output_tokens": ONE.output_tokens,
        "provider_cache_read_input_tokens": ONE.cache_read,
        "provider_cache_write_input_tokens": None,
        "response_time_ms": ONE.response_time,
        "ttft_ms": ONE.ttft,
        "cached": False,
        "cost": cost_of(ONE),
        "finish_reason": ONE.finish,
        "system": "Be kind",
        "snapshot_hash": None,
        "raw_request": '{"model":"upstream"}',
        "timestamp": at(ONE.answered),
    }
    assert {name: found[name] for name in expected} == expected
    assert {name: whole[name] for name in expected} == expected
    (block,) = json.loads(found["output"])
    assert block["type"] == "text"
    assert block["text"].endswith(f"lo {ONE.text}")
    (message,) = json.loads(found["input_messages"])
    assert message["content"] == [{"type": "text", "text": ONE.text}]


def test_inference_is_found_by_its_id(full):
    (found,) = ask(full, "inference by id", id=ONE.id)
    (what,) = ask(full, "what an id is", id=ONE.id)
    expected = row_of(ONE)
    assert {name: found[name] for name in expected} == expected
    assert found["tags"] == tags_of(ONE)
    assert found["processing_time_ms"] == ONE.duration
    assert found["inference_params"] == '{"chat_completion":{"temperature":0.5}}'
    assert (found["tool_params"], found["extra_body"]) == ("", None)
    assert {name: expected[name] for name in what} == what
    failed = next(request for request in REQUESTS if not request.is_inference)
    assert ask(full, "inference by id", id=failed.id) == []
    assert ask(full, "what an id is", id=failed.id) == []


def test_latest_of_all_come_first(engine):
    ordered = newest(INFERENCES)
    first = ask(engine, "inferences, newest", limit="15")
    assert first == [row_of(request) for request in ordered[:15]]
    assert ask(engine, "episodes, newest") == episodes()[:10]


def test_inferences_are_paged_in_the_order_of_time(full):
    ordered = newest(INFERENCES)
    middle = ordered[len(ordered) // 2]
    before = ask(
        full,
        "inferences of an episode before",
        before=middle.id,
        episode_id=middle.episode_id,
        limit="3",
    )
    older = [
        request
        for request in ordered[len(ordered) // 2 + 1 :]
        if request.episode_id == middle.episode_id
    ]
    assert before == [row_of(request) for request in older[:3]]

    after = ask(
        full,
        "inferences of a variant after",
        after=middle.id,
        function_name=FUNCTION,
        variant_name="claude",
        limit="15",
    )
    newer = [r for r in ordered[: len(ordered) // 2] if r.model == "claude"]
    assert after == [row_of(request) for request in newer[-15:]]

    meta = ask(
        full,
        "metadata of inferences",
        cursor_id=middle.id,
        function_name=FUNCTION,
        limit="20",
    )
    expected = ordered[len(ordered) // 2 + 1 :][:20]
    assert [row["id"] for row in meta] == [request.id for request in expected]
    assert {row["snapshot_hash"] for row in meta} == {None}


def test_inferences_are_listed_with_what_was_said(full):
    ordered = newest(INFERENCES)
    cursor = ordered[100]
    found = ask(full, "list of inferences", p0=cursor.id, p1="50")
    expected = ordered[101:151]
    assert [row["inference_id"] for row in found] == [r.id for r in expected]
    assert [row["ttft_ms"] for row in found] == [r.first_content for r in expected]
    assert [row["tags"] for row in found] == [tags_of(r) for r in expected]
    assert {row["type"] for row in found} == {"chat"}
    (count,) = ask(
        full, "count of inferences with a text", p0=FUNCTION, p1="grüße, 世界"
    )
    assert int(count["count"]) == sum("Grüße" in r.text for r in INFERENCES)


def test_episodes_are_paged_with_their_inferences(full):
    rows = episodes()
    cursor = len(rows) // 3
    after = ask(full, "episodes after", after=rows[cursor]["episode_id"])
    assert after == rows[cursor - 10 : cursor]
    (bounds,) = ask(full, "bounds of episodes")
    assert bounds == {
        "first_id": rows[-1]["episode_id"],
        "last_id": rows[0]["episode_id"],
        "count": len(rows),
    }
    largest = max(rows, key=lambda row: row["count"])
    episode = largest["episode_id"]
    (count,) = ask(full, "inferences of an episode", episode_id=episode)
    assert int(count["count"]) == largest["count"]
    assert ask(full, "whether an episode is there", id=episode) == [{"1": 1}]
    assert ask(full, "whether an episode is there", id=ONE.id) == []
    merged = full.query(
        "SELECT count, length(arrayDistinct(finalizeAggregation(inference_ids))) AS n "
        "FROM EpisodeById WHERE episode_id_uint = toUInt128({id:UUID})",
        id=episode,
    )
    assert merged == [{"count": largest["count"], "n": largest["count"]}]


def test_functions_and_variants_are_counted(engine):
    latest = max(request.at for request in INFERENCES)
    assert ask(engine, "functions") == [
        {
            "function_name": FUNCTION,
            "last_inference_timestamp": at(latest, "%Y-%m-%dT%H:%M:%S.000Z"),
            "inference_count": len(INFERENCES),
        }
    ]
    by_model = grouped(INFERENCES, lambda request: request.model)
    found = ask(engine, "variants", function_name=FUNCTION)
    assert found == [
        {
            "variant_name": model,
            "inference_count": len(requests),
            "last_used_at": at(
                max(request.at for request in requests), "%Y-%m-%dT%H:%M:%S.000Z"
            ),
        }
        for model, requests in sorted(by_model.items(), key=lambda item: -len(item[1]))
    ]
    assert ask(engine, "totals") == [
        {"chat_inference_count": len(INFERENCES), "json_inference_count": 0}
    ]


def test_throughput_of_variants_by_hour(engine):
    seconds = 6 * 3600
    found = ask(
        engine,
        "throughput of variants by hour",
        time_window="hour",
        function_name=FUNCTION,
        time_delta_secs=str(seconds),
    )
    earliest = max(request.at for request in INFERENCES) - seconds * 1000
    counts = Counter(
        (at(request.at, "%Y-%m-%dT%H:00:00.000Z"), request.model)
        for request in INFERENCES
        if request.at >= earliest
    )
    assert found == [
        {"period_start": hour, "variant_name": model, "count": counts[hour, model]}
        for hour, model in sorted(counts, reverse=True)
    ]


def test_token_totals_count_what_is_known(engine):
    assert ask(engine, "token totals") == [
        {
            "input_tokens": total(r.input_tokens for r in INFERENCES),
            "output_tokens": total(r.output_tokens for r in INFERENCES),
        }
    ]
    known_usage = known(r.input_tokens for r in INFERENCES)
    (found,) = engine.query(
        "SELECT count FROM CumulativeUsage FINAL WHERE type = 'model_inferences'"
    )
    assert found["count"] == len(known_usage) < len(INFERENCES)


def test_inferences_are_found_by_their_tags(engine):
    (found,) = ask(
        engine,
        "a tag of an inference",
        function_name=FUNCTION,
        key="user",
        value=ONE.tags["user"],
        inference_id=ONE.id,
    )
    assert (found["inference_id"], found["value"]) == (ONE.id, ONE.tags["user"])
    with_tag = ask(
        engine,
        "inferences with a tag",
        key="größe",
        function_name=FUNCTION,
        values=["a"],
    )
    expected = {r.id for r in INFERENCES if r.tags.get("größe") == "a"}
    assert {row["inference_id"] for row in with_tag} == expected
    assert len(with_tag) == len(expected)
    (values,) = ask(engine, "values of a tag", key="tensorzero::api_key_public_id")
    assert values["count"] == len({r.key for r in INFERENCES if r.key})


# -- statistics, which only the full engine has ---------------------------------


@pytest.mark.parametrize(
    ("window", "periods", "form"),
    [
        ("MINUTE", 10, "%Y-%m-%dT%H:%M:00Z"),
        ("HOUR", 5, "%Y-%m-%dT%H:00:00Z"),
        ("DAY", 2, "%Y-%m-%dT00:00:00Z"),
        ("CUMULATIVE", 0, "1970-01-01T00:00:00Z"),
    ],
    ids=["minute", "hour", "day", "cumulative"],
)
def test_usage_of_models_over_time(full, window, periods, form):
    grouping, condition = windowed(window, periods)
    sql = STATISTICS["usage of models"].strip()
    sql = sql.replace("TIME_GROUPING", grouping).replace("TIME_FILTER", condition)
    seconds = {"MINUTE": 60, "HOUR": 3_600, "DAY": 86_400, "CUMULATIVE": 86_400}[window]
    latest = max(request.answered for request in INFERENCES) // 1000
    earliest = latest - latest % seconds - periods * seconds
    if window == "CUMULATIVE":
        earliest = 0
    groups = grouped(
        [r for r in INFERENCES if r.answered // 1000 >= earliest],
        lambda request: (at(request.answered, form), request.model),
    )
    expected = [
        {
            "period_start": start,
            "model_name": model,
            "input_tokens": total(r.input_tokens for r in groups[start, model]),
            "output_tokens": total(r.output_tokens for r in groups[start, model]),
            "count": len(groups[start, model]),
            "cost": total(cost_of(r) for r in groups[start, model]),
            "count_with_cost": len(known(r.cost for r in groups[start, model])),
        }
        for start, model in sorted(groups, key=lambda k: (-_time(k[0]), k[1].encode()))
    ]
    assert full.ask(sql) == expected
    assert any(isinstance(row["cost"], Decimal) for row in expected)


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_latency_of_models(full):
    by_model = grouped(INFERENCES, lambda request: request.model)
    found = full.ask(STATISTICS["latency of models"].strip())
    assert [row["model_name"] for row in found] == sorted(by_model, key=str.encode)
    for row in found:
        requests = by_model[row["model_name"]]
        assert row["count"] == len(requests)
        times = [request.response_time for request in requests]
        check_quantiles(row["response_time_ms_quantiles"], times)
        check_quantiles(row["ttft_ms_quantiles"], known(r.ttft for r in requests))


def test_models_and_cached_tokens(full):
    (found,) = full.ask(STATISTICS["count of models"].strip())
    assert found["count"] == len({request.model for request in INFERENCES})
    rows = full.ask(STATISTICS["cached tokens"].strip(), model_name="gpt-4.1")
    groups = grouped(
        [request for request in INFERENCES if request.model == "gpt-4.1"],
        lambda request: request.provider,
    )
    assert rows == [
        {
            "period_start": f"{DAY}T00:00:00Z",
            "model_name": "gpt-4.1",
            "model_provider_name": provider,
            "input_tokens": total(r.input_tokens for r in groups[provider]),
            "cache_read_input_tokens": total(r.cache_read for r in groups[provider]),
            "cache_write_input_tokens": None,
            "count": len(groups[provider]),
        }
        for provider in sorted(groups)
    ]


def test_statistics_of_variants(full):
    noon = DAY_START + 43_200
    found = full.ask(
        STATISTICS["variants"].strip(),
        function_name=FUNCTION,
        after=f"{DAY} 12:00:00",
        before=f"{DAY} 18:00:00",
    )
    # An inference counts when it began, its tokens and cost when it was answered.
    until = noon + 21_600
    began = [r for r in INFERENCES if noon <= r.at // 1000 < until]
    answered = [r for r in INFERENCES if noon <= r.answered // 1000 < until]
    by_variant = grouped(began, lambda request: request.model)
    tokens = grouped(answered, lambda request: request.model)
    assert [r["variant_name"] for r in found] == sorted(by_variant, key=str.encode)
    for row in found:
        requests, told = by_variant[row["variant_name"]], tokens[row["variant_name"]]
        assert row["inference_count"] == len(requests)
        assert row["total_input_tokens"] == total(r.input_tokens for r in told)
        assert row["total_output_tokens"] == total(r.output_tokens for r in told)
        assert row["total_cost"] == total(cost_of(r) for r in told)
        assert row["count_with_cost"] == len(known(r.cost for r in told))
        read = row["total_provider_cache_read_input_tokens"]
        assert read == total(r.cache_read for r in told)
        times = [request.duration for request in requests]
        check_quantiles(row["processing_time_ms_quantiles"], times)
        first = known(request.first_content for request in requests)
        check_quantiles(row["ttft_ms_quantiles"], first)
