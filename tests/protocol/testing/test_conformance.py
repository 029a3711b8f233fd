"""The conformance suite in virtual time: the core alone must pass it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tz_protocol.machine import ClientGone
from tz_protocol.testing import conformance

SEEDS = range(4)
SPLITS = st.lists(st.integers(1, 50), max_size=3).map(tuple)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scenario", conformance.SCENARIOS, ids=conformance.name_of)
def test_scenario_in_virtual_time_passes(scenario, seed):
    for observed in conformance.simulate_scenario(scenario, seed=seed):
        scenario.check(observed)


@pytest.mark.parametrize("scenario", conformance.SCENARIOS, ids=conformance.name_of)
def test_scenario_read_in_small_pieces_passes(scenario):
    for observed in conformance.simulate_scenario(scenario, splits=(997, 1, 4_099)):
        scenario.check(observed)


@pytest.mark.parametrize("scenario", conformance.SCENARIOS, ids=conformance.name_of)
def test_scenario_cancelled_at_any_step_breaks_no_rule(scenario):
    for step in range(1, 25):
        conformance.simulate_scenario(scenario, cancel_at=step)


@pytest.mark.parametrize("case", conformance.FLOW_CASES, ids=conformance.name_of)
@pytest.mark.parametrize("seed", SEEDS)
def test_flow_in_virtual_time_gives_its_result(case, seed):
    outcome = conformance.simulate_flow(case, seed=seed)
    assert outcome.result == case.expected
    assert outcome.sim.open_handles == []


@pytest.mark.parametrize("case", conformance.FLOW_CASES, ids=conformance.name_of)
def test_flow_ended_at_any_step_leaves_nothing_open(case):
    count = len(conformance.simulate_flow(case).operations)
    for step in range(1, count + 1):
        outcome = conformance.simulate_flow(case, cancel_at=step)
        assert outcome.is_cancelled
        assert len(outcome.operations) == step
        assert outcome.sim.open_handles == []
        outcome = conformance.simulate_flow(case, interrupt_at=(step, ClientGone()))
        assert len(outcome.operations) == step
        assert outcome.sim.open_handles == []


@settings(deadline=None)
@given(st.sampled_from(conformance.FLOW_CASES), SPLITS, st.integers(0, 9))
def test_flow_with_any_split_gives_its_result(case, splits, seed):
    if "large" in case.name:
        splits = tuple(size * 1_000 for size in splits)
    outcome = conformance.simulate_flow(case, splits=splits, seed=seed)
    assert outcome.result == case.expected


def test_observed_flow_reports_each_operation_once():
    case = conformance.FLOW_CASES[0]
    seen = []

    def make(run):
        return conformance.observed(case.make(run), lambda n, _: seen.append(n))

    watched = conformance.FlowCase(case.name, make, case.expected)
    outcome = conformance.simulate_flow(watched)
    assert outcome.result == case.expected
    assert seen == list(range(1, len(outcome.operations) + 1))


def test_suite_names_are_unique():
    names = [case.name for case in conformance.SCENARIOS]
    names += [case.name for case in conformance.FLOW_CASES]
    assert len(names) == len(set(names))
