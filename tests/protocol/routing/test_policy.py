"""The values that routing obeys: their defaults and their ranges."""

from __future__ import annotations

import pytest

from tz_protocol.types.policy import (
    BreakerPolicy,
    Hedge,
    HedgeShare,
    Retries,
    RetryShare,
    StreamPolicy,
)


def test_policy_defaults_are_the_documented_ones():
    breaker, retries, share = BreakerPolicy(), Retries(), RetryShare()
    assert (breaker.failures, breaker.failures_alone) == (2, 5)
    assert (breaker.share, breaker.volume, breaker.window) == (0.5, 20, 10.0)
    assert (breaker.rest, breaker.rest_max) == (10.0, 30.0)
    assert (retries.count, retries.base, retries.cap) == (2, 0.1, 2.0)
    assert (share.share, share.minimum) == (0.2, 3)
    assert HedgeShare().share == 0.05
    assert StreamPolicy().on_malformed_event == "skip"
    assert StreamPolicy().ping_after is None


@pytest.mark.parametrize(
    ("make", "values", "word"),
    [
        (Retries, {"count": -1}, "count"),
        (Retries, {"count": 101}, "count"),
        (Retries, {"base": 0}, "base"),
        (Retries, {"cap": 0}, "cap"),
        (Retries, {"retry_after_cap": -1}, "retry_after_cap"),
        (Retries, {"within": -1}, "within"),
        (RetryShare, {"share": 1.5}, "share"),
        (RetryShare, {"minimum": -1}, "minimum"),
        (HedgeShare, {"share": -0.1}, "share"),
        (HedgeShare, {"burst": 0}, "burst"),
        (Hedge, {"after": 0}, "after"),
        (BreakerPolicy, {"failures": 0}, "failures"),
        (BreakerPolicy, {"failures_alone": 0}, "failures_alone"),
        (BreakerPolicy, {"share": 0}, "share"),
        (BreakerPolicy, {"volume": 0}, "volume"),
        (BreakerPolicy, {"window": 0}, "window"),
        (BreakerPolicy, {"rest": 40.0}, "rest_max"),
        (BreakerPolicy, {"ramp": -1}, "ramp"),
        (BreakerPolicy, {"cooldown_max": -1}, "cooldown_max"),
        (BreakerPolicy, {"demotion": -1}, "demotion"),
        (StreamPolicy, {"hold_events": -1}, "hold_events"),
        (StreamPolicy, {"hold": -1}, "hold"),
        (StreamPolicy, {"ping_after": 0}, "ping_after"),
    ],
    ids=lambda value: str(value),
)
def test_policy_illegal_value_is_refused_by_name(make, values, word):
    with pytest.raises(ValueError, match=word):
        make(**values)
