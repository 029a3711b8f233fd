"""Requests at their odd ends, said to vendors of other formats."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.protocol.dialects.saying import HELLO, OBJECT, answered, call, function
from tests.protocol.dialects.saying import json_schema as shape_of
from tests.protocol.dialects.strategies import PNG, parsed
from tz_protocol.dialects.anthropic import ANTHROPIC
from tz_protocol.dialects.bedrock import BEDROCK
from tz_protocol.dialects.cohere import COHERE_CHAT
from tz_protocol.dialects.gemini import GEMINI, VERTEX_GEMINI
from tz_protocol.dialects.vertex_anthropic import VERTEX_ANTHROPIC
from tz_protocol.errors import InvalidRequest
from tz_protocol.types.request import Target

BUDGETED = "claude-sonnet-4-5"
ADAPTIVE = "claude-opus-4-6"

PLACE = {"project_id": "p", "location": "l"}

VENDORS: dict[str, tuple[Any, str]] = {
    "anthropic": (ANTHROPIC, BUDGETED),
    "vertex_anthropic": (VERTEX_ANTHROPIC, BUDGETED),
    "bedrock": (BEDROCK, f"anthropic.{BUDGETED}-v1:0"),
    "gemini": (GEMINI, "gemini-2.5-flash"),
    "vertex_gemini": (VERTEX_GEMINI, "gemini-2.5-flash"),
    "cohere": (COHERE_CHAT, "command-a-reasoning"),
}
CLAUDES = ("anthropic", "vertex_anthropic", "bedrock")

EVERYWHERE = pytest.mark.parametrize("vendor", VENDORS)
AT_CLAUDES = pytest.mark.parametrize("vendor", CLAUDES)


def said(vendor, *, model=None, policy=None, **members):
    """Return the vendor's body and what was lost."""
    dialect, usual = VENDORS[vendor]
    options = dict(PLACE)
    if policy is not None:
        options["on_unsupported_param"] = policy
    target = Target(provider=vendor, model=model or usual, options=options)
    request = parsed({"messages": HELLO, **members})
    rendered, losses = dialect.render_request(request, target)
    return json.loads(rendered.body), losses


def refusal_of(vendor, **members):
    with pytest.raises(InvalidRequest) as caught:
        said(vendor, **members)
    return caught.value


def adaptive(vendor):
    return f"anthropic.{ADAPTIVE}-v1" if vendor == "bedrock" else ADAPTIVE


def sampling(vendor, body):
    """Return (temperature, top_p) of a body."""
    place = body.get("inferenceConfig", {}) if vendor == "bedrock" else body
    return place.get("temperature"), place.get("topP", place.get("top_p"))


# -- sampling and thinking ------------------------------------------------------


@AT_CLAUDES
@pytest.mark.parametrize("model", [None, adaptive], ids=["budget", "adaptive"])
@pytest.mark.parametrize(
    ("members", "found", "losses"),
    [
        ({"temperature": 1.0}, (1, None), ()),
        ({"temperature": 0.3}, (None, None), ("temperature",)),
        ({"temperature": 1.5}, (None, None), ("temperature",)),
        ({"top_p": 0.97}, (None, 0.97), ()),
        ({"top_p": 0.5}, (None, None), ("top_p",)),
        ({"top_p": 1}, (None, None), ()),
        ({"temperature": 1, "top_p": 0.97}, (None, 0.97), ()),
        ({"temperature": 1, "top_p": 0.5}, (1, None), ("top_p",)),
    ],
    ids=[
        *("the default", "below", "above", "upper part", "lower part", "all"),
        *("default and upper", "default and lower"),
    ],
)
def test_sampling_while_thinking_is_what_the_vendor_takes_or_named(
    vendor, model, members, found, losses
):
    name = model(vendor) if model else None
    body, lost = said(vendor, model=name, reasoning_effort="low", **members)
    assert sampling(vendor, body) == found
    assert lost == losses


@AT_CLAUDES
def test_default_temperature_gives_way_to_top_p_without_a_loss(vendor):
    body, losses = said(vendor, temperature=1, top_p=0.5)
    assert sampling(vendor, body) == (None, 0.5)
    assert losses == ()
    assert refusal_of(vendor, temperature=0.5, top_p=0.5).param == "top_p"


@AT_CLAUDES
def test_thinking_gives_way_in_a_tool_loop_that_began_without(vendor):
    message: dict[str, Any] = {"role": "assistant", "tool_calls": [call()]}
    loop = [*HELLO, *answered(message)]
    members = {"tools": [function()], "reasoning_effort": "low", "temperature": 0.5}
    body, losses = said(vendor, messages=loop, **members)
    assert "thinking" not in json.dumps(body)
    assert losses == ("reasoning_effort",)
    assert sampling(vendor, body) == (0.5, None)
    sealed = {
        "type": "reasoning.text",
        "text": "t",
        "signature": "s",
        "format": "anthropic-claude-v1",
    }
    thought = [*HELLO, *answered({**message, "reasoning_details": [sealed]})]
    over = [*loop, {"role": "assistant", "content": "a"}, *HELLO]
    for messages in (thought, over):
        body, losses = said(vendor, messages=messages, **members)
        assert "budget_tokens" in json.dumps(body)
        assert losses == ("temperature",)


@pytest.mark.parametrize("vendor", ["anthropic", "vertex_anthropic"])
def test_thinking_in_the_vendors_words_gives_way_where_a_tool_is_forced(vendor):
    thinking = {"type": "enabled", "budget_tokens": 2_000}
    members = {"thinking": thinking, "tools": [function()], "tool_choice": "required"}
    body, losses = said(vendor, **members)
    assert "thinking" not in body
    assert losses == ("thinking",)


# -- reasoning said twice -------------------------------------------------------


@EVERYWHERE
@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"reasoning": {"effort": "low", "exclude": True}}, {"reasoning.exclude"}),
        ({"reasoning": {"effort": "low", "exclude": False}}, set()),
        (
            {"reasoning": {"effort": "low"}, "reasoning_effort": "high"},
            {"reasoning.effort"},
        ),
        ({"reasoning": {"effort": "low"}, "reasoning_effort": "low"}, set()),
    ],
    ids=["hidden", "shown", "two efforts", "one effort twice"],
)
def test_reasoning_that_is_not_said_is_named(vendor, members, expected):
    _, losses = said(vendor, **members)
    assert set(losses) == expected


@EVERYWHERE
@pytest.mark.parametrize("model", [None, adaptive], ids=["budget", "adaptive"])
@pytest.mark.parametrize(
    ("effort", "budget"),
    [("low", 5_000), ("none", 5_000), ("high", 0)],
    ids=["both", "off by effort", "off by budget"],
)
def test_effort_beside_a_budget_is_said_or_one_of_them_named(
    vendor, model, effort, budget
):
    name = model(vendor) if model and vendor in CLAUDES else None
    members = {"reasoning": {"effort": effort, "max_tokens": budget}}
    _, losses = said(vendor, model=name, **members)
    assert set(losses) & {"reasoning.effort", "reasoning.max_tokens"}


@EVERYWHERE
def test_reasoning_that_is_switched_on_is_on(vendor):
    body, losses = said(vendor, reasoning={"enabled": True})
    words = json.dumps(body).lower()
    assert "thinking" in words
    assert losses == ()


def test_budget_that_an_adaptive_model_does_not_take_is_named():
    _, losses = said("anthropic", model=ADAPTIVE, reasoning={"max_tokens": 2_000})
    assert losses == ("reasoning",)


@EVERYWHERE
def test_limits_in_two_names_that_differ_are_the_stricter_and_named(vendor):
    body, losses = said(vendor, max_tokens=9, max_completion_tokens=7)
    assert "7" in json.dumps(body)
    assert losses == ("max_tokens",)
    assert said(vendor, max_tokens=7, max_completion_tokens=7)[1] == ()


# -- names of tools -------------------------------------------------------------

LONG = "n" * 129


# Cohere states no rule.
@pytest.mark.parametrize("vendor", [one for one in VENDORS if one != "cohere"])
@pytest.mark.parametrize(
    "name", ["a b", "ä", LONG, ""], ids=["space", "umlaut", "long", "empty"]
)
def test_tool_of_an_illegal_name_is_refused_by_its_place(vendor, name):
    tools = [function(), function(name)]
    error = refusal_of(vendor, tools=tools)
    assert error.param == "tools[1].function.name"
    body, losses = said(vendor, tools=tools, policy="warn")
    assert losses == ("tools[1].function.name",)
    assert name == "" or name not in json.dumps(body, ensure_ascii=False)


@AT_CLAUDES
def test_dots_in_names_are_refused_where_the_vendor_has_none(vendor):
    assert refusal_of(vendor, tools=[function("a.b")]).param == "tools[0].function.name"


@pytest.mark.parametrize("vendor", ["gemini", "vertex_gemini", "cohere"])
def test_dots_in_names_pass_where_the_vendor_takes_them(vendor):
    body, losses = said(vendor, tools=[function("a.b")])
    assert '"a.b"' in json.dumps(body)
    assert losses == ()


@AT_CLAUDES
def test_call_of_old_with_an_illegal_name_gets_a_legal_one_and_is_named(vendor):
    first = answered({"role": "assistant", "tool_calls": [call("a", "x.y")]})
    second = answered({"role": "assistant", "tool_calls": [call("b", "x_y")]})
    body, losses = said(vendor, messages=[*HELLO, *first, *second])
    assert losses == ("messages[1].tool_calls",)
    names = {
        block.get("toolUse", block)["name"]
        for turn in body["messages"]
        if turn["role"] == "assistant"
        for block in turn["content"]
    }
    assert len(names) == 2
    assert "x_y" in names


# -- who speaks, and what about -------------------------------------------------


@EVERYWHERE
@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "s"}],
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": []}],
    ],
    ids=["instructions", "empty", "no parts"],
)
def test_messages_that_say_nothing_are_refused_by_the_providers_name(vendor, messages):
    if vendor == "cohere" and messages[0]["role"] == "system":
        assert said(vendor, messages=messages)[1] == ()
        return
    error = refusal_of(vendor, messages=messages)
    assert error.param == "messages"
    assert vendor in error.message


@EVERYWHERE
@pytest.mark.parametrize("content", ["", []], ids=["empty", "no parts"])
def test_message_that_says_nothing_among_others_is_named(vendor, content):
    blank = {"role": "user", "content": content}
    messages = [*HELLO, {"role": "assistant", "content": "a"}, blank, *HELLO]
    assert said(vendor, messages=messages)[1] == ("messages[2].content",)


@EVERYWHERE
def test_neighbours_of_one_role_are_all_said(vendor):
    messages = [{"role": "user", "content": word} for word in ("one", "two", "three")]
    body, losses = said(vendor, messages=messages)
    words = json.dumps(body)
    assert [word in words for word in ("one", "two", "three")] == [True] * 3
    assert losses == ()


@AT_CLAUDES
@pytest.mark.parametrize(
    ("content", "kept", "losses"),
    [
        ("The answer is: ", "The answer is:", ("messages[1].content[0]",)),
        ("The answer is:\n\n", "The answer is:", ("messages[1].content[0]",)),
        ("The answer is:", "The answer is:", ()),
        (" \n", None, ("messages[1].content[0]",)),
    ],
    ids=["space", "lines", "none", "nothing else"],
)
def test_white_space_at_the_end_of_a_prefill_is_cut_and_named(
    vendor, content, kept, losses
):
    messages = [*HELLO, {"role": "assistant", "content": content}]
    body, lost = said(vendor, messages=messages)
    assert lost == losses
    last = body["messages"][-1]
    if kept is None:
        assert last["role"] == "user"
    else:
        text = last["content"]
        assert text in (kept, [{"text": kept}])


@pytest.mark.parametrize("vendor", ["gemini", "cohere"])
def test_white_space_at_the_end_of_a_prefill_stays_where_it_is_taken(vendor):
    messages = [*HELLO, {"role": "assistant", "content": "So: "}]
    body, losses = said(vendor, messages=messages)
    assert '"So: "' in json.dumps(body)
    assert losses == ()


def test_bedrock_begins_with_the_user():
    greeting = {"role": "assistant", "content": "Welcome"}
    messages = [{"role": "system", "content": "s"}, greeting, *HELLO]
    error = refusal_of("bedrock", messages=messages)
    assert error.param == "messages[1].role"
    body, losses = said("bedrock", messages=messages, policy="warn")
    assert [turn["role"] for turn in body["messages"]] == ["user"]
    assert losses == ("messages[1].role",)
    asked = {"role": "assistant", "content": None, "tool_calls": [call()]}
    result = {"role": "tool", "tool_call_id": "c", "content": "r"}
    body, losses = said(
        "bedrock", messages=[asked, result, greeting, *HELLO], policy="warn"
    )
    assert body["messages"] == [{"role": "user", "content": [{"text": "Hello"}]}]
    assert losses == tuple(f"messages[{index}].role" for index in range(3))
    # Recorded: Anthropic itself takes it.
    body, losses = said("anthropic", messages=messages)
    assert [turn["role"] for turn in body["messages"]] == ["assistant", "user"]
    assert losses == ()


def test_bedrock_that_begins_with_the_user_has_no_results_without_calls():
    loop = answered({"role": "assistant", "tool_calls": [call()]})
    messages = [*loop, *HELLO]
    body, _ = said("bedrock", messages=messages, policy="warn")
    (turn,) = body["messages"]
    assert turn == {"role": "user", "content": [{"text": "Hello"}]}


@EVERYWHERE
def test_custom_call_and_its_result_are_left_out_together(vendor):
    custom = {"id": "c", "type": "custom", "custom": {"name": "g", "input": "x"}}
    messages = [*HELLO, *answered({"role": "assistant", "tool_calls": [custom]})]
    assert refusal_of(vendor, messages=messages).param == "messages[1].tool_calls"
    body, losses = said(vendor, messages=messages, policy="warn")
    assert {"messages[1].tool_calls", "messages[2].content"} <= set(losses)
    assert '"ok"' not in json.dumps(body)


@EVERYWHERE
@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "function": {"name": "nobody"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto", "tools": [function("nobody")]},
        },
    ],
    ids=["named", "allowed"],
)
def test_choice_of_a_tool_that_is_not_there_is_refused(vendor, choice):
    error = refusal_of(vendor, tools=[function()], tool_choice=choice)
    assert error.param == "tool_choice"
    assert "nobody" in error.message


def test_tools_of_the_provider_are_not_sent_where_only_others_may_be_called():
    choice = {"mode": "auto", "tools": [function("f")]}
    body, _ = said(
        "anthropic",
        tools=[function("f"), {"type": "web_search_20250305", "name": "web_search"}],
        tool_choice={"type": "allowed_tools", "allowed_tools": choice},
    )
    assert [tool["name"] for tool in body["tools"]] == ["f"]


@pytest.mark.parametrize("vendor", ["anthropic", "gemini", "cohere"])
def test_words_about_the_answers_shape_without_a_place_are_named(vendor):
    shape = shape_of(OBJECT)
    shape["json_schema"]["description"] = "A letter."
    _, losses = said(vendor, response_format=shape)
    assert losses == ("response_format.json_schema.description",)


@AT_CLAUDES
def test_name_of_a_picture_sent_as_a_file_is_named(vendor):
    data = f"data:image/png;base64,{PNG}"
    file = {"type": "file", "file": {"filename": "a.png", "file_data": data}}
    _, losses = said(vendor, messages=[{"role": "user", "content": [file]}])
    assert losses == ("messages[0].content[0].file.filename",)


@AT_CLAUDES
def test_instructions_are_text_and_pictures_among_them_are_refused(vendor):
    picture = {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{PNG}"},
    }
    text = {"type": "text", "text": "s"}
    messages = [{"role": "system", "content": [text, picture]}, *HELLO]
    assert refusal_of(vendor, messages=messages).param == "messages[0].content[1]"
    body, losses = said(vendor, messages=messages, policy="warn")
    assert losses == ("messages[0].content[1]",)
    assert body["system"] in ("s", [{"text": "s"}])


@AT_CLAUDES
def test_instructions_of_white_space_are_left_out_and_named(vendor):
    messages = [{"role": "system", "content": " \n"}, *HELLO]
    body, losses = said(vendor, messages=messages)
    assert not body.get("system")
    assert losses == ("messages[0].content[0]",)


@AT_CLAUDES
def test_pictures_and_files_of_the_assistant_are_refused(vendor):
    data = f"data:image/png;base64,{PNG}"
    parts = [
        {"type": "image_url", "image_url": {"url": data}},
        {"type": "file", "file": {"filename": "a.png", "file_data": data}},
    ]
    for part, name in zip(parts, ("image_url", "file"), strict=True):
        answer = {"role": "assistant", "content": [part]}
        error = refusal_of(vendor, messages=[*HELLO, answer, *HELLO])
        assert error.param == f"messages[1].content[0].{name}"


@pytest.mark.parametrize("vendor", ["anthropic", "vertex_anthropic"])
def test_thoughts_at_the_end_are_left_out_where_the_model_is_not_to_think(vendor):
    sealed = {"type": "reasoning.text", "text": "t", "signature": "s"}
    last = {"role": "assistant", "content": "So", "reasoning_details": [sealed]}
    body, losses = said(vendor, messages=[*HELLO, last])
    assert body["messages"][-1] == {"role": "assistant", "content": "So"}
    assert losses == ("messages[1].reasoning_content",)
    body, losses = said(vendor, messages=[*HELLO, last], reasoning_effort="low")
    assert body["messages"][-1]["content"][0]["type"] == "thinking"
    assert losses == ()
    body, losses = said(vendor, messages=[*HELLO, last, *HELLO])
    assert body["messages"][1]["content"][0]["type"] == "thinking"
    assert losses == ()
