"""What OpenAI's own client reads, of everybody who speaks its format.

The one rule: no dialect is imported, and nothing of an answer is read but what the
client hands out. What it does not know of other vendors' ways is a :class:`CannotRead`.
"""

from __future__ import annotations

import json
from typing import Any

import openai
from openai.lib.streaming.chat import ChatCompletionStreamState

from tests.protocol.dialects.corpus_player import HTTPX2, PLACE, CannotRead, load
from tests.protocol.dialects.corpus_said import Choice, Said, arguments_of
from tests.protocol.dialects.corpus_vendors import finish_said, split_thought
from tests.protocol.dialects.recordings import Recording

CLIENT = openai.OpenAI(
    api_key="k", base_url=PLACE, http_client=HTTPX2, max_retries=0, webhook_secret=""
)
TURN: Any = {"role": "user", "content": "x"}


def read_chat(recording: Recording, *, has_think_blocks: bool = False) -> Said:
    """Read a chat completion or its chunks."""
    if recording.is_stream and recording.body.startswith(b"\xef\xbb\xbf"):
        raise CannotRead("a byte-order mark, which hides the first event from it")
    load(recording)
    ask = CLIENT.chat.completions.create
    try:
        if recording.is_stream:
            said = _stream(ask(model="m", messages=[TURN], stream=True))
        else:
            said = _whole(ask(model="m", messages=[TURN]))
    except json.JSONDecodeError as error:
        raise CannotRead("what is no JSON") from error
    except openai.APIError as error:
        return Said(error=_message_of(error))
    for one in said.choices.values():
        if has_think_blocks:
            split_thought(one)
    return said


def read_embedding(recording: Recording) -> Said:
    """Read a list of vectors."""
    load(recording)
    try:
        answer = CLIENT.embeddings.create(model="m", input="x", encoding_format="float")
    except openai.APIError as error:
        return Said(error=_message_of(error))
    said = Said(vectors=[one.embedding for one in answer.data])
    usage = answer.usage
    if usage is not None and usage.prompt_tokens is not None:
        # Voyage says the total alone.
        said.usage = usage.prompt_tokens, 0
    return said


def read_moderation(recording: Recording) -> Said:
    """Read judgements."""
    load(recording)
    try:
        answer = CLIENT.moderations.create(model="m", input="x")
    except openai.APIError as error:
        return Said(error=_message_of(error))
    said = Said()
    for result in answer.results:
        if not hasattr(result, "flagged"):
            raise CannotRead("a judgement that does not say whether it is one")
        said.flagged.append(result.flagged)
    return said


def _message_of(error: openai.APIError) -> str:
    """Return the message of the body; the client's own if it found none."""
    body = error.body
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    if isinstance(error, openai.APIStatusError):
        raise CannotRead("an error that is not in OpenAI's form")
    return error.message


def _whole(answer: Any) -> Said:
    if isinstance(answer, str) or not getattr(answer, "choices", None):
        raise CannotRead("no choices")
    said = Said()
    for place, choice in enumerate(answer.choices):
        message = choice.message
        if message is None:
            raise CannotRead("a choice without a message")
        one = Choice(calls=[_call(call) for call in message.tool_calls or ()])
        _texts(message, one)
        one.reasoning = _thought(message)
        default = "tool_calls" if one.calls else "stop"
        one.finish = _finish(choice, said) or default
        said.choices[place] = one
    said.usage = _usage(answer)
    return said


def _stream(chunks: Any) -> Said:
    state = ChatCompletionStreamState()
    said = Said()
    thoughts: dict[int, str] = {}
    is_begun = False
    for chunk in chunks:
        is_begun = True
        _expect(chunk)
        said.usage = _usage(chunk) or said.usage
        for choice in chunk.choices:
            thought = thoughts.get(choice.index, "") + _thought(choice.delta)
            thoughts[choice.index] = thought
        try:
            state.handle_chunk(chunk)
        except (AssertionError, IndexError) as error:
            raise CannotRead("calls that its own adding up does not take") from error
    if not is_begun:
        raise CannotRead("no chunks")
    for choice in state.current_completion_snapshot.choices:
        one = Choice(calls=[_call(call) for call in choice.message.tool_calls or ()])
        _texts(choice.message, one)
        one.reasoning = thoughts[choice.index]
        one.finish = _finish(choice, said)
        said.choices[choice.index] = one
    if said.error is None and not said.is_complete():
        raise CannotRead("an end that no choice has: whether [DONE] came is not told")
    return said


def _expect(chunk: Any) -> None:
    """Refuse what the client's own adding up does not know."""
    if chunk.choices is None:
        raise CannotRead("a chunk without choices")
    for choice in chunk.choices:
        delta = choice.delta
        if delta is None:
            raise CannotRead("a choice without a delta")
        if choice.index is None:
            raise CannotRead("a choice without a number")
        if not isinstance(delta.content, str | None):
            raise CannotRead("content that is no text")
        if (delta.model_extra or {}).get("annotations"):
            raise CannotRead("annotations in pieces")
        for call in delta.tool_calls or ():
            if call.index is None:
                raise CannotRead("calls without a number")


def _finish(choice: Any, said: Said) -> str | None:
    """Return why a choice ends; some vendors break off with a reason of their own."""
    reason = choice.finish_reason
    if reason in ("error", "network_error"):
        said.error = reason
    return finish_said(reason)


def _texts(message: Any, one: Choice) -> None:
    if not isinstance(message.content, str | None):
        raise CannotRead("content that is no text")
    one.content = message.content or ""
    one.refusal = getattr(message, "refusal", None) or ""


def _thought(message: Any) -> str:
    """Return what vendors add to OpenAI's messages, as the client hands it out."""
    extra = message.model_extra or {}
    return extra.get("reasoning_content") or extra.get("reasoning") or ""


def _call(call: Any) -> tuple[str, Any]:
    if call.type == "custom":
        return call.custom.name, call.custom.input
    return call.function.name, arguments_of(call.function.arguments)


def _usage(answer: Any) -> tuple[int, int] | None:
    usage = answer.usage
    if usage is None:
        if (answer.model_extra or {}).get("x_groq", {}).get("usage"):
            raise CannotRead("usage in a member of the vendor's own")
        return None
    prompt, made = usage.prompt_tokens, usage.completion_tokens
    if prompt is None:
        return None
    if made is None:
        if usage.total_tokens is None:
            return None
        made = usage.total_tokens - prompt
    details = usage.completion_tokens_details
    thought = (details.reasoning_tokens if details else None) or 0
    if thought and usage.total_tokens == prompt + made + thought:
        made += thought  # xAI counts them apart
    return prompt, made
