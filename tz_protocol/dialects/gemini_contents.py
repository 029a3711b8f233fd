"""Neutral messages -> the ``systemInstruction`` and ``contents`` of a Gemini request.

The one rule: a block is said in full, refused, or named as lost; which blocks make a
turn is ``turns``'s business. The vendor knows the result of a function by its name, and
by an id only where it gave one itself.

Sources: https://ai.google.dev/api/caching, "Content" and "Part";
https://ai.google.dev/gemini-api/docs/function-calling; .../thought-signatures.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from tz_protocol.dialects.gemini_models import Generation
from tz_protocol.dialects.ids import legal_name
from tz_protocol.dialects.losses import Report
from tz_protocol.dialects.media import media_type_of
from tz_protocol.dialects.openai_parts import MEDIA_TYPES
from tz_protocol.dialects.turns import NO_ARGUMENTS, Piece, turns_of
from tz_protocol.types.conversation import (
    Audio,
    Document,
    FileId,
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

__all__ = ["FORMAT", "ORIGIN", "TOOL_NAME", "UNSIGNED", "ContentsRenderer"]

ORIGIN = "gemini"
"""Name of the format in which blocks that only it knows are kept."""

FORMAT = "google-gemini-v1"
"""OpenRouter's name for Gemini's seals, so that clients of both agree."""

UNSIGNED = "skip_thought_signature_validator"
"""What the vendor takes as the signature of a call that another model made
(https://ai.google.dev/gemini-api/docs/thought-signatures, "FAQs")."""

TOOL_NAME = re.compile(r"[a-zA-Z0-9_.:-]{1,128}")
"""https://ai.google.dev/api/caching, "FunctionDeclaration"."""

_ARGUMENTS = msgspec.json.Decoder(dict[str, Raw])
_OWN_ID = re.compile(r"[A-Za-z0-9]{8}")
"""The ids that the vendor gives itself, where it gives any."""

_AUDIO_TYPES = {"mp3": "audio/mpeg", "pcm16": "audio/pcm"}
_NOT_PARTS = frozenset({"groundingMetadata", "urlContextMetadata"})
"""What answers carry beside their parts: nothing that the model said."""

_MORE_MEDIA_TYPES = {
    "heic": "image/heic",
    "heif": "image/heif",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "webm": "video/webm",
}


class ContentsRenderer:
    """Renders the messages of one conversation.

    Args:
        report: Takes what cannot be said.
        generation: Of the model.
        has_any_id: True if the service takes ids that it did not give; Vertex's
            stable version is not known to.
    """

    def __init__(
        self, report: Report, generation: Generation, *, has_any_id: bool
    ) -> None:
        self._report = report
        self._messages: tuple[Message, ...] = ()
        self._left_out: set[str] = set()
        """Ids of calls that could not be said; nor can their results."""
        self._generation = generation
        self._has_any_id = has_any_id
        self._names: dict[str, str] = {}
        """Id of a call -> name of its function."""
        self._order: dict[str, int] = {}
        """Id of a call -> which it is; an id may be used anew."""
        self._calls = 0
        self._seal: str | None = None
        """The signature of the text that is to come."""
        self._signed: int = -1
        """The message whose first call has been seen."""
        self._media: list[Any] = []
        """What the results of this turn hold and cannot say within them."""

    def render(
        self, messages: tuple[Message, ...]
    ) -> tuple[list[Any], list[dict[str, Any]]]:
        """Return the parts of ``systemInstruction`` and the turns of ``contents``.

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
        for index, message in enumerate(messages):
            if message.name is not UNSET:
                self._report.handle("messages.name", f"messages[{index}].name")
        contents = []
        for turn in turns:
            if turn.role == "assistant":
                role, parts = "model", self._parts(turn.pieces)
            else:
                role, parts = "user", self._user_parts(turn.pieces)
            if parts:
                contents.append({"role": role, "parts": parts})
        return self._system(system), contents

    def _system(self, pieces: list[Piece]) -> list[Any]:
        for piece in pieces:
            if not isinstance(piece.block, (Text, Refusal)):
                reason = "Its instructions are text only."
                self._report.refuse(piece.path(), reason)
        kept = [piece for piece in pieces if isinstance(piece.block, (Text, Refusal))]
        return self._parts(kept)

    def _user_parts(self, pieces: list[Piece]) -> list[Any]:
        """Return a turn of the caller: the results in the order of their calls."""
        results = [one for one in pieces if type(one.block) is ToolResult]
        if not results:
            return self._parts(pieces)
        others = [one for one in pieces if type(one.block) is not ToolResult]
        results.sort(key=self._place)
        parts = self._parts(results)
        media, self._media = self._media, []
        return [*parts, *media, *self._parts(others)]

    def _place(self, piece: Piece) -> int:
        block = piece.block
        return self._order.get(block.call_id, 0) if type(block) is ToolResult else 0

    def _parts(self, pieces: list[Piece]) -> list[Any]:
        out: list[Any] = []
        message = -1
        for piece in pieces:
            block = piece.block
            if self._seal is not None and piece.message != message:
                self._flush(out)
            message = piece.message
            if type(block) is Text and block.cache is UNSET and not block.citations:
                out.append(self._sealed({"text": block.text}))
                continue
            made = _RENDERERS[type(block)](self, block, piece, out)
            if made is not None:
                out.append(made)
        self._flush(out)
        return out

    # -- signatures ---------------------------------------------------------------

    def _sealed(self, part: dict[str, Any]) -> dict[str, Any]:
        """Return the text *part* with the signature that belongs to it."""
        if self._seal is not None:
            part["thoughtSignature"], self._seal = self._seal, None
        return part

    def _flush(self, out: list[Any]) -> None:
        """Say a signature whose text was empty, as the vendor's streams do."""
        if self._seal is not None:
            out.append(self._sealed({"text": ""}))

    # -- blocks -------------------------------------------------------------------

    def _text(self, block: Text, piece: Piece, out: list[Any]) -> Any:
        if block.citations:
            self._report.drop(f"{piece.path()}.citations")
        self._marked(block, piece)
        return self._sealed({"text": block.text}) if block.text else None

    def _marked(self, block: Any, piece: Piece) -> None:
        if block.cache is not UNSET:
            path = f"{piece.path()}.cache_control"
            self._report.handle("cache_control", path)

    def _image(self, block: Image, piece: Piece, out: list[Any]) -> Any:
        path = f"{piece.path()}.image_url"
        if block.detail is not UNSET and block.detail != "auto":
            self._report.handle("image_url.detail", f"{path}.detail")
        self._marked(block, piece)
        return self._media_part(block.source, path, "image/jpeg")

    def _document(self, block: Document, piece: Piece, out: list[Any]) -> Any:
        self._marked(block, piece)
        name = block.name if block.name is not UNSET else ""
        made = self._media_part(
            block.source, f"{piece.path()}.file", "application/pdf", name
        )
        if name and made is not None:
            self._report.drop(f"{piece.path()}.file.filename")
        return made

    def _media_part(self, source: Any, path: str, usual: str, name: str = "") -> Any:
        """Return what is at *source*.

        Args:
            source: Where it is.
            path: Where the caller said so.
            usual: The type, if nothing tells it.
            name: Of the file.
        """
        if isinstance(source, PlainText):
            return {"text": source.text}
        if isinstance(source, Inline):
            media_type = media_type_of(source)
            if not media_type:
                self._report.refuse(path, "The type of the data must be said.")
                return None
            return {"inlineData": {"mimeType": media_type, "data": source.data}}
        if isinstance(source, Url):
            return _file(source.url, name, usual)
        assert isinstance(source, FileId)
        if "://" in source.id:
            # Files of the vendor's own service and of Cloud Storage.
            return _file(source.id, name, usual)
        reason = "It takes files by their URI (https://... or gs://...)."
        self._report.handle("file.id", path, reason)
        return None

    def _audio(self, block: Audio, piece: Piece, out: list[Any]) -> Any:
        self._marked(block, piece)
        kind = block.format.lower()
        media_type = _AUDIO_TYPES.get(kind, f"audio/{kind}")
        return {"inlineData": {"mimeType": media_type, "data": block.data}}

    def _refusal(self, block: Refusal, piece: Piece, out: list[Any]) -> Any:
        return {"text": block.text} if block.text else None

    def _thinking(self, block: Thinking, piece: Piece, out: list[Any]) -> Any:
        if block.format is not UNSET and block.format != FORMAT:
            # A seal of another vendor's would be refused.
            self._report.drop(f"messages[{piece.message}].reasoning_content")
            return None
        if block.data is not UNSET:
            self._flush(out)
            self._seal = block.data
            return None
        if not block.text and block.signature is UNSET:
            return None
        made: dict[str, Any] = {"text": block.text, "thought": True}
        if block.signature is not UNSET and block.format == FORMAT:
            made["thoughtSignature"] = block.signature
        elif block.signature is not UNSET:
            self._report.drop(f"messages[{piece.message}].reasoning_content")
            return None
        return made

    def _call(self, block: ToolCall, piece: Piece, out: list[Any]) -> Any:
        message = f"messages[{piece.message}]"
        if block.cache is not UNSET:
            self._report.handle("cache_control", f"{message}.cache_control")
        self._names[block.id] = block.name
        self._calls += 1
        self._order[block.id] = self._calls
        if block.is_custom:
            reason = "Calls of custom tools are OpenAI's own."
            self._report.handle("tools.custom", f"{message}.tool_calls", reason)
            self._left_out.add(block.id)
            return None
        self._flush(out)
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
        name = legal_name(block.name, TOOL_NAME, 128)
        if name != block.name:
            self._report.drop(f"{message}.tool_calls")
            self._names[block.id] = name
        call: dict[str, Any] = {"name": name, "args": Raw(arguments.encode())}
        if self._says_id(block.id):
            call["id"] = block.id
        made: dict[str, Any] = {"functionCall": call}
        if block.signature is not UNSET:
            made["thoughtSignature"] = block.signature
        elif self._generation.has_signatures and self._signed != piece.message:
            made["thoughtSignature"] = UNSIGNED
        # Of calls in parallel, only the first has one.
        self._signed = piece.message
        return made

    def _says_id(self, value: str) -> bool:
        return self._has_any_id or _OWN_ID.fullmatch(value) is not None

    def _result(self, block: ToolResult, piece: Piece, out: list[Any]) -> Any:
        message = f"messages[{piece.message}]"
        if block.call_id in self._left_out:
            self._report.drop(f"{message}.content")
            return None
        name = self._names.get(block.call_id)
        if name is None:
            path = f"{message}.tool_call_id"
            text = f"{path} must be the id of a tool call in an earlier message."
            raise self._report.invalid(path, text)
        if block.cache is not UNSET:
            self._report.handle("cache_control", f"{message}.cache_control")
        texts: list[str] = []
        media: list[Any] = []
        for place, part in enumerate(block.content):
            inner = Piece(piece.message, place, part)
            for made in self._parts([inner]):
                if type(made) is dict and list(made) == ["text"]:
                    texts.append(made["text"])
                else:
                    media.append(made)
        key = "error" if block.is_error is True else "result"
        value: Any = texts if len(texts) > 1 else "".join(texts)
        # A text that is JSON stays one: the vendor's objects hold doubles only.
        response: dict[str, Any] = {"name": name, "response": {key: value}}
        if self._says_id(block.call_id):
            response["id"] = block.call_id
        if media:
            self._place_media(response, media)
        return {"functionResponse": response}

    def _place_media(self, response: dict[str, Any], media: list[Any]) -> None:
        """Put pictures and files into the result, or else after all results."""
        for one in media:
            is_inline = type(one) is dict and "inlineData" in one
            if is_inline and self._generation.has_signatures:
                response.setdefault("parts", []).append(one)
            else:
                self._media.append(one)

    def _opaque(self, block: Opaque, piece: Piece, out: list[Any]) -> Any:
        if block.dialect == ORIGIN:
            return None if block.kind in _NOT_PARTS else block.value
        self._report.foreign(block, piece.path(), is_answer=self._is_answer(piece))
        return None

    def _is_answer(self, piece: Piece) -> bool:
        return self._messages[piece.message].role == "assistant"


def _file(uri: str, name: str, usual: str) -> dict[str, Any]:
    """Return a part for what is behind a link.

    Vertex demands a type and AI Studio takes one; the ending of the path tells it most
    of the time, and the rest is taken for the commonest of its kind.
    """
    path = uri.partition("?")[0].partition("#")[0]
    for text in (name, path):
        extension = text.rpartition(".")[2].lower()
        media_type = MEDIA_TYPES.get(extension) or _MORE_MEDIA_TYPES.get(extension)
        if media_type:
            return {"fileData": {"mimeType": media_type, "fileUri": uri}}
    return {"fileData": {"mimeType": usual, "fileUri": uri}}


_RENDERERS: dict[
    type[Any], Callable[[ContentsRenderer, Any, Piece, list[Any]], Any]
] = {
    Text: ContentsRenderer._text,
    Image: ContentsRenderer._image,
    Document: ContentsRenderer._document,
    Audio: ContentsRenderer._audio,
    Refusal: ContentsRenderer._refusal,
    Thinking: ContentsRenderer._thinking,
    ToolCall: ContentsRenderer._call,
    ToolResult: ContentsRenderer._result,
    Opaque: ContentsRenderer._opaque,
}
