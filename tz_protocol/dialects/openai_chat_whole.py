"""A whole chat completion that came where a stream was asked for.

The one rule: the chunks add up to the completion, and everything in it is in one of
them: first what each choice says, then how it ended, then the usage.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Raw

from tz_protocol.dialects.openai_chat_repairs import regular_whole
from tz_protocol.dialects.openai_fields import parse_usage, read_answer
from tz_protocol.errors import UpstreamError, UpstreamGarbled
from tz_protocol.types.chat import ChatChunk
from tz_protocol.types.stream import StreamDone, StreamEvent, StreamFailed, StreamPart
from tz_protocol.wire.json import NULL, encode_object, value_of

__all__ = ["events_of_whole"]

_encode = msgspec.json.Encoder().encode
_read_objects = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_read_object = msgspec.json.Decoder(dict[str, Raw]).decode


def events_of_whole(
    body: bytes, quirks: frozenset[str] = frozenset()
) -> list[StreamEvent]:
    """Return what *body*, a whole answer, says as the events of a stream.

    Args:
        body: What the vendor sent.
        quirks: What the vendor says otherwise than OpenAI (``QUIRKS``).
    """
    try:
        return _events(regular_whole(read_answer(body, "choices"), quirks))
    except UpstreamError as error:
        return [StreamFailed(error)]
    except (msgspec.DecodeError, RecursionError, KeyError):
        message = "the answer is neither a stream nor a chat completion"
        return [StreamFailed(UpstreamGarbled(message))]


def _events(fields: dict[str, Raw]) -> list[StreamEvent]:
    """Return the events of a completion; it must have what each choice must have."""
    usage = fields.pop("usage", NULL)
    begun: list[StreamEvent] = []
    ended: list[StreamEvent] = []
    for number, choice in enumerate(_read_objects(fields.pop("choices"))):
        index = choice.pop("index", _encode(number))
        finish = choice.pop("finish_reason", NULL)
        choice.pop("delta", None)  # Perplexity's is empty, beside the message.
        delta = _delta(_read_object(choice.pop("message")))
        said = {"index": index, "delta": delta, **choice, "finish_reason": NULL}
        end = {"index": index, "delta": b"{}", "finish_reason": finish}
        begun.append(StreamPart(_chunk(fields, said), True))
        ended.append(StreamPart(_chunk(fields, end), False, None, True))
    events = [*begun, *ended]
    if not events:
        message = "the answer has no choices"
        raise UpstreamGarbled(message)
    if usage != NULL:
        data = _line({**fields, "choices": b"[]", "usage": usage})
        counted = parse_usage(value_of(usage))
        events.append(StreamPart(ChatChunk(data, False, True), False, counted))
    return [*events, StreamDone()]


def _chunk(fields: dict[str, Raw], choice: Mapping[str, Raw | bytes]) -> ChatChunk:
    return ChatChunk(_line({**fields, "choices": b"[%b]" % encode_object(choice)}))


def _line(fields: Mapping[str, Raw | bytes]) -> bytes:
    """Return an object in one line: its line breaks can only be between tokens."""
    return encode_object(fields).replace(b"\r", b" ").replace(b"\n", b" ")


def _delta(message: dict[str, Raw]) -> bytes:
    """Return a message as a delta: its tool calls are numbered."""
    members: dict[str, Raw | bytes] = dict(message)
    calls = message.get("tool_calls", NULL)
    if calls != NULL:
        numbered = [
            encode_object({"index": _encode(number), **call})
            for number, call in enumerate(_read_objects(calls))
        ]
        members["tool_calls"] = b"[%b]" % b",".join(numbered)
    return encode_object(members)
