"""What is kept of an exchange until it is rows: the record, and what was said.

The one rule: content that may not be kept is not in here, so that no queue, no spool
and no database can show it. An entry is made when an exchange settles and is one
payload from then on; which rows it becomes is ``rows.py``'s business.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from tz_protocol.dialects.openai_chat_fold import fold_chunks
from tz_protocol.records.record import Record
from tz_protocol.records.shapes import pieces_of, shape_of
from tz_protocol.types.records import Capture
from tz_protocol.wire.json import encode_object

__all__ = ["Content", "Entry", "make_content", "stricter"]

_STRICTNESS: dict[Capture, int] = {"full": 0, "redacted": 1, "none": 2}


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
            pieces = pieces_of(lines)
        parts = {name: shape_of(part) for name, part in parts.items()}
        if is_stream:
            parts["received"] = pieces
    return Content(**parts, is_stream=is_stream, cut=cut)
