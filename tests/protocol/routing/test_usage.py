"""Half of a usage is not passed off as the whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.types.usage import both_of

COUNTS = st.none() | st.integers(0, 1_000)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ((3, 2, None), (3, 2, "known")),
        ((3, None, 5), (3, 2, "known")),
        ((None, 2, 5), (3, 2, "known")),
        ((3, None, None), (3, 0, "estimated")),
        ((None, 2, None), (0, 2, "estimated")),
        ((None, None, 5), None),
    ],
    ids=["both", "output-left", "input-left", "no-output", "no-input", "total-only"],
)
def test_usage_is_what_was_said_and_known_only_if_all_was(stated, expected):
    assert both_of(*stated) == expected


@given(COUNTS, COUNTS, COUNTS)
def test_usage_keeps_what_was_said(said, made, total):
    found = both_of(said, made, total)
    if said is None and made is None:
        assert found is None
        return
    assert found is not None
    assert said is None or found[0] == said
    assert made is None or found[1] == made
