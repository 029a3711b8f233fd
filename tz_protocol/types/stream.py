"""What a stream decoder recognises in a provider's stream, whatever the dialect."""

from __future__ import annotations

from typing import Any

import msgspec

from tz_protocol.errors import UpstreamError
from tz_protocol.types.usage import Usage

__all__ = ["StreamDone", "StreamEvent", "StreamFailed", "StreamPart", "StreamSkipped"]


class StreamPart(msgspec.Struct, frozen=True):
    """One piece of the answer."""

    value: Any
    """The neutral chunk: ``ChatChunk`` for chat, ``bytes`` for audio."""
    has_content: bool
    """True if a caller would see something: text, a tool call, reasoning, bytes.
    Until the first such part nothing has been committed."""
    usage: Usage | None = None
    """Usage as this part states it; the last one of the stream counts."""
    is_finish: bool = False
    """True if the part carries a finish reason."""


class StreamDone(msgspec.Struct, frozen=True):
    """The provider's own end of the stream was seen."""


class StreamFailed(msgspec.Struct, frozen=True):
    """The provider reported an error inside the stream; nothing follows."""

    error: UpstreamError


class StreamSkipped(msgspec.Struct, frozen=True):
    """An event could not be understood and was left out; counted in the record."""

    reason: str


StreamEvent = StreamPart | StreamDone | StreamFailed | StreamSkipped
