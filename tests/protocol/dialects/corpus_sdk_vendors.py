"""What the clients of Anthropic, Google and Cohere read of their vendors' answers.

The one rule: as in ``corpus_sdk_openai``.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any
from unittest.mock import ANY

import anthropic
import cohere
from cohere.core import ApiError
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types
from google.oauth2.credentials import Credentials

from tests.protocol.dialects.corpus_player import (
    HTTPX,
    HTTPX2,
    PLACE,
    CannotRead,
    load,
)
from tests.protocol.dialects.corpus_said import Choice, Said, arguments_of
from tests.protocol.dialects.corpus_vendors import (
    ANTHROPIC_FINISHES,
    COHERE_FINISHES,
    GEMINI_FILTERS,
)
from tests.protocol.dialects.recordings import Recording

TURN: Any = {"role": "user", "content": "x"}
NO_ERROR = "an error that is not in the vendor's form"

# -- Anthropic ------------------------------------------------------------------

ANTHROPIC = anthropic.Anthropic(
    api_key="k", base_url=PLACE, http_client=HTTPX2, max_retries=0
)
VERTEX = anthropic.AnthropicVertex(
    region="r",
    project_id="p",
    access_token="t",
    base_url=PLACE,
    http_client=HTTPX2,
    max_retries=0,
)


def read_anthropic(recording: Recording, client: Any = ANTHROPIC) -> Said:
    """Read a message or its events."""
    load(recording)
    asked: Any = {"model": "m", "max_tokens": 1, "messages": [TURN]}
    try:
        if not recording.is_stream:
            return _message(client.messages.create(**asked))
        with client.messages.stream(**asked) as events:
            return _events(events)
    except anthropic.APIStatusError as error:
        body: Any = error.body
        try:
            return Said(error=body["error"]["message"])
        except (LookupError, TypeError) as unknown:
            raise CannotRead(NO_ERROR) from unknown


read_vertex_anthropic = partial(read_anthropic, client=VERTEX)


def _events(events: Any) -> Said:
    inputs: dict[int, str] = {}
    begun = 0
    try:
        for event in events:
            begun += event.type == "message_start"
            if event.type == "content_block_delta":
                piece = getattr(event.delta, "partial_json", "")
                inputs[event.index] = inputs.get(event.index, "") + piece
    except json.JSONDecodeError as error:
        raise CannotRead("an event that is no JSON") from error
    if begun != 1:
        raise CannotRead("a second message within the answer")
    return _message(events.current_message_snapshot, inputs)


def _message(message: Any, inputs: dict[int, str] | None = None) -> Said:
    one = Choice()
    for index, block in enumerate(message.content):
        if block.type == "text":
            one.content += block.text
        elif block.type == "thinking":
            one.reasoning += block.thinking
        elif block.type == "tool_use":
            # The client mends arguments that a limit cut off.
            text = (inputs or {}).get(index)
            one.calls.append((block.name, arguments_of(text) if text else block.input))
    if message.stop_details is not None:
        one.refusal = message.stop_details.explanation or ""
    reason = message.stop_reason
    if reason is None and inputs is None:
        reason = "end_turn"
    if reason is not None:
        one.finish = ANTHROPIC_FINISHES.get(reason, "stop")
        if one.finish in ("stop", "tool_calls"):
            one.finish = "tool_calls" if one.calls else "stop"
    usage = message.usage
    if usage is None:
        return Said(choices={0: one})
    prompt = (
        (usage.input_tokens or 0)
        + (usage.cache_creation_input_tokens or 0)
        + (usage.cache_read_input_tokens or 0)
    )
    return Said(choices={0: one}, usage=(prompt, usage.output_tokens or 0))


# -- Google ---------------------------------------------------------------------

OPTIONS = genai_types.HttpOptions(base_url=PLACE, httpx_client=HTTPX)
GEMINI = genai.Client(api_key="k", vertexai=False, http_options=OPTIONS)
VERTEX_GEMINI = genai.Client(
    vertexai=True,
    project="p",
    location="l",
    credentials=Credentials(token="t"),
    http_options=OPTIONS,
)


def read_gemini(recording: Recording, client: Any = GEMINI) -> Said:
    """Read an answer of generateContent or the answers of its stream."""
    load(recording)
    asked: Any = {"model": "m", "contents": "x"}
    if recording.is_stream and recording.body.lstrip()[:1] == b"[":
        raise CannotRead("a list instead of events")
    try:
        if recording.is_stream:
            answers = list(client.models.generate_content_stream(**asked))
        else:
            answers = [client.models.generate_content(**asked)]
    except genai_errors.APIError as error:
        return _google_error(recording, error)
    except genai_errors.UnknownApiResponseError as error:
        # Comments, a byte-order mark, no blank after the colon, no JSON.
        raise CannotRead("lines that are not as Google writes them") from error
    except AttributeError as error:
        if "'int' object" in str(error):
            raise CannotRead("finish reasons as numbers") from error
        raise
    return _contents(answers)


read_vertex_gemini = partial(read_gemini, client=VERTEX_GEMINI)


def _google_error(recording: Recording, error: genai_errors.APIError) -> Said:
    """Return what is said; of what is no object the client hands out the text."""
    if recording.body.lstrip()[:1] not in (b"{", b"["):
        raise CannotRead(NO_ERROR)
    return Said(error=error.message or "")


def _contents(answers: list[Any]) -> Said:
    said = Said(choices={0: Choice()})
    for answer in answers:
        for candidate in answer.candidates or ():
            one = said.choices.setdefault(candidate.index or 0, Choice())
            parts = candidate.content.parts if candidate.content else None
            for part in parts or ():
                _part(part, one)
            if (reason := candidate.finish_reason) is not None:
                is_filtered = reason.value in GEMINI_FILTERS
                one.finish = "content_filter" if is_filtered else "stop"
                one.finish = "length" if reason.value == "MAX_TOKENS" else one.finish
        if answer.prompt_feedback and answer.prompt_feedback.block_reason:
            said.choices[0].finish = "content_filter"
        usage = answer.usage_metadata
        if usage is None:
            continue
        if (usage.prompt_token_count or usage.total_token_count) is not None:
            said.usage = (
                (usage.prompt_token_count or 0)
                + (usage.tool_use_prompt_token_count or 0),
                (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0),
            )
    for one in said.choices.values():
        if one.calls and one.finish == "stop":
            one.finish = "tool_calls"
    return said


def _part(part: Any, one: Choice) -> None:
    if part.thought:
        one.reasoning += part.text or ""
    else:
        one.content += part.text or ""
    call = part.function_call
    if call is not None and call.name:
        is_begun = call.partial_args is not None or call.will_continue
        one.calls.append((call.name, ANY if is_begun else call.args or {}))


def read_gemini_embedding(recording: Recording) -> Said:
    """Read the vectors of batchEmbedContents."""
    return _embedding(recording, GEMINI, "gemini-embedding-001")


def read_vertex_embedding(recording: Recording) -> Said:
    """Read the vectors of predict."""
    return _embedding(recording, VERTEX_GEMINI, "text-embedding-005")


def _embedding(recording: Recording, client: Any, model: str) -> Said:
    load(recording)
    try:
        answer = client.models.embed_content(model=model, contents="x")
    except genai_errors.APIError as error:
        return _google_error(recording, error)
    return Said(vectors=[one.values for one in answer.embeddings])


# -- Cohere ---------------------------------------------------------------------

COHERE = cohere.ClientV2(api_key="k", base_url=PLACE, httpx_client=HTTPX)


def read_cohere(recording: Recording) -> Said:
    """Read an answer of ``/v2/chat`` or its events."""
    load(recording)
    try:
        if recording.is_stream:
            return _cohere_events(COHERE.chat_stream(model="m", messages=[TURN]))
        answer: Any = COHERE.chat(model="m", messages=[TURN])
    except ApiError as error:
        return _cohere_error(error)
    one = Choice(reasoning=answer.message.tool_plan or "")
    for block in answer.message.content or ():
        if block.type == "thinking":
            one.reasoning = block.thinking + one.reasoning
        else:
            one.content += block.text
    for call in answer.message.tool_calls or ():
        made = arguments_of(call.function.arguments)
        one.calls.append((call.function.name, made))
    return _cohere_end(one, answer)


def _cohere_error(error: ApiError) -> Said:
    if not isinstance(error.body, dict) or "message" not in error.body:
        raise CannotRead(NO_ERROR)
    return Said(error=error.body["message"])


def _cohere_events(events: Any) -> Said:
    one = Choice()
    calls: list[list[str]] = []
    said = Said(choices={0: one})
    for event in events:
        if event.type in ("content-start", "content-delta"):
            content = event.delta.message.content
            one.content += content.text or ""
            one.reasoning += content.thinking or ""
        elif event.type == "tool-plan-delta":
            one.reasoning += event.delta.message.tool_plan
        elif event.type == "tool-call-start":
            function = event.delta.message.tool_calls.function
            calls.append([function.name, function.arguments])
        elif event.type == "tool-call-delta":
            calls[-1][1] += event.delta.message.tool_calls.function.arguments
        elif event.type == "message-end":
            one.calls = [(name, arguments_of(made)) for name, made in calls]
            said = _cohere_end(one, event.delta)
    return said


def _cohere_end(one: Choice, end: Any) -> Said:
    one.finish = COHERE_FINISHES.get(end.finish_reason, "stop")
    if one.finish in ("stop", "tool_calls"):
        one.finish = "tool_calls" if one.calls else "stop"
    said = Said(choices={0: one})
    if end.finish_reason in ("ERROR", "TIMEOUT"):
        said.error = end.finish_reason
    tokens = end.usage and (end.usage.tokens or end.usage.billed_units)
    if tokens and tokens.input_tokens is not None:
        said.usage = int(tokens.input_tokens), int(tokens.output_tokens or 0)
    return said


def read_cohere_embedding(recording: Recording) -> Said:
    """Read the vectors of an answer that says them by type."""
    if b'"embeddings_floats"' in recording.body:
        raise CannotRead("vectors as the first version says them")
    load(recording)
    try:
        answer: Any = COHERE.embed(
            model="m", input_type="search_query", texts=["x"], embedding_types=["float"]
        )
    except ApiError as error:
        return _cohere_error(error)
    return Said(vectors=answer.embeddings.float_)
