"""What a vendor's row says of its answers reaches the caller as OpenAI would say it."""

from __future__ import annotations

import json

import msgspec
import pytest

from tests.protocol.config.reading import problems
from tests.protocol.flows.serving import (
    JSON,
    Served,
    answer,
    chat,
    events,
    header,
    snapshot,
)
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.dialects.openai_chat_messages import MESSAGE_QUIRKS
from tz_protocol.dialects.openai_chat_repairs import QUIRKS, THINK_BLOCKS
from tz_protocol.providers import ROWS
from tz_protocol.providers.base import Deviations
from tz_protocol.testing import reply, sse

CONTENT = "<think>Hm.</think>Hello"


def whole(**message):
    made = {"role": "assistant", "content": CONTENT, **message}
    choice = {"index": 0, "message": made, "finish_reason": "stop"}
    return reply(200, JSON, json.dumps({"choices": [choice]}).encode())


def chunk(delta, finish=None):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return json.dumps({"choices": [choice]})


def serve(kind, upstream, **options):
    config = snapshot(("a.test",))
    table = config.models["m"]
    first = msgspec.structs.replace(table.providers["a"], type=kind, options=options)
    models = {"m": msgspec.structs.replace(table, providers={"a": first})}
    return Served([upstream], config=msgspec.structs.replace(config, models=models))


@pytest.mark.parametrize(
    ("kind", "options", "is_split"),
    [
        ("together", {}, True),
        ("fireworks", {}, True),
        ("together", {"parse_think_blocks": "false"}, False),
        ("openai", {}, False),
        ("openai", {"parse_think_blocks": "true"}, True),
        ("vllm", {"parse_think_blocks": "true"}, True),
    ],
    ids=["together", "fireworks", "off", "openai", "on", "vllm"],
)
def test_think_block_is_split_where_the_row_or_the_table_says_so(
    kind, options, is_split
):
    message = answer(serve(kind, whole(), **options).ask())["choices"][0]["message"]
    assert message["content"] == ("Hello" if is_split else CONTENT)
    assert message.get("reasoning_content") == ("Hm." if is_split else None)
    stream = sse(*(chunk({"content": letter}) for letter in CONTENT), chunk({}, "stop"))
    found = events(serve(kind, stream, **options).ask(chat(stream=True)))
    deltas = [one["choices"][0]["delta"] for one in found[:-1]]
    told = "".join(delta.get("content", "") for delta in deltas)
    assert told == message["content"]


@pytest.mark.parametrize("kind", ["groq", "openrouter", "vllm", "ollama"])
def test_reasoning_has_one_name_whoever_answers(kind):
    made = answer(serve(kind, whole(content="a", reasoning="Hm.")).ask())
    message = made["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "a", "reasoning_content": "Hm."}


def test_messages_are_fitted_and_losses_named():
    served = serve("mistral", whole(content="a"))
    messages = [
        {"role": "developer", "content": "b"},
        {"role": "user", "content": "c", "name": "n"},
    ]
    outcome = served.ask(chat(messages=messages))
    assert header(outcome, "x-tz-dropped-params") == "messages[1].name"
    ((_, _, message),) = served.sim.requests
    assert msgspec.json.decode(message.body)["messages"] == [
        {"role": "system", "content": "b"},
        {"role": "user", "content": "c"},
    ]


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_row_states_quirks_that_the_dialect_knows(row):
    known = QUIRKS.keys() | MESSAGE_QUIRKS.keys()
    assert row.deviations.quirks <= known
    assert set(row.deviations.switches.values()) <= known
    assert set(row.deviations.switches) <= {*row.required, *row.optional}


@pytest.mark.parametrize(
    ("value", "is_wrong"),
    [("true", False), ("1", True), ('"true"', True)],
    ids=["boolean", "number", "string"],
)
def test_switch_is_true_or_false(value, is_wrong):
    table = f"""
        [models.m]
        routing = ["a"]
        [models.m.providers.a]
        type = "openai"
        model_name = "x"
        parse_think_blocks = {value}
    """
    found = problems(table, OPENAI_API_KEY="sk")
    assert bool(found) is is_wrong
    assert all("expected true or false, found " in one for one in found)


def test_dialect_with_quirks_is_made_once_and_keeps_its_name():
    assert OPENAI_CHAT.adapted is not None
    made = OPENAI_CHAT.adapted(frozenset({THINK_BLOCKS}))
    assert made is OPENAI_CHAT.adapted(frozenset({THINK_BLOCKS}))
    assert made.name == OPENAI_CHAT.name


@pytest.mark.parametrize(
    ("options", "quirks"),
    [({}, {"a"}), ({"x": "true"}, {"a", "b"}), ({"y": "false"}, set())],
    ids=["none", "on", "off"],
)
def test_switch_of_the_table_has_the_last_word(options, quirks):
    deviations = Deviations(quirks=frozenset({"a"}), switches={"x": "b", "y": "a"})
    assert deviations.quirks_with(options) == quirks
