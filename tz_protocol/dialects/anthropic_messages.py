"""Neutral messages -> the ``system`` and ``messages`` of an Anthropic request.

The one rule: a block is said in full, refused, or named as lost; which blocks make a
turn is ``turns``'s business. The vendor refuses texts without a character, and demands
the results of tools first in the turn after their calls.

Source: https://platform.claude.com/docs/en/api/messages.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from tz_protocol.dialects.ids import legal_id, legal_name
from tz_protocol.dialects.losses import Report
from tz_protocol.dialects.media import inline_text, media_type_of
from tz_protocol.dialects.turns import NO_ARGUMENTS, Piece, Turn, trimmed, turns_of
from tz_protocol.types.conversation import (
    Audio,
    CacheHint,
    Document,
    Image,
    Inline,
    Message,
    Opaque,
    PlainText,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Url,
)

__all__ = [
    "FORMAT",
    "ORIGIN",
    "TOOL_NAME",
    "TOOL_NAME_REASON",
    "MessagesRenderer",
    "cache_control",
]

ORIGIN = "anthropic"
"""Name of the format in which blocks that only it knows are kept."""

FORMAT = "anthropic-claude-v1"
"""OpenRouter's name for Claude's seals, so that clients of both agree."""

_ID = re.compile(r"[a-zA-Z0-9_-]+")
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
"""What the vendor takes as the name of a tool."""

TOOL_NAME_REASON = "Its tools have names of up to 128 letters, digits, _ and -."
_TITLE_LIMIT = 500
_ARGUMENTS = msgspec.json.Decoder(dict[str, Raw])
_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})


def cache_control(hint: CacheHint) -> dict[str, str]:
    """Return the vendor's mark for *hint*."""
    if hint.ttl is UNSET:
        return {"type": "ephemeral"}
    return {"type": "ephemeral", "ttl": hint.ttl}


class MessagesRenderer:
    """Renders the messages of one conversation.

    Args:
        report: Takes what cannot be said.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._messages: tuple[Message, ...] = ()
        self._left_out: set[str] = set()
        """Ids of calls that could not be said; nor can their results."""

    def render(
        self, messages: tuple[Message, ...]
    ) -> tuple[list[Any], list[dict[str, Any]]]:
        """Return the blocks of ``system`` and the turns of ``messages``.

        Raises:
            InvalidRequest: A block cannot be said.
        """
        self._messages = messages
        system, turns, late, blank = turns_of(messages)
        for index in late:
            # It takes effect from the beginning instead of from here.
            self._report.drop(f"messages[{index}].role")
        for index in blank:
            self._report.drop(f"messages[{index}].content")
        for path in trimmed(turns):
            self._report.drop(path)
        for index, message in enumerate(messages):
            if message.name is not UNSET:
                self._report.handle("messages.name", f"messages[{index}].name")
        rendered = [
            {"role": turn.role, "content": blocks}
            for turn in turns
            if (blocks := self._blocks(self._worded(turn)))
        ]
        return self._instructions(system), rendered

    def _instructions(self, pieces: list[Piece]) -> list[Any]:
        """Return the blocks of ``system``, which are texts and hold a character."""
        kept: list[Piece] = []
        for piece in pieces:
            block = piece.block
            if isinstance(block, Image | Document | Audio):
                self._report.refuse(piece.path(), "Its instructions are text only.")
            elif isinstance(block, Text) and block.text.isspace():
                self._report.drop(piece.path())
            else:
                kept.append(piece)
        return self._blocks(kept)

    def _worded(self, turn: Turn) -> list[Piece]:
        """Return a turn without texts of white space, which the vendor refuses beside
        other blocks. Models put them before their calls, so that nothing is lost by
        leaving them out of a turn of the assistant."""
        pieces = turn.pieces
        if len(pieces) == 1:
            return pieces
        kept: list[Piece] = []
        for piece in pieces:
            block = piece.block
            if isinstance(block, Text | Refusal) and block.text.isspace():
                if turn.role == "user":
                    self._report.drop(piece.path())
            else:
                kept.append(piece)
        return kept

    def _blocks(self, pieces: list[Piece]) -> list[Any]:
        out: list[Any] = []
        for piece in pieces:
            block = piece.block
            if type(block) is Text and block.cache is UNSET and not block.citations:
                out.append({"type": "text", "text": block.text})
                continue
            made = _RENDERERS[type(block)](self, block, piece)
            if made is not None:
                out.append(made)
        return out

    def _text(self, block: Text, piece: Piece) -> Any:
        made: dict[str, Any] = {"type": "text", "text": block.text}
        sources = [citation.native for citation in block.citations]
        if sources and UNSET not in sources:
            made["citations"] = sources
        elif sources:
            self._report.drop(f"{piece.path()}.citations")
        return self._marked(made, block.cache)

    def _marked(self, made: dict[str, Any], hint: Any) -> dict[str, Any]:
        if hint is not UNSET:
            made["cache_control"] = cache_control(hint)
        return made

    def _image(self, block: Image, piece: Piece) -> Any:
        report, source = self._report, block.source
        path = f"{piece.path()}.image_url"
        if self._is_answer(piece):
            report.refuse(path, "Pictures are in messages of users and tools there.")
            return None
        if block.detail is not UNSET and block.detail != "auto":
            report.handle("image_url.detail", f"{path}.detail")
        if isinstance(source, Url):
            made: dict[str, Any] = {"type": "url", "url": source.url}
        elif isinstance(source, Inline):
            media_type = media_type_of(source)
            if media_type not in _IMAGES:
                report.refuse(path, "It takes JPEG, PNG, GIF and WebP.")
                return None
            made = _base64(media_type, source.data)
        else:
            report.refuse(path, "It takes images by URL or in base64.")
            return None
        return self._marked({"type": "image", "source": made}, block.cache)

    def _document(self, block: Document, piece: Piece) -> Any:
        report, source = self._report, block.source
        path = f"{piece.path()}.file"
        if self._is_answer(piece):
            report.refuse(path, "Files are in messages of users and tools there.")
            return None
        made: dict[str, Any]
        if isinstance(source, PlainText):
            made = _plain(source.text)
        elif isinstance(source, Url):
            made = {"type": "url", "url": source.url}
        elif not isinstance(source, Inline):
            report.handle("file.id", path, "Files are held by one provider only.")
            return None
        else:
            media_type = media_type_of(source)
            if media_type in _IMAGES:
                image = {"type": "image", "source": _base64(media_type, source.data)}
                if block.name is not UNSET and block.name:
                    report.drop(f"{path}.filename")
                return self._marked(image, block.cache)
            if media_type == "application/pdf":
                made = _base64(media_type, source.data)
            elif media_type.startswith("text/") and (text := inline_text(source)):
                made = _plain(text)
            else:
                report.refuse(path, "It takes PDF, plain text and images.")
                return None
        document: dict[str, Any] = {"type": "document", "source": made}
        if block.name is not UNSET and block.name:
            document["title"] = block.name[:_TITLE_LIMIT]
            if len(block.name) > _TITLE_LIMIT:
                report.drop(f"{path}.filename")
        return self._marked(document, block.cache)

    def _audio(self, block: Audio, piece: Piece) -> Any:
        self._report.handle("input_audio", f"{piece.path()}.input_audio")
        return None

    def _refusal(self, block: Refusal, piece: Piece) -> Any:
        return {"type": "text", "text": block.text} if block.text else None

    def _thinking(self, block: Thinking, piece: Piece) -> Any:
        if block.format is UNSET or block.format == FORMAT:
            if block.data is not UNSET:
                return {"type": "redacted_thinking", "data": block.data}
            if block.signature is not UNSET:
                return {
                    "type": "thinking",
                    "thinking": block.text,
                    "signature": block.signature,
                }
        # Without the seal of this vendor it would be refused.
        self._report.drop(f"messages[{piece.message}].reasoning_content")
        return None

    def _call(self, block: ToolCall, piece: Piece) -> Any:
        message = f"messages[{piece.message}]"
        if block.is_custom:
            reason = "Calls of custom tools are OpenAI's own."
            self._report.handle("tools.custom", f"{message}.tool_calls", reason)
            self._left_out.add(block.id)
            return None
        arguments = block.arguments
        if arguments.strip() not in NO_ARGUMENTS:
            try:
                _ARGUMENTS.decode(arguments)
            except (msgspec.DecodeError, UnicodeEncodeError):
                where = f"{message}.tool_calls"
                text = (
                    f"The arguments of the call of {block.name} in {where} "
                    "must be a JSON object."
                )
                raise self._report.invalid(where, text) from None
        else:
            arguments = "{}"
        made = {
            "type": "tool_use",
            "id": legal_id(block.id, _ID),
            "name": self._name(block.name, message),
            "input": Raw(arguments.encode()),
        }
        return self._marked(made, block.cache)

    def _name(self, name: str, message: str) -> str:
        legal = legal_name(name, TOOL_NAME, 128)
        if legal != name:
            self._report.drop(f"{message}.tool_calls")
        return legal

    def _result(self, block: ToolResult, piece: Piece) -> Any:
        if block.call_id in self._left_out:
            self._report.drop(f"messages[{piece.message}].content")
            return None
        made: dict[str, Any] = {
            "type": "tool_result",
            "tool_use_id": legal_id(block.call_id, _ID),
        }
        content = block.content
        only = content[0] if len(content) == 1 else None
        if isinstance(only, Text) and only.cache is UNSET:
            made["content"] = only.text
        else:
            place = piece.message
            inner = [
                Piece(place, index, part)
                for index, part in enumerate(content)
                if type(part) is not Text or part.text
            ]
            if blocks := self._blocks(inner):
                made["content"] = blocks
        if block.is_error is not UNSET:
            made["is_error"] = block.is_error
        return self._marked(made, block.cache)

    def _opaque(self, block: Opaque, piece: Piece) -> Any:
        if block.dialect == ORIGIN:
            return block.value
        self._report.foreign(block, piece.path(), is_answer=self._is_answer(piece))
        return None

    def _is_answer(self, piece: Piece) -> bool:
        return self._messages[piece.message].role == "assistant"


def _base64(media_type: str, data: str) -> dict[str, Any]:
    return {"type": "base64", "media_type": media_type, "data": data}


def _plain(text: str) -> dict[str, Any]:
    return {"type": "text", "media_type": "text/plain", "data": text}


_RENDERERS: dict[type[Any], Callable[[MessagesRenderer, Any, Piece], Any]] = {
    Text: MessagesRenderer._text,
    Image: MessagesRenderer._image,
    Document: MessagesRenderer._document,
    Audio: MessagesRenderer._audio,
    Refusal: MessagesRenderer._refusal,
    Thinking: MessagesRenderer._thinking,
    ToolCall: MessagesRenderer._call,
    ToolResult: MessagesRenderer._result,
    Opaque: MessagesRenderer._opaque,
}
