"""The links to pictures in OpenAI's own messages, for servers that follow none.

The one rule: only the addresses of pictures are replaced, by data URLs; every other
byte of the messages stays what the client wrote. What cannot be read is left for the
server to refuse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
from msgspec import Raw

from tz_protocol.dialects.base import Link, Links
from tz_protocol.types.conversation import Inline
from tz_protocol.types.request import ParsedRequest
from tz_protocol.wire.json import NULL, encode_object, value_of

__all__ = ["PICTURE_LINKS"]

_read_messages = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_read_parts = msgspec.json.Decoder(list[Raw]).decode
_read_members = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode

_TYPE = Raw(b'"image_url"')
_UNREADABLE = (msgspec.DecodeError, RecursionError)


def _find(parsed: ParsedRequest) -> list[Link]:
    raw = parsed.fields.get("messages", NULL)
    if b"image_url" not in bytes(raw):
        return []
    found: list[Link] = []
    try:
        messages = _read_messages(raw)
    except _UNREADABLE:
        return []
    for index, message in enumerate(messages):
        for place, _, url in _pictures(message.get("content", NULL)):
            if url[:5].lower() != "data:":
                path = f"messages[{index}].content[{place}].image_url.url"
                found.append(Link(url, path, is_image=True))
    return found


def _pictures(content: Raw) -> Iterator[tuple[int, dict[str, Raw], str]]:
    """Yield place, members and address of each part of *content* with a picture."""
    try:
        parts = [_members(part) for part in _read_parts(content)]
    except _UNREADABLE:
        return
    for place, part in enumerate(parts):
        if part.get("type") == _TYPE:
            value = value_of(part.get("image_url", NULL))
            url = value.get("url") if isinstance(value, dict) else value
            if isinstance(url, str):
                yield place, part, url


def _members(part: Raw) -> dict[str, Raw]:
    try:
        return _read_members(part)
    except msgspec.ValidationError:
        return {}


def _place(parsed: ParsedRequest, contents: Mapping[str, Inline]) -> ParsedRequest:
    pieces: list[bytes] = []
    for index, message in enumerate(_read_messages(parsed.fields["messages"])):
        made: dict[str, Raw | bytes] = dict(message)
        replaced: dict[int, bytes] = {}
        for place, part, _ in _pictures(message.get("content", NULL)):
            path = f"messages[{index}].content[{place}].image_url.url"
            content = contents.get(path)
            if content is not None:
                replaced[place] = _with_data(part, content)
        if replaced:
            parts = _read_parts(message["content"])
            whole = [replaced.get(n, bytes(part)) for n, part in enumerate(parts)]
            made["content"] = b"[%b]" % b",".join(whole)
        pieces.append(encode_object(made))
    messages = Raw(b"[%b]" % b",".join(pieces))
    fields = {**parsed.fields, "messages": messages}
    return msgspec.structs.replace(parsed, fields=fields)


def _with_data(part: dict[str, Raw], content: Inline) -> bytes:
    url = _encode(f"data:{content.media_type};base64,{content.data}")
    value: dict[str, Raw | bytes] = dict(_members(part["image_url"]))
    value["url"] = url
    made: dict[str, Raw | bytes] = {**part, "image_url": encode_object(value)}
    return encode_object(made)


PICTURE_LINKS = Links(_find, _place)
"""For the format as a vendor speaks it who takes pictures in data URLs only."""
