"""Neutral messages -> the ``messages`` of a Cohere v2 chat request.

The one rule: a block is said in full, refused, or named as lost. The vendor takes the
messages in the order in which they were said, each in a role of its own; nothing is
merged, and what has no content is left out.

Source: https://docs.cohere.com/v2/reference/chat, "messages".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from tz_protocol.dialects.cohere_answer import ORIGIN
from tz_protocol.dialects.losses import Report
from tz_protocol.dialects.media import media_type_of
from tz_protocol.dialects.turns import NO_ARGUMENTS, Piece
from tz_protocol.types.conversation import (
    Audio,
    Document,
    Image,
    Inline,
    Message,
    Opaque,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Url,
)

__all__ = ["MessagesRenderer"]

_ARGUMENTS = msgspec.json.Decoder(dict[str, Raw])


class MessagesRenderer:
    """Renders the messages of one conversation.

    Args:
        report: Takes what cannot be said.
        is_thinker: Whether the model takes back what it thought.
    """

    def __init__(self, report: Report, *, is_thinker: bool) -> None:
        self._report = report
        self._messages: tuple[Message, ...] = ()
        self._left_out: set[str] = set()
        """Ids of calls that could not be said; nor can their results."""
        self._is_thinker = is_thinker
        self._calls: list[dict[str, Any]] = []
        self._plan: list[str] = []
        self._citations: list[Raw] = []
        """What an assistant's message has beside its content."""

    def render(self, messages: tuple[Message, ...]) -> list[dict[str, Any]]:
        """Return the vendor's messages.

        Raises:
            InvalidRequest: A block cannot be said.
        """
        self._messages = messages
        out: list[dict[str, Any]] = []
        for index, message in enumerate(messages):
            if message.name is not UNSET:
                self._report.handle("messages.name", f"messages[{index}].name")
            role = message.role
            if role == "tool":
                self._results(index, message, out)
            elif role == "assistant":
                self._assistant(index, message, out)
            else:
                content = self._content(index, message)
                if content:
                    # developer is OpenAI's newer word for system.
                    said = "user" if role == "user" else "system"
                    out.append({"role": said, "content": _plain(content)})
                else:
                    self._report.drop(f"messages[{index}].content")
        return out

    # -- whole messages -----------------------------------------------------------

    def _results(self, index: int, message: Message, out: list[dict[str, Any]]) -> None:
        """A message for each result; what else is among them is the user's."""
        others: list[Any] = []
        for place, block in enumerate(message.content):
            piece = Piece(index, place, block)
            if type(block) is ToolResult:
                if block.call_id in self._left_out:
                    self._report.drop(f"messages[{index}].content")
                else:
                    out.append(self._result(block, piece))
            else:
                self._add(block, piece, others)
        if others:
            out.append({"role": "user", "content": _plain(others)})

    def _result(self, block: ToolResult, piece: Piece) -> dict[str, Any]:
        self._marked(block.cache, piece)
        if block.is_error is True:
            self._report.drop(f"messages[{piece.message}].is_error")
        content: list[Any] = []
        for place, part in enumerate(block.content):
            inner = Piece(piece.message, place, part)
            if isinstance(part, Text | Refusal | Opaque | Document | Audio):
                self._add(part, inner, content)
            else:
                reason = "What a tool answers is text there."
                self._report.refuse(inner.path(), reason)
        return {
            "role": "tool",
            "tool_call_id": block.call_id,
            "content": _plain(content) if content else "",
        }

    def _assistant(
        self, index: int, message: Message, out: list[dict[str, Any]]
    ) -> None:
        self._calls, self._plan, self._citations = [], [], []
        content = self._content(index, message)
        made: dict[str, Any] = {"role": "assistant"}
        if content:
            made["content"] = _plain(content)
        if self._plan:
            if self._calls:
                made["tool_plan"] = "".join(self._plan)
            else:
                self._report.drop(f"messages[{index}].reasoning_content")
        if self._calls:
            made["tool_calls"] = self._calls
        if self._citations:
            made["citations"] = self._citations
        if content or self._calls:
            out.append(made)
        else:
            self._report.drop(f"messages[{index}].content")

    # -- blocks -------------------------------------------------------------------

    def _content(self, index: int, message: Message) -> list[Any]:
        out: list[Any] = []
        for place, block in enumerate(message.content):
            self._add(block, Piece(index, place, block), out)
        return out

    def _add(self, block: Any, piece: Piece, out: list[Any]) -> None:
        made = _RENDERERS[type(block)](self, block, piece)
        if made is not None:
            out.append(made)

    def _marked(self, hint: Any, piece: Piece) -> None:
        if hint is not UNSET:
            self._report.handle("cache_control", f"{piece.path()}.cache_control")

    def _text(self, block: Text, piece: Piece) -> Any:
        self._marked(block.cache, piece)
        if block.citations:
            self._report.drop(f"{piece.path()}.citations")
        return {"type": "text", "text": block.text} if block.text else None

    def _image(self, block: Image, piece: Piece) -> Any:
        self._marked(block.cache, piece)
        path, source = f"{piece.path()}.image_url", block.source
        if isinstance(source, Url):
            url = source.url
        elif isinstance(source, Inline) and (media_type := media_type_of(source)):
            url = f"data:{media_type};base64,{source.data}"
        else:
            self._report.refuse(path, "It takes images by URL or in base64.")
            return None
        made = {"url": url}
        if block.detail is not UNSET:
            made["detail"] = block.detail
        return {"type": "image_url", "image_url": made}

    def _document(self, block: Document, piece: Piece) -> Any:
        use = {Url: "file.url", Inline: "file.data"}.get(type(block.source), "file.id")
        reason = "It takes text and images; what to cite goes into documents."
        self._report.handle(use, f"{piece.path()}.file", reason)
        return None

    def _audio(self, block: Audio, piece: Piece) -> Any:
        self._report.handle("input_audio", f"{piece.path()}.input_audio")
        return None

    def _refusal(self, block: Refusal, piece: Piece) -> Any:
        return {"type": "text", "text": block.text} if block.text else None

    def _thinking(self, block: Thinking, piece: Piece) -> Any:
        is_sealed = block.signature is not UNSET or block.data is not UNSET
        if is_sealed or block.format is not UNSET or not block.text:
            # A seal is another vendor's: this one has none.
            self._report.drop(f"messages[{piece.message}].reasoning_content")
            return None
        if self._is_thinker:
            return {"type": "thinking", "thinking": block.text}
        self._plan.append(block.text)
        return None

    def _call(self, block: ToolCall, piece: Piece) -> Any:
        where = f"messages[{piece.message}].tool_calls"
        self._marked(block.cache, piece)
        if block.is_custom:
            reason = "Calls of custom tools are OpenAI's own."
            self._report.handle("tools.custom", where, reason)
            self._left_out.add(block.id)
            return None
        arguments = block.arguments.strip()
        if arguments in NO_ARGUMENTS:
            arguments = "{}"
        try:
            _ARGUMENTS.decode(arguments)
        except (msgspec.DecodeError, UnicodeEncodeError):
            message = (
                f"The arguments of the call of {block.name} in {where} must be a JSON "
                "object."
            )
            raise self._report.invalid(where, message) from None
        self._calls.append(
            {
                "id": block.id,
                "type": "function",
                "function": {"name": block.name, "arguments": arguments},
            }
        )
        return None

    def _stray_result(self, block: ToolResult, piece: Piece) -> Any:
        """A result outside of a message of tools, which no format says."""
        reason = "What tools answered goes into messages of their own."
        self._report.refuse(piece.path(), reason)
        return None

    def _opaque(self, block: Opaque, piece: Piece) -> Any:
        if block.dialect != ORIGIN:
            is_answer = self._messages[piece.message].role == "assistant"
            self._report.foreign(block, piece.path(), is_answer=is_answer)
            return None
        if block.kind == "citation":
            self._citations.append(block.value)
            return None
        return block.value


def _plain(blocks: list[Any]) -> Any:
    """Return a lone text as a string, which says the same and reads better."""
    if len(blocks) == 1 and type(only := blocks[0]) is dict and "text" in only:
        return only["text"]
    return blocks


_RENDERERS: dict[type[Any], Callable[[MessagesRenderer, Any, Piece], Any]] = {
    Text: MessagesRenderer._text,
    Image: MessagesRenderer._image,
    Document: MessagesRenderer._document,
    Audio: MessagesRenderer._audio,
    Refusal: MessagesRenderer._refusal,
    Thinking: MessagesRenderer._thinking,
    ToolCall: MessagesRenderer._call,
    ToolResult: MessagesRenderer._stray_result,
    Opaque: MessagesRenderer._opaque,
}
