"""A transport that plays recordings to the vendors' own clients.

The one rule: a client gets a recording's status, headers and body and nothing else,
from memory. What it makes of them is read in ``corpus_sdk_openai`` and
``corpus_sdk_vendors``; AWS's parsers need no transport (``corpus_sdk_aws``).
"""

from __future__ import annotations

import httpx
import httpx2

from tests.protocol.dialects.recordings import Recording

__all__ = ["HTTPX", "HTTPX2", "PLACE", "CannotRead", "load"]

PLACE = "http://upstream.test"
"""Where the clients believe their vendor to be."""

FRAMING = frozenset({"content-length", "content-encoding", "transfer-encoding"})
"""Headers that speak of the bytes on the wire; the recordings are past that."""


class CannotRead(Exception):
    """A recording is beyond what its vendor's client reads; says why."""


_loaded: list[Recording] = []


def load(recording: Recording) -> None:
    """Play *recording* to whoever asks next."""
    _loaded[:] = [recording]


def _parts() -> tuple[int, list[tuple[str, str]], bytes]:
    (recording,) = _loaded
    head = recording.head
    pairs = [pair for pair in head.headers if pair[0] not in FRAMING]
    if head.get("content-type") is None:
        kind = "text/event-stream" if recording.is_stream else "application/json"
        pairs.append(("content-type", kind))
    return head.status, pairs, recording.body


def _older(request: httpx.Request) -> httpx.Response:
    status, headers, body = _parts()
    return httpx.Response(status, headers=headers, content=body)


def _newer(request: httpx2.Request) -> httpx2.Response:
    status, headers, body = _parts()
    return httpx2.Response(status, headers=headers, content=body)


HTTPX = httpx.Client(transport=httpx.MockTransport(_older), trust_env=False)
HTTPX2 = httpx2.Client(transport=httpx2.MockTransport(_newer), trust_env=False)
"""Clients are written for one or the other."""
