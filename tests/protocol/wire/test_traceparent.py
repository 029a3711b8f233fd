from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.wire.traceparent import TraceParent, parse_traceparent

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", 1),
        (f"00-{TRACE}-{SPAN}-00", 0),
        (f"01-{TRACE}-{SPAN}-ff", 255),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", 1),
        (f"01-{TRACE}-{SPAN}-01-", 1),
    ],
)
def test_valid_value_says_where_the_request_comes_from(value, flags):
    assert parse_traceparent(value) == TraceParent(TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"01-{TRACE}-{SPAN}-01more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-0g",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"0\u0660-{TRACE}-{SPAN}-01",
    ],
)
def test_value_that_is_not_valid_says_nothing(value):
    assert parse_traceparent(value) is None


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255))
def test_what_is_written_is_read(trace, span, flags):
    found = parse_traceparent(f"00-{trace:032x}-{span:016x}-{flags:02x}")
    assert found == (f"{trace:032x}", f"{span:016x}", flags)


@given(st.text("0123456789abcdef-fF ", max_size=60))
def test_any_text_is_valid_or_nothing(text):
    found = parse_traceparent(text)
    if found is not None:
        assert text[3:52] == f"{found.trace_id}-{found.span_id}"
