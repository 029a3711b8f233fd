"""What a request says, in whichever format: the measure of round trips.

The one rule: as in ``corpus_said``: a vendor's format is read as its documentation has
it. Anthropic's and Converse's are read into neutral types (``read_conversation``,
``bedrock_reading``), the others from the JSON; all come down to the same lists.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw

from tests.protocol.dialects import bedrock_reading
from tests.protocol.dialects.corpus_said import arguments_of
from tz_protocol.dialects.anthropic_conversation import read_conversation
from tz_protocol.dialects.turns import Piece, turns_of
from tz_protocol.types.conversation import (
    Audio,
    Document,
    Image,
    Inline,
    Message,
    Opaque,
    PlainText,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    Url,
)

Said = tuple[list[str], list[tuple[str, list[Any]]]]
"""(instructions, what each speaker says in turn)."""

LOSSES_OF_A_BLOCK = ("", ".image_url", ".input_audio", ".file")
"""What follows a block's place where it is lost, and not a part of it."""


def said_by(messages: tuple[Message, ...], losses: Iterable[str] = ()) -> Said:
    """Return what *messages* say but for the blocks that *losses* names.

    White space alone says nothing, and thoughts are their own vendor's business.
    """
    found, lost = turns_of(messages), frozenset(losses)
    numbers: dict[str, int] = {}
    system = [piece.block.text for piece in found.system if is_text(piece)]
    spoken: list[tuple[str, list[Any]]] = []
    for turn in found.turns:
        pieces: list[Any] = []
        for piece in turn.pieces:
            if not is_lost(piece, lost):
                pieces += _read(piece, numbers, lost)
        spoken.append((turn.role, pieces))
    return joined(system, spoken)


def is_text(piece: Piece) -> bool:
    return isinstance(piece.block, Text | Refusal)


def is_lost(piece: Piece, losses: frozenset[str]) -> bool:
    message = f"messages[{piece.message}]"
    if f"{message}.role" in losses:
        return True  # the whole message had no place
    if isinstance(piece.block, Opaque) and f"{message}.provider_content" in losses:
        return True
    paths = {piece.path() + ending for ending in LOSSES_OF_A_BLOCK}
    # A result's own parts are counted as the parts of its message.
    return bool(paths & losses) and not isinstance(piece.block, ToolResult)


def joined(system: list[str], spoken: list[tuple[str, list[Any]]]) -> Said:
    """Return what is said without blanks and with a speaker's turns together."""
    turns: list[tuple[str, list[Any]]] = []
    for role, pieces in spoken:
        kept = [one for one in pieces if one[0] != "text" or one[1].strip()]
        if kept and turns and turns[-1][0] == role:
            turns[-1][1].extend(kept)
        elif kept:
            turns.append((role, kept))
    ordered = [(role, sorted(pieces, key=_place)) for role, pieces in turns]
    return [text for text in system if text.strip()], ordered


def _place(piece: tuple[Any, ...]) -> tuple[bool, int]:
    """Results may have to stand before what else is said, in the calls' order."""
    is_result = piece[0] == "result"
    return not is_result, piece[1] if is_result and isinstance(piece[1], int) else 0


def _read(
    piece: Piece, numbers: dict[str, int], lost: frozenset[str]
) -> list[tuple[Any, ...]]:
    block = piece.block
    if isinstance(block, Text | Refusal):
        return [("text", block.text)]
    if isinstance(block, ToolCall):
        numbers[block.id] = len(numbers)
        made = arguments_of(block.arguments)
        # Null says no arguments, which vendors take as an object only.
        return [("call", block.name, {} if made is None else made)]
    if isinstance(block, ToolResult):
        texts = [one.text for one in block.content if isinstance(one, Text)]
        media = [
            _source(one.source)
            for index, one in enumerate(block.content)
            if isinstance(one, Image | Document)
            and f"messages[{piece.message}].content[{index}]" not in lost
        ]
        number = numbers.get(block.call_id, block.call_id)
        return [("result", number, "".join(texts)), *media]
    if isinstance(block, Audio):
        return [("data", block.data)]
    if isinstance(block, Image | Document):
        return [_source(block.source)]
    if isinstance(block, Opaque):
        return [("opaque", block.kind)]
    return []


def _source(source: Any) -> tuple[Any, ...]:
    if isinstance(source, Inline):
        return ("data", source.data)
    if isinstance(source, Url):
        return ("link", source.url)
    if isinstance(source, PlainText):
        return ("data", base64.b64encode(source.text.encode()).decode())
    return ("file", source.id)


# -- the vendors' formats -------------------------------------------------------


def said_to_anthropic(body: dict[str, Any]) -> Said:
    fields = msgspec.json.decode(msgspec.json.encode(body), type=dict[str, Raw])
    return said_by(read_conversation(fields).messages)


def said_to_bedrock(body: dict[str, Any]) -> Said:
    encoded = msgspec.json.encode(body)
    return said_by(bedrock_reading.read_conversation(encoded).messages)


def said_to_gemini(body: dict[str, Any]) -> Said:
    """Read ``contents``: results say the number of the call by its id or its name."""
    system = body.get("systemInstruction") or {"parts": []}
    calls: list[tuple[Any, str]] = []
    answered: set[int] = set()
    spoken = []
    for content in body["contents"]:
        pieces: list[Any] = []
        for spelled in content["parts"]:
            part = in_one_spelling(spelled)
            if "functionCall" in part:
                call = part["functionCall"]
                calls.append((call.get("id"), call["name"]))
                pieces.append(("call", call["name"], call.get("args") or {}))
            elif "functionResponse" in part:
                result = part["functionResponse"]
                key = (result.get("id"), result["name"])
                number = next(
                    place
                    for place, one in enumerate(calls)
                    if one == key and place not in answered
                )
                answered.add(number)
                text = result["response"].get("result", "")
                pieces.append(("result", number, _text(text)))
                inner = [one["inlineData"] for one in result.get("parts") or ()]
                pieces += [("data", one["data"]) for one in inner]
            elif "inlineData" in part:
                data = part["inlineData"]["data"]
                # Some clients write base64 in the alphabet for addresses.
                pieces.append(("data", data.replace("-", "+").replace("_", "/")))
            elif "fileData" in part:
                pieces.append(("link", part["fileData"]["fileUri"]))
            elif not part.get("thought"):
                pieces.append(("text", part["text"]))
        role = "assistant" if content.get("role") == "model" else "user"
        spoken.append((role, pieces))
    return joined([part["text"] for part in system["parts"]], spoken)


def in_one_spelling(part: dict[str, Any]) -> dict[str, Any]:
    """Return *part* with the names as JSON has them: proto JSON takes both spellings.

    What stands in calls and their results is the caller's and stays.
    """
    made = {_humped(name): value for name, value in part.items()}
    for name in ("inlineData", "fileData"):
        if name in made:
            made[name] = {_humped(key): value for key, value in made[name].items()}
    return made


def _humped(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _text(value: Any) -> str:
    return "".join(value) if isinstance(value, list) else str(value)


def said_to_cohere(body: dict[str, Any]) -> Said:
    system: list[str] = []
    numbers: dict[str, int] = {}
    spoken = []
    for message in body["messages"]:
        content = message.get("content") or ()
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        texts = [part["text"] for part in content if part["type"] == "text"]
        if message["role"] == "system":
            system += texts
            continue
        if message["role"] == "tool":
            number = numbers.get(message["tool_call_id"], message["tool_call_id"])
            spoken.append(("user", [("result", number, "".join(texts))]))
            continue
        pieces: list[Any] = []
        for part in content:
            if part["type"] == "text":
                pieces.append(("text", part["text"]))
            elif part["type"] == "image_url":
                url = part["image_url"]["url"]
                inline = url.partition(";base64,")[2]
                pieces.append(("data", inline) if inline else ("link", url))
        for call in message.get("tool_calls") or ():
            numbers[call["id"]] = len(numbers)
            function = call["function"]
            made = json.loads(function["arguments"] or "{}")
            pieces.append(("call", function["name"], made))
        spoken.append((message["role"], pieces))
    return joined(system, spoken)
