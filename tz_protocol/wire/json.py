"""JSON objects taken apart at their top level only, and put together again.

The one rule: a value that nobody asks for is never decoded; it stays the bytes that
were sent (``msgspec.Raw``) and goes out as those bytes, so that numbers, escapes and
white space within it survive. What the members mean is the dialects' business.

Grammar: RFC 8259. Two things that it leaves open are refused in requests: a member
that is there twice (which one counts differs from reader to reader, and that is how
checks are smuggled past) and half of a surrogate pair.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from tz_protocol.errors import InvalidRequest

__all__ = [
    "NULL",
    "encode_object",
    "kind_of_value",
    "mended",
    "parse_object",
    "read_boolean",
    "read_integer",
    "read_object",
    "read_string",
    "scan_object",
    "shortened",
    "value_of",
    "without_nulls",
]

MEMBERS_LIMIT = 10_000
"""Top-level members of a request; the longest in any vendor's specification has fewer
than a hundred."""

NULL = Raw(b"null")

_BOM = b"\xef\xbb\xbf"
_PLACE = re.compile(r" \(byte (\d+)\)$")
_HALF_PAIR = re.compile(
    rb"(?<!\\)(?:\\\\)*\\u"
    rb"(?:d[89ab]..(?!\\ud[c-f])|d[c-f]..)",
    re.IGNORECASE,
)

_PAIR_OR_HALF = re.compile(
    rb"(?<!\\)((?:\\\\)*)(?:(\\ud[89ab]..\\ud[c-f]..)|\\ud[89a-f]..)",
    re.IGNORECASE,
)

_SCAN = msgspec.json.Decoder(dict[str, Raw])
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class _Key:
    """A member's name with the identity of its occurrence."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


_Members = dict[_Key, Raw]


class _TooMany(Exception):
    """More members than the limit."""


class _Keys:
    """Makes the keys of one object, and stops at the limit."""

    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = 0

    def make(self, kind: type[Any], name: Any) -> _Key:
        del kind
        self._count += 1
        if self._count > MEMBERS_LIMIT:
            raise _TooMany
        return _Key(name)


# -- whole objects --------------------------------------------------------------


def parse_object(body: bytes) -> dict[str, Raw]:
    """Return the members of a request's body, each as the client wrote it.

    Raises:
        InvalidRequest: *body* is not one JSON object in UTF-8, is nested too deeply,
            has too many members, or has one of them twice.
    """
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            message = f"The request's body is not UTF-8: see byte {error.start}."
            raise InvalidRequest(message) from None
    keys = _Keys()
    decoder = msgspec.json.Decoder(_Members, dec_hook=keys.make)
    try:
        members = decoder.decode(body)
    except msgspec.ValidationError:
        message = "The request's body must be a JSON object."
        raise InvalidRequest(message) from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(_malformed(body, str(error))) from None
    except RecursionError:
        message = "The request's body is nested too deeply."
        raise InvalidRequest(message) from None
    except _TooMany:
        message = f"The request's body has more than {MEMBERS_LIMIT} members."
        raise InvalidRequest(message) from None
    fields: dict[str, Raw] = {}
    for key, value in members.items():
        name = key.name
        if name in fields:
            name = shortened(name)
            message = f"The request's body has the member {name!r} twice."
            raise InvalidRequest(message, param=name, code="duplicate_parameter")
        fields[name] = value
    return fields


def _malformed(body: bytes, text: str) -> str:
    """Return what is wrong with *body*, of which msgspec said *text*."""
    if not body.strip():
        return "The request's body is empty; a JSON object was expected."
    if _HALF_PAIR.search(body):
        return (
            "The request's body is not valid JSON: "
            "a \\u escape is half of a surrogate pair."
        )
    found = _PLACE.search(text)
    if found is None:
        return "The request's body is not valid JSON: it ends too early."
    at = int(found[1])
    reason = text[: found.start()].removeprefix("JSON is malformed: ")
    if reason == "trailing characters":
        # The one place that msgspec counts from one.
        at -= 1
    line = body.count(b"\n", 0, at) + 1
    column = at - body.rfind(b"\n", 0, at)
    return (
        f"The request's body is not valid JSON: {reason} at byte {at} "
        f"(line {line}, column {column})."
    )


def shortened(name: str) -> str:
    """Return a member's name fit for a message: names may be of any length."""
    return name if len(name) <= 64 else name[:61] + "..."


def scan_object(data: bytes) -> dict[str, Raw] | None:
    """Return the members of what a provider sent, None if it is not a JSON object.

    More lenient than :func:`parse_object`: the last of two members of one name counts,
    a byte order mark is passed over, and so is what is no text (:func:`mended`).
    """
    data = data.removeprefix(_BOM)
    try:
        if not data.isascii():
            data.decode()
        return _SCAN.decode(data)
    except (msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        return None
    except msgspec.DecodeError:
        fixed = mended(data)
    if fixed == data:
        return None
    try:
        return _SCAN.decode(fixed)
    except (msgspec.DecodeError, RecursionError):
        return None


def mended(data: bytes) -> bytes:
    """Return a provider's JSON without what no text can hold.

    Halves of surrogate pairs, which a provider that cuts its text within one of
    JavaScript's characters writes: each becomes the replacement character, and the
    rest of the text is not lost for it.
    """
    return _PAIR_OR_HALF.sub(_replaced, data)


def _replaced(found: re.Match[bytes]) -> bytes:
    return found[0] if found[2] else found[1] + rb"\ufffd"


def encode_object(fields: Mapping[str, Raw | bytes]) -> bytes:
    """Return the object of *fields*, whose values are JSON and stay as they are."""
    if not fields:
        return b"{}"
    pieces: list[bytes | Raw] = []
    separator = b"{"
    for name, value in fields.items():
        pieces += (separator, _encode(name), b":", value)
        separator = b","
    pieces.append(b"}")
    return b"".join(pieces)


def value_of(data: bytes | Raw) -> Any:
    """Return what a provider's JSON decodes to, None if it cannot be decoded."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        rest = bytes(data).removeprefix(_BOM)
    return value_of(rest) if rest != data else None


_ANY = msgspec.json.Decoder(Raw)
_ITEMS = msgspec.json.Decoder(list[Raw])


def without_nulls(
    data: bytes | Raw,
    kept: frozenset[str] = frozenset(),
    dropped: frozenset[str] = frozenset(),
) -> bytes:
    """Return a provider's JSON without the members of its objects that are null.

    For those that say null where others say nothing: what writes an SDK's objects down
    does.

    Args:
        data: The JSON; if it is none, it is returned as it is.
        kept: Names of members in which a null means something, at any depth.
        dropped: Names of members that are left out whatever they are.
    """
    try:
        return _without_nulls(_ANY.decode(data), kept, dropped)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return bytes(data)


def _without_nulls(raw: Raw, kept: frozenset[str], dropped: frozenset[str]) -> bytes:
    kind = kind_of_value(raw)
    if kind == "an array":
        items = (_without_nulls(item, kept, dropped) for item in _ITEMS.decode(raw))
        return b"[%b]" % b",".join(items)
    if kind != "an object":
        return bytes(raw)
    return encode_object(
        {
            name: value if name in kept else _without_nulls(value, kept, dropped)
            for name, value in _SCAN.decode(raw).items()
            if value != NULL and name not in dropped
        }
    )


# -- single members -------------------------------------------------------------

_KINDS = {"{": "an object", "[": "an array", '"': "a string", "n": "null"}
_KINDS |= dict.fromkeys("tf", "a boolean") | dict.fromkeys("-0123456789", "a number")

_STRING = msgspec.json.Decoder(str)


def kind_of_value(value: Raw) -> str:
    """Return what *value* is in words, with the article: ``an object``, ``null``."""
    return _KINDS[chr(memoryview(value)[0])]


def _unfit(path: str, expected: str, value: Raw) -> InvalidRequest:
    message = (
        f"Invalid type for {path!r}: expected {expected}, "
        f"but got {kind_of_value(value)}."
    )
    return InvalidRequest(message, param=path, code="invalid_type")


def read_string(value: Raw, path: str) -> str:
    """Return the string that *value* is.

    Args:
        value: A JSON value.
        path: Where it is in the request, for the error.

    Raises:
        InvalidRequest: It is not a string.
    """
    try:
        return _STRING.decode(value)
    except msgspec.DecodeError:
        raise _unfit(path, "a string", value) from None


def read_boolean(value: Raw, path: str) -> bool:
    """Return the boolean that *value* is.

    Raises:
        InvalidRequest: It is not a boolean.
    """
    if value == _TRUE:
        return True
    if value == _FALSE:
        return False
    raise _unfit(path, "a boolean", value)


_TRUE = Raw(b"true")
_FALSE = Raw(b"false")
_INTEGER = re.compile(rb"-?[0-9]+")


def read_integer(value: Raw, path: str, least: int) -> int:
    """Return the integer that *value* is.

    Raises:
        InvalidRequest: It is not an integer, or is below *least*.
    """
    text = bytes(value)
    # int() is quadratic; no parameter of any vendor has more than 20 digits.
    if not _INTEGER.fullmatch(text) or len(text) > 20:
        raise _unfit(path, "an integer", value)
    number = int(text)
    if number < least:
        message = (
            f"Invalid {path!r}: integer below minimum value. "
            f"Expected a value >= {least}, but got {number} instead."
        )
        raise InvalidRequest(message, param=path, code="integer_below_min_value")
    return number


def read_object(value: Raw, path: str) -> dict[str, Raw]:
    """Return the members of the object that *value* is.

    Raises:
        InvalidRequest: It is not an object.
    """
    try:
        return _SCAN.decode(value)
    except msgspec.DecodeError:
        raise _unfit(path, "an object", value) from None
    except RecursionError:
        message = f"{path!r} is nested too deeply."
        raise InvalidRequest(message, param=path) from None
