"""How long to pause, and how much more than one try everybody together may cost.

The one rule: nothing here knows a provider or an error. ``plan`` asks, ``classify``
says what may be tried again.
"""

from __future__ import annotations

from tz_protocol.types.policy import HedgeShare, Retries, RetryShare

__all__ = ["HedgeBudget", "RetryBudget", "backoff"]

_DOUBLINGS = 60
"""More would overflow nothing and change nothing: ``cap`` was reached long before."""


def backoff(attempt: int, policy: Retries, jitter: float) -> float:
    """Return how long to pause after failed round *attempt*, in seconds.

    Exponential with full jitter: ``jitter * min(cap, base * 2 ** (attempt - 1))``.

    Args:
        attempt: Number of the round that just failed, counted from 1.
        policy: ``base`` and ``cap`` in seconds.
        jitter: A number in [0, 1), drawn by the caller.

    Raises:
        ValueError: If ``attempt < 1``.

    Source: AWS Architecture Blog, "Exponential Backoff And Jitter" (2015), "Full
    Jitter".
    """
    if attempt < 1:
        message = f"rounds are counted from 1, not {attempt}"
        raise ValueError(message)
    doublings = min(attempt - 1, _DOUBLINGS)
    return jitter * min(policy.cap, policy.base * 2.0**doublings)


class RetryBudget:
    """Bounds how many exchanges of the process are in a further round.

    Each exchange calls :meth:`enter` and, at its end, :meth:`leave`; before its first
    pause :meth:`take` and, if that said True, :meth:`give` at its end. The pause is
    counted too: what waits will try.
    """

    __slots__ = ("exchanges", "policy", "retrying")

    def __init__(self, policy: RetryShare | None = None) -> None:
        self.policy = RetryShare() if policy is None else policy
        self.exchanges = 0
        """In flight."""
        self.retrying = 0
        """Those of them in a further round."""

    @property
    def limit(self) -> int:
        """How many may be in a further round now."""
        policy = self.policy
        return max(policy.minimum, int(policy.share * self.exchanges))

    def enter(self) -> None:
        """Count an exchange that begins."""
        self.exchanges += 1

    def leave(self) -> None:
        """Forget an exchange that ended."""
        self.exchanges -= 1

    def take(self) -> bool:
        """Count an exchange that wants to go on; False if it may not."""
        if self.retrying >= self.limit:
            return False
        self.retrying += 1
        return True

    def give(self) -> None:
        """Take back one successful :meth:`take`."""
        self.retrying -= 1


class HedgeBudget:
    """Bounds how many further requests hedging causes.

    Every request earns ``share`` of a hedge; of the first n requests at most
    ``ceil(share * n)`` are hedged, and after a quiet time ``burst`` at once.
    """

    __slots__ = ("_balance", "policy")

    def __init__(self, policy: HedgeShare | None = None) -> None:
        self.policy = HedgeShare() if policy is None else policy
        # In hedges; a hedge may be begun on credit, hence one more than -1.
        self._balance = 0.0

    def earn(self) -> None:
        """Count a request, hedged or not."""
        policy = self.policy
        self._balance = min(float(policy.burst), self._balance + policy.share)

    @property
    def is_open(self) -> bool:
        """True if one more hedge is within the share."""
        # Sums of 0.05 miss their integers by rounding: a hair is not credit.
        return self._balance > 1e-9

    def take(self) -> bool:
        """Spend one hedge; False if there is none to spend."""
        if not self.is_open:
            return False
        self._balance -= 1.0
        return True
