"""Neutral messages -> the ``system`` and ``messages`` of a Converse request.

The one rule: a block is said in full, refused, or named as lost; which blocks make a
turn is ``turns``'s business. The vendor refuses blank texts and two turns of one
speaker in a row, wants the format of every file named, and marks what may be cached
with a block of its own after it.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/
API_runtime_ContentBlock.html and the pages of its members.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tz_protocol.dialects.bedrock_answer import CLAUDE_FORMAT, FORMAT, ORIGIN
from tz_protocol.dialects.bedrock_models import Family
from tz_protocol.dialects.ids import legal_id, legal_name
from tz_protocol.dialects.losses import Report
from tz_protocol.dialects.media import media_type_of
from tz_protocol.dialects.turns import NO_ARGUMENTS, Piece, Turn, trimmed, turns_of
from tz_protocol.types.conversation import (
    Audio,
    CacheHint,
    Document,
    FileId,
    Image,
    Inline,
    Message,
    Opaque,
    PlainText,
    Refusal,
    Source,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Url,
)

__all__ = ["TOOL_NAME", "MessagesRenderer"]

_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""API_runtime_ToolUseBlock.html; colons and dots are newer than some models."""

TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""API_runtime_ToolSpecification.html."""

_ARGUMENTS = msgspec.json.Decoder(dict[str, Raw])

_IMAGES = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/gif": "gif",
    "image/webp": "webp",
}
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_SOUNDS = (
    *("mp3", "opus", "wav", "aac", "flac", "mp4", "ogg", "mkv", "mka", "x-aac"),
    *("m4a", "mpeg", "mpga", "pcm", "webm"),
)

_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9\s()\[\]-]")
_SPACES = re.compile(r"\s+")
_NAME_LIMIT = 200

_S3 = "s3://"


class MessagesRenderer:
    """Renders the messages of one conversation.

    Args:
        report: Takes what cannot be said.
        family: What the model takes.
    """

    def __init__(self, report: Report, family: Family) -> None:
        self._report = report
        self._messages: tuple[Message, ...] = ()
        self._left_out: set[str] = set()
        """Ids of calls that could not be said; nor can their results."""
        self._family = family
        self._names: set[str] = set()
        self.called: dict[str, None] = {}
        """Names of the tools that were called, in order."""
        self.has_tool_blocks = False
        """True if there are calls or results, so that tools must be declared."""

    def render(self, messages: tuple[Message, ...]) -> tuple[list[Any], list[Any]]:
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
        for path in trimmed(turns) if self._family.is_claude else ():
            self._report.drop(path)
        self._begin_with_user(turns)
        for index, message in enumerate(messages):
            if message.name is not UNSET:
                self._report.handle("messages.name", f"messages[{index}].name")
        rendered: list[Any] = []
        for turn in turns:
            blocks = self._blocks(_worded(turn), "messages")
            if not blocks:
                continue
            if rendered and rendered[-1]["role"] == turn.role:
                # All that the other speaker said between them was left out.
                rendered[-1]["content"] += blocks
            else:
                rendered.append({"role": turn.role, "content": blocks})
        return self._instructions(system), rendered

    def _instructions(self, pieces: list[Piece]) -> list[Any]:
        """Return the blocks of ``system``, which are texts."""
        kept: list[Piece] = []
        for piece in pieces:
            if isinstance(piece.block, Image | Document | Audio):
                self._report.refuse(piece.path(), "Its instructions are text only.")
            else:
                kept.append(piece)
        return self._blocks(kept, "system")

    def _begin_with_user(self, turns: list[Turn]) -> None:
        """Refuse what the assistant says before anybody else, with its results."""
        while turns and turns[0].role == "assistant":
            self._refuse_opening(turns.pop(0).pieces)
            if not turns:
                return
            pieces = turns[0].pieces
            results = [one for one in pieces if type(one.block) is ToolResult]
            self._refuse_opening(results)
            pieces[:] = [one for one in pieces if type(one.block) is not ToolResult]
            if not pieces:
                del turns[0]

    def _refuse_opening(self, pieces: list[Piece]) -> None:
        reason = "The first message there must be one of the user."
        for index in dict.fromkeys(piece.message for piece in pieces):
            self._report.refuse(f"messages[{index}].role", reason)

    def cache_point(
        self, out: list[Any], hint: CacheHint | UnsetType, place: str, path: str
    ) -> None:
        """Append the mark for *hint* to *out*, or name it as lost.

        Args:
            out: Blocks, the last of which is the one that bears the hint.
            hint: Unset does nothing.
            place: ``system``, ``messages`` or ``tools``.
            path: Of the hint in the caller's request.
        """
        if hint is UNSET:
            return
        if place not in self._family.caches:
            self._report.drop(path)
            return
        point = {"type": "default"}
        if hint.ttl is not UNSET:
            if self._family.has_cache_ttl:
                point["ttl"] = hint.ttl
            elif hint.ttl != "5m":
                self._report.drop(f"{path}.ttl")
        out.append({"cachePoint": point})

    def _blocks(self, pieces: list[Piece], place: str) -> list[Any]:
        out: list[Any] = []
        for piece in pieces:
            block = piece.block
            if type(block) is Text:
                made = self._text(block, piece)
            else:
                made = _RENDERERS[type(block)](self, block, piece)
            if made is not None:
                out.append(made)
                hint = getattr(block, "cache", UNSET)
                if hint is not UNSET and place:
                    path = f"{piece.path()}.cache_control"
                    self.cache_point(out, hint, place, path)
        return out

    def _text(self, block: Text, piece: Piece) -> Any:
        if block.citations:
            self._report.drop(f"{piece.path()}.citations")
        text = block.text
        if text and not text.isspace():
            return {"text": text}
        self._report.drop(piece.path())
        return None

    def _image(self, block: Image, piece: Piece) -> Any:
        report, source = self._report, block.source
        path = f"{piece.path()}.image_url"
        if self._is_answer(piece):
            report.refuse(path, "Pictures are in messages of users and tools there.")
            return None
        if block.detail is not UNSET and block.detail != "auto":
            report.handle("image_url.detail", f"{path}.detail")
        media_type, place = _located(source)
        kind = _IMAGES.get(media_type)
        if kind is None:
            if isinstance(source, Url) and not source.url.startswith(_S3):
                report.refuse(path, "It takes images in base64 or at s3:// addresses.")
            else:
                report.refuse(path, "It takes PNG, JPEG, GIF and WebP.")
            return None
        return {"image": {"format": kind, "source": place}}

    def _document(self, block: Document, piece: Piece) -> Any:
        report, source = self._report, block.source
        path = f"{piece.path()}.file"
        if self._is_answer(piece):
            report.refuse(path, "Files are in messages of users and tools there.")
            return None
        if isinstance(source, FileId):
            report.handle("file.id", path, "Files are held by one provider only.")
            return None
        media_type, place = _located(source)
        if media_type in _IMAGES:
            if block.name is not UNSET and block.name:
                report.drop(f"{path}.filename")
            return {"image": {"format": _IMAGES[media_type], "source": place}}
        kind = _DOCUMENTS.get(media_type)
        if kind is None:
            if isinstance(source, Url) and not source.url.startswith(_S3):
                report.refuse(path, "It takes files in base64 or at s3:// addresses.")
            else:
                known = ", ".join(_DOCUMENTS.values())
                report.refuse(path, f"It takes images and {known}.")
            return None
        name = self._name(block.name, f"{path}.filename")
        return {"document": {"format": kind, "name": name, "source": place}}

    def _name(self, stated: str | UnsetType, path: str) -> str:
        """Return a name that the vendor takes: few characters, no two alike."""
        if stated is UNSET or not stated:
            name = "document"
        else:
            stem, dot, extension = stated.rpartition(".")
            # The format says what the extension did.
            name = stem if dot and stem and len(extension) <= 4 else stated
            clean = _SPACES.sub(" ", _NOT_IN_NAMES.sub("-", name)).strip()
            clean = clean[:_NAME_LIMIT].strip() or "document"
            if clean != name:
                self._report.drop(path)
            name = clean
        unique, number = name, 1
        while unique in self._names:
            number += 1
            mark = f" ({number})"
            unique = f"{name[: _NAME_LIMIT - len(mark)]}{mark}"
        self._names.add(unique)
        return unique

    def _audio(self, block: Audio, piece: Piece) -> Any:
        if block.format not in _SOUNDS:
            path = f"{piece.path()}.input_audio.format"
            known = ", ".join(_SOUNDS)
            self._report.refuse(path, f"It takes {known}.")
            return None
        return {"audio": {"format": block.format, "source": {"bytes": block.data}}}

    def _refusal(self, block: Refusal, piece: Piece) -> Any:
        return self._text(Text(block.text), piece)

    def _thinking(self, block: Thinking, piece: Piece) -> Any:
        if self._family.takes_seals:
            is_claude = block.format is UNSET or block.format == CLAUDE_FORMAT
            if block.data is not UNSET and (is_claude or block.format == FORMAT):
                data = block.data
                if is_claude:
                    data = b64encode(data.encode()).decode()
                return {"reasoningContent": {"redactedContent": data}}
            if is_claude and block.signature is not UNSET:
                thought = {"text": block.text, "signature": block.signature}
                return {"reasoningContent": {"reasoningText": thought}}
        # Without a seal of this model it would be refused.
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
                text = (
                    f"The arguments of the call of {block.name} in "
                    f"{message}.tool_calls must be a JSON object."
                )
                raise self._report.invalid(f"{message}.tool_calls", text) from None
        else:
            arguments = "{}"
        name = legal_name(block.name, TOOL_NAME, 64)
        if name != block.name:
            self._report.drop(f"{message}.tool_calls")
        self.has_tool_blocks = True
        self.called[name] = None
        return {
            "toolUse": {
                "toolUseId": legal_id(block.id, _ID),
                "name": name,
                "input": Raw(arguments.encode()),
            }
        }

    def _result(self, block: ToolResult, piece: Piece) -> Any:
        if block.call_id in self._left_out:
            self._report.drop(f"messages[{piece.message}].content")
            return None
        self.has_tool_blocks = True
        place = piece.message
        inner = [
            Piece(place, index, part)
            for index, part in enumerate(block.content)
            if type(part) is not Text or part.text
        ]
        for part in inner:
            if getattr(part.block, "cache", UNSET) is not UNSET:
                self._report.drop(f"{part.path()}.cache_control")
        made: dict[str, Any] = {
            "toolUseId": legal_id(block.call_id, _ID),
            "content": self._blocks(inner, ""),
        }
        if block.is_error is not UNSET:
            made["status"] = "error" if block.is_error else "success"
        return {"toolResult": made}

    def _opaque(self, block: Opaque, piece: Piece) -> Any:
        if block.dialect == ORIGIN:
            return block.value
        self._report.foreign(block, piece.path(), is_answer=self._is_answer(piece))
        return None

    def _is_answer(self, piece: Piece) -> bool:
        return self._messages[piece.message].role == "assistant"


def _worded(turn: Turn) -> list[Piece]:
    """Return a turn without the white space that models put before their calls and the
    vendor refuses to take back."""
    if turn.role == "user":
        return turn.pieces
    return [
        piece
        for piece in turn.pieces
        if type(piece.block) is not Text or not piece.block.text.isspace()
    ]


_BY_EXTENSION = {
    **{word: media_type for media_type, word in (_IMAGES | _DOCUMENTS).items()},
    "jpg": "image/jpeg",
    "htm": "text/html",
}


def _located(source: Source) -> tuple[str, dict[str, Any]]:
    """Return the media type of *source* and the vendor's word for where it is.

    The type is empty if it cannot be told, or if the vendor cannot get at the content.
    """
    if isinstance(source, Inline):
        return media_type_of(source), {"bytes": source.data}
    if isinstance(source, PlainText):
        return "text/plain", {"bytes": b64encode(source.text.encode()).decode()}
    if isinstance(source, Url) and source.url.startswith(_S3):
        extension = source.url.rpartition(".")[2].lower()
        place = {"s3Location": {"uri": source.url}}
        return _BY_EXTENSION.get(extension, ""), place
    return "", {}


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
