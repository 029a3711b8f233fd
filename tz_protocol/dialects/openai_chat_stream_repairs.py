"""Chunks that are OpenAI's in all but a detail, made so in that detail.

The one rule: as for whole answers (``openai_chat_repairs``), and whatever the cuts, the
chunks add up to what the whole answer would be. What needs to be remembered from one
chunk to the next, which calls have begun and where a think block ends, is kept here.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec
from msgspec import Raw

from tz_protocol.dialects.ids import minted_id
from tz_protocol.dialects.openai_chat_around import (
    Logprobs,
    regular_created,
    regular_usage,
)
from tz_protocol.dialects.openai_chat_repairs import (
    REASONING,
    THINK_BLOCKS,
    WEAK_IDS,
    Fields,
    FinishReason,
    ServiceTier,
    ended_with_error,
    name_of,
    regular_call,
    regular_choice,
    regular_content,
    regular_tier,
    rename_reasoning,
    split_thoughts,
)
from tz_protocol.dialects.thinking import ThinkSplitter
from tz_protocol.wire.json import (
    NULL,
    encode_object,
    kind_of_value,
    scan_object,
    value_of,
)

__all__ = [
    "Call",
    "Choice",
    "Chunk",
    "ChunkRepairs",
    "Delta",
    "counted",
    "regular_chunk",
    "with_deltas",
]

_encode = msgspec.json.Encoder().encode
_read_objects = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_read_object = msgspec.json.Decoder(dict[str, Raw]).decode

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError)


# -- a chunk that needs no repair -----------------------------------------------


class Function(msgspec.Struct, gc=False):
    """What a call calls."""

    arguments: str | None = None
    name: str | None = None


class Custom(msgspec.Struct, gc=False):
    """What a call of a custom tool calls."""

    input: str | None = None
    name: str | None = None


class Call(msgspec.Struct, gc=False):
    """A tool call, or more of one."""

    index: int
    id: str | None = None
    function: Function | None = None
    custom: Custom | None = None

    def has_name(self) -> bool:
        """Return whether it says what is called."""
        called = self.function or self.custom
        return called is not None and bool(called.name)


Role = Literal["developer", "system", "user", "assistant", "tool"]
_ROLES = frozenset(get_args(Role))


class Delta(msgspec.Struct, gc=False):
    """What a caller sees of a delta; vendors differ in the rest, so any value."""

    content: str | None = None
    tool_calls: list[Call] | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_details: Any = None
    refusal: Any = None
    function_call: Any = None
    audio: Any = None
    role: Role | None = None

    def has_content(self) -> bool:
        """Return whether there is anything to see."""
        return bool(
            self.content
            or self.tool_calls
            or self.reasoning_content
            or self.reasoning
            or self.reasoning_details
            or self.refusal
            or self.function_call
            or self.audio
        )


class Choice(msgspec.Struct, gc=False):
    """One choice of a chunk."""

    index: int
    delta: Delta | None = None
    finish_reason: FinishReason | None = None
    logprobs: Logprobs | None = None


class Chunk(msgspec.Struct, gc=False):
    """What is read of a chunk."""

    choices: list[Choice] | None = None
    usage: Any = msgspec.UNSET
    error: Any = None
    x_groq: Any = None
    service_tier: ServiceTier | None = None
    created: int | None = None
    object: Any = None
    type: Any = None


# -- one chunk by itself --------------------------------------------------------


def regular_chunk(data: bytes) -> bytes | None:
    """Return a chunk with every member of the type that OpenAI gives it.

    None if *data* is not nearly a chunk.
    """
    fields = scan_object(data)
    if fields is None:
        return None
    made: Fields = dict(fields)
    try:
        regular_tier(made)
        regular_created(made)
        value = fields.get("choices", NULL)
        if value != NULL:
            choices = _read_objects(value)
            if ended_with_error(choices) and "error" not in made:
                message = {"message": "The answer ended with an error."}
                made["error"] = _encode(message)
            pieces = [
                _regular_choice(choice, place) for place, choice in enumerate(choices)
            ]
            made["choices"] = b"[%b]" % b",".join(pieces)
    except _UNREADABLE:
        return None
    return encode_object(made)


def _regular_choice(choice: dict[str, Raw], place: int) -> bytes:
    made: Fields = dict(choice)
    regular_choice(made, place)
    raw = choice.get("delta", NULL)
    if raw != NULL:
        delta: Fields = dict(_read_object(raw))
        if bytes(delta.get("role", NULL)).decode().strip('"') not in _ROLES:
            delta.pop("role", None)
        regular_content(delta)
        _regular_calls(delta)
        made["delta"] = encode_object(delta)
    return encode_object(made)


def _regular_calls(delta: Fields) -> None:
    value = delta.get("tool_calls", NULL)
    if value == NULL:
        return
    pieces: list[bytes] = []
    for place, call in enumerate(_read_objects(value)):
        made: Fields = dict(call)
        if type(value_of(made.get("index", NULL))) is not int:
            made["index"] = b"%d" % place
        call_id = value_of(made.get("id", NULL))
        if call_id is not None and type(call_id) is not str:
            made["id"] = _encode(str(call_id))
        regular_call(made)
        pieces.append(encode_object(made))
    delta["tool_calls"] = b"[%b]" % b",".join(pieces)


def with_deltas(data: bytes) -> bytes:
    """Return a chunk with a delta in every choice, an empty one where there was none:
    Azure's asynchronous filter sends choices that are about earlier ones only."""
    fields: dict[str, Raw | bytes] = dict(scan_object(data) or {})
    try:
        choices = _read_objects(fields["choices"])
    except (KeyError, RecursionError):
        return data
    pieces = [
        encode_object({**choice, "delta": b"{}"} if _has_no_delta(choice) else choice)
        for choice in choices
    ]
    fields["choices"] = b"[%b]" % b",".join(pieces)
    return encode_object(fields)


def _has_no_delta(choice: dict[str, Raw]) -> bool:
    return choice.get("delta", NULL) == NULL


def counted(data: bytes, chunk: Chunk) -> bytes:
    """Return a chunk with its usage, which is not as OpenAI has it, made so."""
    fields = scan_object(data)
    if fields is None:
        return data
    regular_usage(fields)
    chunk.usage = value_of(fields.get("usage", NULL))
    return encode_object(fields)


# -- one chunk after the other --------------------------------------------------


class _Slot:
    """A tool call that has begun."""

    __slots__ = ("has_name", "number", "stated")

    def __init__(self, number: int, stated: str, has_name: bool) -> None:
        self.number = number
        """Its place among the calls of the choice, for the client."""
        self.stated = stated
        """The vendor's own id, empty if there is none."""
        self.has_name = has_name
        """Whether its name was said; clients put the pieces of a name together."""


class ChunkRepairs:
    """Repairs what can be told only from the chunks before.

    Args:
        quirks: What the vendor says otherwise.
    """

    __slots__ = (
        "_counts",
        "_has_thoughts",
        "_head",
        "_ids",
        "_is_renamed",
        "_is_weak",
        "_slots",
        "_splitters",
        "has_quirks",
    )

    def __init__(self, quirks: frozenset[str]) -> None:
        self._has_thoughts = THINK_BLOCKS in quirks
        self._is_renamed = REASONING in quirks
        self._is_weak = WEAK_IDS in quirks
        self.has_quirks = self._has_thoughts or self._is_renamed
        """True if chunks without calls must be shown as well."""
        self._slots: dict[tuple[int, int], _Slot] = {}
        """(choice, the vendor's index) -> the call that is open there."""
        self._counts: dict[int, int] = {}
        """Choice -> calls that have begun."""
        self._ids: set[tuple[int, str]] = set()
        """(choice, id of a call in it)."""
        self._splitters: dict[int, ThinkSplitter] = {}
        self._head: Fields = {}
        """The members of the last chunk that was split."""

    def concerns(self, choices: list[Choice]) -> bool:
        """Return whether a chunk needs repair; remembers what it begins if not."""
        for choice in choices:
            delta = choice.delta
            if delta is None:
                continue
            if self._is_renamed and delta.reasoning and not delta.reasoning_content:
                return True
            if self._has_thoughts:
                splitter = self._splitters.get(choice.index)
                if splitter is None:
                    if delta.content:
                        return True
                elif not splitter.is_over and (
                    delta.content or delta.tool_calls or choice.finish_reason
                ):
                    return True
            if delta.tool_calls and self._is_odd(choice.index, delta.tool_calls):
                return True
        for choice in choices:
            if choice.delta is not None and choice.delta.tool_calls:
                self._begin(choice.index, choice.delta.tool_calls)
        return False

    def _is_odd(self, choice: int, calls: list[Call]) -> bool:
        begun: set[int] = set()
        ids: set[str] = set()
        for call in calls:
            slot = self._slots.get((choice, call.index))
            if slot is not None or call.index in begun:
                if call.id or slot is None or slot.number != call.index:
                    return True
                if call.has_name():
                    return True
            elif (
                self._is_weak
                or not call.id
                or call.index != self._counts.get(choice, 0) + len(begun)
                or call.id in ids
                or (choice, call.id) in self._ids
            ):
                return True
            begun.add(call.index)
            ids.add(call.id or "")
        return False

    def _begin(self, choice: int, calls: list[Call]) -> None:
        for call in calls:
            if call.id:
                slot = _Slot(call.index, call.id, call.has_name())
                self._slots[choice, call.index] = slot
                self._ids.add((choice, call.id))
                count = self._counts.get(choice, 0)
                self._counts[choice] = max(count, call.index + 1)

    def repaired(self, data: bytes) -> bytes:
        """Return the chunk *data*, which :meth:`concerns` this."""
        fields: Fields = dict(scan_object(data) or {})
        try:
            pieces = [
                self._choice(dict(choice), fields)
                for choice in _read_objects(fields["choices"])
            ]
        except _UNREADABLE:
            return data
        if self._has_thoughts:
            self._head = fields
        return encode_object({**fields, "choices": b"[%b]" % b",".join(pieces)})

    def _choice(self, choice: Fields, fields: Fields) -> bytes:
        raw = choice.get("delta", NULL)
        if raw == NULL:
            return encode_object(choice)
        delta: Fields = dict(_read_object(raw))
        index = value_of(choice.get("index", NULL)) or 0
        has_calls = kind_of_value(Raw(delta.get("tool_calls", NULL))) == "an array"
        if self._is_renamed:
            rename_reasoning(delta)
        if self._has_thoughts:
            is_end = has_calls or choice.get("finish_reason", NULL) != NULL
            splitter = self._splitters.setdefault(index, ThinkSplitter())
            split_thoughts(delta, splitter, is_end=is_end)
        if has_calls:
            self._calls(index, delta, fields)
        return encode_object({**choice, "delta": encode_object(delta)})

    def _calls(self, choice: int, delta: Fields, fields: Fields) -> None:
        pieces: list[bytes] = []
        for value in _read_objects(delta["tool_calls"]):
            call: Fields = dict(value)
            index, stated = value_of(call["index"]), value_of(call.get("id", NULL))
            slot = self._slots.get((choice, index))
            if slot is None or (stated and stated != slot.stated):
                slot = self._new_call(choice, index, stated or "", call, fields)
            else:
                # Clients put the strings of one call together, ids too.
                call.pop("id", None)
                call.pop("type", None)
                _say_name_once(call, slot)
            call["index"] = b"%d" % slot.number
            pieces.append(encode_object(call))
        delta["tool_calls"] = b"[%b]" % b",".join(pieces)

    def _new_call(
        self, choice: int, index: int, stated: str, call: Fields, fields: Fields
    ) -> _Slot:
        number = self._counts.get(choice, 0)
        self._counts[choice] = number + 1
        call_id = stated
        if self._is_weak or not stated or (choice, stated) in self._ids:
            parts = [value_of(fields.get(name, NULL)) for name in ("id", "created")]
            call_id = minted_id(*parts, choice, number, name_of(call))
            call["id"] = _encode(call_id)
        if call.get("type", NULL) == NULL:
            call["type"] = b'"custom"' if "custom" in call else b'"function"'
        self._ids.add((choice, call_id))
        slot = _Slot(number, stated, bool(name_of(call)))
        self._slots[choice, index] = slot
        return slot

    def rest(self) -> bytes | None:
        """Return the chunk that says what was held back, None if nothing was.

        For streams that end without a finish reason.
        """
        pieces: list[bytes] = []
        for index, splitter in self._splitters.items():
            thought, said = splitter.rest()
            delta: Fields = {}
            if thought:
                delta["reasoning_content"] = _encode(thought)
            if said:
                delta["content"] = _encode(said)
            if delta:
                choice = {
                    "index": b"%d" % index,
                    "delta": encode_object(delta),
                    "finish_reason": b"null",
                }
                pieces.append(encode_object(choice))
        if not pieces:
            return None
        return encode_object({**self._head, "choices": b"[%b]" % b",".join(pieces)})


def _say_name_once(call: Fields, slot: _Slot) -> None:
    """Leave the name out of more of a call whose name was said."""
    if not name_of(call):
        return
    if slot.has_name:
        kind = "custom" if "custom" in call else "function"
        called: Fields = dict(_read_object(call[kind]))
        called.pop("name", None)
        call[kind] = encode_object(called)
    slot.has_name = True
