"""Gemini's answers -> deltas, one ``GenerateContentResponse`` at a time.

The one rule: a whole answer is a stream of one response, so that both mean the same.
There is no terminator: an answer is complete if the bytes ended and every candidate
had said why it ended. It may say so early and go on; what it said last counts.

Sources: https://ai.google.dev/api/generate-content, "GenerateContentResponse";
https://ai.google.dev/gemini-api/docs/thought-signatures.
"""

from __future__ import annotations

from collections import deque

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tz_protocol.dialects.anthropic_request import ANSWER_TOOL
from tz_protocol.dialects.deltas import content, finished, lifecycle
from tz_protocol.dialects.gemini_answer import (
    AROUND,
    CitationMetadata,
    GeminiUsage,
    GroundingMetadata,
    LogprobsResult,
    blocked,
    citations_of,
    finish_of,
    logprobs_of,
    tier_of,
    usage_of,
)
from tz_protocol.dialects.gemini_contents import FORMAT, ORIGIN
from tz_protocol.dialects.gemini_errors import error_of
from tz_protocol.dialects.gemini_partial import Arguments, PartialArgument
from tz_protocol.dialects.ids import CallIds
from tz_protocol.errors import UpstreamBroken, UpstreamGarbled
from tz_protocol.types.conversation import (
    ArgumentsDelta,
    CitationDelta,
    Opaque,
    OpaqueDelta,
    ReasoningDelta,
    ReasoningSealed,
    Started,
    TextDelta,
    ToolCallStarted,
)
from tz_protocol.types.stream import (
    StreamDone,
    StreamEvent,
    StreamFailed,
    StreamSkipped,
)
from tz_protocol.wire.json import NULL, without_nulls
from tz_protocol.wire.sse import SseEvent

__all__ = ["GeminiReader"]

Out = deque[StreamEvent]


class _Call(msgspec.Struct):
    name: str = ""
    id: str = ""
    args: Raw | UnsetType = UNSET
    partialArgs: list[PartialArgument] = []  # noqa: N815  # the vendor's spelling
    willContinue: bool = False  # noqa: N815


class _Part(msgspec.Struct):
    text: str | UnsetType = UNSET
    thought: bool = False
    thoughtSignature: str = ""  # noqa: N815
    functionCall: _Call | UnsetType = UNSET  # noqa: N815


class _Content(msgspec.Struct):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct):
    content: _Content | None = None
    index: int = 0
    finishReason: str | int | None = None  # noqa: N815
    groundingMetadata: Raw | UnsetType = UNSET  # noqa: N815
    urlContextMetadata: Raw | UnsetType = UNSET  # noqa: N815
    citationMetadata: CitationMetadata | None = None  # noqa: N815
    logprobsResult: LogprobsResult | None = None  # noqa: N815


class _Feedback(msgspec.Struct):
    blockReason: str | int | None = None  # noqa: N815


class _Response(msgspec.Struct):
    candidates: list[_Candidate] | None = None
    promptFeedback: _Feedback | None = None  # noqa: N815
    usageMetadata: GeminiUsage | None = None  # noqa: N815
    modelVersion: str = ""  # noqa: N815
    responseId: str = ""  # noqa: N815
    error: Raw | UnsetType = UNSET


class _RawContent(msgspec.Struct):
    parts: list[Raw]


class _RawCandidate(msgspec.Struct):
    content: _RawContent | None = None


class _RawResponse(msgspec.Struct):
    """The same once more, for parts of kinds that are not read."""

    candidates: list[_RawCandidate]


_RESPONSE = msgspec.json.Decoder(_Response)
_RAW_RESPONSE = msgspec.json.Decoder(_RawResponse)
_MEMBERS = msgspec.json.Decoder(dict[str, Raw])
_GROUNDING = msgspec.json.Decoder(GroundingMetadata)

_AROUND = ("thought", "thoughtSignature", "partMetadata", "videoMetadata")
"""Members of a part that do not say what kind of part it is."""


class _Choice:
    """One candidate that has started."""

    __slots__ = (
        "arguments",
        "calls",
        "groundings",
        "ids",
        "index",
        "reason",
        "recitations",
        "texts",
        "thought",
        "thoughts",
    )

    def __init__(self, index: int) -> None:
        self.index = index
        self.texts: list[str] = []
        self.thought: list[str] = []
        """The thought that has not ended."""
        self.thoughts = 0
        """How many have."""
        self.calls = 0
        self.ids = CallIds()
        self.arguments: Arguments | None = None
        """Of the call that has not ended; it is the last of ``calls``."""
        self.reason: str | int | None = None
        self.groundings: list[GroundingMetadata] = []
        self.recitations: list[CitationMetadata] = []


class GeminiReader:
    """Reads the responses of one stream (``streaming.Reader``)."""

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self._usage: GeminiUsage | None = None
        self._id = ""
        self._model = ""
        self._block: str | int | None = None

    def read(self, event: SseEvent, out: Out) -> None:
        """Append what *event* stands for."""
        self.read_response(event.data, out)

    def read_response(self, data: bytes, out: Out) -> None:
        """Append what *data*, one ``GenerateContentResponse``, stands for."""
        try:
            data, response = _response_of(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._unread(data, error, out)
            return
        if response.error is not UNSET:
            out.append(StreamFailed(error_of(data)))
            return
        usage = response.usageMetadata
        if usage is not None and usage_of(usage) is not None:
            self._usage = usage
        self._id = self._id or response.responseId
        self._model = self._model or response.modelVersion
        if 0 not in self._choices:
            self._start(0, usage, out)
        if response.promptFeedback is not None:
            self._block = response.promptFeedback.blockReason or self._block
        for place, candidate in enumerate(response.candidates or ()):
            choice = self._choices.get(candidate.index)
            if choice is None:
                choice = self._start(candidate.index, usage, out)
            self._candidate(choice, candidate, data, place, out)

    def _unread(self, data: bytes, error: Exception, out: Out) -> None:
        """Append what an event that is no response stands for."""
        if data.startswith(b"[DONE]"):
            # The vendor never says so; servers that imitate it do.
            self.end(out)
        elif not isinstance(error, msgspec.ValidationError):
            out.append(StreamFailed(UpstreamGarbled("an event is not JSON")))
        elif data.lstrip().startswith(b"["):
            out.append(StreamFailed(error_of(data)))
        else:
            out.append(StreamSkipped("an event has members of unknown types"))

    def end(self, out: Out) -> None:
        """Append what the end of the bytes stands for."""
        choices = [self._choices[index] for index in sorted(self._choices)]
        is_blocked = self._block is not None
        if not choices or any(
            choice.reason is None and not is_blocked for choice in choices
        ):
            out.append(StreamFailed(UpstreamBroken("cut")))
            return
        usage = usage_of(self._usage)
        for choice in choices:
            self._close_call(choice, out)
            for citation in citations_of(
                choice.texts, choice.groundings, choice.recitations
            ):
                out.append(content(CitationDelta(citation, choice.index)))
            if choice.reason is None:
                out.append(finished(blocked(str(self._block)), usage))
            else:
                end = finish_of(
                    choice.reason, has_calls=choice.calls > 0, choice=choice.index
                )
                out.append(finished(end, usage))
        out.append(StreamDone())

    # -- candidates ---------------------------------------------------------------

    def _start(self, index: int, usage: GeminiUsage | None, out: Out) -> _Choice:
        choice = self._choices[index] = _Choice(index)
        started = Started(
            id=self._id, model=self._model, service_tier=tier_of(usage), choice=index
        )
        out.append(lifecycle(started))
        return choice

    def _candidate(
        self, choice: _Choice, candidate: _Candidate, data: bytes, place: int, out: Out
    ) -> None:
        """Append one candidate's news.

        Args:
            choice: Its state.
            candidate: The news.
            data: The response that it is in.
            place: Its place in there.
            out: Is appended to.
        """
        parts = None if candidate.content is None else candidate.content.parts
        if parts:
            logprobs = (
                UNSET
                if candidate.logprobsResult is None
                else logprobs_of(candidate.logprobsResult)
            )
            for number, part in enumerate(parts):
                if part.functionCall is not UNSET:
                    self._call(choice, part.functionCall, part.thoughtSignature, out)
                elif part.text is UNSET:
                    self._other(choice, _raw_part(data, place, number), out)
                elif part.thought:
                    self._thought(choice, part.text, part.thoughtSignature, out)
                else:
                    self._text(choice, part.text, logprobs, out)
                    logprobs = UNSET
                    if part.thoughtSignature:
                        self._seal(choice, part.thoughtSignature, out)
        if candidate.finishReason is not None and candidate.finishReason != "":
            choice.reason = candidate.finishReason
        if candidate.groundingMetadata is not UNSET:
            self._metadata(
                choice, "groundingMetadata", candidate.groundingMetadata, out
            )
        if candidate.urlContextMetadata is not UNSET:
            kind = "urlContextMetadata"
            self._metadata(choice, kind, candidate.urlContextMetadata, out)
        if candidate.citationMetadata is not None:
            choice.recitations.append(candidate.citationMetadata)

    # -- parts --------------------------------------------------------------------

    def _text(
        self, choice: _Choice, text: str, logprobs: Raw | UnsetType, out: Out
    ) -> None:
        if not text and logprobs is UNSET:
            return
        self._close_thought(choice)
        choice.texts.append(text)
        out.append(content(TextDelta(text, choice.index, logprobs)))

    def _thought(self, choice: _Choice, text: str, seal: str, out: Out) -> None:
        if text:
            choice.thought.append(text)
            out.append(content(ReasoningDelta(text, choice.thoughts, choice.index)))
        if seal:
            sealed = ReasoningSealed(
                index=choice.thoughts,
                text="".join(choice.thought),
                signature=seal,
                format=FORMAT,
                choice=choice.index,
            )
            out.append(lifecycle(sealed))
            choice.thought = []
            choice.thoughts += 1

    def _seal(self, choice: _Choice, seal: str, out: Out) -> None:
        """A signature of what is no thought to read: a sealed one."""
        self._close_thought(choice)
        sealed = ReasoningSealed(
            index=choice.thoughts, data=seal, format=FORMAT, choice=choice.index
        )
        out.append(lifecycle(sealed))
        choice.thoughts += 1

    def _close_thought(self, choice: _Choice) -> None:
        if choice.thought:
            choice.thought = []
            choice.thoughts += 1

    def _other(self, choice: _Choice, raw: Raw, out: Out) -> None:
        members = _MEMBERS.decode(raw)
        kinds = [name for name in members if name not in _AROUND]
        if kinds:
            self._close_thought(choice)
            block = Opaque(ORIGIN, kinds[0], raw.copy())
            out.append(content(OpaqueDelta(block, choice.index)))
        elif seal := members.get("thoughtSignature"):
            self._seal(choice, msgspec.json.decode(seal, type=str), out)

    def _metadata(self, choice: _Choice, kind: str, raw: Raw, out: Out) -> None:
        """What the provider's own tools did, which no part says."""
        if not _is_something(raw):
            return
        if kind == "groundingMetadata":
            try:
                choice.groundings.append(_GROUNDING.decode(without_nulls(raw)))
            except msgspec.DecodeError:
                out.append(StreamSkipped("grounding metadata of an unknown shape"))
        block = Opaque(ORIGIN, kind, raw.copy())
        out.append(content(OpaqueDelta(block, choice.index)))

    # -- calls --------------------------------------------------------------------

    def _call(self, choice: _Choice, call: _Call, seal: str, out: Out) -> None:
        if not call.name:
            self._more_arguments(choice, call, out)
            return
        self._close_thought(choice)
        self._close_call(choice, out)
        if call.name == ANSWER_TOOL:
            self._text(choice, _arguments(call.args), UNSET, out)
            return
        number = choice.calls
        choice.calls += 1
        is_open = call.willContinue or bool(call.partialArgs)
        started = ToolCallStarted(
            index=number,
            id=choice.ids.own(call.id, self._id, choice.index, number, call.name),
            name=call.name,
            arguments="" if is_open else _arguments(call.args),
            signature=seal or UNSET,
            choice=choice.index,
        )
        out.append(content(started))
        if is_open:
            choice.arguments = Arguments()
            self._more_arguments(choice, call, out)

    def _more_arguments(self, choice: _Choice, call: _Call, out: Out) -> None:
        arguments = choice.arguments
        if arguments is None:
            out.append(StreamSkipped("arguments belong to no call"))
            return
        for piece in call.partialArgs:
            if not arguments.add(piece):
                out.append(StreamSkipped("an argument's path leads nowhere"))
        if not call.willContinue:
            self._close_call(choice, out)

    def _close_call(self, choice: _Choice, out: Out) -> None:
        arguments, choice.arguments = choice.arguments, None
        if arguments is not None:
            number, text = choice.calls - 1, arguments.text()
            out.append(content(ArgumentsDelta(number, text, choice.index)))


_ARGUMENTS = frozenset({"args", "partialArgs", "response"})
"""Members in which a null is the model's or a tool's."""


def _response_of(data: bytes) -> tuple[bytes, _Response]:
    """Return a response and the bytes that it was read from."""
    try:
        return data, _RESPONSE.decode(data)
    except msgspec.ValidationError:
        pass
    try:
        made = without_nulls(data, _ARGUMENTS)
        return made, _RESPONSE.decode(made)
    except msgspec.ValidationError:
        made = without_nulls(data, _ARGUMENTS, AROUND)
    return made, _RESPONSE.decode(made)


def _arguments(args: Raw | UnsetType) -> str:
    """Return a call's arguments as one line, numbers as the vendor wrote them."""
    if args is UNSET or args == NULL:
        return "{}"
    text = bytes(args)
    return (msgspec.json.format(text, indent=-1) if b"\n" in text else text).decode()


def _is_something(raw: Raw) -> bool:
    try:
        return bool(_MEMBERS.decode(raw))
    except msgspec.DecodeError:
        return False


def _raw_part(data: bytes, candidate: int, number: int) -> Raw:
    """Return one part of a response as it was written."""
    found = _RAW_RESPONSE.decode(data).candidates[candidate].content
    return Raw(b"{}") if found is None else found.parts[number]
