"""What the core may cost, as parts of what an exchange costs in the same run.

The figures are CPU time, of what is compared in turns; the limits leave room for a
machine with other things to do. The budgets themselves are in ``benchmarks/README.md``.
"""

from __future__ import annotations

import pytest

from benchmarks import bench_conversion, bench_records
from benchmarks.vendors import VENDORS

ROUNDS, COUNT = 10, 60

RECORDED = {
    ("whole", "none"): 0.25,
    ("whole", "redacted"): 0.8,
    ("whole", "full"): 0.35,
    ("stream", "none"): 0.1,
    ("stream", "redacted"): 1.4,
    ("stream", "full"): 0.35,
}
"""Of an exchange without a record, by how much of the content is kept."""

HIT = {"whole": 1.0, "stream": 0.4}
"""Above the parsing of the request; of an exchange that asks a provider."""

MISSED = {"whole": 1.8, "stream": 1.7}
"""Of an exchange that does without the cache."""

CONVERTED_EXCHANGE, CONVERTED_CHUNK = 0.8, 1.5
"""More than passing through, of what that costs."""


@pytest.mark.parametrize("kind", ["whole", "stream"])
def test_record_costs_a_small_part_of_an_exchange(kind):
    found = bench_records.record_costs(kind, ROUNDS, COUNT)
    off = found.pop("off")
    parts = {(kind, capture): cost / off - 1 for capture, cost in found.items()}
    assert {key: part for key, part in parts.items() if part > RECORDED[key]} == {}
    assert parts.keys() == {key for key in RECORDED if key[0] == kind}


@pytest.mark.parametrize("kind", ["whole", "stream"])
def test_answer_from_memory_costs_less_than_asking(kind):
    found = bench_records.cache_costs(kind, ROUNDS, COUNT)
    assert (found["hit"] - found["parse"]) / found["off"] <= HIT[kind]
    assert found["miss"] / found["off"] <= MISSED[kind]


def test_conversion_costs_a_part_of_an_exchange():
    found = bench_conversion.measure(rounds=ROUNDS, count=40, streams=2, chunks=200)
    passed = found.pop(bench_conversion.PASSED)
    assert found.keys() == VENDORS.keys()
    parts = {
        name: (one.exchange / passed.exchange - 1, one.chunk / passed.chunk - 1)
        for name, one in found.items()
    }
    limits = (CONVERTED_EXCHANGE, CONVERTED_CHUNK)
    dear = {
        name: pair
        for name, pair in parts.items()
        if any(part > limit for part, limit in zip(pair, limits, strict=True))
    }
    assert dear == {}
