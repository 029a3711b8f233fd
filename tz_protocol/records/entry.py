"""What is kept of an exchange until it is rows: the record, and what was said.

The one rule: content that may not be kept is not in here, so that no queue, no spool
and no database can show it. An entry is made when an exchange settles and is one
payload from then on; which rows it becomes is ``rows.py``'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import Raw

from tz_protocol.dialects.openai_chat_fold import fold_chunks
from tz_protocol.records.record import Record
from tz_protocol.types.records import Capture
from tz_protocol.wire.json import encode_object, value_of

__all__ = ["Content", "Entry", "make_content", "stricter"]

_STRICTNESS: dict[Capture, int] = {"full": 0, "redacted": 1, "none": 2}

_encode = msgspec.json.Encoder().encode


def stricter(first: Capture, second: Capture | None) -> Capture:
    """Return the one of the two that keeps less: a caller cannot have more kept."""
    if second is None or _STRICTNESS[first] >= _STRICTNESS[second]:
        return first
    return second


class Content(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What was said. Each part is as it was, redacted, or cut and marked."""

    members: bytes = b""
    """JSON object: the request's members as the caller wrote them."""
    sent: bytes = b""
    """The body that went to the provider that answered."""
    received: bytes = b""
    """What it answered: the body, or the stream's chunks, one on each line."""
    is_stream: bool = False
    """True if ``received`` is chunks."""
    answer: bytes = b""
    """JSON object: the members of the answer in OpenAI's words, if ``received`` is not
    in them or its pieces are redacted; empty: it is."""
    cut: tuple[str, ...] = ()
    """Names of the parts that were longer than allowed, and are left out."""


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One exchange on its way to the store."""

    version: int = 1
    record: Record
    inference_id: str = ""
    """UUIDv7 of its row in ModelInference; empty: it has none."""
    content: Content | None = None
    """None: nothing may be kept, or nothing was said."""


def make_content(
    capture: Capture,
    limit: int,
    *,
    members: dict[str, Raw],
    sent: bytes,
    received: bytes | list[bytes],
    answer: bytes = b"",
) -> Content | None:
    """Return what may be kept of an exchange, None if nothing may.

    Args:
        capture: How much.
        limit: Bytes of each part.
        members: The request's, as the caller wrote them.
        sent: The body that went to the provider.
        received: The provider's body, or its chunks.
        answer: As for :class:`Content`.
    """
    if capture == "none":
        return None
    is_stream = isinstance(received, list)
    parts = {
        "members": encode_object(members),
        "sent": sent,
        "received": b"\n".join(received) if isinstance(received, list) else received,
        "answer": answer,
    }
    cut = tuple(name for name, part in parts.items() if len(part) > limit)
    for name in cut:
        parts[name] = b""
    if capture == "redacted":
        pieces = b""
        if is_stream and parts["received"]:
            lines = parts.pop("received").split(b"\n")
            parts["answer"] = encode_object(fold_chunks(lines))
            pieces = _redacted_pieces(lines)
        parts = {name: _redacted(part) for name, part in parts.items()}
        if is_stream:
            parts["received"] = pieces
    return Content(**parts, is_stream=is_stream, cut=cut)


# -- redaction ------------------------------------------------------------------

_KEPT = frozenset(
    {
        "role",
        "type",
        "object",
        "model",
        "finish_reason",
        "native_finish_reason",
        "stop_reason",
        "service_tier",
        "reasoning_effort",
        "tool_choice",
        "encoding_format",
    }
)
"""Members whose strings are words of the format, not of the people who use it."""


def _redacted(part: bytes) -> bytes:
    """Return JSON with its texts replaced; what is no JSON is replaced whole."""
    if not part:
        return part
    value = value_of(part)
    if value is None:
        return _encode(_mark(len(part), "bytes"))
    return _encode(_without_texts(value, "", _text))


def _redacted_pieces(lines: Iterable[bytes]) -> bytes:
    """Return chunks with their texts replaced, and no word on how long each was.

    The lengths of a stream's tokens, in their order, are enough to guess its text:
    https://arxiv.org/abs/2403.09751. The answer as a whole has its length.
    """
    found = []
    for line in lines:
        value = value_of(line)
        found.append(
            _encode(_PIECE if value is None else _without_texts(value, "", _piece))
        )
    return b"\n".join(found)


def _without_texts(value: Any, name: str, mark: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return value if name in _KEPT else mark(value)
    if isinstance(value, dict):
        return {key: _without_texts(item, key, mark) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_texts(item, name, mark) for item in value]
    return value


_PIECE = "[redacted]"


def _piece(text: str) -> str:
    del text
    return _PIECE


def _text(text: str) -> str:
    return _mark(len(text), "characters")


def _mark(count: int, unit: str) -> str:
    return f"[redacted: {count} {unit}]"
