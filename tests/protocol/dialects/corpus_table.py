"""Which recordings are replayed with which dialect, and which cannot be.

The one rule: an exception is here, with its reason, or it is a failure.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal

from tests.protocol.dialects import corpus_sdk_aws as aws
from tests.protocol.dialects import corpus_sdk_openai as openai
from tests.protocol.dialects import corpus_sdk_vendors as sdks
from tests.protocol.dialects import corpus_vendors as vendors
from tests.protocol.dialects.corpus_player import CannotRead
from tests.protocol.dialects.corpus_said import Said
from tests.protocol.dialects.eventstreams import framed
from tests.protocol.dialects.recordings import (
    LEFT_OUT,
    Recording,
    every_recording,
)
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
Reader = Callable[[Recording], Said]


@dataclass(frozen=True)
class Row:
    """How the recordings of one endpoint of one provider are read."""

    kind: Kind
    place: str
    """``module:NAME`` below ``tz_protocol.dialects``; empty: the provider's row."""
    read: Reader = vendors.read_openai
    """By hand."""
    client: Reader = openai.read_chat
    """With the client that the vendor ships."""

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
    "embeddings": Row("embedding", "", vendors.read_embedding, openai.read_embedding),
    "moderations": Row(
        "moderation", "", vendors.read_moderation, openai.read_moderation
    ),
}
"""By endpoint, for everybody."""

_CLAUDE = Row(
    "chat",
    "vertex_anthropic:VERTEX_ANTHROPIC",
    vendors.read_anthropic,
    sdks.read_vertex_anthropic,
)
_GEMINI = Row("chat", "gemini:GEMINI", vendors.read_gemini, sdks.read_gemini)
_VERTEX = Row(
    "chat", "gemini:VERTEX_GEMINI", vendors.read_gemini, sdks.read_vertex_gemini
)
_CONVERSE = Row("chat", "bedrock:BEDROCK", vendors.read_bedrock, aws.read_bedrock)
_EMBED = Row(
    "embedding",
    "cohere_embeddings:COHERE_EMBEDDINGS",
    vendors.read_embedding,
    sdks.read_cohere_embedding,
)

NATIVE: dict[tuple[str, str], Row] = {
    ("anthropic", "messages"): Row(
        "chat", "anthropic:ANTHROPIC", vendors.read_anthropic, sdks.read_anthropic
    ),
    ("gcp_vertex_anthropic", "rawPredict"): _CLAUDE,
    ("gcp_vertex_anthropic", "streamRawPredict"): _CLAUDE,
    ("google_ai_studio_gemini", "generateContent"): _GEMINI,
    ("google_ai_studio_gemini", "streamGenerateContent"): _GEMINI,
    ("google_ai_studio_gemini", "batchEmbedContents"): Row(
        "embedding",
        "gemini_embeddings:GEMINI_EMBEDDINGS",
        vendors.read_embedding,
        sdks.read_gemini_embedding,
    ),
    ("gcp_vertex_gemini", "generateContent"): _VERTEX,
    ("gcp_vertex_gemini", "streamGenerateContent"): _VERTEX,
    ("gcp_vertex_gemini", "predict"): Row(
        "embedding",
        "gemini_embeddings:VERTEX_EMBEDDINGS",
        vendors.read_embedding,
        sdks.read_vertex_embedding,
    ),
    ("aws_bedrock", "converse"): _CONVERSE,
    ("aws_bedrock", "converse-stream"): _CONVERSE,
    ("cohere", "cohere.chat.v2"): Row(
        "chat", "cohere:COHERE_CHAT", vendors.read_cohere, sdks.read_cohere
    ),
    ("cohere", "cohere.embed"): _EMBED,
    ("cohere", "embeddings"): _EMBED,
}
"""By provider and endpoint, for those that speak a format of their own."""

SPOKEN: dict[str, Row] = {
    "messages": NATIVE["anthropic", "messages"],
    "generateContent": NATIVE["gcp_vertex_gemini", "generateContent"],
    "streamGenerateContent": NATIVE["gcp_vertex_gemini", "streamGenerateContent"],
    "cohere.chat.v2": NATIVE["cohere", "cohere.chat.v2"],
}
"""By endpoint, whoever else speaks a vendor's format."""

STREAMED = (b"data:", b"event:", b"id:", b":")
"""What a stream begins with, whatever the recording says of it."""

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
            return Row(
                "chat",
                "",
                partial(vendors.read_openai, has_think_blocks=True),
                partial(openai.read_chat, has_think_blocks=True),
            )
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

    @property
    def is_stream(self) -> bool:
        """Whether the body is a stream, whatever the recording says of it."""
        recording = self.recording
        return recording.is_stream or recording.body.lstrip().startswith(STREAMED)

    def reading(self) -> tuple[Said | None, str]:
        """Return what the answer says, and why it was read by hand (empty: it was not).

        There is no reading of an error that the client does not understand.
        """
        recording = replace(self.recording, body=self.body, is_stream=self.is_stream)
        try:
            with warnings.catch_warnings():
                # Of names that are newer than the client it warns, and reads on.
                warnings.simplefilter("ignore")
                return self.row.client(recording), ""
        except CannotRead as told:
            reason = str(told)
        except Exception as error:
            # Further recordings may be beyond a client in ways that nobody has seen:
            # its failures are not the dialect's, and the table says how many they are.
            reason = f"the client fails: {type(error).__name__}"
        return self.by_hand(), reason

    def by_hand(self) -> Said | None:
        """Return what the answer says without the client; None if it is no answer."""
        if not 200 <= self.recording.head.status < 300:
            return None
        try:
            return self.row.read(self.recording)
        except (ValueError, LookupError, TypeError, AttributeError):
            # Cut off by whoever recorded it, or not of this format at all.
            return None


@cache
def items() -> tuple[Item, ...]:
    """Return the recordings that are of concern, in the folder's order.

    The others are counted, with the reason.
    """
    found = []
    for provider, recording in every_recording():
        row = row_of(provider, recording.endpoint)
        if row is None:
            LEFT_OUT["test_corpus", "neither chat, embeddings nor moderation"] += 1
        elif row.dialect(provider) is None:
            LEFT_OUT["test_corpus", "what the provider is not asked for"] += 1
        elif recording.endpoint == "predict" and b'"values"' not in recording.body:
            # Vertex predicts images and much else by the same name.
            LEFT_OUT["test_corpus", "a prediction that is no vector"] += 1
        else:
            found.append(Item(provider, recording, row))
    return tuple(found)
