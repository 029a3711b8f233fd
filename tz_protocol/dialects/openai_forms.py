"""What every request in OpenAI's format that comes as a form has in common.

The one rule: a field passes to the provider in its place and as it was sent; only
``model`` is replaced, and the gateway's own fields are taken out. What one endpoint's
fields mean is that endpoint's module.

A field whose value is an object or an array is sent as OpenAI's SDKs write it:
``include[]`` once an element, ``tensorzero::tags[team]`` once a member.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Raw

from tz_protocol.dialects.base import Losses
from tz_protocol.dialects.losses import permitted
from tz_protocol.dialects.openai_fields import (
    PREFIX,
    parse_extensions,
    read_model,
    require_media_type,
)
from tz_protocol.errors import InvalidRequest
from tz_protocol.types.form import FormPart, FormRequest
from tz_protocol.types.http import Headers, HttpRequest, RequestHead
from tz_protocol.types.request import Extensions, Target
from tz_protocol.wire.json import kind_of_value, scan_object
from tz_protocol.wire.multipart import boundary_of, parse_multipart, render_multipart

__all__ = ["form_request", "is_true", "parse_form", "text_field", "twice"]

MODEL = "model"

_encode = msgspec.json.Encoder().encode
_STRING = msgspec.json.Decoder(str)
_ARRAY = msgspec.json.Decoder(list[Raw])


# -- from a client --------------------------------------------------------------


def parse_form(
    body: bytes, head: RequestHead
) -> tuple[str, tuple[FormPart, ...], Extensions]:
    """Return (model, the parts for the provider, the gateway's own) of a client's form.

    Raises:
        UnsupportedMediaType: It does not claim to be a form.
        InvalidRequest: It is not one, or has no model.
    """
    content_type = require_media_type(head, "multipart/form-data")
    parts = parse_multipart(body, boundary_of(content_type))
    own = [part for part in parts if part.name.startswith(PREFIX)]
    extensions = Extensions()
    if own:
        parts = tuple(part for part in parts if not part.name.startswith(PREFIX))
        _, extensions = parse_extensions(_members_of(own))
    model = text_field(parts, MODEL)
    members = {} if model is None else {MODEL: Raw(_encode(model))}
    return read_model(members), parts, extensions


def text_field(parts: Iterable[FormPart], name: str) -> str | None:
    """Return the value of the plain field *name*, None if it is not there.

    Raises:
        InvalidRequest: It is there twice, is a file, or is not UTF-8.
    """
    found: str | None = None
    for part in parts:
        if part.name != name:
            continue
        if found is not None:
            raise twice(name)
        if part.filename is not None:
            message = f"Invalid {name!r}: expected a plain field, but got a file."
            raise InvalidRequest(message, param=name, code="invalid_type")
        found = _text_of(part)
    return found


def is_true(parts: Iterable[FormPart], name: str) -> bool:
    """Return whether the boolean field *name* is there and true.

    Raises:
        InvalidRequest: It is there and is neither ``true`` nor ``false``.
    """
    text = text_field(parts, name)
    if text is None:
        return False
    value = _BOOLEANS.get(text.lower())
    if value is None:
        message = f"Invalid type for {name!r}: expected 'true' or 'false'."
        raise InvalidRequest(message, param=name, code="invalid_type")
    return value


# Python's requests writes True.
_BOOLEANS = {"true": True, "false": False}


def twice(name: str) -> InvalidRequest:
    """Return the error for a field that must not repeat and does."""
    shown = repr(name if len(name) <= 64 else name[:61] + "...")
    message = f"The request's form has the field {shown} twice."
    return InvalidRequest(message, param=name, code="duplicate_parameter")


def _text_of(part: FormPart) -> str:
    try:
        return bytes(part.data).decode()
    except UnicodeDecodeError:
        message = f"Invalid {part.name!r}: the text is not UTF-8."
        raise InvalidRequest(message, param=part.name, code="invalid_value") from None


def _members_of(parts: list[FormPart]) -> dict[str, Raw]:
    """Return the gateway's own fields as the JSON members that they stand for."""
    members: dict[str, Raw] = {}
    nested: dict[str, dict[str, str]] = {}
    for part in parts:
        text = _text_of(part)
        name, bracket, key = part.name.partition("[")
        if bracket and key.endswith("]"):
            inner = nested.setdefault(name, {})
            if key in inner:
                raise twice(part.name)
            inner[key] = text
        elif part.name in members:
            raise twice(part.name)
        else:
            members[part.name] = _value_of(text)
    for name, inner in nested.items():
        if name in members:
            raise twice(name)
        strings = {key[:-1]: text for key, text in inner.items()}
        members[name] = Raw(_encode(strings))
    return members


def _value_of(text: str) -> Raw:
    """Return the JSON value that a field of the gateway's own stands for."""
    data = text.encode()
    if text in _BOOLEANS or scan_object(data) is not None:
        return Raw(data)
    return Raw(_encode(text))


# -- to a provider --------------------------------------------------------------


def form_request(
    path: str, parsed: FormRequest, target: Target
) -> tuple[HttpRequest, Losses]:
    """Return the request that posts the form to *path*, and what was dropped.

    Deviations apply as they do to the members of a JSON body; what the config adds
    becomes fields, an array one of each element.
    """
    losses: set[str] = set()
    parts: list[FormPart] = []
    given = {_split(part.name)[0] for part in parsed.parts}
    for part in parsed.parts:
        name, brackets = _split(part.name)
        theirs = target.renames.get(name, name)
        if theirs in target.extra_body:
            continue
        if name in target.unsupported or (theirs != name and theirs in given):
            losses.add(name)
        elif name == MODEL:
            data = target.model.encode()
            parts.append(msgspec.structs.replace(part, data=data))
        elif theirs != name:
            parts.append(msgspec.structs.replace(part, name=theirs + brackets))
        else:
            parts.append(part)
    for name, value in target.extra_body.items():
        parts += _parts_of(name, value)
    content_type, body = render_multipart(parts)
    headers: Headers = (
        ("content-type", content_type),
        ("accept", "text/event-stream" if parsed.is_stream else "*/*"),
    )
    request = HttpRequest(
        path=path, headers=headers, body=body, is_stream=parsed.is_stream
    )
    return request, permitted(losses, target)


def _split(name: str) -> tuple[str, str]:
    """Return (parameter, brackets) of a field's name: ``include`` and ``[]``."""
    base, bracket, rest = name.partition("[")
    return base, bracket + rest


def _parts_of(name: str, value: Raw) -> list[FormPart]:
    """Return the fields that stand for a JSON *value*."""
    if kind_of_value(value) == "an array":
        items = _ARRAY.decode(value)
        return [FormPart(name=f"{name}[]", data=_data_of(item)) for item in items]
    return [FormPart(name=name, data=_data_of(value))]


def _data_of(value: Raw) -> bytes:
    if kind_of_value(value) == "a string":
        return _STRING.decode(value).encode()
    return bytes(value)
