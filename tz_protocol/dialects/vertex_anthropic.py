"""Anthropic's Messages API in Vertex's envelope: the row.

The one rule: it is Anthropic's format but for three things: the path names the model,
the body names the version, and errors may be Google's own.

Source: https://platform.claude.com/docs/en/build-with-claude/claude-on-vertex-ai;
https://cloud.google.com/vertex-ai/generative-ai/docs/partner-models/claude/
use-claude.
"""

from __future__ import annotations

from tz_protocol.dialects import anthropic, anthropic_errors
from tz_protocol.dialects.anthropic_request import NATIVE, RequestRenderer
from tz_protocol.dialects.base import Losses
from tz_protocol.dialects.gemini import vertex_path
from tz_protocol.dialects.gemini_errors import translated
from tz_protocol.dialects.links import links_unless
from tz_protocol.dialects.openai_conversation import conversation_of
from tz_protocol.dialects.outbound import encode_body, encode_others, outbound_dialect
from tz_protocol.dialects.parameters import Handling, told
from tz_protocol.errors import UpstreamRefused
from tz_protocol.types.http import HttpRequest, ResponseHead
from tz_protocol.types.request import ParsedRequest, Target
from tz_protocol.wire.json import value_of

__all__ = ["VERTEX_ANTHROPIC", "VERTEX_VERSION"]

VERTEX_VERSION = "vertex-2023-10-16"
"""The only value of ``anthropic_version`` that is documented for Vertex."""

_HEADERS = (("content-type", "application/json"),)


def _render_request(
    parsed: ParsedRequest, target: Target
) -> tuple[HttpRequest, Losses]:
    conversation = conversation_of(parsed)
    renderer = RequestRenderer(conversation, target)
    fields = {"anthropic_version": VERTEX_VERSION, **renderer.render()}
    method = "rawPredict"
    if conversation.is_stream:
        fields["stream"] = True
        method = "streamRawPredict"
    body = encode_body(fields, target.extra_body)
    count = renderer.report.choices
    request = HttpRequest(
        path=f"{vertex_path(target, 'anthropic')}:{method}",
        headers=_HEADERS,
        body=body,
        is_stream=conversation.is_stream,
        others=encode_others(body, fields, target.extra_body, count),
    )
    return request, renderer.report.losses()


def _parse_error(head: ResponseHead, body: bytes) -> UpstreamRefused:
    """Return what Anthropic's words or Google's stand for."""
    return translated(anthropic_errors.parse_error(head, body), value_of(body))


VERTEX_ANTHROPIC = outbound_dialect(
    "vertex_anthropic",
    render_request=_render_request,
    parse_response=anthropic.parse_response,
    parse_error=_parse_error,
    # https://platform.claude.com/docs/en/build-with-claude/vision: on Google's own
    # platform pictures are in base64 only.
    table={
        **told("anthropic", NATIVE),
        "image_url": Handling.EMULATED,
        "file.url": Handling.EMULATED,
    },
    stream_decoder=anthropic.stream_decoder,
    links=links_unless(lambda url: False),
)
"""Messages, as LOCATION-aiplatform.googleapis.com serves it."""
