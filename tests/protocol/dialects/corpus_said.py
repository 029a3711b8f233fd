"""What an answer says, whoever wrote it down: the measure of every comparison.

The one rule: nothing here imports a dialect. Vendors' bytes are read with the standard
library and the vendor's documentation (``corpus_vendors``); what a client gets is read
here, as a client does that trusts nothing.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Choice:
    """What one choice says."""

    content: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    """(name, arguments): decoded, or the text itself if a limit cut it off."""
    finish: str | None = None


@dataclass
class Said:
    """What an answer says."""

    choices: dict[int, Choice] = field(default_factory=dict)
    usage: tuple[int, int] | None = None
    """(prompt, completion), in OpenAI's sense."""
    error: str | None = None
    """What is said instead of an answer, or of its end."""
    is_ended: bool = False
    """Whether the vendor said in so many words that nothing follows."""
    code: str | None = None
    """The vendor's own name of the error, where the vendor names errors."""
    vectors: list[Any] = field(default_factory=list)
    flagged: list[bool] = field(default_factory=list)

    def is_complete(self) -> bool:
        """Return whether every choice has ended."""
        ends = [self.is_ended or one.finish for one in self.choices.values()]
        return bool(ends) and all(ends)


def arguments_of(text: Any) -> Any:
    """Return the JSON in *text*, or the text itself if it is none."""
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text or "{}")
    except ValueError:
        return text


def events_of(text: str) -> list[tuple[str, str]]:
    """Return (name, data) of each server-sent event, read without a codec."""
    found = []
    for block in re.split(r"\r\n\r\n|\n\n|\r\r", text.lstrip("\ufeff")):
        name, lines = "", []
        for line in re.split(r"\r\n|\n|\r", block):
            key, _, value = line.partition(":")
            if key == "data":
                lines.append(value.removeprefix(" "))
            elif key == "event":
                name = value.strip()
        data = "\n".join(lines).strip()
        if data:
            found.append((name, data))
    return found


# -- what our client gets -------------------------------------------------------


def said_whole(value: dict[str, Any]) -> Said:
    """Return what a whole answer in OpenAI's format says."""
    said = Said()
    for place, choice in enumerate(value["choices"]):
        assert choice["index"] == place
        message = choice["message"]
        ids = [call["id"] for call in message.get("tool_calls") or ()]
        assert all(ids), "a call without an id"
        assert len(set(ids)) == len(ids), "two calls with one id"
        said.choices[place] = Choice(
            content=message.get("content") or "",
            reasoning=thought_of(message),
            refusal=message.get("refusal") or "",
            calls=[called(call) for call in message.get("tool_calls") or ()],
            finish=choice["finish_reason"],
        )
    said.usage = counted(value.get("usage"))
    return said


def thought_of(message: dict[str, Any]) -> str:
    thought = message.get("reasoning_content") or message.get("reasoning") or ""
    assert isinstance(thought, str)
    return thought


def called(call: dict[str, Any]) -> tuple[str, Any]:
    if call.get("type") == "custom":
        return call["custom"]["name"], call["custom"]["input"]
    function = call["function"]
    return function["name"], arguments_of(function.get("arguments") or "{}")


def counted(usage: dict[str, Any] | None) -> tuple[int, int] | None:
    if not usage or usage.get("prompt_tokens") is None:
        return None
    return usage["prompt_tokens"], usage.get("completion_tokens") or 0


def objects_of(out: bytes) -> list[dict[str, Any]]:
    """Return the chunks of a client's stream, whose framing must be exact."""
    blocks = out.decode().split("\n\n")
    assert blocks.pop() == "", "the stream ends within an event"
    found = []
    for block in blocks:
        assert block.startswith("data: ")
        assert "\n" not in block
        if block != "data: [DONE]":
            found.append(json.loads(block[6:]))
    assert sum(block == "data: [DONE]" for block in blocks) <= 1
    return found


def said_streamed(chunks: list[dict[str, Any]]) -> Said:
    """Return what chunks in OpenAI's format add up to, read as its SDKs do."""
    said = Said()
    calls: dict[tuple[int, int], dict[str, Any]] = {}
    for chunk in chunks:
        said.usage = counted(chunk.get("usage")) or said.usage
        for choice in chunk["choices"]:
            index, delta = choice["index"], choice["delta"]
            one = said.choices.setdefault(index, Choice())
            one.content += delta.get("content") or ""
            one.reasoning += thought_of(delta)
            one.refusal += delta.get("refusal") or ""
            for call in delta.get("tool_calls") or ():
                add_call(calls, index, call)
            reason = choice.get("finish_reason")
            assert not (reason and one.finish and reason != one.finish)
            one.finish = reason or one.finish
    ids = [(index, call["id"]) for (index, _), call in calls.items()]
    assert len(set(ids)) == len(ids), "two calls with one id"
    for (index, number), call in sorted(calls.items()):
        assert number == len(said.choices[index].calls), "calls are not numbered"
        made = (call["name"], arguments_of(call["arguments"]))
        said.choices[index].calls.append(made)
    return said


def add_call(calls: dict[Any, Any], choice: int, delta: dict[str, Any]) -> None:
    function = delta.get("function") or {}
    made = calls.get((choice, delta["index"]))
    if made is None:
        assert delta["id"], "a call begins without an id"
        assert function["name"], "a call begins without a name"
        made = calls[choice, delta["index"]] = {
            "id": delta["id"],
            "name": function["name"],
            "arguments": "",
        }
    else:
        assert not delta.get("id"), "an id is said twice"
    made["arguments"] += function.get("arguments") or ""
