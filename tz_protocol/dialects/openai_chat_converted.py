"""Converted answers for callers that speak OpenAI's chat format.

The one rule: an answer from another format and one that passes through leave by the
same door: what the neutral pieces say is made into OpenAI's chunks and members here,
and ``openai_chat`` stamps them like a provider's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Raw

from tz_protocol.dialects.openai_chat_stream import ChatEncoder
from tz_protocol.dialects.openai_completion import (
    chunk_of,
    completion_members,
    usage_chunk,
)
from tz_protocol.dialects.openai_fields import JsonResponse
from tz_protocol.errors import GatewayError
from tz_protocol.types.chat import ChatChunk, ChatRequest
from tz_protocol.types.conversation import Completion
from tz_protocol.types.request import Identity
from tz_protocol.types.stream import StreamPart
from tz_protocol.types.usage import Usage

__all__ = ["AnyChatEncoder", "members_of"]


def members_of(response: JsonResponse | Completion) -> dict[str, Raw]:
    """Return the members of a whole answer, from whatever format it came."""
    if isinstance(response, Completion):
        return completion_members(response)
    return response.fields


class AnyChatEncoder:
    """Parts of either kind -> the bytes of the client's stream.

    Args:
        request: What the client asked for.
        identity: What every chunk is stamped with.
    """

    content_type = ChatEncoder.content_type

    __slots__ = ("_encoder", "_is_converted")

    def __init__(self, request: ChatRequest, identity: Identity) -> None:
        self._encoder = ChatEncoder(request, identity)
        self._is_converted = False

    def encode(self, part: StreamPart) -> bytes:
        """Return the client's bytes for *part*; may be empty."""
        if type(part.value) is ChatChunk:
            return self._encoder.encode(part)
        self._is_converted = True
        chunk = chunk_of(part.value)
        return self._encoder.encode(StreamPart(chunk, part.has_content))

    def encode_kept(self, chunks: Sequence[bytes]) -> bytes:
        """Return the bytes for what ``openai_replay.chunks_of`` kept of a stream.

        The same as of each by itself, for a fraction of the time. There must be one.
        """
        return self._encoder.encode_kept(chunks)

    def finish(self, usage: Usage | None) -> bytes:
        """Return the usage, if the client wants it and the provider said it, and the
        terminator."""
        data = b""
        if usage is not None and (self._is_converted or self._encoder.lacks_usage):
            # A provider may say it elsewhere: Groq in x_groq.
            data = self._encoder.encode(StreamPart(usage_chunk(usage), False, usage))
        return data + self._encoder.finish(usage)

    def fail(self, error: GatewayError) -> bytes:
        """Return the in-band error; no terminator follows it."""
        return self._encoder.fail(error)
