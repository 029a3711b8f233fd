"""Requests in OpenAI's format, as Hypothesis strategies, for every dialect's tests."""

from __future__ import annotations

import copy

import msgspec
from hypothesis import strategies as st
from msgspec import Raw

from tz_protocol.types.request import ParsedRequest

WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12
)
NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,10}", fullmatch=True)
IDS = st.from_regex(r"[a-zA-Z0-9_-]{1,20}", fullmatch=True)
FOREIGN_IDS = IDS | st.from_regex(r"[a-z.:/]{1,20}", fullmatch=True)
PNG = "iVBORw0KGgoAAAANSUhEUg=="
PDF = "JVBERi0xLjQ="

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
    ),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(NAMES, JSON_VALUES, max_size=3).map(
    lambda value: msgspec.json.encode(value).decode()
)


def optional(name, values):
    """Return a strategy of ``{}`` and ``{name: value}``."""
    return st.just({}) | values.map(lambda value: {name: value})


def objects(*members):
    """Return a strategy of dictionaries joined from *members*."""
    return st.tuples(*members).map(
        lambda found: {name: value for one in found for name, value in one.items()}
    )


CACHE = optional(
    "cache_control",
    st.sampled_from([{"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}]),
)
TEXT_PARTS = objects(WORDS.map(lambda text: {"type": "text", "text": text}), CACHE)
IMAGE_PARTS = objects(
    st.sampled_from(
        ["https://example.org/a.png", f"data:image/png;base64,{PNG}"]
    ).flatmap(
        lambda url: objects(
            st.just({"url": url}),
            optional("detail", st.sampled_from(["auto", "low", "high"])),
        ).map(lambda value: {"type": "image_url", "image_url": value})
    ),
    CACHE,
)
FILE_PARTS = WORDS.map(
    lambda name: {
        "type": "file",
        "file": {"filename": name, "file_data": f"data:application/pdf;base64,{PDF}"},
    }
)
CONTENT = WORDS | st.lists(
    TEXT_PARTS | IMAGE_PARTS | FILE_PARTS, min_size=1, max_size=3
)

SYSTEM = objects(
    st.sampled_from(["system", "developer"]).map(lambda role: {"role": role}),
    (WORDS | st.lists(TEXT_PARTS, min_size=1, max_size=2)).map(
        lambda content: {"content": content}
    ),
)
USER = objects(
    st.just({"role": "user"}),
    CONTENT.map(lambda content: {"content": content}),
    optional("name", NAMES),
)
THOUGHTS = st.lists(
    st.builds(
        lambda text, seal: {
            "type": "reasoning.text",
            "text": text,
            "signature": seal,
            "format": "anthropic-claude-v1",
        },
        WORDS,
        IDS,
    )
    | IDS.map(
        lambda data: {
            "type": "reasoning.encrypted",
            "data": data,
            "format": "anthropic-claude-v1",
        }
    ),
    min_size=1,
    max_size=2,
)
ASSISTANT = objects(
    st.just({"role": "assistant"}),
    WORDS.map(lambda text: {"content": text}),
    optional("reasoning_details", THOUGHTS)
    | optional("reasoning_content", WORDS)
    | optional("refusal", WORDS),
)


@st.composite
def calls_and_results(draw):
    """An assistant's parallel tool calls and all their results."""
    ids = draw(st.lists(FOREIGN_IDS, min_size=1, max_size=3, unique=True))
    calls = [
        {
            "id": call_id,
            "type": "function",
            "function": {"name": draw(NAMES), "arguments": draw(ARGUMENTS)},
        }
        for call_id in ids
    ]
    head = {"role": "assistant", "content": draw(st.none() | WORDS)}
    results = [
        {
            "role": "tool",
            "tool_call_id": call_id,
            "content": draw(WORDS | st.lists(TEXT_PARTS, min_size=1, max_size=2)),
        }
        for call_id in ids
    ]
    return [{**head, "tool_calls": calls}, *results]


MESSAGES = st.builds(
    lambda before, first, groups: [*before, first, *(m for g in groups for m in g)],
    st.lists(SYSTEM, max_size=2),
    USER,
    st.lists(
        (USER | ASSISTANT | SYSTEM).map(lambda message: [message])
        | calls_and_results(),
        max_size=4,
    ),
)

SCHEMAS = st.dictionaries(
    NAMES, st.sampled_from([{"type": "string"}, {"type": "integer"}]), max_size=3
).map(
    lambda properties: {
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }
)
TOOLS = st.lists(
    objects(
        NAMES.map(lambda name: {"name": name}),
        optional("description", WORDS),
        optional("parameters", SCHEMAS),
        optional("strict", st.booleans()),
    ).map(lambda function: {"type": "function", "function": function}),
    min_size=1,
    max_size=3,
    unique_by=lambda tool: tool["function"]["name"],
)


@st.composite
def tools_and_choice(draw):
    """Tools, what is to be done with them, and whether in parallel."""
    tools = draw(TOOLS)
    name = draw(st.sampled_from([tool["function"]["name"] for tool in tools]))
    choice = st.sampled_from(
        ["auto", "none", "required", {"type": "function", "function": {"name": name}}]
    )
    return {
        "tools": tools,
        **draw(optional("tool_choice", choice)),
        **draw(optional("parallel_tool_calls", st.booleans())),
    }


PARAMETERS = objects(
    optional("temperature", st.floats(0, 1)),
    optional("max_tokens", st.integers(1, 4_096)),
    optional("stop", WORDS | st.lists(WORDS, max_size=3)),
    optional("user", WORDS),
    optional("metadata", st.dictionaries(NAMES, WORDS, max_size=2)),
    optional("store", st.booleans()),
    optional("service_tier", st.sampled_from(["auto", "default", "flex"])),
    optional("reasoning_effort", st.sampled_from(["none", "low", "high"])),
    optional(
        "response_format",
        st.just({"type": "text"})
        | SCHEMAS.map(
            lambda schema: {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema, "strict": True},
            }
        ),
    ),
    optional("something_new", JSON_VALUES),
    st.just({}) | tools_and_choice(),
)

REQUESTS = objects(MESSAGES.map(lambda messages: {"messages": messages}), PARAMETERS)
"""Bodies without ``model``."""


# -- things that are not what they should be ------------------------------------

ABSENT = object()
TWICE = object()


def places(value, path=()):
    """Return the path of everything in *value* but itself."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, child in inner:
        yield (*path, key)
        yield from places(child, (*path, key))


@st.composite
def changed(draw, sample, odd):
    """Return *sample* with one to three things changed: taken away, said twice, or
    something of *odd* in their place."""
    value = copy.deepcopy(sample)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(value))
        if not found:
            break
        *way, last = draw(st.sampled_from(found))
        parent = value
        for key in way:
            parent = parent[key]
        change = draw(st.just(ABSENT) | st.just(TWICE) | odd)
        if change is ABSENT:
            del parent[last]
        elif change is not TWICE:
            parent[last] = copy.deepcopy(change)
        elif isinstance(parent, list):
            parent.insert(last, copy.deepcopy(parent[last]))
    return value


def parsed(body, *, is_stream=False):
    """Return *body* as a client's request, parsed as far as an endpoint does."""
    encoded = msgspec.json.encode(body)
    fields = msgspec.json.decode(encoded, type=dict[str, Raw])
    return ParsedRequest(model="public", is_stream=is_stream, fields=fields)
