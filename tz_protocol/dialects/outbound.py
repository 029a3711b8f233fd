"""Dialects that are spoken to providers only.

The one rule: no client ever speaks these formats to us, so that no endpoint's row may
hold one; what a client's side would be asked for is a bug.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import msgspec
from msgspec import Raw

from tz_protocol.dialects.base import AnyDialect, Decoder, Dialect, Links, Losses
from tz_protocol.dialects.parameters import Handling
from tz_protocol.types.http import HttpRequest, ResponseHead
from tz_protocol.types.request import ParsedRequest, Target

__all__ = ["encode_body", "encode_others", "outbound_dialect"]

_INTEGER = re.compile(rb"[0-9]{1,20}")

_SEEDS = 2**64
"""How many seeds there are to Cohere (https://docs.cohere.com/v2/reference/chat)."""


def outbound_dialect(
    name: str,
    *,
    render_request: Callable[[ParsedRequest, Target], tuple[HttpRequest, Losses]],
    parse_response: Callable[[ResponseHead, bytes], Any],
    parse_error: Callable[[ResponseHead, bytes], Exception],
    table: Mapping[str, Handling] | None,
    stream_decoder: Callable[[ResponseHead, int], Decoder] | None = None,
    links: Links | None = None,
    join: Callable[[Sequence[Any]], Any] | None = None,
) -> AnyDialect:
    """Return the row of a format that only providers speak."""

    def unspoken(*_: Any) -> NoReturn:
        message = f"no client speaks {name}"
        raise RuntimeError(message)

    return Dialect(
        name=name,
        parse_request=unspoken,
        render_request=render_request,
        parse_response=parse_response,
        render_response=unspoken,
        parse_error=parse_error,
        render_error=unspoken,
        stream_decoder=stream_decoder,
        links=links,
        table=table,
        join=join,
    )


def encode_body(fields: Mapping[str, Any], extra: Mapping[str, Raw]) -> bytes:
    """Return the JSON body; what the config adds replaces what was rendered."""
    return msgspec.json.encode({**fields, **extra} if extra else fields)


def encode_others(
    body: bytes, fields: Mapping[str, Any], extra: Mapping[str, Raw], count: int
) -> tuple[bytes, ...]:
    """Return the bodies that are sent beside *body* for *count* answers in all.

    A seed would make the answers all the same: each request has the next one, so that
    asking again still gives the same answers.

    Args:
        body: What :func:`encode_body` made of the other arguments.
        fields: As rendered.
        extra: Of the config.
        count: At least 1.
    """
    seed = extra.get("seed", fields.get("seed"))
    if count == 1 or not isinstance(seed, Raw) or not _INTEGER.fullmatch(bytes(seed)):
        return (body,) * (count - 1)
    first = int(bytes(seed))
    return tuple(
        encode_body(fields, {**extra, "seed": Raw(b"%d" % ((first + place) % _SEEDS))})
        for place in range(1, count)
    )
