"""The recorded traffic as test items: one a recording, skipped where it is absent.

``TZ_CORPUS`` names the folder; by default it lies beside the checkout. A recording that
a test has nothing to say about is no item of it: it is counted in :data:`LEFT_OUT`,
with the reason, and the table at the end says so.
"""

from __future__ import annotations

import base64
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tz_protocol.types.http import ResponseHead

ROOT = Path(__file__).parents[3]
BESIDE = ROOT.parent / "shared" / "corpus"
CORPUS = Path(os.environ.get("TZ_CORPUS") or BESIDE)
SPECS = ROOT.parent / "shared" / "specs"

LEFT_OUT: Counter[tuple[str, str]] = Counter()
"""(module, reason) -> how many recordings are no items of its tests; (file, reason) ->
how many of its lines are no recordings."""


@dataclass(frozen=True)
class Recording:
    """One interaction with a provider."""

    id: str
    endpoint: str
    is_stream: bool
    head: ResponseHead
    body: bytes
    request: Any
    """Decoded JSON of the request; None if it was not recorded or is not JSON."""
    fidelity: str
    sent: bytes = b""
    """The request's body; empty if it was not recorded."""
    sent_type: str = ""
    """Its content type."""


@cache
def _by_provider() -> dict[str, list[Recording]]:
    found = defaultdict(list)
    for path in sorted(CORPUS.glob("*.jsonl")):
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in filter(str.strip, lines):
                try:
                    value = json.loads(line)
                    provider, recording = str(value["provider"]), _recording(value)
                except (ValueError, LookupError, TypeError, AttributeError) as error:
                    why = f"a line that is no recording: {type(error).__name__}"
                    LEFT_OUT[path.name, why] += 1
                    continue
                found[provider].append(recording)
    return found


def _recording(value: dict[str, Any]) -> Recording:
    response, request = value["response"], value.get("request") or {}
    return Recording(
        id=str(value["id"]),
        endpoint=str(value["endpoint"]),
        is_stream=bool(value["stream"]),
        head=ResponseHead(
            int(response["status"]),
            tuple((name.lower(), str(item)) for name, item in _pairs(response)),
        ),
        body=_body_of(response),
        request=request.get("json"),
        fidelity=value.get("fidelity", "raw"),
        sent=_body_of(request),
        sent_type=next(
            (item for name, item in _pairs(request) if name.lower() == "content-type"),
            "",
        ),
    )


def _pairs(message: dict[str, Any]) -> list[tuple[str, Any]]:
    headers = message.get("headers") or {}
    return list(headers.items() if isinstance(headers, dict) else headers)


def _body_of(message: dict[str, Any]) -> bytes:
    text = message.get("body_text")
    if text is None:
        return base64.b64decode(message.get("body_b64") or "")
    return bytes(text.encode())


def recordings(provider: str, *endpoints: str) -> list[Any]:
    """Return the recordings of *provider* as parameters of a test."""
    found = [
        pytest.param(recording, id=recording.id)
        for recording in _by_provider().get(provider, ())
        if recording.endpoint in endpoints
    ]
    return found or absent(f"there are no recordings of {provider} in {CORPUS}")


def absent(reason: str) -> list[Any]:
    """Return the parameters of a test that has nothing to replay."""
    mark = pytest.mark.skip(reason=reason)
    return [pytest.param(None, id="absent", marks=mark)]


def replay(
    parameters: Iterable[Any], unless: Callable[[Recording], str | None]
) -> Callable[[Any], Any]:
    """Make a test one of the recordings among *parameters*.

    Args:
        parameters: What :func:`recordings` returned.
        unless: Says why a recording is none of the test's, None if it is.
    """

    def decorate(test: Any) -> Any:
        kept = []
        for parameter in parameters:
            recording = parameter.values[0]
            reason = None if recording is None else unless(recording)
            if reason is None:
                kept.append(parameter)
            else:
                LEFT_OUT[test.__module__.rpartition(".")[2], reason] += 1
        kept = kept or absent(f"no recording in {CORPUS} is one for this test")
        return pytest.mark.parametrize("recording", kept)(test)

    return decorate


def every_recording() -> Iterator[tuple[str, Recording]]:
    """Yield (provider, recording) of the whole folder, in the order of its files."""
    for provider, found in _by_provider().items():
        for recording in found:
            yield provider, recording


def without_chat(recording: Recording) -> str | None:
    """Say why a recording has no request for a chat in OpenAI's format."""
    body = recording.request
    if isinstance(body, dict) and isinstance(body.get("messages"), list):
        return None
    return "no request was recorded"


def not_accepted(recording: Recording) -> str | None:
    """Say why a recording has no request that its vendor took."""
    if isinstance(recording.request, dict) and recording.head.status == 200:
        return None
    return "no request that the vendor accepted"
