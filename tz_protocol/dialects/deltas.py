"""The pieces of an answer: as parts of a stream, and put together again.

The one rule: what a stream adds up to is what the whole answer says; every dialect
makes its parts here and proves it with :class:`Collector`.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from tz_protocol.types.conversation import (
    ArgumentsDelta,
    Block,
    Choice,
    Citation,
    CitationDelta,
    Completion,
    CompletionDelta,
    Finished,
    OpaqueDelta,
    ReasoningDelta,
    ReasoningSealed,
    Refusal,
    RefusalDelta,
    Started,
    Text,
    TextDelta,
    Thinking,
    ToolCall,
    ToolCallStarted,
)
from tz_protocol.types.stream import StreamPart
from tz_protocol.types.usage import Usage

__all__ = ["Collector", "content", "finished", "joined", "lifecycle"]


def content(delta: CompletionDelta, usage: Usage | None = None) -> StreamPart:
    """Return the part for something that a caller sees."""
    return StreamPart(delta, True, usage)


def lifecycle(delta: CompletionDelta, usage: Usage | None = None) -> StreamPart:
    """Return the part for something that a caller does not see by itself."""
    return StreamPart(delta, False, usage)


def finished(delta: Finished, usage: Usage | None = None) -> StreamPart:
    """Return the part that ends a choice."""
    return StreamPart(delta, False, usage, True)


def joined(blocks: list[Block]) -> tuple[Block, ...]:
    """Return *blocks* with neighbouring stretches of text joined."""
    out: list[Block] = []
    for block in blocks:
        last = out[-1] if out else None
        if type(block) is Text and type(last) is Text:
            citations = (*last.citations, *block.citations)
            out[-1] = Text(last.text + block.text, last.cache, citations)
        else:
            out.append(block)
    return tuple(out)


class _Piece:
    """One block being put together."""

    __slots__ = ("end", "key", "kind", "texts")

    def __init__(self, kind: type[Any], key: int) -> None:
        self.kind = kind
        self.key = key
        self.texts: list[str] = []
        self.end: Any = None
        """The delta that says what the texts do not."""


class _Pieces:
    """One choice being put together."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.blocks: list[_Piece] = []
        self.finish: Finished | None = None

    def open(self, kind: type[Any], key: int) -> _Piece:
        """Return the block of this kind and number, made if it is new."""
        for block in reversed(self.blocks):
            if block.kind is kind and block.key == key:
                return block
        return self.make(kind, key)

    def open_last(self, kind: type[Any]) -> _Piece:
        """Return the last block if it is of this kind, else a new one."""
        if self.blocks and self.blocks[-1].kind is kind:
            return self.blocks[-1]
        return self.make(kind, 0)

    def make(self, kind: type[Any], key: int) -> _Piece:
        """Return a new block."""
        block = _Piece(kind, key)
        self.blocks.append(block)
        return block

    def choice(self) -> Choice:
        end = self.finish
        return Choice(
            index=self.index,
            content=tuple(
                _BUILDERS[block.kind](block.texts, block.end) for block in self.blocks
            ),
            finish="stop" if end is None else end.finish,
            native_finish=UNSET if end is None else end.native_finish,
        )


class Collector:
    """Puts the parts of a stream together; feed ``add``, then take ``completion``."""

    def __init__(self) -> None:
        self._choices: dict[int, _Pieces] = {}
        self._usage: Usage | None = None
        self._id = ""
        self._model = ""
        self._tier: str | UnsetType = UNSET

    def add(self, part: StreamPart) -> None:
        """Take the next part."""
        if part.usage is not None:
            self._usage = part.usage
        delta = part.value
        pieces = self._choices.get(delta.choice)
        if pieces is None:
            pieces = self._choices[delta.choice] = _Pieces(delta.choice)
        if type(delta) is Started:
            self._id, self._model = delta.id, delta.model
            self._tier = delta.service_tier
        else:
            _ADDERS[type(delta)](pieces, delta)

    def completion(self) -> Completion:
        """Return the whole answer."""
        return Completion(
            choices=tuple(
                self._choices[index].choice() for index in sorted(self._choices)
            ),
            usage=self._usage,
            id=self._id,
            model=self._model,
            service_tier=self._tier,
        )


def _add_text(pieces: _Pieces, delta: TextDelta) -> None:
    pieces.open_last(Text).texts.append(delta.text)


def _add_citation(pieces: _Pieces, delta: CitationDelta) -> None:
    block = pieces.open(Text, 0)
    block.end = (*(block.end or ()), delta.citation)


def _add_reasoning(pieces: _Pieces, delta: ReasoningDelta) -> None:
    pieces.open(Thinking, delta.index).texts.append(delta.text)


def _add_seal(pieces: _Pieces, delta: ReasoningSealed) -> None:
    pieces.open(Thinking, delta.index).end = delta


def _add_call(pieces: _Pieces, delta: ToolCallStarted) -> None:
    block = pieces.open(ToolCall, delta.index)
    block.end = delta
    block.texts.append(delta.arguments)


def _add_arguments(pieces: _Pieces, delta: ArgumentsDelta) -> None:
    pieces.open(ToolCall, delta.index).texts.append(delta.arguments)


def _add_refusal(pieces: _Pieces, delta: RefusalDelta) -> None:
    pieces.open_last(Refusal).texts.append(delta.text)


def _add_opaque(pieces: _Pieces, delta: OpaqueDelta) -> None:
    pieces.make(OpaqueDelta, 0).end = delta


def _add_finish(pieces: _Pieces, delta: Finished) -> None:
    pieces.finish = delta


_ADDERS: dict[type[Any], Any] = {
    TextDelta: _add_text,
    CitationDelta: _add_citation,
    ReasoningDelta: _add_reasoning,
    ReasoningSealed: _add_seal,
    ToolCallStarted: _add_call,
    ArgumentsDelta: _add_arguments,
    RefusalDelta: _add_refusal,
    OpaqueDelta: _add_opaque,
    Finished: _add_finish,
}


def _build_text(texts: list[str], citations: tuple[Citation, ...] | None) -> Block:
    return Text("".join(texts), UNSET, citations or ())


def _build_thought(texts: list[str], seal: ReasoningSealed | None) -> Block:
    if seal is None:
        return Thinking(text="".join(texts))
    return Thinking(
        text=seal.text or "".join(texts),
        signature=seal.signature,
        data=seal.data,
        format=seal.format,
        id=seal.id,
    )


def _build_call(texts: list[str], start: ToolCallStarted | None) -> Block:
    if start is None:
        message = "arguments of a tool call that never started"
        raise ValueError(message)
    return ToolCall(
        id=start.id,
        name=start.name,
        arguments="".join(texts),
        is_custom=start.is_custom,
        signature=start.signature,
    )


def _build_refusal(texts: list[str], _: None) -> Block:
    return Refusal("".join(texts))


def _build_opaque(_: list[str], delta: OpaqueDelta) -> Block:
    return delta.block


_BUILDERS: dict[type[Any], Any] = {
    Text: _build_text,
    Thinking: _build_thought,
    ToolCall: _build_call,
    Refusal: _build_refusal,
    OpaqueDelta: _build_opaque,
}
