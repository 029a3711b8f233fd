"""What kind of content base64 data is.

The one rule: the bytes decide only where nobody said anything; a stated type is
believed.
"""

from __future__ import annotations

import binascii
from base64 import b64decode

from tz_protocol.types.conversation import Inline

__all__ = ["inline_text", "media_type_of"]

_PREFIXES = (
    # The first bytes of each format (WHATWG MIME Sniffing, section 6), in base64: six
    # bits a character, so only as many characters as the signature fills whole.
    ("iVBORw0KGg", "image/png"),
    ("/9j/", "image/jpeg"),
    ("R0lGOD", "image/gif"),
    ("UklGR", "image/webp"),
    ("JVBERi", "application/pdf"),
)


def media_type_of(source: Inline) -> str:
    """Return the media type of *source*; empty if it cannot be told."""
    stated = source.media_type
    if stated and stated != "application/octet-stream":
        # https://www.iana.org/assignments/media-types: image/jpg does not exist.
        return "image/jpeg" if stated == "image/jpg" else stated
    data = source.data
    for prefix, media_type in _PREFIXES:
        if data.startswith(prefix):
            return media_type
    return ""


def inline_text(source: Inline) -> str | None:
    """Return *source* as text, None if it is not base64 of UTF-8."""
    try:
        return b64decode(source.data, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
