from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from msgspec import UNSET, Raw

from tests.protocol.dialects.gemini_reading import said, strange
from tests.protocol.dialects.recordings import recordings, replay, without_chat
from tests.protocol.dialects.saying import (
    HELLO,
    OBJECT,
    call,
    contents_for,
    function,
    json_schema,
    members_of,
    parameters_for,
)
from tests.protocol.dialects.strategies import PNG, REQUESTS, parsed
from tz_protocol.dialects.anthropic_request import ANSWER_TOOL
from tz_protocol.dialects.gemini import GEMINI, VERTEX_GEMINI
from tz_protocol.dialects.gemini_contents import UNSIGNED
from tz_protocol.dialects.openai_conversation import conversation_of
from tz_protocol.dialects.parameters import Handling, column
from tz_protocol.dialects.turns import turns_of
from tz_protocol.errors import InvalidRequest
from tz_protocol.types.conversation import (
    Citation,
    Conversation,
    Image,
    Inline,
    Message,
    Opaque,
    Text,
    Thinking,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from tz_protocol.types.request import Target

OLD = "gemini-2.5-flash"
PRO = "gemini-2.5-pro"
NEW = "gemini-3-flash-preview"
PLACE = {"project_id": "p-1", "location": "us-east5"}


def render(
    model=OLD,
    *,
    dialect=GEMINI,
    options=None,
    extra=None,
    is_stream=False,
    messages=HELLO,
    **more,
):
    target = Target(
        provider="google_ai_studio_gemini",
        model=model,
        options=options or {},
        extra_body=extra or {},
    )
    request = parsed({"messages": messages, **more}, is_stream=is_stream)
    return dialect.render_request(request, target)


def body_of(*args, **members):
    return msgspec.json.decode(render(*args, **members)[0].body)


def config_of(*args, **members):
    return body_of(*args, **members).get("generationConfig")


def contents_of(*args, **members):
    return body_of(*args, **members)["contents"]


def losses_of(*args, **members):
    return render(*args, **members)[1]


def refusal_of(*args, **members):
    with pytest.raises(InvalidRequest) as caught:
        render(*args, **members)
    return caught.value


def neutral(*messages, model=NEW, dialect=GEMINI):
    """Render messages that OpenAI's format could not say."""
    request = parsed({})
    request.neutral = Conversation(messages=messages)
    target = Target(provider="gemini", model=model, options=PLACE)
    rendered, losses = dialect.render_request(request, target)
    return msgspec.json.decode(rendered.body), losses


def result(call_id="c", content="done", **members):
    return {"role": "tool", "tool_call_id": call_id, "content": content, **members}


def assistant(*calls, **members):
    return {"role": "assistant", "content": None, "tool_calls": [*calls], **members}


# -- golden bytes ---------------------------------------------------------------


def test_request_golden_bytes():
    fields = (
        b'{"messages":[{"role":"system","content":"Be brief."},'
        b'{"role":"user","content":[{"type":"text","text":"What is this?"},'
        b'{"type":"image_url","image_url":{"url":"https://e.org/a.png"}}]},'
        b'{"role":"assistant","content":"","tool_calls":[{"id":"call_1","type":'
        b'"function","function":{"name":"look","arguments":"{\\"n\\": 1.50}"},'
        b'"extra_content":{"google":{"thought_signature":"c2ln"}}}]},'
        b'{"role":"tool","tool_call_id":"call_1","content":"a cat"}],'
        b'"tools":[{"type":"function","function":{"name":"look","parameters":'
        b'{"type": "object", "properties": {"n": {"maximum": 1.50}}}}}],'
        b'"tool_choice":"auto","temperature":0.70,"max_tokens":100,"stop":"END",'
        b'"top_p":0.90}'
    )
    request = parsed({}, is_stream=True)
    request.fields = msgspec.json.decode(fields, type=dict[str, Raw])
    target = Target(provider="google_ai_studio_gemini", model=NEW)
    rendered, losses = GEMINI.render_request(request, target)
    assert losses == ()
    assert rendered.path == f"models/{NEW}:streamGenerateContent?alt=sse"
    assert rendered.is_stream
    assert rendered.headers == (("content-type", "application/json"),)
    assert rendered.body == (
        b'{"contents":[{"role":"user","parts":[{"text":"What is this?"},'
        b'{"fileData":{"mimeType":"image/png","fileUri":"https://e.org/a.png"}}]},'
        b'{"role":"model","parts":[{"functionCall":{"name":"look","args":{"n": 1.50},'
        b'"id":"call_1"},"thoughtSignature":"c2ln"}]},{"role":"user","parts":['
        b'{"functionResponse":{"name":"look","response":{"result":"a cat"},'
        b'"id":"call_1"}}]}],"systemInstruction":{"parts":[{"text":"Be brief."}]},'
        b'"tools":[{"functionDeclarations":[{"name":"look","parametersJsonSchema":'
        b'{"type": "object", "properties": {"n": {"maximum": 1.50}}}}]}],'
        b'"toolConfig":{"functionCallingConfig":{"mode":"AUTO"}},"generationConfig":'
        b'{"maxOutputTokens":100,"stopSequences":["END"],"temperature":0.70,'
        b'"topP":0.90}}'
    )


# -- where it goes --------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (OLD, f"models/{OLD}:generateContent"),
        (f"models/{OLD}", f"models/{OLD}:generateContent"),
        ("tunedModels/mine", "tunedModels/mine:generateContent"),
        ("a b?c#d", "models/a%20b%3Fc%23d:generateContent"),
        ("ü", "models/%C3%BC:generateContent"),
    ],
    ids=["plain", "with kind", "tuned", "escaped", "not ascii"],
)
def test_path_names_the_model(model, path):
    assert render(model)[0].path == path


@pytest.mark.parametrize("model", ["../x", "a/../b", "a//b", "/a", "", "."])
def test_path_cannot_be_left_by_a_models_name(model):
    assert refusal_of(model).param == "model"


@pytest.mark.parametrize(
    ("model", "more", "path"),
    [
        ("m", {}, "projects/p-1/locations/us-east5/publishers/google/models/m"),
        ("m", {"endpoint_id": "7"}, "projects/p-1/locations/us-east5/endpoints/7"),
        ("endpoints/7", {}, "projects/p-1/locations/us-east5/endpoints/7"),
        (
            "publishers/meta/models/m",
            {},
            "projects/p-1/locations/us-east5/publishers/meta/models/m",
        ),
        (
            "projects/q/locations/l/publishers/google/models/m",
            {},
            "projects/q/locations/l/publishers/google/models/m",
        ),
    ],
    ids=["plain", "endpoint option", "endpoint", "publisher", "whole"],
)
def test_path_at_vertex_names_project_location_and_model(model, more, path):
    rendered, _ = render(model, dialect=VERTEX_GEMINI, options={**PLACE, **more})
    assert rendered.path == f"{path}:generateContent"


# -- every row of the table is what happens -------------------------------------

ROWS = column("gemini")

SAMPLES = parameters_for("gemini")
CONTENT_SAMPLES = contents_for("gemini")


def test_samples_cover_every_row_of_the_table():
    assert set(ROWS) == set(SAMPLES) | set(CONTENT_SAMPLES)


@pytest.mark.parametrize("row", SAMPLES)
def test_parameter_is_handled_as_the_table_says(row):
    members = members_of(row, SAMPLES[row])
    if row == "top_logprobs":
        members["logprobs"] = True
    name = row.partition(".")[0]
    without = {key: value for key, value in members.items() if key != name}
    handling = ROWS[row]
    if handling is Handling.REFUSED:
        error = refusal_of(**members)
        assert error.status == 400
        assert (error.param or "").startswith(name)
        assert "google_ai_studio_gemini" in error.message
        return
    body, losses = body_of(**members), losses_of(**members)
    if handling is Handling.DROPPED:
        (loss,) = losses
        assert loss.startswith(name)
        if row != "tools.strict":
            assert body == body_of(**without)
        return
    assert losses == ()
    assert body != body_of(**without)
    assert not strange(body, "GenerateContentRequest")
    if handling is Handling.PASSED:
        assert body["generationConfig"][name] == SAMPLES[row]


@pytest.mark.parametrize("row", CONTENT_SAMPLES)
def test_content_is_handled_as_the_table_says(row):
    sample = CONTENT_SAMPLES[row]
    message = sample if "role" in sample else {"role": "user", "content": [sample]}
    members = {"messages": [*HELLO, message]}
    handling = ROWS[row]
    if handling is Handling.REFUSED:
        assert (refusal_of(**members).param or "").startswith("messages[1]")
    elif handling is Handling.DROPPED:
        (loss,) = losses_of(**members)
        assert loss.startswith("messages[1]")
        assert loss.endswith(row.rpartition(".")[2])
    else:
        assert losses_of(**members) == ()
        assert body_of(**members) != body_of()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("logprobs", False),
        ("logit_bias", {}),
        ("store", False),
        ("modalities", ["text"]),
        ("parallel_tool_calls", True),
        ("seed", None),
        ("tools", []),
        ("response_format", {"type": "text"}),
        ("service_tier", "auto"),
        ("reasoning_effort", None),
    ],
)
def test_parameter_that_says_the_default_is_neither_refused_nor_named(name, value):
    assert losses_of(**{name: value}) == ()
    assert body_of(**{name: value}) == body_of()


def test_sampling_goes_by_the_vendors_names():
    assert config_of(
        top_p=0.5, top_k=3, n=2, frequency_penalty=0.1, presence_penalty=0.2, seed=7
    ) == {
        "topP": 0.5,
        "topK": 3,
        "candidateCount": 2,
        "frequencyPenalty": 0.1,
        "presencePenalty": 0.2,
        "seed": 7,
    }


def test_stop_takes_five_sequences_and_no_more():
    assert config_of(stop=list("abcde")) == {"stopSequences": list("abcde")}
    assert refusal_of(stop=list("abcdef")).param == "stop"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "hot"),
        ("top_k", [1]),
        ("modalities", "text"),
        ("service_tier", 1),
        ("generationConfig", []),
        ("reasoning_effort", "enormous"),
    ],
)
def test_value_of_a_wrong_type_is_refused_by_name(name, value):
    error = refusal_of(**{name: value, "max_tokens": 5})
    assert (error.param, error.code) == (name, "invalid_value")


def test_unknown_parameter_is_dropped_and_named():
    assert losses_of(foo={"a": 1}) == ("foo",)
    assert body_of(foo={"a": 1}) == body_of()


def test_the_vendors_own_parameters_pass_beside_ours():
    own: dict[str, Any] = {
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT"}],
        "cachedContent": "cachedContents/1",
        "generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_LOW", "topK": 2},
        "toolConfig": {"includeServerSideToolInvocations": True},
    }
    body = body_of(**own, temperature=1, tools=[function()], tool_choice="auto")
    assert body["safetySettings"] == own["safetySettings"]
    assert body["cachedContent"] == own["cachedContent"]
    assert body["generationConfig"] == {**own["generationConfig"], "temperature": 1}
    assert body["toolConfig"] == {
        **own["toolConfig"],
        "functionCallingConfig": {"mode": "AUTO"},
    }
    assert losses_of(**own) == ()


def test_service_tier_is_said_in_the_body_of_one_service_only():
    assert body_of(service_tier="priority")["serviceTier"] == "priority"
    vertex = {"dialect": VERTEX_GEMINI, "options": PLACE}
    assert losses_of(service_tier="priority", **vertex) == ("service_tier",)
    assert losses_of(service_tier="default", **vertex) == ()


@pytest.mark.parametrize(
    ("policy", "losses"), [("warn", ("logit_bias", "store")), ("drop", ())]
)
def test_policy_of_the_operator_lets_parameters_be_dropped(policy, losses):
    options = {"on_unsupported_param": policy}
    members = {"logit_bias": {"1": 1}, "store": True}
    assert losses_of(options=options, **members) == losses
    assert body_of(options=options, **members) == body_of()


def test_extra_body_of_the_config_replaces_what_was_rendered():
    extra = {"generationConfig": Raw(b'{"topK":1}'), "labels": Raw(b'{"a":"b"}')}
    body = body_of(extra=extra, max_tokens=5)
    assert body["generationConfig"] == {"topK": 1}
    assert body["labels"] == {"a": "b"}


# -- reasoning ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "effort", "config", "losses"),
    [
        (OLD, "minimal", {"thinkingBudget": 1024, "includeThoughts": True}, ()),
        (OLD, "medium", {"thinkingBudget": 8192, "includeThoughts": True}, ()),
        (OLD, "max", {"thinkingBudget": 24576, "includeThoughts": True}, ()),
        (PRO, "max", {"thinkingBudget": 32768, "includeThoughts": True}, ()),
        (OLD, "none", {"thinkingBudget": 0}, ()),
        (PRO, "none", {"thinkingBudget": 128}, ("reasoning_effort",)),
        (NEW, "minimal", {"thinkingLevel": "MINIMAL", "includeThoughts": True}, ()),
        (NEW, "xhigh", {"thinkingLevel": "HIGH", "includeThoughts": True}, ()),
        (NEW, "none", {"thinkingLevel": "MINIMAL"}, ("reasoning_effort",)),
        (
            "gemini-3-pro-preview",
            "medium",
            {"thinkingLevel": "HIGH", "includeThoughts": True},
            (),
        ),
        (
            "gemini-3.1-pro-preview",
            "minimal",
            {"thinkingLevel": "LOW", "includeThoughts": True},
            (),
        ),
        ("gemini-flash-latest", "low", {"thinkingLevel": "LOW"}, ()),
        ("gemini-2.0-flash", "low", None, ("reasoning_effort",)),
        ("gemini-2.0-flash", "none", None, ()),
        ("gemma-3-27b-it", "low", None, ("reasoning_effort",)),
    ],
)
def test_effort_becomes_what_the_model_takes(model, effort, config, losses):
    found = (config_of(model, reasoning_effort=effort) or {}).get("thinkingConfig")
    if config is None or found is None:
        assert found is config
    else:
        assert config.items() <= found.items()
        assert not strange(found, "ThinkingConfig")
    assert losses_of(model, reasoning_effort=effort) == losses


@pytest.mark.parametrize(
    ("model", "members", "config", "losses"),
    [
        (OLD, {"thinking": {"type": "enabled"}}, -1, ()),
        (OLD, {"thinking": {"type": "adaptive"}}, -1, ()),
        (OLD, {"thinking": {"type": "disabled"}}, 0, ()),
        (OLD, {"reasoning": {"max_tokens": 99_999}}, 24_576, ("reasoning",)),
        (PRO, {"reasoning": {"max_tokens": 5}}, 128, ("reasoning",)),
        (NEW, {"reasoning": {"max_tokens": 5}}, 5, ()),
        (
            NEW,
            {"reasoning": {"max_tokens": 5, "effort": "high"}},
            5,
            ("reasoning.effort",),
        ),
        (NEW, {"thinking": {"type": "enabled"}}, None, ()),
    ],
)
def test_budget_of_other_formats_becomes_the_vendors(model, members, config, losses):
    found = config_of(model, **members)["thinkingConfig"]
    assert found.get("thinkingBudget") == config
    assert found.get("includeThoughts", False) is (config != 0)
    assert "thinkingLevel" not in found
    assert losses_of(model, **members) == losses


# -- messages -------------------------------------------------------------------


def test_messages_of_one_side_become_one_turn_with_results_in_order_of_calls():
    contents = contents_of(
        messages=[
            {"role": "user", "content": "a"},
            {"role": "user", "content": "b"},
            assistant(call("1", "f"), call("2", "g")),
            result("2", "second"),
            result("1", "first"),
            {"role": "user", "content": "c"},
        ]
    )
    assert [content["role"] for content in contents] == ["user", "model", "user"]
    assert [part["text"] for part in contents[0]["parts"]] == ["a", "b"]
    *results, last = contents[2]["parts"]
    assert [one["functionResponse"]["name"] for one in results] == ["f", "g"]
    assert last == {"text": "c"}


def test_system_messages_are_the_instruction_and_late_ones_are_named():
    messages = [
        {"role": "system", "content": "one"},
        {"role": "user", "content": "a"},
        {"role": "developer", "content": "two"},
    ]
    body = body_of(messages=messages)
    assert body["systemInstruction"] == {"parts": [{"text": "one"}, {"text": "two"}]}
    assert losses_of(messages=messages) == ("messages[2].role",)


def test_messages_without_a_turn_are_refused():
    error = refusal_of(messages=[{"role": "system", "content": "a"}])
    assert error.param == "messages"


def test_ids_that_the_vendor_did_not_give_stay_away_from_vertex():
    messages = [*HELLO, assistant(call("call_1")), result("call_1")]
    own = [*HELLO, assistant(call("g98os1Jf")), result("g98os1Jf")]
    vertex = {"dialect": VERTEX_GEMINI, "options": PLACE}
    for found, expected in (
        (contents_of(messages=messages), "call_1"),
        (contents_of(messages=messages, **vertex), None),
        (contents_of(messages=own, **vertex), "g98os1Jf"),
    ):
        parts = [content["parts"][0] for content in found[1:]]
        ids = [next(iter(part.values())).get("id") for part in parts]
        assert ids == [expected, expected]


def test_result_of_an_unknown_call_is_refused_by_name():
    error = refusal_of(messages=[*HELLO, result("nobody")])
    assert error.param == "messages[1].tool_call_id"


@pytest.mark.parametrize(
    ("message", "response"),
    [
        (result(content="x"), {"result": "x"}),
        (result(content='{"id": 12345678901234567890}'), None),
        (result(content="x", is_error=True), {"error": "x"}),
        (result(content="x", is_error=False), {"result": "x"}),
        (result(content=""), {"result": ""}),
        (
            result(content=[{"type": "text", "text": t} for t in "ab"]),
            {"result": ["a", "b"]},
        ),
    ],
    ids=["text", "json", "error", "no error", "empty", "texts"],
)
def test_result_is_an_object_around_the_text(message, response):
    messages = [*HELLO, assistant(call()), message]
    part = contents_of(messages=messages)[2]["parts"][0]["functionResponse"]
    expected = {"result": message["content"]} if response is None else response
    assert part["response"] == expected


def test_pictures_in_a_result_are_within_it_or_after_all_of_them():
    picture = Image(Inline("image/png", PNG))
    messages = (
        Message("user", (Text("a"),)),
        Message(
            "assistant",
            tuple(ToolCall(id=n, name=f"f{n}", arguments="{}") for n in "12"),
        ),
        Message("tool", (ToolResult(call_id="1", content=(Text("see"), picture)),)),
        Message("tool", (ToolResult(call_id="2", content=(Text("b"),)),)),
    )
    data = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    body, losses = neutral(*messages, model=NEW)
    first, _ = body["contents"][2]["parts"]
    assert first["functionResponse"]["parts"] == [data]
    assert not strange(body, "GenerateContentRequest")
    body, _ = neutral(*messages, model=OLD)
    first, second, last = body["contents"][2]["parts"]
    assert "parts" not in first["functionResponse"]
    assert second["functionResponse"]["response"] == {"result": "b"}
    assert last == data
    assert losses == ()


@pytest.mark.parametrize("arguments", ["", " ", "null", "{}"])
def test_call_without_arguments_has_an_empty_object(arguments):
    messages = [*HELLO, assistant(call(arguments=arguments)), result()]
    part = contents_of(messages=messages)[1]["parts"][0]
    assert part["functionCall"]["args"] == {}


@pytest.mark.parametrize("arguments", ["[1]", "{", "nul", "tja"])
def test_call_whose_arguments_are_no_object_is_refused(arguments):
    messages = [*HELLO, assistant(call(arguments=arguments)), result()]
    assert refusal_of(messages=messages).param == "messages[1].tool_calls"


# -- seals ----------------------------------------------------------------------


def signatures(messages, model=NEW):
    return [
        part.get("thoughtSignature")
        for content in contents_of(model, messages=messages)
        for part in content["parts"]
        if "functionCall" in part
    ]


def signed(call_id, seal):
    return {
        **call(call_id),
        "extra_content": {"google": {"thought_signature": seal}},
    }


def test_call_without_signature_says_so_where_the_model_demands_one():
    messages = [
        *HELLO,
        assistant(call("1"), call("2")),
        result("1"),
        result("2"),
        assistant(signed("3", "c2ln"), call("4")),
        result("3"),
        result("4"),
    ]
    assert signatures(messages) == [UNSIGNED, None, "c2ln", None]
    assert signatures(messages, OLD) == [None, None, "c2ln", None]


def sealed_text(*details, content="Hi", **more):
    message = {"role": "assistant", "content": content, **more}
    return [*HELLO, {**message, "reasoning_details": [*details]}]


def encrypted(data, form="google-gemini-v1"):
    return {"type": "reasoning.encrypted", "data": data, "format": form}


def test_signature_of_a_text_returns_to_the_text():
    (_, content) = contents_of(messages=sealed_text(encrypted("c2ln")))
    assert content["parts"] == [{"text": "Hi", "thoughtSignature": "c2ln"}]


def test_signature_without_a_text_has_an_empty_one():
    messages = sealed_text(encrypted("YQ=="), encrypted("Yg=="), content=None)
    (_, content) = contents_of(messages=messages)
    assert content["parts"] == [
        {"text": "", "thoughtSignature": "YQ=="},
        {"text": "", "thoughtSignature": "Yg=="},
    ]


def test_signature_does_not_go_to_the_text_of_another_message():
    messages = [
        *sealed_text(encrypted("YQ=="), content=None),
        {"role": "assistant", "content": "other"},
    ]
    (_, content) = contents_of(messages=messages)
    assert content["parts"] == [
        {"text": "", "thoughtSignature": "YQ=="},
        {"text": "other"},
    ]


def test_thoughts_are_said_as_thoughts():
    thought = {
        "type": "reasoning.text",
        "text": "hm",
        "signature": "c2ln",
        "format": "google-gemini-v1",
    }
    (_, content) = contents_of(messages=sealed_text(thought))
    assert content["parts"] == [
        {"text": "hm", "thought": True, "thoughtSignature": "c2ln"},
        {"text": "Hi"},
    ]
    plain = [*HELLO, {"role": "assistant", "content": "Hi", "reasoning_content": "hm"}]
    (_, content) = contents_of(messages=plain)
    assert content["parts"] == [{"text": "hm", "thought": True}, {"text": "Hi"}]


def test_seals_of_other_vendors_are_dropped_and_named():
    messages = sealed_text(encrypted("YQ==", "anthropic-claude-v1"))
    assert losses_of(messages=messages) == ("messages[1].reasoning_content",)
    (_, content) = contents_of(messages=messages)
    assert content["parts"] == [{"text": "Hi"}]


def test_blocks_that_only_the_vendor_knows_return_as_they_were():
    value = {"executableCode": {"code": "1", "language": "PYTHON"}}
    native = [
        {"dialect": "gemini", "type": "executableCode", "value": value},
        {"dialect": "gemini", "type": "groundingMetadata", "value": {"a": 1}},
    ]
    message = {"role": "assistant", "content": "x", "provider_content": native}
    (_, content) = contents_of(messages=[*HELLO, message])
    assert content["parts"] == [value, {"text": "x"}]
    foreign = {**native[0], "dialect": "anthropic"}
    message = {"role": "assistant", "content": "x", "provider_content": [foreign]}
    losses = losses_of(messages=[*HELLO, message])
    assert losses == ("messages[1].provider_content",)


def test_blocks_that_openais_format_cannot_say_are_said_or_refused():
    body, _ = neutral(
        Message("user", (Text("a"), Opaque("gemini", "x", Raw(b'{"fileData":{}}')))),
        Message("assistant", (Thinking(text="", format="google-gemini-v1"),)),
    )
    assert body["contents"] == [
        {"role": "user", "parts": [{"text": "a"}, {"fileData": {}}]}
    ]


# -- media ----------------------------------------------------------------------


def part_of(part):
    messages = [{"role": "user", "content": [part]}]
    return contents_of(messages=messages)[0]["parts"][0]


@pytest.mark.parametrize(
    ("url", "media_type"),
    [
        ("https://e.org/a.png", "image/png"),
        ("https://e.org/a.JPG?x=1.gif#y", "image/jpeg"),
        ("https://e.org/picture", "image/jpeg"),
        ("gs://bucket/a.webp", "image/webp"),
    ],
)
def test_link_is_followed_by_the_vendor_and_typed_by_its_ending(url, media_type):
    part = part_of({"type": "image_url", "image_url": {"url": url}})
    assert part == {"fileData": {"mimeType": media_type, "fileUri": url}}


def test_files_of_the_vendors_own_are_named_by_their_uri():
    for uri in ("gs://b/a.pdf", "https://generativelanguage.googleapis.com/v1beta/f/1"):
        part = part_of({"type": "file", "file": {"file_id": uri}})
        expected = {"mimeType": "application/pdf", "fileUri": uri}
        assert part == {"fileData": expected}


def test_data_without_a_type_is_looked_at():
    url = f"data:;base64,{PNG}"
    part = part_of({"type": "image_url", "image_url": {"url": url}})
    assert part["inlineData"]["mimeType"] == "image/png"
    part = {"type": "file", "file": {"file_data": "AAAA"}}
    error = refusal_of(messages=[{"role": "user", "content": [part]}])
    assert error.param == "messages[0].content[0].file"


@pytest.mark.parametrize(
    ("format_", "media_type"),
    [("wav", "audio/wav"), ("mp3", "audio/mpeg"), ("flac", "audio/flac")],
)
def test_sound_goes_inline(format_, media_type):
    sound = {"format": format_, "data": "AA=="}
    part = part_of({"type": "input_audio", "input_audio": sound})
    assert part == {"inlineData": {"mimeType": media_type, "data": "AA=="}}


# -- tools and the shape of the answer ------------------------------------------


def calling_of(*args, **members):
    return body_of(*args, **members)["toolConfig"]["functionCallingConfig"]


@pytest.mark.parametrize(
    ("choice", "calling"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (
            SAMPLES["tool_choice.named"],
            {"mode": "ANY", "allowedFunctionNames": ["f"]},
        ),
        (
            SAMPLES["tool_choice.allowed_tools"],
            {"mode": "VALIDATED", "allowedFunctionNames": ["f"]},
        ),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [function("g")]},
            },
            {"mode": "ANY", "allowedFunctionNames": ["g"]},
        ),
    ],
    ids=["auto", "none", "required", "named", "allowed", "allowed required"],
)
def test_tool_choice_is_a_mode_and_names(choice, calling):
    tools = [function("f"), function("g")]
    assert calling_of(tools=tools, tool_choice=choice) == calling


def test_schema_goes_out_as_it_was_written():
    odd = {**OBJECT, "$schema": "x", "$defs": {"a": {"const": 1}}, "oneOf": []}
    (tool,) = body_of(tools=[function(parameters=odd)])["tools"]
    (declared,) = tool["functionDeclarations"]
    assert declared == {"name": "f", "parametersJsonSchema": odd}


def test_function_without_parameters_has_no_schema():
    tools = [function("f"), function("g", parameters={})]
    (tool,) = body_of(tools=tools)["tools"]
    assert tool["functionDeclarations"] == [{"name": "f"}, {"name": "g"}]


def test_schema_that_is_no_object_is_refused():
    error = refusal_of(tools=[function(parameters=[1])])
    assert error.param == "tools[0].function.parameters"


def test_tool_with_the_gateways_own_name_is_refused():
    error = refusal_of(tools=[function(ANSWER_TOOL)])
    assert error.param == "tools[0].function.name"


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        ({"type": "google_search"}, {"googleSearch": {}}),
        ({"type": "codeExecution"}, {"codeExecution": {}}),
        (
            {"type": "fileSearch", "fileSearchStoreNames": ["a"]},
            {"fileSearch": {"fileSearchStoreNames": ["a"]}},
        ),
        ({"type": "newTool", "newTool": {"a": 1}}, {"newTool": {"a": 1}}),
    ],
)
def test_tools_of_the_vendor_are_members_of_its_own(tool, expected):
    assert body_of(tools=[tool])["tools"] == [expected]


def test_tools_of_another_vendor_are_refused():
    error = refusal_of(tools=[{"type": "web_search_20250305", "name": "web_search"}])
    assert error.param == "tools[0]"


@pytest.mark.parametrize("model", [OLD, NEW])
def test_json_schema_is_the_vendors_own(model):
    config = config_of(model, response_format=json_schema(OBJECT))
    assert config == {
        "responseMimeType": "application/json",
        "responseJsonSchema": OBJECT,
    }
    config = config_of(model, response_format={"type": "json_object"})
    assert config == {"responseMimeType": "application/json"}


def test_json_schema_beside_tools_is_emulated_where_the_model_cannot():
    members = {"response_format": json_schema(OBJECT), "tools": [function()]}
    body = body_of(NEW, **members)
    assert body["generationConfig"]["responseJsonSchema"] == OBJECT
    body = body_of(OLD, **members)
    assert "generationConfig" not in body
    declared = body["tools"][0]["functionDeclarations"]
    assert [tool["name"] for tool in declared] == ["f", ANSWER_TOOL]
    assert declared[1]["parametersJsonSchema"] == OBJECT
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
    named = calling_of(OLD, **members, tool_choice=SAMPLES["tool_choice.named"])
    assert named == {"mode": "ANY", "allowedFunctionNames": ["f"]}
    allowed = SAMPLES["tool_choice.allowed_tools"]
    found = calling_of(OLD, **members, tool_choice=allowed)
    assert found == {"mode": "ANY", "allowedFunctionNames": ["f", ANSWER_TOOL]}
    body = body_of(OLD, **members, tool_choice="none")
    assert body["generationConfig"]["responseJsonSchema"] == OBJECT
    assert "tools" not in body


# -- the way back ---------------------------------------------------------------


def expected_pieces(conversation, losses):
    """Return what a request must say, read from the neutral side."""
    system, turns, *_ = turns_of(conversation.messages)
    names: dict[str, str] = {}
    spoken = []
    for turn in turns:
        pieces = [
            made
            for piece in turn.pieces
            for made in [pieced(piece, names, losses)]
            if made is not None
        ]
        if pieces:
            role = "model" if turn.role == "assistant" else "user"
            spoken.append((role, pieces))
    texts = [getattr(piece.block, "text", None) for piece in system]
    return {"system": texts, "turns": spoken}


def pieced(piece, names, losses):
    block = piece.block
    kind = type(block).__name__
    if kind == "Thinking":
        if f"messages[{piece.message}].reasoning_content" in losses:
            return None
        return ("thought", block.text, None)
    if kind in {"Text", "Refusal"}:
        return ("text", block.text, None)
    if kind == "ToolCall":
        names[block.id] = block.name
        return ("call", block.id, block.name, msgspec.json.decode(block.arguments))
    if kind == "ToolResult":
        texts = [part.text for part in block.content]
        value = texts if len(texts) > 1 else "".join(texts)
        return ("result", block.call_id, names[block.call_id], {"result": value})
    if isinstance(block.source, Inline):
        return ("data", block.source.media_type, block.source.data)
    return ("file", block.source.url)


def hints_of(conversation):
    """Return the paths of everything that the vendor has no word for."""
    for index, message in enumerate(conversation.messages):
        if message.name is not UNSET:
            yield f"messages[{index}].name"
        for place, block in enumerate(message.content):
            path = f"messages[{index}].content[{place}]"
            if getattr(block, "cache", UNSET) is not UNSET:
                yield f"{path}.cache_control"
            if getattr(block, "detail", "auto") not in (UNSET, "auto"):
                yield f"{path}.image_url.detail"


@given(REQUESTS)
def test_request_there_and_back_says_the_same_but_for_named_losses(body):
    request = parsed(body)
    options = {"on_unsupported_param": "warn"}
    target = Target(provider="gemini", model=OLD, options=options)
    rendered, losses = GEMINI.render_request(request, target)
    conversation = conversation_of(request)
    made = json.loads(rendered.body)
    assert not strange(made, "GenerateContentRequest")
    assert said(made) == expected_pieces(conversation, losses)
    assert set(hints_of(conversation)) <= set(losses)
    config = made.get("generationConfig", {})
    if conversation.max_tokens is not UNSET:
        assert config["maxOutputTokens"] == conversation.max_tokens
    assert tuple(config.get("stopSequences", ())) == conversation.stop
    declared = [
        function["name"]
        for tool in made.get("tools", ())
        for function in tool["functionDeclarations"]
        if function["name"] != ANSWER_TOOL
    ]
    names = [getattr(tool, "name", "") for tool in conversation.tools]
    if conversation.response_format is not UNSET:
        assert declared == names or conversation.tool_choice == ToolChoice("none")
    else:
        assert declared == names


# -- what the vendor's description says -----------------------------------------


@replay(recordings("openai", "chat.completions"), without_chat)
def test_corpus_openai_request_is_a_legal_request_or_refused_by_name(recording):
    body = recording.request
    request = parsed({k: v for k, v in body.items() if k != "model"})
    for model in (OLD, NEW):
        target = Target(provider="gemini", model=model)
        with contextlib.suppress(InvalidRequest):
            rendered, _ = GEMINI.render_request(request, target)
            made = json.loads(rendered.body)
            assert not strange(made, "GenerateContentRequest")


# -- what gives way -------------------------------------------------------------

CACHE = {"cache_control": {"type": "ephemeral"}}


def test_marks_for_a_cache_are_dropped_and_named_wherever_they_are():
    image = {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a", **CACHE}]},
        {"role": "user", "content": [{**image, **CACHE}]},
        assistant({**call(), **CACHE}),
        {**result(), **CACHE},
    ]
    tools = [{**function(), **CACHE}]
    assert losses_of(messages=messages, tools=tools) == (
        "messages[0].content[0].cache_control",
        "messages[1].content[0].cache_control",
        "messages[2].cache_control",
        "messages[3].cache_control",
        "tools[0].cache_control",
    )
    assert b"cache" not in render(messages=messages, tools=tools)[0].body


WARN = {"on_unsupported_param": "warn"}


@pytest.mark.parametrize(
    ("members", "path"),
    [
        (
            {
                "messages": [
                    {"role": "system", "content": [CONTENT_SAMPLES["image_url"]]},
                    *HELLO,
                ]
            },
            "messages[0].content[0]",
        ),
        (
            {
                "messages": [
                    *HELLO,
                    {
                        "role": "user",
                        "content": [{"type": "file", "file": {"file_data": "AAAA"}}],
                    },
                ]
            },
            "messages[1].content[0].file",
        ),
        (
            {"messages": [*HELLO, {"role": "user", "content": [{"type": "video"}]}]},
            "messages[1].content[0]",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
    ],
    ids=["picture in system", "untyped data", "unknown part", "tool"],
)
def test_what_cannot_be_said_is_refused_or_left_out_as_the_operator_wants(
    members, path
):
    assert refusal_of(**members).param == path
    assert losses_of(options=WARN, **members) == (path,)
    assert contents_of(options=WARN, **members) == contents_of()


def test_seal_of_nobody_knows_whose_is_dropped_and_named():
    seal = {"type": "reasoning.text", "text": "t", "signature": "s"}
    messages = sealed_text(seal)
    assert losses_of(messages=messages) == ("messages[1].reasoning_content",)
    assert contents_of(messages=messages)[1]["parts"] == [{"text": "Hi"}]


def test_words_about_the_answers_shape_go_to_the_answer_tool():
    shape = json_schema(OBJECT)
    shape["json_schema"]["description"] = "A letter."
    body = body_of(OLD, response_format=shape, tools=[function()])
    assert body["tools"][0]["functionDeclarations"][1]["description"].endswith(
        "A letter."
    )


def test_citations_of_an_earlier_answer_are_dropped_and_named():
    cited = Text("a", citations=(Citation(start=0, end=1, url="https://e.org"),))
    body, losses = neutral(
        Message("user", (Text("x"),)), Message("assistant", (cited,))
    )
    assert body["contents"][1]["parts"] == [{"text": "a"}]
    assert losses == ("messages[1].content[0].citations",)
