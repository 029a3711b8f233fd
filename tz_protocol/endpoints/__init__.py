"""The gateway's routes as rows: client route -> capability and inbound dialect.

The one rule: a new endpoint in a known shape is its dialect, its test and one line
here. Rows are visible, ordered and greppable; nothing registers itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from tz_protocol.dialects.base import AnyDialect
from tz_protocol.dialects.openai_audio import OPENAI_SPEECH, OPENAI_TRANSCRIPTION
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.dialects.openai_embeddings import OPENAI_EMBEDDINGS
from tz_protocol.dialects.openai_moderations import OPENAI_MODERATIONS

__all__ = ["ENDPOINTS", "Endpoint", "routes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One client route."""

    route: str
    """``METHOD /path`` under the base path."""
    capability: str
    """What the model must be able to do."""
    dialect: AnyDialect
    """The caller's wire format."""
    cacheable: bool = False
    """True if equal requests may share an answer."""


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        route="POST /v1/chat/completions",
        capability="chat",
        dialect=OPENAI_CHAT,
        cacheable=True,
    ),
    Endpoint(
        route="POST /v1/embeddings",
        capability="embedding",
        dialect=OPENAI_EMBEDDINGS,
        cacheable=True,
    ),
    Endpoint(
        route="POST /v1/moderations",
        capability="moderation",
        dialect=OPENAI_MODERATIONS,
    ),
    Endpoint(
        route="POST /v1/audio/transcriptions",
        capability="audio_transcription",
        dialect=OPENAI_TRANSCRIPTION,
    ),
    Endpoint(
        route="POST /v1/audio/speech", capability="audio_speech", dialect=OPENAI_SPEECH
    ),
)

ALIAS = "/openai"
"""TensorZero's users call ``/openai/v1/...``."""


def routes(endpoints: tuple[Endpoint, ...]) -> dict[str, dict[str, Endpoint]]:
    """Return path -> method -> endpoint, aliases included.

    Raises:
        ValueError: Two rows have the same route.
    """
    table: dict[str, dict[str, Endpoint]] = {}
    for endpoint in endpoints:
        method, _, path = endpoint.route.partition(" ")
        for alias in (path, ALIAS + path):
            methods = table.setdefault(alias, {})
            if method in methods:
                message = f"two endpoints have the route {method} {alias}"
                raise ValueError(message)
            methods[method] = endpoint
    return table
