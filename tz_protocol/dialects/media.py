"""What kind of content there is in bytes and in base64 data.

The one rule: of what a caller sends the bytes decide only where the caller said
nothing; of what somebody's server sends, they alone decide.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode

from tz_protocol.types.conversation import Inline

__all__ = ["IMAGES", "inline_text", "media_type_of", "sniffed"]

IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""The kinds of picture that every vendor takes that takes any."""

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


_SIGNATURES = (
    # WHATWG MIME Sniffing, section 6, whole.
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBPVP", re.DOTALL), "image/webp"),
    (re.compile(rb"%PDF-"), "application/pdf"),
)

_PACKED = b"PK\x03\x04"
_OFFICE = "application/vnd.openxmlformats-officedocument"
_PARTS = (
    # ECMA-376-2: each kind keeps its parts in a folder of its own.
    (b"word/", f"{_OFFICE}.wordprocessingml.document"),
    (b"xl/", f"{_OFFICE}.spreadsheetml.sheet"),
)
_COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_COMPOUNDS = {"doc": "application/msword", "xls": "application/vnd.ms-excel"}
_TEXTS = {"md": "text/markdown", "html": "text/html", "htm": "text/html"}
_TEXTS |= {"csv": "text/csv", "json": "application/json"}
_HTML = re.compile(rb"\s*<(?:!doctype html|html|head|body)\b", re.IGNORECASE)
_CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")


def sniffed(data: bytes, *names: str) -> str:
    """Return the media type that the bytes *data* have; empty if it cannot be told.

    Args:
        data: All of it.
        names: Of the file. Their extensions tell apart what the bytes do not: which
            kind of text it is, or which of the old office formats.
    """
    for signature, media_type in _SIGNATURES:
        if signature.match(data):
            return media_type
    if data.startswith(_PACKED):
        return next((kind for part, kind in _PARTS if part in data), "")
    extensions = [name.rpartition(".")[2].lower() for name in names if "." in name]
    if data.startswith(_COMPOUND):
        return next((_COMPOUNDS[word] for word in extensions if word in _COMPOUNDS), "")
    if not data or _CONTROLS.search(data):
        return ""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    if _HTML.match(data):
        return "text/html"
    return next((_TEXTS[word] for word in extensions if word in _TEXTS), "text/plain")


def inline_text(source: Inline) -> str | None:
    """Return *source* as text, None if it is not base64 of UTF-8."""
    try:
        return b64decode(source.data, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
