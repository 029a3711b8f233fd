"""A stream of OpenAI's chat completions, from a provider and to a client.

The one rule: a chunk is relayed as the bytes that it was, with its identity restamped;
it is decoded only to see whether it holds content, a finish, usage or an error. The hot
path of the gateway is here: a provider repeats the same head in every chunk, so its
restamped form is worked out once and put in its place from then on.

Usage goes out as OpenAI sends it, once, in a chunk without choices at the end, if the
client asked for it, wherever in the stream the provider said it.

Source: https://platform.openai.com/docs/api-reference/chat-streaming.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from tz_protocol.dialects.base import Decoder
from tz_protocol.dialects.openai_chat_around import is_counted
from tz_protocol.dialects.openai_chat_stream_repairs import (
    Chunk,
    ChunkRepairs,
    counted,
    regular_chunk,
    with_deltas,
)
from tz_protocol.dialects.openai_chat_whole import events_of_whole
from tz_protocol.dialects.openai_errors import error_value, refusal
from tz_protocol.dialects.openai_fields import parse_usage, spliced
from tz_protocol.dialects.streaming import unreadable
from tz_protocol.errors import (
    GatewayError,
    RemoteProtocolError,
    UpstreamBroken,
    UpstreamError,
    UpstreamGarbled,
    UpstreamRefused,
)
from tz_protocol.types.chat import ChatChunk, ChatRequest
from tz_protocol.types.http import ResponseHead
from tz_protocol.types.request import Identity
from tz_protocol.types.stream import (
    StreamDone,
    StreamEvent,
    StreamFailed,
    StreamPart,
    StreamSkipped,
)
from tz_protocol.types.usage import Usage
from tz_protocol.wire.json import (
    NULL,
    encode_object,
    mended,
    scan_object,
    value_of,
)
from tz_protocol.wire.sse import SseDecoder, SseEvent

__all__ = ["ChatDecoder", "ChatEncoder", "chat_decoder"]

WHOLE_LIMIT = 67_108_864
"""Bytes of a whole JSON body that came instead of a stream."""

_BLANK = b" \t\r\n\xef\xbb\xbf"
"""White space and the bytes of a byte order mark."""
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_encode = msgspec.json.Encoder().encode


_read_chunk = msgspec.json.Decoder(Chunk).decode


# -- from a provider ------------------------------------------------------------


def chat_decoder(head: ResponseHead, limit: int) -> Decoder:
    """Return the decoder for a provider's answer to a request for a stream."""
    del head
    return ChatDecoder(limit)


class ChatDecoder:
    """A provider's stream -> parts that hold a :class:`ChatChunk` each.

    A provider may answer a request for a stream with one whole JSON body: an error in
    it fails the stream, a whole completion becomes chunks that add up to it. Which of
    the two comes is told by the first byte and not by the content type, about which
    providers err: no event stream begins with a bracket.

    Args:
        limit: Bytes of one event.
        quirks: What the vendor says otherwise than OpenAI (``QUIRKS``).
    """

    __slots__ = (
        "_body",
        "_events",
        "_finished",
        "_is_eof",
        "_is_json",
        "_is_over",
        "_is_watched",
        "_quirks",
        "_repairs",
        "_sse",
        "_started",
    )

    def __init__(self, limit: int, quirks: frozenset[str] = frozenset()) -> None:
        self._sse = SseDecoder(limit)
        self._quirks = quirks
        self._repairs = ChunkRepairs(quirks)
        self._is_watched = self._repairs.has_quirks
        """True if every chunk may need repair, and not only those with tool calls."""
        self._is_json: bool | None = None
        """None until the first byte that is not blank."""
        self._body = bytearray()
        """What has come of a whole JSON body."""
        self._events: deque[StreamEvent] = deque()
        """What a whole JSON body was turned into, and an end that must wait."""
        self._started: set[Any] = set()
        self._finished: set[Any] = set()
        """Indexes of the choices that have begun, and of those that are complete."""
        self._is_eof = False
        self._is_over = False

    @property
    def is_finished(self) -> bool:
        """True once every choice that has begun has its finish reason."""
        return bool(self._finished) and self._finished >= self._started

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came."""
        if self._is_json is None:
            data = data.lstrip(_BLANK)
            if not data:
                return
            self._is_json = data[0] in b"{["
        if not self._is_json:
            self._sse.receive_data(data)
        elif len(self._body) + len(data) <= WHOLE_LIMIT:
            self._body += data
        elif not self._events:
            message = f"the answer is over the limit of {WHOLE_LIMIT} bytes"
            error = UpstreamGarbled(message, "upstream_too_large")
            self._events.append(StreamFailed(error))
            self._body.clear()

    def receive_eof(self) -> None:
        """Take the end of the stream."""
        self._is_eof = True
        if not self._is_json:
            self._sse.receive_eof()
        elif not self._events:
            self._events.extend(events_of_whole(bytes(self._body), self._quirks))

    def next_event(self) -> StreamEvent | None:
        """Return the next event, None when more bytes are needed."""
        if self._is_over:
            return None
        if self._events:
            found = self._events.popleft()
            self._is_over = type(found) is not StreamPart
            return found
        try:
            while (event := self._sse.next_event()) is not None:
                read = self._read(event)
                if read is not None:
                    return read
        except RemoteProtocolError as error:
            return self._fail(unreadable(error))
        return self._end() if self._is_eof else None

    def _end(self) -> StreamEvent:
        """Return how a stream ended that had no terminator."""
        if self.is_finished:
            self._is_over = True
            return StreamDone()
        return self._fail(UpstreamBroken("cut"))

    def _fail(self, error: UpstreamError) -> StreamFailed:
        self._is_over = True
        return StreamFailed(error)

    def _read(self, event: SseEvent) -> StreamEvent | None:
        """Return what *event* means, None if it means nothing."""
        data = event.data
        try:
            chunk = _read_chunk(data)
            if not data.isascii():
                data.decode()
        except msgspec.ValidationError:
            return self._read_irregular(event)
        except _UNREADABLE:
            return self._read_odd(event)
        choices = chunk.choices
        if not choices or chunk.error or event.name == "error":
            return self._read_rare(event, chunk)
        has_content = is_finish = False
        is_watched = self._is_watched
        for choice in choices:
            delta = choice.delta
            if delta is None:
                data = with_deltas(data)
            elif delta.content:
                has_content = True
            elif delta.has_content():
                has_content = True
                if delta.tool_calls:
                    is_watched = True
            index = choice.index
            if index not in self._started:
                self._started.add(index)
            if choice.finish_reason is not None:
                is_finish = True
                self._finished.add(index)
        if is_watched and self._repairs.concerns(choices):
            data = self._repairs.repaired(data)
            has_content = _has_content(data)
        if b"\n" in data:
            # A line break in JSON that is valid is white space between two tokens.
            data = data.replace(b"\n", b" ")
        stated = chunk.usage
        if stated is None and chunk.x_groq is None:
            value = ChatChunk(data, True, False)
            return StreamPart(value, has_content, None, is_finish)
        if not is_counted(stated):
            data = counted(data, chunk)
        value = ChatChunk(data, True, _states_usage(chunk.usage))
        return StreamPart(value, has_content, _usage_of(chunk), is_finish)

    def _read_irregular(self, event: SseEvent) -> StreamEvent | None:
        """Read an event whose members have other types than OpenAI's."""
        data = regular_chunk(event.data)
        if data is not None:
            try:
                _read_chunk(data)
            except _UNREADABLE:
                data = None
        if data is None:
            return self._read_odd(event)
        return self._read(SseEvent(data, event.name, event.id))

    def _read_rare(self, event: SseEvent, chunk: Chunk) -> StreamEvent | None:
        """Read an event that has an error, or that has no choices."""
        if chunk.error or event.name == "error":
            error = refusal(value_of(event.data), is_error=True)
            return self._fail(error or UpstreamRefused(500, _NO_WORDS))
        data = event.data.replace(b"\n", b" ")
        if not is_counted(chunk.usage):
            data = counted(data, chunk)
        usage = _usage_of(chunk)
        is_chunk = chunk.object == "chat.completion.chunk"
        if chunk.choices is not None or usage is not None or is_chunk:
            value = ChatChunk(data, False, _states_usage(chunk.usage))
            return StreamPart(value, False, usage)
        error = refusal(value_of(event.data))
        if error is not None:
            return self._fail(error)
        if chunk.type in _BEATS or event.name in _BEATS or data.strip() == b"{}":
            return None
        return StreamSkipped("an event without choices")

    def _read_odd(self, event: SseEvent) -> StreamEvent | None:
        """Read an event that is not the JSON of a chunk."""
        text = event.data.strip()
        if not text:
            return None
        if text.startswith(b"[DONE]"):
            held = self._repairs.rest() if self._is_watched else None
            if held is not None:
                self._events.append(StreamDone())
                return StreamPart(ChatChunk(held), True)
            if not self._started:
                # Not even an empty choice: there was no answer.
                return self._fail(UpstreamBroken("cut"))
            self._is_over = True
            return StreamDone()
        if event.name in _BEATS:
            return None
        fixed = mended(text)
        if fixed != text:
            return self._read(SseEvent(fixed, event.name, event.id))
        value = value_of(text)
        error = refusal(value, is_error=event.name == "error")
        if error is not None:
            return self._fail(error)
        if event.name == "error":
            return self._fail(UpstreamRefused(500, _NO_WORDS))
        if value is None:
            return StreamSkipped("an event that is not JSON")
        return StreamSkipped("an event that is not a chunk")


def _has_content(data: bytes) -> bool:
    """Return whether there is anything to see in a chunk that was repaired."""
    choices = _read_chunk(data).choices or ()
    return any(one.delta is not None and one.delta.has_content() for one in choices)


_BEATS = frozenset({"ping", "keepalive", "keep-alive", "heartbeat"})
"""Names and types of events that only keep a connection alive."""

_NO_WORDS = "The provider reported an error without an explanation."


def _states_usage(stated: Any) -> bool | None:
    """Return what ``ChatChunk.states_usage`` is for a decoded ``usage``."""
    return None if stated is UNSET else stated is not None


def _usage_of(chunk: Chunk) -> Usage | None:
    """Return the usage that a chunk states, in its own member or in Groq's."""
    usage = parse_usage(chunk.usage)
    if usage is None and isinstance(chunk.x_groq, dict):
        usage = parse_usage(chunk.x_groq.get("usage"))
    return usage


# -- to a client ----------------------------------------------------------------

_DONE = b"data: [DONE]\n\n"
_END = b"\n\n"
_LAST_USAGE = b',"usage":null}'
_NULL_USAGE = b'],"usage":null'
"""As the member after ``choices``."""
_NEVER = b"\0"
"""The beginning of no JSON object."""

_ZERO = Raw(b"0")

_LEARNT = frozenset({"id", "object", "created", "model"})
_NOT_CARRIED = (*_LEARNT, "choices", "usage")
_KEPT_FOR_USAGE = ("created", "service_tier", "system_fingerprint")


class ChatEncoder:
    """Parts -> the bytes of the client's stream.

    Args:
        request: What the client asked for.
        identity: What every chunk is stamped with.
    """

    content_type = "text/event-stream; charset=utf-8"

    __slots__ = (
        "_carried",
        "_created",
        "_final",
        "_head",
        "_is_continuous",
        "_shows_usage",
        "_size",
        "_stamped",
        "_stamps",
        "_strips_usage",
    )

    def __init__(self, request: ChatRequest, identity: Identity) -> None:
        self._shows_usage = request.include_usage
        self._is_continuous = request.is_usage_continuous
        self._created = b"%d" % identity.created
        self._stamps = {
            "id": _encode(identity.id),
            "episode_id": _encode(identity.episode_id),
            "object": b'"chat.completion.chunk"',
            "model": _encode(identity.model),
        }
        self._head = _NEVER
        """What the provider's chunks begin with, up to their choices."""
        self._size = 0
        """Bytes of it."""
        self._stamped = b""
        """What goes out in its place, the event's beginning included."""
        self._strips_usage = False
        """True if a null usage must be looked for behind the head."""
        self._final: dict[str, Raw | bytes] | None = None
        """The chunk that will tell the usage."""
        self._carried: dict[str, Raw | bytes] = {}
        """What chunks without choices said, for the next one: Azure's first is about
        the prompt, and few clients expect a chunk that holds no choice."""

    @property
    def lacks_usage(self) -> bool:
        """True if the client wants usage and no chunk has had it at its place."""
        return self._shows_usage and self._final is None and not self._is_continuous

    def encode(self, part: StreamPart) -> bytes:
        """Return the client's bytes for *part*; may be empty."""
        chunk: ChatChunk = part.value
        data = chunk.data
        if (
            chunk.states_usage
            or not chunk.has_choices
            or not data.startswith(self._head)
        ):
            return self._encode_slowly(chunk)
        tail = data[self._size :]
        if self._strips_usage and chunk.states_usage is False:
            if tail.endswith(_LAST_USAGE):
                return self._stamped + tail[: -len(_LAST_USAGE)] + b"}\n\n"
            stripped = tail.replace(_NULL_USAGE, b"]", 1)
            if len(stripped) == len(tail):
                return self._encode_slowly(chunk)
            tail = stripped
        return self._stamped + tail + _END

    def encode_kept(self, chunks: Sequence[bytes]) -> bytes:
        """Return the bytes for chunks that have choices and state no usage."""
        begun = self._encode_slowly(ChatChunk(chunks[0]))
        rest, head, size = chunks[1:], self._head, self._size
        tails = [data[size:] for data in rest if data.startswith(head)]
        if len(tails) == len(rest):
            return (_END + self._stamped).join((begun[: -len(_END)], *tails)) + _END
        parts = [self.encode(StreamPart(ChatChunk(data), True)) for data in rest]
        return begun + b"".join(parts)

    def finish(self, usage: Usage | None) -> bytes:
        """Return the usage, if the client wants it and the provider said it, and the
        terminator."""
        del usage
        final = self._final if self._shows_usage else None
        if final is None:
            if not self._carried:
                return _DONE
            final = {}
        return self._event({**self._carried, **final, "choices": b"[]"}) + _DONE

    def fail(self, error: GatewayError) -> bytes:
        """Return the in-band error; no terminator follows it."""
        return b"data: " + _encode({"error": error_value(error)}) + _END

    def _event(self, fields: dict[str, Raw | bytes]) -> bytes:
        return b"data: " + encode_object(self._with_stamps(fields)) + _END

    def _with_stamps(self, fields: dict[str, Raw | bytes]) -> dict[str, Raw | bytes]:
        stamped = spliced(fields, self._stamps)
        if fields.get("created", NULL) in (NULL, _ZERO):
            # Azure's first chunk, which is about the prompt, says 0.
            stamped["created"] = self._created
        return stamped

    def _encode_slowly(self, chunk: ChatChunk) -> bytes:
        """Encode a chunk member by member, and learn its head."""
        fields = scan_object(chunk.data)
        if fields is None:
            # Nested so deeply that the decoder could read it and we cannot.
            return b"data: " + chunk.data + _END
        members: dict[str, Raw | bytes] = dict(fields)
        if not self._is_continuous:
            if chunk.states_usage and not chunk.has_choices:
                self._final = members
                return b""
            if not self._shows_usage:
                members.pop("usage", None)
            elif chunk.states_usage:
                self._final = {
                    name: members[name] for name in _KEPT_FOR_USAGE if name in members
                }
                self._final["usage"] = members["usage"]
                members["usage"] = NULL
        if not chunk.has_choices and not chunk.states_usage:
            self._carried.update(members)
            for name in _NOT_CARRIED:
                self._carried.pop(name, None)
            # The next chunk must come this way.
            self._head = _NEVER
            return b""
        if self._carried:
            members = {**self._carried, **members}
            self._carried.clear()
        elif not chunk.states_usage:
            self._learn(chunk.data, members)
        return self._event(members)

    def _learn(self, data: bytes, members: dict[str, Raw | bytes]) -> None:
        """Remember the head of *data*, if everything that is stamped is within it.

        Since it is, what looks like it behind the head is a member of something else,
        and need not be looked for.
        """
        size = data.find(b'"choices"')
        begun = scan_object(data[:size].rstrip().removesuffix(b",") + b"}")
        if begun is None or not begun.keys() >= _LEARNT:
            return
        later = members.keys() - begun.keys()
        if "choices" not in later or "episode_id" in later:
            return
        kept = {name: members[name] for name in begun if name in members}
        self._head, self._size = data[:size], size
        stamped = encode_object(self._with_stamps(kept))
        self._stamped = b"data: " + stamped.removesuffix(b"}") + b","
        self._strips_usage = not self._shows_usage and "usage" not in begun
