"""What Gemini really sent, read by the dialect and, independently, by hand."""

from __future__ import annotations

import json
from typing import Any

from tests.protocol.dialects.checking import (
    byte_by_byte,
    chunk_objects,
    collected,
    comparable,
    decoded,
    decoder_of,
    faults,
    message_of_chunks,
    message_of_whole,
    schema,
    usage_object,
    whole_object,
)
from tests.protocol.dialects.recordings import recordings, replay
from tz_protocol.dialects.gemini import GEMINI, VERTEX_GEMINI
from tz_protocol.errors import UpstreamRefused
from tz_protocol.types.stream import (
    StreamDone,
    StreamFailed,
    StreamPart,
)

CHAT = ("generateContent", "streamGenerateContent")
RECORDINGS = [
    *recordings("google_ai_studio_gemini", *CHAT),
    *recordings("gcp_vertex_gemini", *CHAT),
]
STREAMS = [r for r in RECORDINGS if r.values[0] is None or r.values[0].is_stream]

FILTERED = {
    *("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"),
    *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "MODEL_ARMOR"),
}
NUMBERS = {1: "STOP", 2: "MAX_TOKENS", 3: "SAFETY"}


# -- an independent reading -----------------------------------------------------


def responses_of(recording):
    """Return the recorded ``GenerateContentResponse`` objects."""
    text = recording.body.decode("utf-8-sig")
    if text.lstrip()[:1] in ("[", "{"):
        value = stated(json.loads(text))
        return value if isinstance(value, list) else [value]
    lines = [line for line in text.splitlines() if line.startswith("data: {")]
    return [stated(json.loads(line[5:])) for line in lines]


def stated(node, name=""):
    """Return *node* without nulls, which SDKs add when they write answers down."""
    if isinstance(node, list):
        return [stated(item) for item in node]
    if not isinstance(node, dict) or name in ("args", "partialArgs"):
        return node
    return {key: stated(v, key) for key, v in node.items() if v is not None}


def is_answer(responses):
    """Return whether one candidate ended: the rest is ``test_corpus``'s."""
    candidates = [c for r in responses for c in r.get("candidates", ())]
    return (
        not any("error" in response for response in responses)
        and any(candidate.get("finishReason") for candidate in candidates)
        and {candidate.get("index", 0) for candidate in candidates} == {0}
    )


def put(node, path, value, *, is_text):
    """Set what is at a JSON path of the simple kind that was recorded."""
    steps = path.removeprefix("$.").replace("[", ".[").split(".")
    for place, step in enumerate(steps):
        is_last = place == len(steps) - 1
        following = "" if is_last else steps[place + 1]
        made = value if is_last else ([] if following.startswith("[") else {})
        if step.startswith("["):
            index = int(step[1:-1])
            if index == len(node):
                node.append("" if is_last and is_text else made)
            key = index
        else:
            node.setdefault(step, "" if is_last and is_text else made)
            key = step
        if is_last:
            node[key] = node[key] + value if is_text else value
        node = node[key]


def calls_of(parts):
    calls: list[Any] = []
    open_call: Any = None
    for part in parts:
        call = part.get("functionCall")
        if call is None:
            continue
        if call.get("name"):
            open_call = {"name": call["name"], "arguments": call.get("args", {})}
            calls.append((open_call, call.get("id"), part.get("thoughtSignature")))
        for piece in call.get("partialArgs", ()):
            value = next(v for k, v in piece.items() if k.endswith("Value"))
            value = None if "nullValue" in piece else value
            is_text = "stringValue" in piece
            put(open_call["arguments"], piece["jsonPath"], value, is_text=is_text)
    return calls


def reading_of(responses):
    """Read one candidate with nothing but the vendor's documentation."""
    candidates = [c for r in responses for c in r.get("candidates", ())]
    assert {c.get("index", 0) for c in candidates} <= {0}
    parts = [p for c in candidates for p in (c.get("content") or {}).get("parts", ())]
    texts = [p for p in parts if "text" in p]
    calls = calls_of(parts)
    reason = [c["finishReason"] for c in candidates if c.get("finishReason")][-1]
    reason = NUMBERS.get(reason, reason)
    finish = "content_filter" if reason in FILTERED else "stop"
    if reason == "MAX_TOKENS":
        finish = "length"
    elif calls and finish == "stop":
        finish = "tool_calls"
    return {
        "content": "".join(p["text"] for p in texts if not p.get("thought")),
        "reasoning": "".join(p["text"] for p in texts if p.get("thought")),
        "tool_calls": [call for call, _, _ in calls],
        "finish": finish,
    }, [(call_id, seal) for _, call_id, seal in calls]


def usage_of(responses):
    counted = [
        r["usageMetadata"]
        for r in responses
        if {"promptTokenCount", "totalTokenCount"} & r.get("usageMetadata", {}).keys()
    ]
    if not counted:
        return None
    last = counted[-1]
    get = lambda name: last.get(name, 0)  # noqa: E731
    prompt = get("promptTokenCount") + get("toolUsePromptTokenCount")
    output = get("candidatesTokenCount") + get("thoughtsTokenCount")
    return prompt, output, last.get("cachedContentTokenCount")


def essentials(message):
    calls = [
        {"name": call["name"], "arguments": json.loads(call["arguments"])}
        for call in message["tool_calls"]
    ]
    names = ("content", "reasoning", "finish")
    return {**{name: message[name] for name in names}, "tool_calls": calls}


def check(recording, message, completion, usage):
    responses = responses_of(recording)
    expected, calls = reading_of(responses)
    assert essentials(message) == expected
    ids = [call["id"] for call in message["tool_calls"]]
    assert len(set(ids)) == len(ids)
    for made, (given, _) in zip(ids, calls, strict=True):
        assert made == given if given else made.startswith("call_")
    if (counted := usage_of(responses)) is None:
        assert usage is None
    else:
        shown, (prompt, output, cached) = usage_object(usage), counted
        assert (shown["prompt_tokens"], shown["completion_tokens"]) == (prompt, output)
        details = shown.get("prompt_tokens_details", {})
        assert details.get("cached_tokens") == cached
    assert completion.id == responses[0].get("responseId", "")
    assert completion.model == responses[0].get("modelVersion", "")
    check_seals(responses, completion)
    check_citations(responses, completion, expected["content"])


def check_seals(responses, completion):
    """Every signature is somewhere in the answer, and comes back from there."""
    parts = [
        part
        for response in responses
        for candidate in response.get("candidates", ())
        for part in (candidate.get("content") or {}).get("parts", ())
    ]
    kept = json.dumps(whole_object(completion))
    for part in parts:
        if "thoughtSignature" in part:
            assert part["thoughtSignature"] in kept


def check_citations(responses, completion, text):
    supports = [
        support
        for response in responses
        for candidate in response.get("candidates", ())
        for support in candidate.get("groundingMetadata", {}).get(
            "groundingSupports", ()
        )
    ]
    cited = [
        c for b in completion.choices[0].content for c in getattr(b, "citations", ())
    ]
    for support in supports:
        words = support.get("segment", {}).get("text")
        if words and words in text:
            assert any(text[c.start : c.end] == words for c in cited)
    if supports:
        assert cited


# -- the recordings -------------------------------------------------------------


def beyond(recording):
    """Say why an answer is left to ``test_corpus``, which knows every kind of end."""
    if recording.head.status != 200:
        return None
    try:
        responses = responses_of(recording)
    except ValueError:
        return "the recording was cut off, or is no answer"
    if not is_answer(responses):
        return "an error, a refusal, several candidates or none that ended"
    return None


@replay(RECORDINGS, beyond)
def test_corpus_gemini_answer_reads_and_renders(recording):
    if recording.head.status != 200:
        check_error(recording)
    elif recording.is_stream:
        check_stream(recording)
    else:
        check_whole(recording)


def check_error(recording):
    error = GEMINI.parse_error(recording.head, recording.body)
    assert isinstance(error, UpstreamRefused)
    try:
        (value, *_) = responses_of(recording)
    except ValueError:
        value = {}
    if "error" not in value:
        assert error.status == recording.head.status
        return
    stated = value["error"]
    is_bad_key = "API_KEY_" in recording.body.decode()
    assert error.status == (401 if is_bad_key else stated["code"])
    assert error.message[:50] == stated["message"][:50]


def check_whole(recording):
    completion = VERTEX_GEMINI.parse_response(recording.head, recording.body)
    value = whole_object(completion)
    validator = schema("openai.json", "CreateChatCompletionResponse")
    assert not faults(validator, value)
    check(recording, message_of_whole(value), completion, completion.usage)


def check_stream(recording):
    body, head = recording.body, recording.head
    events = decoded(decoder_of(GEMINI, head), [body])
    split = decoded(decoder_of(GEMINI, head), byte_by_byte(body))
    assert comparable(events) == comparable(split)
    assert isinstance(events[-1], StreamDone)
    chunks = chunk_objects(events)
    validator = schema("openai.json", "CreateChatCompletionStreamResponse")
    assert not [fault for chunk in chunks for fault in faults(validator, chunk)]
    message = message_of_chunks(chunks)
    completion = collected(events)
    whole = message_of_whole(whole_object(completion))
    assert essentials(message) == essentials(whole)
    usages = [e.usage for e in events if isinstance(e, StreamPart) and e.usage]
    check(recording, message, completion, usages[-1] if usages else None)


def without_end(recording):
    """Say why a stream has no end to cut off."""
    if recording.head.status == 200 and b'"finishReason"' in recording.body:
        return None
    return "an error has no stream"


@replay(STREAMS, without_end)
def test_corpus_gemini_stream_cut_short_never_ends_cleanly(recording):
    body = recording.body
    place = body.find(b'"finishReason"')
    events = decoded(decoder_of(GEMINI, recording.head), [body[:place]])
    assert isinstance(events[-1], StreamFailed)


def without_whole_form(recording):
    """Say why a stream is not the same as some whole answer."""
    try:
        responses = responses_of(recording)
    except ValueError:
        return "the recording was cut off, or is no answer"
    if recording.head.status != 200 or len(responses) != 1 or not is_answer(responses):
        return "only streams of one response have a whole form"
    return None


@replay(STREAMS, without_whole_form)
def test_corpus_gemini_stream_says_what_the_whole_of_it_says(recording):
    events = decoded(decoder_of(GEMINI, recording.head), [recording.body])
    body = json.dumps(as_sent(recording)).encode()
    whole = GEMINI.parse_response(recording.head, body)
    assert with_arguments_read(collected(events)) == with_arguments_read(whole)


def as_sent(recording):
    """Return the only response of a stream with its nulls."""
    text = recording.body.decode("utf-8-sig").strip()
    value = json.loads(text if text[0] in "[{" else text.partition("data:")[2])
    return value[0] if isinstance(value, list) else value


def with_arguments_read(completion):
    value = whole_object(completion)
    for choice in value["choices"]:
        # A stream says them with the text that they are about.
        choice.pop("logprobs")
        for call in choice["message"].get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return value
