"""The recorded traffic as test items: one a recording, skipped where it is absent.

``TZ_CORPUS`` names the folder; by default it lies beside the checkout.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tz_protocol.types.http import ResponseHead

ROOT = Path(__file__).parents[3]
CORPUS = Path(os.environ.get("TZ_CORPUS", str(ROOT.parent / "shared" / "corpus")))
SPECS = ROOT.parent / "shared" / "specs"


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
def _load(provider: str) -> tuple[Recording, ...] | None:
    path = CORPUS / f"{provider}.jsonl"
    if not path.is_file():
        return None
    with path.open(encoding="utf-8") as lines:
        return tuple(_recording(json.loads(line)) for line in lines)


def _recording(value: dict[str, Any]) -> Recording:
    response, request = value["response"], value.get("request") or {}
    return Recording(
        id=value["id"],
        endpoint=value["endpoint"],
        is_stream=bool(value["stream"]),
        head=ResponseHead(
            response["status"],
            tuple((name.lower(), str(item)) for name, item in _pairs(response)),
        ),
        body=_body_of(response),
        request=request.get("json"),
        fidelity=value["fidelity"],
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
    assert isinstance(text, str)
    return text.encode()


def recordings(provider: str, *endpoints: str) -> list[Any]:
    """Return the recordings of *provider* as parameters of a test."""
    found = _load(provider)
    if found is None:
        reason = f"there are no recordings of {provider} in {CORPUS}"
        mark = pytest.mark.skip(reason=reason)
        return [pytest.param(None, id="absent", marks=mark)]
    return [
        pytest.param(recording, id=recording.id)
        for recording in found
        if recording.endpoint in endpoints
    ]


def every_recording() -> Iterator[tuple[str, Recording]]:
    """Yield (provider, recording) of the whole folder, in the order of its files."""
    for path in sorted(CORPUS.glob("*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                value = json.loads(line)
                yield value["provider"], _recording(value)
