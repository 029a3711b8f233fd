"""How hard to try: the values that routing and relaying obey.

The one rule: a value that exists is legal, and means the same wherever it is used.
Who may set which (process, model, provider) is the configuration's business, what
follows from them ``routing``'s. Durations are seconds.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = [
    "BreakerPolicy",
    "Hedge",
    "HedgeShare",
    "Policy",
    "Retries",
    "RetryShare",
    "StreamPolicy",
]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """Further rounds over the candidates after one in which all failed."""

    count: int = 2
    """Rounds after the first; 0 means that every candidate is tried once at most."""
    base: float = 0.1
    """Longest pause before the first further round; it doubles with each."""
    cap: float = 2.0
    """Longest pause before any round."""
    retry_after_cap: float = 10.0
    """Longest ``Retry-After`` that is waited for; a longer one is told instead."""
    within: float = 30.0
    """No further round begins later than this after the first: a provider that fails
    slowly must not multiply the caller's wait."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        _require(0 <= self.count <= 100, "count must be between 0 and 100")
        _require(self.base > 0 and self.cap > 0, "base and cap must be positive")
        _require(self.retry_after_cap >= 0, "retry_after_cap must not be negative")
        _require(self.within >= 0, "within must not be negative")


class RetryShare(msgspec.Struct, frozen=True, kw_only=True):
    """How many exchanges of the process may be in further rounds at one time.

    The figures and the meaning are Envoy's (``retry_budget`` of
    ``config.cluster.v3.CircuitBreakers``): 20 % of the requests in flight, at least 3.
    """

    share: float = 0.2
    """Of the exchanges in flight, in [0, 1]."""
    minimum: int = 3
    """Allowed whatever the share says, so that a quiet process retries too."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        _require(0 <= self.share <= 1, "share must be between 0 and 1")
        _require(self.minimum >= 0, "minimum must not be negative")


class HedgeShare(msgspec.Struct, frozen=True, kw_only=True):
    """How many further requests hedging may cause, in the whole process."""

    share: float = 0.05
    """Hedges for each request, in [0, 1]."""
    burst: int = 10
    """Hedges that a quiet time can save up."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        _require(0 <= self.share <= 1, "share must be between 0 and 1")
        _require(self.burst >= 1, "burst must be positive")


class Hedge(msgspec.Struct, frozen=True, kw_only=True):
    """Start the next candidate beside one that is slow; first content wins."""

    after: float
    """Seconds without first content."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        _require(self.after > 0, "after must be positive")


class BreakerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a target is left alone, and how it comes back."""

    is_enabled: bool = True
    """False: the target is always taken to be healthy."""
    failures: int = 2
    """In a row, where another candidate is ready."""
    failures_alone: int = 5
    """In a row, where none is: the last way out is not closed lightly."""
    share: float = 0.5
    """Failures among the outcomes of the window, in (0, 1]."""
    volume: int = 20
    """Outcomes that the window must hold before its share counts."""
    window: float = 10.0
    """Counted in steps of a tenth."""
    rest: float = 10.0
    """Open for so long at first; doubles with every failed probe."""
    rest_max: float = 30.0
    ramp: float = 10.0
    """After a successful probe the target's part of the requests grows to all of them
    in this time, as far as another candidate is ready to take the others."""
    cooldown_max: float = 60.0
    """Longest time that one ``Retry-After`` keeps a target alone."""
    demotion: float = 10.0
    """A target that refuses our key, or is over its rate or quota, is tried after the
    others for this long."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        _require(self.failures >= 1, "failures must be positive")
        _require(self.failures_alone >= 1, "failures_alone must be positive")
        _require(0 < self.share <= 1, "share must be above 0 and at most 1")
        _require(self.volume >= 1, "volume must be positive")
        _require(self.window > 0, "window must be positive")
        _require(0 < self.rest <= self.rest_max, "rest must be in (0, rest_max]")
        _require(self.ramp >= 0, "ramp must not be negative")
        _require(self.cooldown_max >= 0, "cooldown_max must not be negative")
        _require(self.demotion >= 0, "demotion must not be negative")


class StreamPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What is held, skipped and sent around a relayed stream."""

    hold_events: int = 0
    """Content events held back before the first goes out: a failure among them stays
    invisible. 0: the first content event commits."""
    hold: float = 0.0
    """Longest time for which content is held back, from the first of it; 0: as long as
    ``hold_events`` takes."""
    on_malformed_event: Literal["skip", "error"] = "skip"
    """``skip``: counted and marked in the record; ``error``: ends the stream."""
    ping_after: float | None = None
    """Send a comment after so long without content; it commits the status 200. None:
    never."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        _require(0 <= self.hold_events <= 1_000, "hold_events must be 0 to 1000")
        _require(self.hold >= 0, "hold must not be negative")
        _require(
            self.ping_after is None or self.ping_after > 0,
            "ping_after must be positive",
        )


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a model may set for itself; what it does not is the gateway's."""

    retries: Retries = Retries()
    breaker: BreakerPolicy = BreakerPolicy()
    hedge: Hedge | None = None
    """None: never two attempts of one request at one time."""
    stream: StreamPolicy = StreamPolicy()
