"""The parts of a message in OpenAI's format -> neutral blocks.

The one rule: a part is read by the function of its type and by nothing else; which
members of it are known is in the same table (``PARTS``), so that its caller can tell
what was left unread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import UNSET, UnsetType

from tz_protocol.types.conversation import (
    Audio,
    Block,
    CacheHint,
    Document,
    FileId,
    Image,
    Inline,
    Refusal,
    Source,
    Text,
    Url,
)

__all__ = [
    "PARTS",
    "Unreadable",
    "data_url",
    "read_cache",
    "read_object",
    "read_optional",
    "read_string",
]

MEDIA_TYPES = {
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "html": "text/html",
    "csv": "text/csv",
    "json": "application/json",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
}
"""By file name extension, for files that come without a type."""


class Unreadable(Exception):
    """A value that OpenAI's format does not allow.

    Args:
        path: Where, from the member that raised it downwards; callers prepend.
        message: What was expected, to be read after the path.
    """

    def __init__(self, path: str, message: str) -> None:
        super().__init__(path, message)
        self.path = path
        self.message = message


def data_url(url: str) -> Inline | None:
    """Return the content of a base64 ``data:`` URL, None for any other URL.

    Source: RFC 2397.
    """
    if url[:5].lower() != "data:":
        return None
    head, comma, data = url[5:].partition(",")
    media_type, _, parameters = head.partition(";")
    if not comma or parameters.rpartition(";")[2].strip().lower() != "base64":
        raise Unreadable("url", "must be a data URL in base64")
    return Inline(media_type.strip().lower(), data)


# -- parts ----------------------------------------------------------------------


def read_cache(part: dict[str, Any]) -> CacheHint | UnsetType:
    """Return the mark for caching on a part or a message."""
    value = part.get("cache_control")
    if value is None:
        if part.get("prompt_cache_breakpoint") is not None:
            return CacheHint()
        return UNSET
    if not isinstance(value, dict):
        raise Unreadable("cache_control", "must be an object")
    ttl = value.get("ttl")
    return CacheHint(ttl) if isinstance(ttl, str) else CacheHint()


def read_string(value: dict[str, Any], name: str) -> str:
    """Return a member that must be a string."""
    text = value.get(name)
    if type(text) is not str:
        raise Unreadable(name, "must be a string")
    return text


def read_object(value: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a member that must be an object."""
    found = value.get(name)
    if type(found) is not dict:
        raise Unreadable(name, "must be an object")
    return found


def read_optional(value: dict[str, Any], name: str) -> str | UnsetType:
    """Return a member that may be missing or null, else must be a string."""
    text = value.get(name)
    if text is None:
        return UNSET
    if type(text) is not str:
        raise Unreadable(name, "must be a string")
    return text


def _text(part: dict[str, Any]) -> Block:
    text = part.get("text")
    if type(text) is not str:
        raise Unreadable("text", "must be a string")
    if len(part) == 2:
        return Text(text)
    return Text(text, read_cache(part))


def _refusal(part: dict[str, Any]) -> Block:
    return Refusal(read_string(part, "refusal"))


def _image(part: dict[str, Any]) -> Block:
    value = part.get("image_url")
    if type(value) is str:
        # Not OpenAI's, but what Mistral and Together document.
        value = {"url": value}
    elif type(value) is not dict:
        raise Unreadable("image_url", "must be an object with url")
    try:
        url = read_string(value, "url")
        source = data_url(url) or Url(url)
        detail = read_optional(value, "detail")
    except Unreadable as error:
        raise Unreadable(f"image_url.{error.path}", error.message) from None
    return Image(source, detail, read_cache(part))


def _audio(part: dict[str, Any]) -> Block:
    value = read_object(part, "input_audio")
    try:
        return Audio(
            read_string(value, "format"), read_string(value, "data"), read_cache(part)
        )
    except Unreadable as error:
        raise Unreadable(f"input_audio.{error.path}", error.message) from None


def _file(part: dict[str, Any]) -> Block:
    value = read_object(part, "file")
    try:
        name = read_optional(value, "filename")
        data = read_optional(value, "file_data")
        file_id = read_optional(value, "file_id")
        if data is not UNSET:
            source = _file_source(data, name)
        elif file_id is not UNSET:
            source = FileId(file_id)
        else:
            raise Unreadable("file_data", "or file.file_id must be given")
    except Unreadable as error:
        raise Unreadable(f"file.{error.path}", error.message) from None
    return Document(source, name, read_cache(part))


def _file_source(data: str, name: str | UnsetType) -> Source:
    if data.startswith(("http://", "https://")):
        return Url(data)
    extension = "" if name is UNSET else name.rpartition(".")[2].lower()
    media_type = MEDIA_TYPES.get(extension, "")
    inline = data_url(data)
    if inline is None:
        return Inline(media_type, data)
    if not inline.media_type or inline.media_type == "application/octet-stream":
        return Inline(media_type, inline.data)
    return inline


_MARKS = {"type", "cache_control", "prompt_cache_breakpoint"}

PARTS: dict[
    str, tuple[Callable[[dict[str, Any]], Block], frozenset[str], frozenset[str]]
] = {
    "text": (_text, frozenset({*_MARKS, "text"}), frozenset()),
    "refusal": (_refusal, frozenset({"type", "refusal"}), frozenset()),
    "image_url": (
        _image,
        frozenset({*_MARKS, "image_url"}),
        frozenset({"url", "detail"}),
    ),
    "input_audio": (
        _audio,
        frozenset({*_MARKS, "input_audio"}),
        frozenset({"data", "format"}),
    ),
    "file": (
        _file,
        frozenset({*_MARKS, "file"}),
        frozenset({"filename", "file_data", "file_id"}),
    ),
}
"""Type -> reader, known members of the part, known members of the object in it."""
