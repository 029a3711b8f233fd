"""Which recordings are replayed with which dialect, and which cannot be.

The one rule: an exception is here, with its reason, or it is a failure.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

from tests.protocol.dialects import corpus_vendors as vendors
from tests.protocol.dialects.corpus_said import Said
from tests.protocol.dialects.eventstreams import framed
from tests.protocol.dialects.recordings import Recording, every_recording
from tz_protocol.dialects.base import AnyDialect
from tz_protocol.dialects.openai_chat_repairs import THINK_BLOCKS
from tz_protocol.providers import PROVIDERS
from tz_protocol.providers.embedders import EMBEDDERS
from tz_protocol.providers.openai_family import OPENAI_FAMILY

EXCEPTIONS = {
    "aaaa9821a548104e": "OpenAI: a report of the usage of embeddings, and none itself",
    "42c343bd68608d30": "OpenRouter: an annotation of the type file, unknown to OpenAI",
}
"""Id of a recording -> why what is made of it does not pass."""

OPTIONS = {"parse_think_blocks": "true"}
SWITCHED = frozenset({"huggingface", "vllm"})
"""Providers that are replayed with these options: models think in their answers."""

Kind = Literal["chat", "embedding", "moderation"]


@dataclass(frozen=True)
class Row:
    """How the recordings of one endpoint of one provider are read."""

    kind: Kind
    place: str
    """``module:NAME`` below ``tz_protocol.dialects``; empty: the provider's row."""
    read: Callable[[Recording], Said] = vendors.read_openai

    def dialect(self, provider: str) -> AnyDialect | None:
        """Return the dialect, None if there is none."""
        if not self.place:
            # Whoever else speaks OpenAI's format is configured as ``type = "openai"``.
            rows = {row.name: row for row in (*OPENAI_FAMILY, *EMBEDDERS)}
            row = rows.get(provider, rows["openai"])
            options = OPTIONS if provider in SWITCHED else {}
            found = row.dialect_of(self.kind, options)
            return found or rows["openai"].dialect_of(self.kind, options)
        module, _, name = self.place.partition(":")
        try:
            loaded = importlib.import_module(f"tz_protocol.dialects.{module}")
        except ModuleNotFoundError:
            return None
        made: AnyDialect | None = getattr(loaded, name, None)
        return made


OPENAI: dict[str, Row] = {
    "chat.completions": Row("chat", ""),
    "embeddings": Row("embedding", ""),
    "moderations": Row("moderation", ""),
}
"""By endpoint, for everybody."""

NATIVE: dict[tuple[str, str], Row] = {
    ("anthropic", "messages"): Row(
        "chat", "anthropic:ANTHROPIC", vendors.read_anthropic
    ),
    ("gcp_vertex_anthropic", "rawPredict"): Row(
        "chat", "vertex_anthropic:VERTEX_ANTHROPIC", vendors.read_anthropic
    ),
    ("gcp_vertex_anthropic", "streamRawPredict"): Row(
        "chat", "vertex_anthropic:VERTEX_ANTHROPIC", vendors.read_anthropic
    ),
    ("google_ai_studio_gemini", "generateContent"): Row(
        "chat", "gemini:GEMINI", vendors.read_gemini
    ),
    ("google_ai_studio_gemini", "streamGenerateContent"): Row(
        "chat", "gemini:GEMINI", vendors.read_gemini
    ),
    ("google_ai_studio_gemini", "batchEmbedContents"): Row(
        "embedding", "gemini_embeddings:GEMINI_EMBEDDINGS"
    ),
    ("gcp_vertex_gemini", "generateContent"): Row(
        "chat", "gemini:VERTEX_GEMINI", vendors.read_gemini
    ),
    ("gcp_vertex_gemini", "streamGenerateContent"): Row(
        "chat", "gemini:VERTEX_GEMINI", vendors.read_gemini
    ),
    ("gcp_vertex_gemini", "predict"): Row(
        "embedding", "gemini_embeddings:VERTEX_EMBEDDINGS"
    ),
    ("aws_bedrock", "converse"): Row("chat", "bedrock:BEDROCK", vendors.read_bedrock),
    ("aws_bedrock", "converse-stream"): Row(
        "chat", "bedrock:BEDROCK", vendors.read_bedrock
    ),
    ("cohere", "cohere.chat.v2"): Row(
        "chat", "cohere:COHERE_CHAT", vendors.read_cohere
    ),
    ("cohere", "cohere.embed"): Row("embedding", "cohere_embeddings:COHERE_EMBEDDINGS"),
    ("cohere", "embeddings"): Row("embedding", "cohere_embeddings:COHERE_EMBEDDINGS"),
}
"""By provider and endpoint, for those that speak a format of their own."""

SPOKEN: dict[str, Row] = {
    "messages": NATIVE["anthropic", "messages"],
    "generateContent": NATIVE["gcp_vertex_gemini", "generateContent"],
    "streamGenerateContent": NATIVE["gcp_vertex_gemini", "streamGenerateContent"],
    "cohere.chat.v2": NATIVE["cohere", "cohere.chat.v2"],
}
"""By endpoint, whoever else speaks a vendor's format."""

FOREIGN = frozenset({("ollama", "embeddings")})
"""Formats of vendors of the family that are not OpenAI's, and that are not spoken."""


def row_of(provider: str, endpoint: str) -> Row | None:
    """Return how to read recordings, None for those that are of no concern."""
    row = NATIVE.get((provider, endpoint)) or SPOKEN.get(endpoint)
    if row is None and (provider, endpoint) not in FOREIGN:
        row = OPENAI.get(endpoint)
        known = PROVIDERS.get(provider)
        quirks = frozenset() if known is None else known.deviations.quirks
        is_thinker = provider in SWITCHED or THINK_BLOCKS in quirks
        if row is not None and row.kind == "chat" and is_thinker:
            read = partial(vendors.read_openai, has_think_blocks=True)
            return Row("chat", "", read)
    return row


@dataclass(frozen=True)
class Item:
    """One recording and how to read it."""

    provider: str
    recording: Recording
    row: Row

    @property
    def body(self) -> bytes:
        """The bytes that came over the wire."""
        recording = self.recording
        is_kept = recording.fidelity == "chunks" and recording.is_stream
        if self.provider == "aws_bedrock" and is_kept and self.row.place:
            return framed(recording.body)
        return recording.body


@cache
def items() -> tuple[Item, ...]:
    """Return the recordings that are of concern, in the folder's order."""
    return tuple(
        Item(provider, recording, row)
        for provider, recording in every_recording()
        if (row := row_of(provider, recording.endpoint)) is not None
        # Vertex predicts images and much else by the same name.
        and (recording.endpoint != "predict" or b'"values"' in recording.body)
    )
