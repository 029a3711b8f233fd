"""Gemini's generateContent, as AI Studio and Vertex serve it: the rows.

The one rule: the two services speak one format under two paths; what they differ in
beyond those is data (``gemini_request.Service``). The path holds the model and says
whether the answer is streamed; a stream is asked for as server-sent events, and one
that comes as a JSON list all the same is read too.

Sources: https://ai.google.dev/api/generate-content; https://cloud.google.com/
vertex-ai/generative-ai/docs/model-reference/inference.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from urllib.parse import quote

import msgspec

from tz_protocol.dialects.base import Decoder, Losses
from tz_protocol.dialects.deltas import Collector
from tz_protocol.dialects.gemini_errors import error_of, parse_error
from tz_protocol.dialects.gemini_request import (
    AI_STUDIO,
    NATIVE,
    VERTEX,
    RequestRenderer,
)
from tz_protocol.dialects.gemini_stream import GeminiReader
from tz_protocol.dialects.openai_conversation import conversation_of
from tz_protocol.dialects.outbound import encode_body, outbound_dialect
from tz_protocol.dialects.parameters import Handling, told
from tz_protocol.dialects.streaming import FramedStream
from tz_protocol.errors import InvalidRequest, UpstreamBroken, UpstreamGarbled
from tz_protocol.types.conversation import Completion, TextDelta
from tz_protocol.types.http import HttpRequest, ResponseHead
from tz_protocol.types.request import ParsedRequest, Target
from tz_protocol.types.stream import StreamEvent, StreamFailed, StreamPart
from tz_protocol.wire.json_list import EventsOrList

__all__ = ["GEMINI", "VERTEX_GEMINI", "model_path", "vertex_path"]

_HEADERS = (("content-type", "application/json"),)


# -- paths ----------------------------------------------------------------------


@lru_cache(maxsize=1_024)
def model_path(model: str) -> str:
    """Return the path of a model at AI Studio: ``models/NAME`` unless it says more.

    Args:
        model: ``gemini-2.5-flash``, or with its kind: ``tunedModels/mine``.

    Raises:
        InvalidRequest: It is not a name.
    """
    return _segments(model if "/" in model else f"models/{model}")


def vertex_path(target: Target, publisher: str) -> str:
    """Return the path of a model at Vertex.

    Args:
        target: Its ``project_id`` and ``location`` are options; ``endpoint_id`` names
            a model that one has deployed oneself.
        publisher: Whose models they are.

    Raises:
        InvalidRequest: The model's name is not one.
    """
    options = target.options
    return _vertex_path(
        options.get("project_id", ""),
        options.get("location", ""),
        options.get("endpoint_id", ""),
        target.model,
        publisher,
    )


@lru_cache(maxsize=1_024)
def _vertex_path(
    project: str, location: str, endpoint: str, model: str, publisher: str
) -> str:
    if model.startswith("projects/"):
        return _segments(model)
    place = f"projects/{project}/locations/{location}"
    if endpoint:
        return _segments(f"{place}/endpoints/{endpoint}")
    if model.startswith(("publishers/", "endpoints/")):
        return _segments(f"{place}/{model}")
    return _segments(f"{place}/publishers/{publisher}/models/{model}")


def _segments(path: str) -> str:
    """Return *path* as it goes into a URL; callers may choose models' names."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        message = "The model's name is not one that the provider could have."
        raise InvalidRequest(message, param="model", code="invalid_value")
    return "/".join(quote(part, safe="@") for part in parts)


# -- requests -------------------------------------------------------------------


def _render_ai_studio(
    parsed: ParsedRequest, target: Target
) -> tuple[HttpRequest, Losses]:
    renderer = RequestRenderer(conversation_of(parsed), target, AI_STUDIO)
    return _rendered(parsed, target, renderer, model_path(target.model))


def _render_vertex(parsed: ParsedRequest, target: Target) -> tuple[HttpRequest, Losses]:
    renderer = RequestRenderer(conversation_of(parsed), target, VERTEX)
    return _rendered(parsed, target, renderer, vertex_path(target, "google"))


def _rendered(
    parsed: ParsedRequest, target: Target, renderer: RequestRenderer, path: str
) -> tuple[HttpRequest, Losses]:
    fields = renderer.render()
    is_stream = conversation_of(parsed).is_stream
    method = "streamGenerateContent?alt=sse" if is_stream else "generateContent"
    request = HttpRequest(
        path=f"{path}:{method}",
        headers=_HEADERS,
        body=encode_body(fields, target.extra_body),
        is_stream=is_stream,
    )
    return request, renderer.report.losses()


# -- answers --------------------------------------------------------------------


def parse_response(head: ResponseHead, body: bytes) -> Completion:
    """Return the whole answer in *body*.

    Raises:
        UpstreamRefused: It states an error.
        UpstreamGarbled: It is not an answer.
    """
    del head
    reader, out = GeminiReader(), deque[StreamEvent]()
    reader.read_response(body, out)
    reader.end(out)
    collector = Collector()
    logprobs = {}
    for event in out:
        if type(event) is StreamPart:
            collector.add(event)
            delta = event.value
            if type(delta) is TextDelta and delta.logprobs is not msgspec.UNSET:
                logprobs[delta.choice] = delta.logprobs
        elif type(event) is StreamFailed:
            if isinstance(event.error, UpstreamBroken):
                break
            raise event.error
    else:
        completion = collector.completion()
        if logprobs:
            completion.choices = tuple(
                msgspec.structs.replace(one, logprobs=logprobs[one.index])
                if one.index in logprobs
                else one
                for one in completion.choices
            )
        return completion
    error = error_of(body)
    if isinstance(error, UpstreamGarbled):
        error = UpstreamGarbled("it is not a GenerateContentResponse")
    raise error


def stream_decoder(head: ResponseHead, limit: int) -> Decoder:
    """Return a decoder for one stream, of whose events none is over *limit* bytes."""
    del head
    return FramedStream(GeminiReader(), EventsOrList(limit))


GEMINI = outbound_dialect(
    "gemini",
    render_request=_render_ai_studio,
    parse_response=parse_response,
    parse_error=parse_error,
    table=told("gemini", NATIVE),
    stream_decoder=stream_decoder,
)
"""As generativelanguage.googleapis.com serves it."""

VERTEX_GEMINI = outbound_dialect(
    "vertex_gemini",
    render_request=_render_vertex,
    parse_response=parse_response,
    parse_error=parse_error,
    # The tier is told by a header there, which a caller cannot set.
    table={**told("gemini", NATIVE), "service_tier": Handling.DROPPED},
    stream_decoder=stream_decoder,
)
"""As LOCATION-aiplatform.googleapis.com serves it."""
