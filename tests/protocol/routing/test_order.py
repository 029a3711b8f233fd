"""The order of the candidates of one request."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.routing.order import by_weight, spread

LOTS = st.floats(0, 1, exclude_max=True)
WEIGHTS = st.lists(st.none() | st.floats(0, 1e6), max_size=8)


@pytest.mark.parametrize(
    ("weights", "drawn", "order"),
    [
        ([], 0.5, []),
        ([None, None, None], 0.9, [0, 1, 2]),
        ([None, 1.0], 0.9, [1, 0]),
        ([0.0, 2.0, None], 0.0, [1, 0, 2]),
        ([1.0, 1.0], 0.0, [0, 1]),
        ([1.0, 1.0], 0.49, [0, 1]),
        ([1.0, 1.0], 0.5, [1, 0]),
        ([1.0, 3.0], 0.24, [0, 1]),
        ([1.0, 3.0], 0.25, [1, 0]),
        # 0.55 hits the second, four fifths into it: of the others the third.
        ([0.35, 0.25, 0.4], 0.55, [1, 2, 0]),
    ],
)
def test_by_weight_example_gives_the_order(weights, drawn, order):
    assert by_weight(weights, drawn) == order


def test_by_weight_negative_is_refused():
    with pytest.raises(ValueError, match="-1"):
        by_weight([1.0, -1.0], 0.5)


@given(WEIGHTS, LOTS)
def test_by_weight_any_weights_give_a_permutation(weights, drawn):
    order = by_weight(weights, drawn)
    assert sorted(order) == list(range(len(weights)))
    idle = [index for index in order if not weights[index]]
    assert idle == sorted(idle)
    assert order[len(order) - len(idle) :] == idle
    assert by_weight(weights, drawn) == order


def test_by_weight_shares_follow_the_weights_at_every_place():
    draws = 10_000
    orders = [by_weight([1.0, 2.0, 7.0], i / draws) for i in range(draws)]
    first = Counter(order[0] for order in orders)
    assert [round(first[i] / draws, 3) for i in range(3)] == [0.1, 0.2, 0.7]
    # Behind the heaviest the other two stand as 1 to 2.
    second = Counter(order[1] for order in orders if order[0] == 2)
    assert round(second[1] / second[0], 2) == 2.0


def test_spread_groups_stay_in_order_and_draw_only_if_it_matters():
    drawn = iter([0.99])
    items = [("m", "a", 1.0), ("m", "b", 1.0), ("n", "c", None), ("n", "d", 5.0)]
    order = spread(
        items, lambda item: item[0], lambda item: item[2], lambda: next(drawn)
    )
    assert [name for _, name, _ in order] == ["b", "a", "d", "c"]
    assert next(drawn, None) is None


def test_spread_no_weights_keeps_the_order_and_draws_nothing():
    def draw():
        raise AssertionError("nothing is left to chance")

    assert spread([3, 1, 2], lambda _: 0, lambda _: None, draw) == [3, 1, 2]
