"""In which order the candidates of one request are tried.

The one rule: an order is decided once for each request, from the weights and one drawn
number, and is the same for the same number. Which of them is ready is ``plan``'s to
ask, at the moment of trying.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TypeVar

__all__ = ["by_weight", "spread"]

T = TypeVar("T")


def by_weight(weights: Sequence[float | None], drawn: float) -> list[int]:
    """Return the indices of *weights* in the order to try them.

    The first comes by lot, in proportion to its weight; then the next of those that
    are left, and so on. Those with a weight of 0 or None stand behind, as they were:
    they are there for when the others fail. Without any weight nothing moves.

    Args:
        weights: Not negative.
        drawn: A number in [0, 1), drawn by the caller. One is enough: the part of the
            interval that was hit is stretched to [0, 1) for the next lot.

    Raises:
        ValueError: If a weight is negative.
    """
    lots: list[tuple[int, float]] = []
    rest: list[int] = []
    for index, weight in enumerate(weights):
        if weight is None or weight == 0:
            rest.append(index)
        elif weight > 0:
            lots.append((index, weight))
        else:
            message = f"a weight must not be negative, and one is {weight}"
            raise ValueError(message)
    order: list[int] = []
    while lots:
        place, drawn = _draw([weight for _, weight in lots], drawn)
        order.append(lots.pop(place)[0])
    return order + rest


def _draw(weights: Sequence[float], drawn: float) -> tuple[int, float]:
    """Return which of *weights* was hit, and how far into it, in [0, 1)."""
    point, place = drawn * sum(weights), 0
    # The last one takes what rounding leaves over.
    while place < len(weights) - 1 and point >= weights[place]:
        point -= weights[place]
        place += 1
    return place, min(max(point / weights[place], 0.0), 1.0 - 2**-53)


def spread(
    items: Sequence[T],
    group_of: Callable[[T], object],
    weight_of: Callable[[T], float | None],
    draw: Callable[[], float],
) -> list[T]:
    """Return *items* in the order to try them, group by group.

    A group is a run of neighbours with the same ``group_of``: the providers of one
    model stay together, before those of the models to fall back to. Draws only for a
    group in which at least two have a weight.
    """
    order: list[T] = []
    for _, run in groupby(items, group_of):
        group = list(run)
        weights = [weight_of(item) for item in group]
        # A single weight decides nothing by lot, and still goes before those without.
        drawn = draw() if sum(1 for weight in weights if weight) > 1 else 0.0
        order.extend(group[index] for index in by_weight(weights, drawn))
    return order
