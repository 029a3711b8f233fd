"""Anthropic's row.

The one rule: whom to ask and with which key; what to say is the dialect's.
"""

from __future__ import annotations

from tz_protocol.dialects.anthropic import ANTHROPIC as ANTHROPIC_CHAT
from tz_protocol.dialects.anthropic_request import MAX_TOKENS_OPTION
from tz_protocol.providers.base import Provider
from tz_protocol.types.http import Headers, HttpRequest
from tz_protocol.types.secret import Secret

__all__ = ["ANTHROPIC", "x_api_key"]


def x_api_key(request: HttpRequest, key: Secret | None, wall: float) -> Headers:
    """Return Anthropic's ``x-api-key``; nothing if there is no key.

    Source: https://platform.claude.com/docs/en/api/overview, "Authentication".
    """
    del request, wall
    return () if key is None else (("x-api-key", key.reveal()),)


ANTHROPIC = Provider(
    name="anthropic",
    base_url="https://api.anthropic.com/v1/",
    credential="env::ANTHROPIC_API_KEY",
    authorize=x_api_key,
    dialects={"chat": ANTHROPIC_CHAT},
    optional=("api_base", MAX_TOKENS_OPTION),
)
"""https://platform.claude.com/docs/en/api/overview."""
