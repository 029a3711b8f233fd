"""What a Gemini answer is made of: usage, ends, log probabilities, citations.

The one rule: here is what is computed from an answer's parts; taking the parts apart,
whole or streamed, is ``gemini_stream``'s business.

Sources: https://ai.google.dev/api/generate-content, "GenerateContentResponse";
https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/
GenerateContentResponse.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tz_protocol.types.conversation import Citation, Finish, Finished
from tz_protocol.types.usage import Usage, count_of

__all__ = [
    "AROUND",
    "CitationMetadata",
    "GeminiUsage",
    "GroundingMetadata",
    "LogprobsResult",
    "blocked",
    "citations_of",
    "finish_of",
    "logprobs_of",
    "tier_of",
    "usage_of",
]


# -- usage ----------------------------------------------------------------------


class GeminiUsage(msgspec.Struct):
    """The vendor's ``usageMetadata``; proto JSON leaves out what is zero."""

    promptTokenCount: int | None = None  # noqa: N815  # the vendor's spelling
    """Cached ones included."""
    cachedContentTokenCount: int | None = None  # noqa: N815
    candidatesTokenCount: int | None = None  # noqa: N815
    """Without thoughts."""
    thoughtsTokenCount: int | None = None  # noqa: N815
    toolUsePromptTokenCount: int | None = None  # noqa: N815
    """What the provider's own tools put before the model."""
    totalTokenCount: int | None = None  # noqa: N815
    serviceTier: str | None = None  # noqa: N815


def usage_of(usage: GeminiUsage | None) -> Usage | None:
    """Return what *usage* says in OpenAI's sense, None if it counts nothing."""
    if usage is None or (
        usage.promptTokenCount is None and usage.totalTokenCount is None
    ):
        # Vertex says only the kind of traffic until the last chunk.
        return None
    thoughts = count_of(usage.thoughtsTokenCount)
    given = count_of(usage.promptTokenCount) or 0
    made = count_of(usage.candidatesTokenCount) or 0
    return Usage(
        input_tokens=given + (count_of(usage.toolUsePromptTokenCount) or 0),
        output_tokens=made + (thoughts or 0),
        cache_read_tokens=count_of(usage.cachedContentTokenCount),
        reasoning_tokens=thoughts,
    )


AROUND = frozenset({"usageMetadata", "citationMetadata", "logprobsResult"})
"""Members that say something about the answer: if they are not what they should be, it
is an answer all the same."""

_TIERS = {"standard": "default", "flex": "flex", "priority": "priority"}


def tier_of(usage: GeminiUsage | None) -> str | UnsetType:
    """Return the service tier in OpenAI's words; unset if there is no such word."""
    if usage is None or usage.serviceTier is None:
        return UNSET
    return _TIERS.get(usage.serviceTier.lower(), UNSET)


# -- the end --------------------------------------------------------------------

_NUMBERS = {1: "STOP", 2: "MAX_TOKENS", 3: "SAFETY", 4: "RECITATION", 5: "OTHER"}
"""Of the enumeration, as far as both of the vendor's APIs number it alike: servers
asked for ``enum-encoding=int`` write these."""

_FINISHES: dict[str, Finish] = {
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
}
"""All others are ends like any other, with the vendor's word beside them."""

_SAID_BY_FINISH = frozenset({"STOP", "MAX_TOKENS"})
"""Reasons that OpenAI's word for them says in full."""


def finish_of(reason: str | int, *, has_calls: bool, choice: int = 0) -> Finished:
    """Return why a candidate ended.

    Args:
        reason: ``finishReason`` or, for a prompt that was refused, ``blockReason``.
        has_calls: Whether there is a call for the caller to answer; the vendor says
            ``STOP`` then too.
        choice: Index of the candidate.
    """
    word = _NUMBERS.get(reason, str(reason)) if isinstance(reason, int) else reason
    finish = _FINISHES.get(word, "stop")
    if finish == "stop" and has_calls:
        finish = "tool_calls"
    if word in _SAID_BY_FINISH:
        return Finished(finish=finish, choice=choice)
    return Finished(finish=finish, native_finish=word, choice=choice)


def blocked(reason: str) -> Finished:
    """Return the end of an answer whose prompt was refused."""
    return Finished(finish="content_filter", native_finish=reason)


# -- log probabilities ----------------------------------------------------------


class _Token(msgspec.Struct):
    token: str = ""
    logProbability: Raw = Raw(b"-9999.0")  # noqa: N815


class _Alternatives(msgspec.Struct):
    candidates: list[_Token] | None = None


class LogprobsResult(msgspec.Struct):
    """The vendor's ``logprobsResult``: one entry a step in both lists."""

    chosenCandidates: list[_Token] | None = None  # noqa: N815
    topCandidates: list[_Alternatives] | None = None  # noqa: N815


def logprobs_of(result: LogprobsResult | None) -> Raw | UnsetType:
    """Return OpenAI's ``logprobs`` object, unset if nothing was said."""
    if result is None or not result.chosenCandidates:
        return UNSET
    tops = result.topCandidates or []
    entries = []
    for place, token in enumerate(result.chosenCandidates):
        others = (tops[place].candidates or []) if place < len(tops) else []
        entry = {**_logprob(token), "top_logprobs": [_logprob(one) for one in others]}
        entries.append(entry)
    return Raw(msgspec.json.encode({"content": entries, "refusal": None}))


def _logprob(token: _Token) -> dict[str, Any]:
    text = token.token
    return {
        "token": text,
        "logprob": token.logProbability,
        "bytes": list(text.encode("utf-8", "surrogatepass")),
    }


# -- citations ------------------------------------------------------------------


class _Segment(msgspec.Struct):
    """A stretch of one part of the answer, counted in bytes of UTF-8."""

    startIndex: int = 0  # noqa: N815
    endIndex: int = 0  # noqa: N815
    text: str = ""


class _Support(msgspec.Struct):
    segment: _Segment | None = None
    groundingChunkIndices: list[int] | None = None  # noqa: N815


class _Source(msgspec.Struct):
    uri: str | None = None
    title: str | None = None
    text: str | None = None


class _Chunk(msgspec.Struct):
    web: _Source | None = None
    retrievedContext: _Source | None = None  # noqa: N815
    maps: _Source | None = None
    image: _Source | None = None


class GroundingMetadata(msgspec.Struct):
    """The vendor's ``groundingMetadata``, as far as it says what was taken whence."""

    groundingChunks: list[_Chunk] | None = None  # noqa: N815
    """Of a stream: those that were not there before; numbered through."""
    groundingSupports: list[_Support] | None = None  # noqa: N815


class _Recited(msgspec.Struct):
    startIndex: int = 0  # noqa: N815
    endIndex: int | None = None  # noqa: N815
    uri: str | None = None
    title: str | None = None


class CitationMetadata(msgspec.Struct):
    """The vendor's ``citationMetadata``: AI Studio's name first, then Vertex's."""

    citationSources: list[_Recited] | None = None  # noqa: N815
    citations: list[_Recited] | None = None


def citations_of(
    texts: list[str],
    groundings: list[GroundingMetadata],
    recitations: list[CitationMetadata],
) -> list[Citation]:
    """Return the citations of an answer, each once.

    Args:
        texts: What the parts of text said, in order.
        groundings: In the order in which they came.
        recitations: Likewise.
    """
    if not groundings and not recitations:
        return []
    whole = _Whole(texts)
    found: dict[tuple[int, int, object, object, object], Citation] = {}
    for one in (*_grounded(whole, groundings), *_recited(whole, recitations)):
        found.setdefault((one.start, one.end, one.url, one.title, one.quote), one)
    return list(found.values())


class _Whole:
    """The text of an answer, with places in bytes turned into places in characters."""

    def __init__(self, texts: list[str]) -> None:
        self.text = "".join(texts)
        self._data = self.text.encode("utf-8", "surrogatepass")

    def place(self, offset: int) -> int:
        """Return the number of whole characters in the first *offset* bytes."""
        if len(self._data) == len(self.text):
            return max(0, min(offset, len(self.text)))
        return len(self._data[: max(0, offset)].decode("utf-8", "ignore"))

    def find(self, segment: _Segment) -> tuple[int, int]:
        """Return where *segment* is.

        Its places count within a part, and which part of a stream that is nobody says:
        the words decide where they can.
        """
        start, end = self.place(segment.startIndex), self.place(segment.endIndex)
        words = segment.text
        if words and self.text[start:end] != words:
            found = self.text.find(words, start)
            if found < 0:
                found = self.text.find(words)
            if found >= 0:
                return found, found + len(words)
        return start, max(start, end)


def _grounded(whole: _Whole, groundings: list[GroundingMetadata]) -> Iterator[Citation]:
    chunks = [chunk for one in groundings for chunk in one.groundingChunks or ()]
    for grounding in groundings:
        for support in grounding.groundingSupports or ():
            start, end = whole.find(support.segment or _Segment())
            for index in support.groundingChunkIndices or ():
                if 0 <= index < len(chunks):
                    yield _citation(start, end, chunks[index])


def _citation(start: int, end: int, chunk: _Chunk) -> Citation:
    for name in ("web", "retrievedContext", "maps", "image"):
        source: _Source | None = getattr(chunk, name)
        if source is None:
            continue
        is_link = source.uri is not None and source.uri.startswith(
            ("http://", "https://")
        )
        return Citation(
            start=start,
            end=end,
            url=source.uri if is_link and source.uri is not None else UNSET,
            title=UNSET if source.title is None else source.title,
            quote=UNSET if source.text is None else source.text,
            native=UNSET if is_link else Raw(msgspec.json.encode({name: source})),
        )
    return Citation(start=start, end=end)


def _recited(whole: _Whole, recitations: list[CitationMetadata]) -> Iterator[Citation]:
    for recitation in recitations:
        for one in (*(recitation.citationSources or ()), *(recitation.citations or ())):
            if one.uri is None and one.title is None:
                # Vertex lists sources of which it says nothing.
                continue
            end = len(whole.text) if one.endIndex is None else whole.place(one.endIndex)
            yield Citation(
                start=whole.place(one.startIndex),
                end=end,
                url=UNSET if one.uri is None else one.uri,
                title=UNSET if one.title is None else one.title,
            )
