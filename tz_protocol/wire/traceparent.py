"""The W3C's ``traceparent``: which trace a request is a part of.

The one rule: what is not valid is as if it were not there. Nobody's request fails for
its tracing.

Source: https://www.w3.org/TR/trace-context/, section 3.2.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["TraceParent", "parse_traceparent"]

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

_INVALID_VERSION = "ff"


class TraceParent(NamedTuple):
    """Where in a trace a request comes from."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits: of whatever made the request."""
    flags: int
    """0 to 255; bit 0 says that the caller records its part."""


def parse_traceparent(value: str) -> TraceParent | None:
    """Return what the header's *value* says, None if it is not valid.

    A version that is not known may say more after what is known of it.
    """
    found = _FORM.fullmatch(value)
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == _INVALID_VERSION or (version == "00" and rest is not None):
        return None
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceParent(trace_id, span_id, int(flags, 16))
