"""What every JSON request and answer in OpenAI's format has in common.

The one rule: members are moved, renamed, dropped and stamped here as the bytes they
are; what one endpoint's members mean is that endpoint's module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from tz_protocol.dialects.base import Losses, Response
from tz_protocol.dialects.openai_errors import refusal
from tz_protocol.errors import (
    InvalidRequest,
    UnsupportedMediaType,
    UpstreamGarbled,
    UpstreamRefused,
)
from tz_protocol.types.http import Headers, HttpRequest, RequestHead
from tz_protocol.types.records import CacheOptions
from tz_protocol.types.request import Extensions, ParsedRequest, Target
from tz_protocol.types.secret import Secret
from tz_protocol.types.usage import Usage, count_of
from tz_protocol.wire.json import (
    NULL,
    encode_object,
    kind_of_value,
    parse_object,
    read_boolean,
    read_integer,
    read_object,
    read_string,
    scan_object,
    shortened,
    value_of,
)

__all__ = [
    "PREFIX",
    "JsonResponse",
    "check_input",
    "empty_array",
    "is_empty_array",
    "json_request",
    "missing",
    "parse_extensions",
    "parse_members",
    "parse_usage",
    "read_answer",
    "read_model",
    "refusal_in",
    "render_members",
    "require_json",
    "require_media_type",
    "spliced",
]

PREFIX = "tensorzero::"
"""What the names of the members begin with that are meant for the gateway."""

_Json = TypeVar("_Json", Raw, Raw | bytes)

_encode = msgspec.json.Encoder().encode


class JsonResponse(Response):
    """A provider's whole answer, taken apart at its top level."""

    fields: dict[str, Raw]
    """Every member as the provider wrote it, in its order."""


def missing(name: str) -> InvalidRequest:
    """Return the error for a required member that is not there."""
    return InvalidRequest(
        f"Missing required parameter: {name!r}.",
        param=name,
        code="missing_required_parameter",
    )


# -- from a client --------------------------------------------------------------


def require_json(head: RequestHead) -> None:
    """Check that a request says its body is plain JSON, or does not say what it is.

    Raises:
        UnsupportedMediaType: It says something else.
    """
    if require_plain(head) is not None:
        require_media_type(head, "application/json")


def require_media_type(head: RequestHead, expected: str) -> str:
    """Check that a request says its body is plain *expected*; return its content-type.

    Raises:
        UnsupportedMediaType: It says something else, or nothing.
    """
    content_type = require_plain(head) or ""
    if content_type.partition(";")[0].strip().lower() != expected:
        message = (
            f"The request's content-type is not supported; this route takes {expected}."
        )
        raise UnsupportedMediaType(message)
    return content_type


def require_plain(head: RequestHead) -> str | None:
    """Check that a body is not compressed; return its content-type, None if not said.

    Raises:
        UnsupportedMediaType: It is compressed.
    """
    encoding = head.get("content-encoding")
    if encoding is not None and encoding.strip().lower() not in ("", "identity"):
        message = "The request's content-encoding is not supported; send it plain."
        raise UnsupportedMediaType(message)
    content_type = head.get("content-type")
    return content_type if content_type and content_type.strip() else None


def parse_members(
    body: bytes, head: RequestHead
) -> tuple[str, dict[str, Raw], Extensions]:
    """Return (model, the other members, the gateway's own) of a client's JSON body.

    Raises:
        UnsupportedMediaType: It does not claim to be JSON.
        InvalidRequest: It is not an object, or has no model.
    """
    require_json(head)
    fields, extensions = parse_extensions(parse_object(body))
    return read_model(fields), fields, extensions


def read_model(fields: dict[str, Raw]) -> str:
    """Take the member ``model`` out of *fields* and return it.

    Raises:
        InvalidRequest: There is none, or it is not a string, or is empty.
    """
    value = fields.pop("model", None)
    if value is None:
        raise missing("model")
    model = read_string(value, "model")
    if not model:
        message = "Invalid 'model': empty string. Expected the name of a model."
        raise InvalidRequest(message, param="model", code="empty_string")
    return model


def parse_extensions(
    fields: Mapping[str, Raw],
) -> tuple[dict[str, Raw], Extensions]:
    """Part the members that are meant for the gateway from all others.

    Returns:
        The members for the provider, in the client's order, and what the
        ``tensorzero::`` ones say.

    Raises:
        InvalidRequest: One of those is not known, or has a value that is not allowed.
    """
    kept: dict[str, Raw] = {}
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if not name.startswith(PREFIX):
            kept[name] = value
            continue
        key = name.removeprefix(PREFIX)
        reader = _EXTENSIONS.get(key)
        if reader is None:
            name = shortened(name)
            known = ", ".join(PREFIX + key for key in _EXTENSIONS)
            message = f"{name!r} is not known to this gateway, which knows: {known}."
            raise InvalidRequest(message, param=name, code="unknown_parameter")
        if value != NULL:
            found[key] = reader(value, name)
    return kept, Extensions(**found) if found else _NO_EXTENSIONS


_NO_EXTENSIONS = Extensions()


def _read_strings(value: Raw, path: str) -> dict[str, str]:
    members = read_object(value, path)
    return {
        key: read_string(raw, f"{path}.{shortened(key)}")
        for key, raw in members.items()
    }


def _read_credentials(value: Raw, path: str) -> dict[str, Secret]:
    strings = _read_strings(value, path)
    return {name: Secret(text) for name, text in strings.items()}


def _read_tags(value: Raw, path: str) -> dict[str, str]:
    tags = _read_strings(value, path)
    for name in tags:
        if name.startswith(PREFIX):
            message = f"Invalid {path!r}: a tag's name cannot begin with {PREFIX!r}."
            raise InvalidRequest(message, param=path, code="invalid_value")
    return tags


_UUID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-([0-9a-f])[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
)


def _read_episode(value: Raw, path: str) -> str:
    text = read_string(value, path).lower()
    found = _UUID.fullmatch(text)
    if found is None or found[1] != "7":
        message = f"Invalid {path!r}: expected a UUID of version 7."
        raise InvalidRequest(message, param=path, code="invalid_value")
    return text


def _read_cache(value: Raw, path: str) -> CacheOptions:
    members = read_object(value, path)
    found: dict[str, Any] = {}
    for name, raw in members.items():
        place = f"{path}.{shortened(name)}"
        if name == "enabled":
            found["enabled"] = _read_word(raw, place, CACHE_MODES)
        elif name == "max_age_s":
            if raw != NULL:
                found["max_age"] = float(read_integer(raw, place, 0))
        else:
            message = f"{place!r} is not known; there are: enabled, max_age_s."
            raise InvalidRequest(message, param=place, code="unknown_parameter")
    return CacheOptions(**found)


def _read_capture(value: Raw, path: str) -> str:
    return _read_word(value, path, ("full", "redacted", "none"))


def _read_word(value: Raw, path: str, words: tuple[str, ...]) -> str:
    word = read_string(value, path)
    if word not in words:
        known = ", ".join(words)
        message = f"Invalid {path!r}: expected one of {known}."
        raise InvalidRequest(message, param=path, code="invalid_value")
    return word


CACHE_MODES = ("on", "off", "read_only", "write_only")

_EXTENSIONS: dict[str, Callable[[Raw, str], Any]] = {
    "credentials": _read_credentials,
    "episode_id": _read_episode,
    "tags": _read_tags,
    "dryrun": read_boolean,
    "cache_options": _read_cache,
    "capture": _read_capture,
}


def check_input(fields: Mapping[str, Raw]) -> None:
    """Check that ``input`` is there: a string or an array, and not empty.

    Raises:
        InvalidRequest: It is not.
    """
    value = fields.get("input")
    if value is None:
        raise missing("input")
    kind = kind_of_value(value)
    if kind == "a string":
        if value == _EMPTY_STRING:
            message = "Invalid 'input': empty string. Expected text."
            raise InvalidRequest(message, param="input", code="empty_string")
    elif kind != "an array":
        message = (
            f"Invalid type for 'input': expected a string or an array, but got {kind}."
        )
        raise InvalidRequest(message, param="input", code="invalid_type")
    elif is_empty_array(value):
        raise empty_array("input")


_EMPTY_STRING = Raw(b'""')
_EMPTY_ARRAY = re.compile(rb"\[[ \t\r\n]*\]")


def is_empty_array(value: Raw) -> bool:
    """Return whether *value* is an array without elements."""
    return _EMPTY_ARRAY.match(value) is not None


def empty_array(path: str) -> InvalidRequest:
    """Return the error for an array that must not be empty."""
    message = f"Invalid {path!r}: empty array. Expected at least one element."
    return InvalidRequest(message, param=path, code="empty_array")


# -- to a provider --------------------------------------------------------------


def render_members(
    parsed: ParsedRequest, target: Target
) -> tuple[dict[str, Raw | bytes], Losses]:
    """Return the members for *target*, its deviations applied, and what was dropped.

    A name that both sides know in different words goes under the provider's. If the
    client gave both, the provider's own counts and the other is dropped, unless it
    says the same; null counts as not given. Give what was dropped to ``permitted``.
    """
    fields: dict[str, Raw | bytes] = {"model": _encode(target.model)}
    fields.update(parsed.fields)
    losses: list[str] = []
    for name, theirs in target.renames.items():
        value = fields.pop(name, None)
        if value is None:
            continue
        given = parsed.fields.get(theirs)
        if given is None or given == NULL:
            fields[theirs] = value
        elif value not in (NULL, given):
            losses.append(name)
    for name in target.unsupported:
        value = fields.pop(name, None)
        if value is not None and value != NULL:
            losses.append(name)
    for name, implied in target.implied.items():
        if fields.get(name) == Raw(implied):
            del fields[name]
    fields.update(target.extra_body)
    return fields, tuple(sorted(losses))


_WHOLE_HEADERS: Headers = (
    ("content-type", "application/json"),
    ("accept", "application/json"),
)
_STREAM_HEADERS: Headers = (
    ("content-type", "application/json"),
    ("accept", "text/event-stream"),
)


def json_request(
    path: str, fields: Mapping[str, Raw | bytes], *, is_stream: bool = False
) -> HttpRequest:
    """Return the request that posts *fields* to *path*."""
    return HttpRequest(
        path=path,
        headers=_STREAM_HEADERS if is_stream else _WHOLE_HEADERS,
        body=encode_object(fields),
        is_stream=is_stream,
    )


# -- from a provider, to a client -----------------------------------------------


def read_answer(body: bytes, content: str) -> dict[str, Raw]:
    """Return the members of a provider's whole answer.

    Args:
        body: What the provider sent.
        content: Name of the array without which it is no answer.

    Raises:
        UpstreamRefused: It states an error.
        UpstreamGarbled: It is not JSON, or has no *content*.
    """
    fields = scan_object(body)
    if fields is None:
        error = refusal_in(body)
        if error is not None:
            raise error
        message = "the answer is not a JSON object"
        raise UpstreamGarbled(message)
    value = fields.get(content)
    if value is None or fields.get("error", NULL) != NULL:
        error = refusal_in(body)
        if error is not None:
            raise error
    if value is None or kind_of_value(value) != "an array":
        message = f"the answer has no {content}"
        raise UpstreamGarbled(message)
    return fields


def refusal_in(body: bytes) -> UpstreamRefused | None:
    """Return the error that *body*, a 2xx answer, states, None if it states none."""
    return refusal(value_of(body))


def spliced(
    fields: Mapping[str, _Json], stamps: Mapping[str, bytes]
) -> dict[str, _Json | bytes]:
    """Return *fields* with *stamps* before them and in place of their like."""
    return {**stamps, **fields, **stamps}


def parse_usage(value: Any) -> Usage | None:
    """Return what a decoded ``usage`` object says, None if it does not say.

    Read besides OpenAI's own names: DeepSeek's ``prompt_cache_hit_tokens``,
    Together's flat ``cached_tokens`` and OpenRouter's ``cache_write_tokens``. xAI
    counts reasoning beside the completion instead of within it, which its total gives
    away.
    """
    if not isinstance(value, dict):
        return None
    given, made = _count(value, "prompt_tokens"), _count(value, "completion_tokens")
    total = _count(value, "total_tokens")
    if given is None:
        return None
    reasoning = _count(value.get("completion_tokens_details"), "reasoning_tokens")
    if made is None:
        if total is None:
            return None
        made = max(0, total - given)
    elif reasoning and total == given + made + reasoning:
        made += reasoning
    details = value.get("prompt_tokens_details")
    cached = _count(details, "cached_tokens")
    for name in ("prompt_cache_hit_tokens", "cached_tokens"):
        if cached is None:
            cached = _count(value, name)
    return Usage(
        input_tokens=given,
        output_tokens=made,
        cache_read_tokens=cached,
        cache_write_tokens=_count(details, "cache_write_tokens"),
        reasoning_tokens=reasoning,
    )


def _count(value: Any, name: str) -> int | None:
    number = value.get(name) if isinstance(value, dict) else None
    if type(number) is float and number.is_integer():
        # Of servers whose language has one kind of number.
        number = int(number)
    return count_of(number) if type(number) is int else None
