"""What becomes of each parameter in each dialect: the one table.

The one rule: this table decides, and conversions obey. A request's rendering
(``losses.Report``), the capabilities that are published and the documentation all read
it; no dialect keeps a list of its own. What is absent from the table is unknown to
every vendor but perhaps the one that it was meant for: it is dropped and named, unless
a dialect has it among the members of its own format.

Names are those of OpenAI's chat format; with a dot, a part or a use of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

__all__ = ["COLUMNS", "DEFAULTS", "TABLE", "Handling", "column", "told"]


class Handling(Enum):
    """What a dialect does with a parameter that the client set."""

    PASSED = "passed"
    """Said in the vendor's format with the same name and value."""
    TRANSLATED = "translated"
    """Said with another name or shape; it means the same."""
    EMULATED = "emulated"
    """The vendor does not have it; the gateway brings about what it asks for."""
    DROPPED = "dropped"
    """A hint that the vendor does not have: left out and named in the answer."""
    REFUSED = "refused"
    """It changes what the answer means and cannot be said: a 400 that names it."""


P = Handling.PASSED
T = Handling.TRANSLATED
E = Handling.EMULATED
D = Handling.DROPPED
R = Handling.REFUSED

COLUMNS = ("anthropic", "gemini", "bedrock", "cohere")
"""Formats by name; dialects that wrap one (Vertex, Bedrock invoke) share its column."""

# fmt: off
_ROWS: dict[str, tuple[Handling, ...]] = {
    # name                    anthropic, gemini, bedrock, cohere
    "max_completion_tokens":           (T, T, T, T),
    "max_tokens":                      (P, T, T, P),
    "temperature":                     (P, T, T, P),
    "top_p":                           (P, T, T, T),
    "top_k":                           (P, T, T, T),
    "stop":                            (T, T, T, T),
    "n":                               (E, T, E, E),
    "seed":                            (R, T, R, P),
    "frequency_penalty":               (R, T, R, P),
    "presence_penalty":                (R, T, R, P),
    "logit_bias":                      (R, R, R, R),
    "logprobs":                        (R, T, R, R),
    "top_logprobs":                    (R, T, R, R),
    "response_format.json_object":     (E, T, E, T),
    "response_format.json_schema":     (E, T, E, T),
    "tools":                           (T, T, T, T),
    "tools.strict":                    (P, D, P, D),
    "tools.custom":                    (R, R, R, R),
    "tools.provider":                  (P, T, T, R),
    "tool_choice":                     (T, T, T, T),
    "tool_choice.none":                (T, T, T, T),
    "tool_choice.named":               (T, T, T, E),
    "tool_choice.allowed_tools":       (E, T, E, E),
    "parallel_tool_calls":             (T, R, R, R),
    "functions":                       (T, T, T, T),
    "function_call":                   (T, T, T, T),
    "reasoning_effort":                (T, T, T, T),
    "reasoning":                       (T, T, T, T),
    "thinking":                        (P, T, T, T),
    "modalities":                      (R, T, R, R),
    "audio":                           (R, R, R, R),
    "prediction":                      (D, D, D, D),
    "verbosity":                       (D, D, D, D),
    "web_search_options":              (R, R, R, R),
    "moderation":                      (R, R, R, R),
    "user":                            (T, D, D, D),
    "safety_identifier":               (T, D, D, D),
    "metadata":                        (D, D, T, D),
    "service_tier":                    (T, T, T, D),
    "store":                           (D, D, D, D),
    "prompt_cache_key":                (D, D, D, D),
    "prompt_cache_retention":          (D, D, D, D),
    "prompt_cache_options":            (D, D, D, D),
    "cache_control":                   (P, D, T, D),
    # the content of messages
    "messages.name":                   (D, D, D, D),
    "image_url":                       (T, T, E, P),
    "image_url.data":                  (T, T, T, P),
    "image_url.detail":                (D, D, D, P),
    "file.data":                       (T, T, T, R),
    "file.url":                        (T, T, E, R),
    "file.id":                         (R, R, R, R),
    "input_audio":                     (R, T, T, R),
    "refusal":                         (T, T, T, T),
    "reasoning_details":               (T, T, T, D),
}
# fmt: on

TABLE: Mapping[str, Mapping[str, Handling]] = MappingProxyType(
    {
        name: MappingProxyType({row: cells[place] for row, cells in _ROWS.items()})
        for place, name in enumerate(COLUMNS)
    }
)
"""Format -> parameter -> handling."""


def column(name: str) -> Mapping[str, Handling]:
    """Return what the format *name* does with each parameter."""
    return TABLE[name]


_ALWAYS: Mapping[str, Handling] = MappingProxyType(
    {"messages": T, "stream": T, "stream_options": E}
)
"""What every format says in its own way, and no row of the table is about."""


def told(name: str, native: frozenset[str]) -> Mapping[str, Handling]:
    """Return what to publish of the format *name*: its column, and its own members.

    Args:
        name: Of the column.
        native: Members of the format that are handed on as the client wrote them.
    """
    return {**_ALWAYS, **dict.fromkeys(native, Handling.PASSED), **TABLE[name]}


DEFAULTS: Mapping[str, frozenset[bytes]] = MappingProxyType(
    {
        "n": frozenset({b"1"}),
        "logprobs": frozenset({b"false"}),
        "top_logprobs": frozenset({b"0"}),
        "frequency_penalty": frozenset({b"0", b"0.0"}),
        "presence_penalty": frozenset({b"0", b"0.0"}),
        "logit_bias": frozenset({b"{}"}),
        "parallel_tool_calls": frozenset({b"true"}),
        "store": frozenset({b"false"}),
        "metadata": frozenset({b"{}"}),
        "modalities": frozenset({b'["text"]', b'["TEXT"]'}),
        "verbosity": frozenset({b'"medium"'}),
        "service_tier": frozenset({b'"auto"'}),
        "functions": frozenset({b"[]"}),
        "tools": frozenset({b"[]"}),
    }
)
"""Values that say what is meant without them, as JSON without white space: leaving
these out loses nothing, so they are neither refused nor named. Clients that fill in
every field send them."""
