"""Figures of several processes: on the way, added up, and taken over."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.records.families import FAMILIES
from tz_protocol.records.figures import (
    Figures,
    Report,
    decode_report,
    encode_report,
    merge,
    retired,
)


def of_kind(kind):
    return sorted(name for name, family in FAMILIES.items() if family.kind == kind)


def series(kind):
    """Draw a series; few label values, so that parts have some in common."""
    return st.sampled_from(of_kind(kind)).flatmap(
        lambda name: st.tuples(
            st.just(name),
            st.tuples(*[st.sampled_from("ab")] * len(FAMILIES[name].labels)),
        )
    )


numbers = st.integers(0, 2**70) | st.decimals(
    0, 10**6, allow_nan=False, allow_infinity=False, places=8
)


@st.composite
def figures(draw):
    rows = {
        one: draw(
            st.lists(
                st.integers(0, 2**60),
                min_size=len(FAMILIES[one[0]].bounds) + 2,
                max_size=len(FAMILIES[one[0]].bounds) + 2,
            )
        )
        for one in draw(st.sets(series("histogram"), max_size=3))
    }
    return Figures(
        draw(st.dictionaries(series("counter"), numbers, max_size=6)),
        draw(
            st.dictionaries(
                series("gauge"), st.integers(0, 2**40).map(float), max_size=6
            )
        ),
        rows,
    )


@given(figures(), figures(), figures())
def test_merge_is_the_same_in_any_order(a, b, c):
    whole = merge([a, b, c])
    assert merge([merge([a, b]), c]) == whole
    assert merge([a, merge([b, c])]) == whole
    assert merge([c, b, a]) == whole


@given(figures(), figures())
def test_merge_no_counter_falls(a, b):
    total = merge([a, b])
    for one, number in a.counters.items():
        assert total.counters[one] >= number
        assert float(total.counters[one]) >= float(number)
    for one, row in a.histograms.items():
        pairs = zip(total.histograms[one], row, strict=True)
        assert all(whole >= part for whole, part in pairs)


@given(figures(), figures())
def test_merge_leaves_its_parts_alone(a, b):
    before = encode_report(Report("x", a)), encode_report(Report("y", b))
    total = merge([a, b])
    for row in total.histograms.values():
        row[0] += 1
    assert (encode_report(Report("x", a)), encode_report(Report("y", b))) == before


@pytest.mark.parametrize(
    ("name", "expected"),
    [("tz_connections", 3.0), ("tz_api_keys", 2.0), ("tz_redis_up", 1.0)],
    ids=["sum", "max", "min"],
)
def test_merge_gauge_is_joined_as_the_table_says(name, expected):
    parts = [Figures(gauges={(name, ()): value}) for value in (1.0, 2.0)]
    assert merge(parts).gauges == {(name, ()): expected}


def test_merge_leaves_out_what_this_version_does_not_know():
    odd = Figures()
    odd.counters = {("tz_of_the_future_total", ()): 1}
    odd.gauges = {("tz_of_the_future", ()): 1.0}
    odd.histograms = {("tz_exchange_seconds", ("e",)): [1, 2, 3]}
    assert merge([odd]) == Figures({}, {}, {})
    assert retired(odd).gauges == {}


@given(figures())
def test_retired_keeps_every_counter_and_no_gauge(one):
    kept = retired(one)
    assert not kept.gauges
    assert kept.histograms == one.histograms
    for key, number in one.counters.items():
        assert kept.counters[key] >= number


def test_retired_records_stay_in_the_sum_of_all_records():
    gone = Figures({("tz_records_accepted_total", ()): 9})
    gone.gauges = {("tz_records_queued", ()): 2.0, ("tz_records_spooled", ()): 5.0}
    kept = retired(gone)
    assert kept.counters == {
        ("tz_records_accepted_total", ()): 9,
        ("tz_records_left_total", ()): 7,
    }


@given(figures(), st.lists(st.text(max_size=5), max_size=3))
def test_report_arrives_as_it_was_sent(one, includes):
    report = Report("id", one, includes)
    assert decode_report(encode_report(report)) == report


@given(st.binary(max_size=60))
def test_report_decodes_to_none_or_a_report_whatever_it_is(data):
    assert decode_report(data) is None or data


@given(figures(), st.data())
def test_report_cut_short_is_none(one, data):
    whole = encode_report(Report("id", one))
    length = data.draw(st.integers(0, len(whole) - 1))
    assert decode_report(whole[:length]) is None


def test_report_whose_cost_is_no_number_is_none():
    report = Report("id", Figures({("tz_cost_total", ("m",)): Decimal(1)}, {}, {}))
    data = encode_report(report)
    assert decode_report(data) == report
    assert decode_report(data.replace(b"\xa11", b"\xa1x")) is None
