"""Messages as the turns of two speakers, which is how most vendors want them.

The one rule: neighbours of one speaker are one turn, and the results of tools come
first in the turn after their calls. Nothing is rendered here and nothing is lost: each
piece remembers where it was said, for errors and reports.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from tz_protocol.types.conversation import (
    Block,
    Message,
    Refusal,
    Text,
    ToolResult,
)

__all__ = ["NO_ARGUMENTS", "Piece", "Turn", "Turns", "trimmed", "turns_of"]


class Piece(NamedTuple):
    """One block and where the caller said it."""

    message: int
    place: int
    """Among the blocks of the message."""
    block: Block

    def path(self) -> str:
        """Return the place of the block in the caller's request."""
        return f"messages[{self.message}].content[{self.place}]"


NO_ARGUMENTS = frozenset({"", "null"})
"""What models write as the arguments of a function that has none, besides an object;
callers hand it back as it came."""


class Turn(NamedTuple):
    """What one speaker says before the other does."""

    role: Literal["user", "assistant"]
    pieces: list[Piece]
    """At least one."""


class Turns(NamedTuple):
    """A conversation with its instructions apart."""

    system: list[Piece]
    """Of system and developer messages, wherever they stood."""
    turns: list[Turn]
    """Alternating."""
    late: list[int]
    """Messages of ``system`` that stood after somebody had spoken."""
    blank: list[int]
    """Messages that say nothing, not even white space, and are in no turn."""


def turns_of(messages: tuple[Message, ...]) -> Turns:
    """Return *messages* as turns; blocks of text without a character are left out."""
    system: list[Piece] = []
    turns: list[Turn] = []
    late: list[int] = []
    blank: list[int] = []
    for index, message in enumerate(messages):
        pieces = [
            Piece(index, place, block)
            for place, block in enumerate(message.content)
            if type(block) is not Text or block.text
        ]
        role = message.role
        if not pieces:
            blank.append(index)
        if role == "system" or role == "developer":
            system += pieces
            if turns:
                late.append(index)
        elif pieces:
            speaker: Literal["user", "assistant"] = (
                "assistant" if role == "assistant" else "user"
            )
            if turns and turns[-1].role == speaker:
                _append(turns[-1].pieces, pieces)
            else:
                turns.append(Turn(speaker, pieces))
    return Turns(system, turns, late, blank)


def trimmed(turns: list[Turn]) -> list[str]:
    """Cut the white space off the end of what the assistant has begun to say, which
    Claude refuses to go on from; return where there was any.

    Args:
        turns: All of a conversation; the last is changed.
    """
    paths: list[str] = []
    if not turns or turns[-1].role != "assistant":
        return paths
    pieces = turns[-1].pieces
    while pieces:
        last = pieces[-1]
        block = last.block
        if type(block) is not Text and type(block) is not Refusal:
            break
        text = block.text.rstrip()
        if text == block.text:
            break
        paths.append(last.path())
        if text:
            kept = msgspec.structs.replace(block, text=text)
            pieces[-1] = last._replace(block=kept)
            break
        del pieces[-1]
    if not pieces:
        del turns[-1]
    return paths


def _append(pieces: list[Piece], more: list[Piece]) -> None:
    if type(more[0].block) is not ToolResult or type(pieces[-1].block) is ToolResult:
        pieces += more
        return
    place = 0
    while type(pieces[place].block) is ToolResult:
        place += 1
    pieces[place:place] = more
