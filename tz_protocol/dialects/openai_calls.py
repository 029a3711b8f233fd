"""Tool calls and what the tools answered, told which belongs to which.

The one rule: every call has one result, in the turn after it, and every result a call;
each pair has an id of its own. OpenAI refuses what is otherwise, and so does every
vendor to which a request is converted, in words about its own format that say little
to who wrote OpenAI's; an id that was used before is no fault of the caller (there are
vendors whose ids are the same in every answer) and is replaced.
"""

from __future__ import annotations

import msgspec

from tz_protocol.dialects.ids import minted_id
from tz_protocol.dialects.openai_parts import Unreadable
from tz_protocol.types.conversation import Block, Message, ToolCall, ToolResult
from tz_protocol.wire.json import shortened

__all__ = ["paired"]


def paired(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return *messages* with an id of its own for every call and its result.

    Raises:
        Unreadable: A call has no result, or a result no call; with the whole path.
    """
    pairs = _Pairs()
    for index, message in enumerate(messages):
        role = message.role
        if role == "assistant":
            pairs.speak()
            for place, block in enumerate(message.content):
                if type(block) is ToolCall:
                    pairs.call(index, place, block)
        elif role == "tool":
            for place, block in enumerate(message.content):
                if type(block) is ToolResult:
                    pairs.answer(index, place, block)
        elif role == "user":
            pairs.has_ended = True
    pairs.close()
    return _replaced(messages, pairs.changes) if pairs.changes else messages


class _Pairs:
    """What is known of the calls while messages are gone through."""

    __slots__ = ("_open", "_used", "changes", "has_ended")

    def __init__(self) -> None:
        self._open: dict[str, list[tuple[int, str]]] = {}
        """Id as it was written -> (message, id to be used) of the calls that have it
        and were not answered yet."""
        self._used: set[str] = set()
        self.changes: dict[tuple[int, int], str] = {}
        """(message, place of the block) -> the id that it gets."""
        self.has_ended = False
        """Whether the turn of the assistant's last message is over."""

    def speak(self) -> None:
        """Take the beginning of a message of the assistant."""
        if self.has_ended:
            self.close()
            self.has_ended = False

    def call(self, index: int, place: int, block: ToolCall) -> None:
        """Take a call."""
        given = call_id = block.id
        if call_id in self._used:
            call_id = minted_id("again", index, place, given)
            self.changes[index, place] = call_id
        self._used.add(call_id)
        self._open.setdefault(given, []).append((index, call_id))

    def answer(self, index: int, place: int, block: ToolResult) -> None:
        """Take a result."""
        self.has_ended = True
        given = block.call_id
        waiting = self._open.get(given)
        if not waiting:
            message = (
                "must be the id of a tool call in the turn of the assistant before it, "
                "and of one that no other message answers"
            )
            raise Unreadable(f"messages[{index}].tool_call_id", message)
        _, call_id = waiting.pop(0)
        if not waiting:
            del self._open[given]
        if call_id != given:
            self.changes[index, place] = call_id

    def close(self) -> None:
        """Take the end of the turn in which the calls are to be answered."""
        for given, waiting in self._open.items():
            message = (
                "must each be answered by a message of role tool in the next turn, "
                f"and there is none whose tool_call_id is {shortened(given)!r}"
            )
            raise Unreadable(f"messages[{waiting[0][0]}].tool_calls", message)


def _replaced(
    messages: tuple[Message, ...], changes: dict[tuple[int, int], str]
) -> tuple[Message, ...]:
    made = list(messages)
    for (index, place), call_id in changes.items():
        content = list(made[index].content)
        content[place] = _with_id(content[place], call_id)
        made[index] = msgspec.structs.replace(made[index], content=tuple(content))
    return tuple(made)


def _with_id(block: Block, call_id: str) -> Block:
    if type(block) is ToolResult:
        return msgspec.structs.replace(block, call_id=call_id)
    if type(block) is ToolCall:
        return msgspec.structs.replace(block, id=call_id)
    return block
