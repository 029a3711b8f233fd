"""The dummy's chat completions, whole and streamed, in OpenAI's wire format.

The one rule: the model's name says what is answered, by table; the request matters
only to the behaviours that echo it. The table of names is in ``dummy``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from tz_protocol.providers.base import Reply
from tz_protocol.providers.dummy_replies import (
    DONE,
    Call,
    Failure,
    Step,
    event,
    json_reply,
    read_json,
    streamed_reply,
)

__all__ = ["answer_chat"]

CREATED = 1_618_870_400
"""Unix seconds; fixed, so that the same request gives the same bytes."""

PROMPT_TOKENS = 10
SECOND_CHUNK_PAUSE = 2.0
FATAL_PAUSE = 5.0
MOST_CHOICES = 128
"""OpenAI's maximum of ``n``."""

TEXT = (
    "Megumin gleefully chanted her spell, unleashing a thunderous explosion that lit "
    "up the sky and left a massive crater in its wake."
)
ALTERNATE = (
    "Megumin chanted her spell, but instead of an explosion, a gentle rain began to "
    "fall."
)
_WORDS = (
    "Wally,",
    " the",
    " golden",
    " retriever,",
    " wagged",
    " his",
    " tail",
    " excitedly",
    " as",
    " he",
    " devoured",
    " a",
    " slice",
    " of",
    " cheese",
    " pizza.",
)
_THOUGHTS = ("hmmm", "hmmm")
_JSON_PIECES = ('{"name"', ':"John"', ',"age"', ":30", "}")
_TOOL_PIECES = ('{"location"', ':"Brooklyn"', ',"units"', ':"celsius', '"}')
_GOOD_TOOL_PIECES = ('{"sentiment"', ':"positive"', ',"confidence"', ":0.95", "}")


class _Request(msgspec.Struct):
    """What the dummy reads of a chat completion request."""

    messages: list[dict[str, Any]]
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    n: int | None = None


_REQUEST = msgspec.json.Decoder(_Request)


@dataclass(frozen=True, slots=True)
class _Content:
    """A whole answer; each part that is there is one block, one completion token."""

    text: str | None = None
    reasoning: str | None = None
    tool: tuple[str, str] | None = None
    """(name, arguments)"""

    @property
    def blocks(self) -> int:
        return sum(part is not None for part in (self.text, self.reasoning, self.tool))


def _judge(choice: int) -> _Content:
    return _Content(f'{{"thinking": "hmmm", "answer_choice": {choice}}}')


_DEFAULT = _Content(TEXT)
_CONTENTS: dict[str, _Content] = {
    "null": _Content(),
    "empty": _Content(""),
    "alternate": _Content(ALTERNATE),
    "tool": _Content(
        tool=("get_temperature", '{"location":"Brooklyn","units":"celsius"}')
    ),
    "tool_split_name": _Content(
        tool=("get_temperature", '{"location":"Brooklyn","units":"celsius"}')
    ),
    "bad_tool": _Content(
        tool=("get_temperature", '{"location":"Brooklyn","units":"Celsius"}')
    ),
    "good_tool": _Content(
        tool=("output_schema_tool", '{"sentiment":"positive","confidence":0.95}')
    ),
    "invalid_tool_arguments": _Content(tool=("get_temperature", "Not valid 'JSON'")),
    "reasoner": _Content(TEXT, reasoning="hmmm"),
    "reasoner_with_signature": _Content(TEXT, reasoning="hmmm"),
    "json_reasoner": _Content('{"answer":"Hello"}', reasoning="hmmm"),
    "json": _Content('{"answer":"Hello"}'),
    "json_goodbye": _Content('{"answer":"Goodbye"}'),
    "json_cot": _Content('{"thinking":"hmmm", "response": {"answer":"tokyo!"}}'),
    "json_diff_schema": _Content('{"response":"Hello"}'),
    "json_beatles_1": _Content('{"names":["John", "George"]}'),
    "json_beatles_2": _Content('{"names":["Paul", "Ringo"]}'),
    "best_of_n_0": _judge(0),
    "best_of_n_1": _judge(1),
    "best_of_n_big": _judge(100),
    "flaky_best_of_n_judge": _judge(0),
    "llm_judge::true": _Content('{"score": true}'),
    "llm_judge::false": _Content('{"score": false}'),
    "llm_judge::zero": _Content('{"score": 0}'),
    "llm_judge::one": _Content('{"score": 1}'),
}

_USAGES: dict[str, tuple[int, int | None]] = {
    "input_tokens_zero": (0, None),
    "output_tokens_zero": (PROMPT_TOKENS, 0),
    "input_tokens_output_tokens_zero": (0, 0),
    "input_five_output_six": (5, 6),
}
"""(prompt tokens, completion tokens; None: as many as there are blocks)"""


def answer_chat(call: Call) -> Reply:
    """Return the answer to ``chat/completions``.

    Raises:
        Failure: The request is not one, or the behaviour is to fail.
    """
    request = read_json(call, _REQUEST, "a chat completion request")
    choices = 1 if request.n is None else request.n
    if not 1 <= choices <= MOST_CHOICES:
        message = f"n must be from 1 to {MOST_CHOICES}."
        raise Failure(400, message, kind="invalid_request_error", param="n")
    if call.name == "llm_judge::error":
        raise Failure(500, "Dummy error in inference")
    if call.name == "multiple-text-blocks":
        _require_two_texts(request.messages)
    if request.stream:
        options = request.stream_options or {}
        is_usage_wanted = options.get("include_usage") is True
        steps = _steps(call, choices, is_usage_wanted=is_usage_wanted)
        return streamed_reply("text/event-stream", steps, call)
    return json_reply(_whole(call, request, choices))


# -- whole ----------------------------------------------------------------------


def _whole(call: Call, request: _Request, choices: int) -> dict[str, Any]:
    compute = _COMPUTED.get(call.name)
    if compute is None:
        content = _CONTENTS.get(call.name, _DEFAULT)
    else:
        content = _Content(compute(call, request.messages))
    message: dict[str, Any] = {
        "role": "assistant",
        "content": content.text,
        "refusal": None,
        "annotations": [],
    }
    if content.reasoning is not None:
        message["reasoning_content"] = content.reasoning
    if content.tool is not None:
        name, arguments = content.tool
        function = {"name": name, "arguments": arguments}
        message["tool_calls"] = [{"id": "0", "type": "function", "function": function}]
    finish = "stop" if content.tool is None else "tool_calls"
    return {
        "id": _id(call),
        "object": "chat.completion",
        "created": CREATED,
        "model": call.name,
        "choices": [
            {
                "index": index,
                "message": message,
                "logprobs": None,
                "finish_reason": finish,
            }
            for index in range(choices)
        ],
        "usage": _usage(call.name, content.blocks * choices),
    }


def _id(call: Call) -> str:
    return "chatcmpl-" + call.digest(12).hex()


def _usage(name: str, blocks: int) -> dict[str, int]:
    prompt, completion = _USAGES.get(name, (PROMPT_TOKENS, None))
    if completion is None:
        completion = blocks
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


# -- what echoes the request ----------------------------------------------------


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the message's content as parts, whichever way it was written."""
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, list):
        return [part for part in content if isinstance(part, dict)]
    return []


def _texts(message: dict[str, Any]) -> list[str]:
    return [
        str(part.get("text", ""))
        for part in _parts(message)
        if part.get("type") == "text"
    ]


def _is_system(message: dict[str, Any]) -> bool:
    return message.get("role") in ("system", "developer")


def _require_two_texts(messages: list[dict[str, Any]]) -> None:
    first = next((item for item in messages if not _is_system(item)), {})
    if len(_texts(first)) != 2:
        message = "First message must have exactly two text blocks"
        raise Failure(400, message, kind="invalid_request_error", param="messages")


def _echo(call: Call, messages: list[dict[str, Any]]) -> str:
    del call
    for message in reversed(messages):
        if message.get("role") == "user":
            return next(iter(_texts(message)), "")
    return ""


def _echo_messages(call: Call, messages: list[dict[str, Any]]) -> str:
    del call
    system = [text for item in messages if _is_system(item) for text in _texts(item)]
    others = [item for item in messages if not _is_system(item)]
    return _json({"system": "\n".join(system) if system else None, "messages": others})


def _echo_extra(call: Call, messages: list[dict[str, Any]]) -> str:
    del messages
    settings = call.settings
    headers = [{"name": name, "value": value} for name, value in settings.extra_headers]
    return _json({"extra_body": settings.extra_body, "extra_headers": headers})


def _echo_injected(call: Call, messages: list[dict[str, Any]]) -> str:
    del messages
    settings = call.settings
    return _json(
        {
            "injected_body": settings.extra_body,
            "injected_headers": settings.extra_headers,
        }
    )


def _files(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kinds = ("image_url", "file", "input_audio")
    return [
        part
        for message in messages
        for part in _parts(message)
        if part.get("type") in kinds
    ]


def _extract_images(call: Call, messages: list[dict[str, Any]]) -> str:
    del call
    return _json(_files(messages))


def _require_pdf(call: Call, messages: list[dict[str, Any]]) -> str:
    del call
    files = _files(messages)
    if not any(_is_pdf(part) for part in files):
        message = "PDF must be provided for require_pdf model"
        raise Failure(400, message, kind="invalid_request_error", param="messages")
    return _json(files)


def _is_pdf(part: dict[str, Any]) -> bool:
    file = part.get("file")
    if not isinstance(file, dict):
        return False
    data, name = str(file.get("file_data", "")), str(file.get("filename", ""))
    return data.startswith("data:application/pdf") or name.lower().endswith(".pdf")


def _random_answer(call: Call, messages: list[dict[str, Any]]) -> str:
    """Return an id that differs from request to request, without any entropy."""
    del messages
    digits = bytearray(call.digest(16))
    digits[6] = digits[6] & 0x0F | 0x70
    digits[8] = digits[8] & 0x3F | 0x80
    text = digits.hex()
    groups = (text[:8], text[8:12], text[12:16], text[16:20], text[20:])
    return _json({"answer": "-".join(groups)})


_COMPUTED: dict[str, Callable[[Call, list[dict[str, Any]]], str]] = {
    "echo": _echo,
    "echo_request_messages": _echo_messages,
    "echo_extra_info": _echo_extra,
    "echo_injected_data": _echo_injected,
    "extract_images": _extract_images,
    "require_pdf": _require_pdf,
    "random_answer": _random_answer,
}


# -- streamed -------------------------------------------------------------------


def _tool_deltas(
    names: tuple[str, ...], pieces: tuple[str, ...]
) -> tuple[dict[str, Any], ...]:
    """Return one delta a piece; the first has the id, the first ones the name."""
    deltas: list[dict[str, Any]] = []
    for index, piece in enumerate(pieces):
        function = {"arguments": piece}
        if index < len(names):
            function["name"] = names[index]
        call: dict[str, Any] = {"index": 0, "function": function}
        if index == 0:
            call.update(id="0", type="function")
        deltas.append({"tool_calls": [call]})
    return tuple(deltas)


def _deltas(member: str, pieces: tuple[str, ...]) -> tuple[dict[str, Any], ...]:
    return tuple({member: piece} for piece in pieces)


_TEXT_DELTAS = _deltas("content", _WORDS)
_THOUGHT_DELTAS = _deltas("reasoning_content", _THOUGHTS)
_JSON_DELTAS = _deltas("content", _JSON_PIECES)

_STREAMS: dict[str, tuple[dict[str, Any], ...]] = {
    "reasoner": _THOUGHT_DELTAS + _TEXT_DELTAS,
    "reasoner_with_signature": _THOUGHT_DELTAS + _TEXT_DELTAS,
    "json_reasoner": _THOUGHT_DELTAS + _JSON_DELTAS,
    "json": _JSON_DELTAS,
    "tool": _tool_deltas(("get_temperature",), _TOOL_PIECES),
    "tool_split_name": _tool_deltas(("get_temp", "erature"), _TOOL_PIECES),
    "good_tool": _tool_deltas(("output_schema_tool",), _GOOD_TOOL_PIECES),
}

_STREAM_ERRORS: dict[str, tuple[int, Failure, float]] = {
    "err_in_stream": (3, Failure(500, "Dummy error in stream"), 0.0),
    "err_in_stream_with_raw_response": (
        3,
        Failure(
            500,
            "Dummy error in stream with raw response",
            raw='{"error": "dummy client raw response"}',
        ),
        0.0,
    ),
    "fatal_stream_error": (2, Failure(500, "Dummy fatal error"), FATAL_PAUSE),
    "fatal_stream_error_with_raw_response": (
        2,
        Failure(
            500,
            "Dummy fatal error with raw response",
            raw='{"error": "dummy fatal raw response"}',
        ),
        FATAL_PAUSE,
    ),
}
"""(index of the chunk in whose place the error comes, the error, seconds until the
stream is closed after it)"""


def _steps(call: Call, choices: int, *, is_usage_wanted: bool) -> Iterator[Step]:
    """Yield the stream's pieces: one a chunk, the role with the first one."""
    deltas = _STREAMS.get(call.name, _TEXT_DELTAS)
    failing, failure, silence = _STREAM_ERRORS.get(call.name, (-1, None, 0.0))
    chunk: dict[str, Any] = {
        "id": _id(call),
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": call.name,
        "choices": [],
    }
    if is_usage_wanted:
        chunk["usage"] = None

    def events(delta: dict[str, Any], finish: str | None = None) -> bytes:
        pieces = []
        for index in range(choices):
            choice = {"index": index, "delta": delta, "finish_reason": finish}
            pieces.append(event({**chunk, "choices": [choice]}))
        return b"".join(pieces)

    is_tool = "tool_calls" in deltas[0]
    opening = events({"role": "assistant", "content": None if is_tool else ""})
    wait = 0.0
    for index, delta in enumerate(deltas):
        if index == failing and failure is not None:
            yield wait, b"data: " + failure.body() + b"\n\n"
            if silence:
                yield silence, b""
            return
        if index == 1 and call.name == "slow_second_chunk":
            wait += SECOND_CHUNK_PAUSE
        yield wait, opening + events(delta)
        opening = b""
        wait = call.spacing
    last = events({}, "tool_calls" if is_tool else "stop")
    if is_usage_wanted:
        usage = _usage(call.name, len(deltas) * choices)
        last += event({**chunk, "usage": usage})
    yield wait, last + DONE
