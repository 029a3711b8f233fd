"""Embeddings of vendors that answer numbers only.

The one rule: the numbers pass as the vendor wrote them, unless the client asked for
base64: then they become what OpenAI's is, little-endian float32.

Source: https://platform.openai.com/docs/api-reference/embeddings,
"encoding_format".
"""

from __future__ import annotations

import struct
from base64 import b64encode

import msgspec
from msgspec import Raw

from tz_protocol.dialects.openai_fields import JsonResponse

__all__ = ["FloatVectors", "data_of", "texts_of"]

_FLOATS = msgspec.json.Decoder(list[float])
_TEXTS = msgspec.json.Decoder(str | list[str])


class FloatVectors(JsonResponse):
    """A whole answer without ``data``, which depends on what the client asked for."""

    vectors: list[Raw]
    """JSON lists of numbers, in the order of the texts."""


def data_of(vectors: list[Raw], *, is_base64: bool) -> Raw:
    """Return the member ``data`` of OpenAI's answer."""
    made = map(_base64, vectors) if is_base64 else map(bytes, vectors)
    entries = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, vector)
        for index, vector in enumerate(made)
    )
    return Raw(b"[%b]" % entries)


def _base64(vector: Raw) -> bytes:
    numbers = _FLOATS.decode(vector)
    return b'"%b"' % b64encode(struct.pack(f"<{len(numbers)}f", *numbers))


def texts_of(value: Raw) -> list[str] | None:
    """Return the texts of ``input``, None if it is not text (token numbers)."""
    try:
        found = _TEXTS.decode(value)
    except msgspec.DecodeError:
        return None
    return [found] if isinstance(found, str) else found
