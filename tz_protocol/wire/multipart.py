"""``multipart/form-data``, whole bodies: bytes <-> parts.

The one rule: framing only, both ways, without copying a file but once, into the body
that goes out. What the fields mean is the dialects' business.

Why not a library: the maintained ones (``multipart``, ``python-multipart``) read pieces
into buffers of their own and do not write, so that a second copy of every file and a
base dependency would buy half of what is needed. A body that is already in memory takes
three calls of ``bytes.find``, which is linear, a part.

Sources: RFC 7578 (the form), RFC 2046 section 5.1 (boundaries), RFC 9110 section 5.6.4
(quoted strings), RFC 8187 (``filename*``). Stricter than those: lines end in CRLF, no
text before the first boundary and none after the last, no nested multiparts (RFC 7578,
4.3), no transfer encodings (4.7), nothing twice. Names are read as quoted strings and
written as such: the ``%22`` that browsers send for a quote stays what it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from urllib.parse import unquote_to_bytes

from tz_protocol.errors import InvalidRequest
from tz_protocol.types.form import FormPart

__all__ = ["boundary_of", "parse_multipart", "render_multipart"]

PARTS_LIMIT = 1_000
"""Parts of one form; Django and Starlette stop at as many."""

HEADER_LIMIT = 8_192
"""Bytes of one part's header lines; real ones have under 300."""

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_PADDED_END = re.compile(rb"[ \t]{0,256}\r\n")
_LINE = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*(.*?)[ \t]*")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_PARAMETER = re.compile(
    r"[ \t]*;[ \t]*"
    r"(?P<name>[!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*=[ \t]*"
    r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s";]+))'
)
_END = re.compile(r"[ \t]*;?[ \t]*")
_ESCAPED = re.compile(r'\\(["\\])')
_EXTENDED = re.compile(
    r"(?i)(utf-8|iso-8859-1)'[^']*'((?:[0-9a-z!#$&+\-.^_`|~]|%[0-9a-f]{2})*)"
)


def _malformed(reason: str) -> InvalidRequest:
    message = f"The request's body is not a valid form: {reason}."
    return InvalidRequest(message, code="invalid_multipart")


# -- header values --------------------------------------------------------------


def _parameters(value: str, where: str) -> tuple[str, dict[str, str]]:
    """Return (what stands before the first semicolon, the parameters after it).

    Both the first and the parameters' names in lower case.

    Raises:
        InvalidRequest: It does not have that form, or a parameter is there twice.
    """
    kind = value.partition(";")[0]
    found: dict[str, str] = {}
    at = len(kind)
    while (match := _PARAMETER.match(value, at)) is not None:
        at = match.end()
        name, quoted = match["name"].lower(), match["quoted"]
        if name in found:
            raise _malformed(f"the {where} has a parameter twice")
        bare = match["bare"] or ""
        found[name] = bare if quoted is None else _ESCAPED.sub(r"\1", quoted)
    if not _END.fullmatch(value, at):
        raise _malformed(f"the {where} cannot be understood")
    return kind.strip().lower(), found


def boundary_of(content_type: str) -> str:
    """Return the boundary that a request's *content_type* names.

    Raises:
        InvalidRequest: There is none, or it is not one.
    """
    _, parameters = _parameters(content_type, "content-type")
    boundary = parameters.get("boundary")
    if boundary is None:
        raise _malformed("the content-type names no boundary")
    if not _BOUNDARY.fullmatch(boundary):
        raise _malformed(
            "the boundary must be 1 to 70 letters, digits and characters of "
            "'()+_,-./:=? and not end in a space"
        )
    return boundary


def _filename(parameters: dict[str, str], number: int) -> str | None:
    """Return the file's name; ``filename*``, which is exact, before ``filename``."""
    extended = parameters.get("filename*")
    if extended is None:
        return parameters.get("filename")
    found = _EXTENDED.fullmatch(extended)
    if found is not None:
        try:
            return unquote_to_bytes(found[2]).decode(found[1])
        except UnicodeDecodeError:
            pass
    raise _malformed(f"the filename* of part {number} cannot be understood")


# -- from a client --------------------------------------------------------------


def parse_multipart(body: bytes, boundary: str) -> tuple[FormPart, ...]:
    """Return the parts of a form, in order; their data are views of *body*.

    Args:
        body: The whole body.
        boundary: What ``boundary_of`` returned.

    Raises:
        InvalidRequest: It is not such a form, or is over a limit.
    """
    if not _BOUNDARY.fullmatch(boundary):
        raise _malformed("the boundary is not one")
    delimiter = f"\r\n--{boundary}".encode()
    if body.startswith(delimiter[2:]):
        at = len(delimiter) - 2
    elif body.startswith(delimiter):
        at = len(delimiter)
    else:
        raise _malformed("it does not begin with the boundary of its content-type")
    view = memoryview(body)
    parts: list[FormPart] = []
    while not body.startswith(b"--", at):
        number = len(parts) + 1
        line_end = _PADDED_END.match(body, at)
        if line_end is None:
            raise _malformed(f"the boundary before part {number} is not a whole line")
        if number > PARTS_LIMIT:
            raise _malformed(f"it has more than {PARTS_LIMIT} parts")
        at = line_end.end()
        end = _end_of_headers(body, at, number)
        # A part without any data may share its last line end with the boundary.
        stop = body.find(delimiter, end + 2)
        if stop < 0:
            raise _malformed(f"part {number} is not ended by the boundary")
        start = end + 4
        data = view[start : max(start, stop)]
        parts.append(_part(body[at:end], delimiter[2:], data, number))
        at = stop + len(delimiter)
    if body[at + 2 :].strip(b" \t\r\n"):
        raise _malformed("something follows the last boundary")
    return tuple(parts)


def _end_of_headers(body: bytes, at: int, number: int) -> int:
    """Return where the header lines that begin at *at* end, the line end excluded."""
    if body.startswith(b"\r\n", at):
        raise _malformed(f"part {number} has no content-disposition")
    limit = at + HEADER_LIMIT
    end = body.find(b"\r\n\r\n", at, limit + 4)
    if end >= 0:
        return end
    if len(body) < limit + 4:
        raise _malformed(f"it ends in the headers of part {number}")
    raise _malformed(f"the headers of part {number} are over {HEADER_LIMIT} bytes")


def _part(block: bytes, dashes: bytes, data: memoryview, number: int) -> FormPart:
    headers = _headers(block, dashes, number)
    encoding = headers.get("content-transfer-encoding", "binary").lower()
    if encoding not in ("7bit", "8bit", "binary"):
        raise _malformed(
            f"part {number} has a content-transfer-encoding; send it plain"
        )
    content_type = headers.get("content-type")
    if content_type is not None and content_type.lower().startswith("multipart/"):
        raise _malformed(f"part {number} is itself a multipart; send each file apart")
    disposition = headers.get("content-disposition")
    if disposition is None:
        raise _malformed(f"part {number} has no content-disposition")
    kind, parameters = _parameters(disposition, f"disposition of part {number}")
    name = parameters.get("name")
    if kind != "form-data" or name is None:
        raise _malformed(
            f"the content-disposition of part {number} must be form-data with a name"
        )
    filename = _filename(parameters, number)
    try:
        return FormPart(
            name=name, data=data, filename=filename, content_type=content_type or None
        )
    except ValueError as error:
        raise _malformed(f"part {number} has {error}") from None


def _headers(block: bytes, dashes: bytes, number: int) -> dict[str, str]:
    """Return a part's header lines by lower-case name.

    Those that forms do not use are read over, as RFC 7578, 4.8, wants.
    """
    if dashes in block:
        raise _malformed(f"the boundary stands in the headers of part {number}")
    try:
        text = block.decode()
    except UnicodeDecodeError:
        raise _malformed(f"the headers of part {number} are not UTF-8") from None
    headers: dict[str, str] = {}
    for line in text.split("\r\n"):
        found = _LINE.fullmatch(line)
        if found is None or _FORBIDDEN.search(line):
            raise _malformed(f"part {number} has a header line that is not one")
        name = found[1].lower()
        if name in headers:
            raise _malformed(f"part {number} has a header line twice")
        headers[name] = found[2]
    return headers


# -- to a provider --------------------------------------------------------------

_FIRST_BOUNDARY = "form-data-of-tz-gateway"


def render_multipart(parts: Iterable[FormPart]) -> tuple[str, bytes]:
    """Return (content-type, body) of the form that consists of *parts*.

    The boundary is always the same, unless it stands somewhere in the parts: then it
    is a digest of everything, which nobody can write into what it is made of.
    """
    parts = tuple(parts)
    heads = [_head_of(part) for part in parts]
    boundary = _FIRST_BOUNDARY
    while True:
        dashes = f"--{boundary}".encode()
        opening = b"\r\n" + dashes + b"\r\n"
        pieces: list[bytes | memoryview] = []
        for head, part in zip(heads, parts, strict=True):
            pieces += (opening, head, part.data)
        pieces += (b"\r\n", dashes, b"--\r\n")
        pieces[0] = pieces[0][2:]
        body = b"".join(pieces)
        # No end of a boundary is the beginning of one, so that none hides another.
        if body.count(dashes) == len(parts) + 1:
            return f"multipart/form-data; boundary={boundary}", body
        boundary = blake2b(body, digest_size=24).hexdigest()


def _head_of(part: FormPart) -> bytes:
    head = f"Content-Disposition: form-data; name={_quoted(part.name)}"
    if part.filename is not None:
        head += f"; filename={_quoted(part.filename)}"
    if part.content_type is not None:
        head += f"\r\nContent-Type: {part.content_type}"
    return f"{head}\r\n\r\n".encode()


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
