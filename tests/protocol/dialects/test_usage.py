"""Figures that providers state, whatever they are: no total falls or bursts."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.flows.serving import COMPLETION, JSON, Served
from tz_protocol.dialects.cohere_answer import CohereUsage
from tz_protocol.dialects.cohere_answer import usage_of as cohere_usage
from tz_protocol.flows.figures import gauges_of
from tz_protocol.records.figures import Report, decode_report, encode_report
from tz_protocol.testing import reply
from tz_protocol.types.usage import MOST_TOKENS, Usage

figures = st.integers() | st.integers(0, 1_000)


@given(figures, figures, st.none() | figures)
def test_usage_is_never_below_zero_or_beyond_reason(given, made, cached):
    usage = Usage(input_tokens=given, output_tokens=made, cache_read_tokens=cached)
    stated = [one for one in (given, made, cached) if one is not None]
    is_sane = all(0 <= one <= MOST_TOKENS for one in stated)
    kept = (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens)
    assert all(0 <= one <= MOST_TOKENS for one in kept if one is not None)
    assert usage.quality == ("known" if is_sane else "estimated")
    if is_sane:
        assert kept == (given, made, cached)


def test_usage_of_one_bad_figure_keeps_the_others():
    usage = msgspec.structs.replace(
        Usage(input_tokens=3, output_tokens=4, reasoning_tokens=2), output_tokens=-1
    )
    assert usage == Usage(
        input_tokens=3, output_tokens=0, reasoning_tokens=2, quality="estimated"
    )


@pytest.mark.parametrize("number", [-5, 10**300])
def test_usage_of_vendors_is_bounded(number):
    stated = {"tokens": {"input_tokens": number, "output_tokens": 1}}
    usage = cohere_usage(msgspec.convert(stated, CohereUsage))
    assert usage is not None
    assert usage.input_tokens in (0, MOST_TOKENS)


@pytest.mark.parametrize("number", [10**25, 2**63, -1, 1e300])
def test_workers_share_their_figures_whatever_a_provider_states(number):
    body = {**COMPLETION, "usage": {"prompt_tokens": number, "completion_tokens": 1}}
    served = Served([reply(200, JSON, json.dumps(body).encode())] * 3)
    for _ in range(3):
        served.ask()
    made = served.gateway.metrics.figures(gauges_of(served.gateway))
    report = decode_report(encode_report(Report("one", made)))
    assert report is not None
    assert report.figures == made
    assert all(one >= 0 for one in made.counters.values())
