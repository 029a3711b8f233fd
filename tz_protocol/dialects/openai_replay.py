"""An answer in OpenAI's format, given once more: whole or piece by piece.

The one rule: what was said is said again, in the form that is asked for now, whatever
the form in which it came. It has no identity and no usage of its own: whoever replays
it stamps the one and states the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Raw

from tz_protocol.dialects.openai_chat_fold import fold_chunks
from tz_protocol.dialects.openai_chat_whole import events_of_whole
from tz_protocol.dialects.openai_completion import chunk_of, usage_chunk
from tz_protocol.dialects.openai_fields import JsonResponse
from tz_protocol.types.chat import ChatChunk
from tz_protocol.types.stream import StreamPart
from tz_protocol.types.usage import Usage
from tz_protocol.wire.json import encode_object, scan_object

__all__ = ["NOTHING_USED", "chunks_of", "members_of", "parts_of", "whole_of"]

NOTHING_USED = Usage(input_tokens=0, output_tokens=0)
"""What a caller is told that an answer from memory cost, as TensorZero tells it."""

_STAMPS = frozenset({"id", "episode_id", "model", "created", "usage"})

_USAGE = b'"usage"'
_NULL_USAGE = b',"usage":null'

_WHOLE_USAGE = Raw(b'{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}')
_INPUT_USAGE = Raw(b'{"prompt_tokens":0,"total_tokens":0}')


def chunks_of(values: Iterable[Any]) -> tuple[bytes, ...]:
    """Return what is kept of a stream's parts: each with content, without usage.

    Args:
        values: ``StreamPart.value`` of each: a chunk, or a neutral delta.
    """
    kept = []
    for value in values:
        chunk = value if type(value) is ChatChunk else chunk_of(value)
        if not chunk.has_choices:
            continue
        data = chunk.data
        if chunk.states_usage is not None:
            data = _without_usage(chunk)
            if not data:
                continue
        kept.append(data)
    return tuple(kept)


def _without_usage(chunk: ChatChunk) -> bytes:
    """Return the JSON of a chunk without its usage, empty if it cannot be taken apart.

    OpenAI and most servers write a null usage into every chunk behind the choices.
    """
    data = chunk.data
    # In a string the quotation marks would be escaped: this is a member, the only one.
    if chunk.states_usage is False and data.count(_USAGE) == 1:
        rest = data.replace(_NULL_USAGE, b"", 1)
        if len(rest) < len(data):
            return rest
    fields = scan_object(data)
    if fields is None:
        return b""
    fields.pop("usage", None)
    return encode_object(fields)


def members_of(body: bytes) -> bytes:
    """Return what is kept of a whole answer, as it went to the caller."""
    fields = scan_object(body) or {}
    return encode_object({k: v for k, v in fields.items() if k not in _STAMPS})


def whole_of(members: bytes, chunks: tuple[bytes, ...]) -> JsonResponse:
    """Return a whole answer from whichever of the two there is."""
    fields: dict[str, Raw] = (
        fold_chunks(chunks) if chunks else scan_object(members) or {}
    )
    fields["usage"] = _WHOLE_USAGE if "choices" in fields else _INPUT_USAGE
    return JsonResponse(fields=fields, usage=NOTHING_USED)


def parts_of(members: bytes, chunks: tuple[bytes, ...]) -> list[StreamPart]:
    """Return the parts of a stream from whichever of the two there is.

    Usage comes last. Empty if it is no chat completion.
    """
    if chunks:
        parts = [StreamPart(ChatChunk(data), True) for data in chunks]
    else:
        parts = [
            event for event in events_of_whole(members) if type(event) is StreamPart
        ]
    if parts:
        usage = usage_chunk(NOTHING_USED)
        parts.append(StreamPart(usage, False, NOTHING_USED))
    return parts
