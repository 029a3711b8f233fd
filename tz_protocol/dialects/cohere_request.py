"""The neutral conversation -> the body of a Cohere v2 chat request.

The one rule: the body is what the vendor accepts, and says what the caller said; a
number that OpenAI allows and the vendor does not is moved to the nearest that it
does, and named.

Source: https://docs.cohere.com/v2/reference/chat.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from tz_protocol.dialects.cohere_messages import MessagesRenderer
from tz_protocol.dialects.losses import Report
from tz_protocol.dialects.parameters import column
from tz_protocol.dialects.schemas import as_object
from tz_protocol.types.conversation import (
    Conversation,
    CustomTool,
    FunctionTool,
    ToolChoice,
)
from tz_protocol.types.request import Target

__all__ = ["ANSWER_TOOL", "RequestRenderer"]

ANSWER_TOOL = "tz_structured_answer"
"""The tool through which structured output is asked for beside other tools, with which
the vendor's own JSON mode does not go; decoders turn its call back into text."""

NATIVE = frozenset(
    {
        "citation_options",
        "documents",
        "k",
        "p",
        "priority",
        "safety_mode",
        "strict_tools",
        "thinking",
    }
)
"""Members of the vendor's own format that are handed on as the client wrote them."""

_COLUMN = column("cohere")

_SILENT = re.compile(
    # https://docs.cohere.com/docs/models: the ones that do not think. Names that are
    # not known are taken for new models: they must not cost capabilities.
    r"command(?:-light|-nightly)?(?:-nightly)?|command-r.*|command-a-\d.*"
    r"|command-a-(?:vision|translate).*|c4ai-aya.*"
)

_EFFORTS: dict[str, int | None] = {
    "minimal": 1_024,
    "low": 2_048,
    "medium": 8_192,
    "high": None,
    "xhigh": None,
    "max": None,
}
"""Effort -> tokens to think for; None leaves it to the model, which the vendor
documents as the most."""

_RANGES = (
    ("temperature", "temperature", 0.0, 1.0),
    ("top_p", "p", 0.01, 0.99),
    ("frequency_penalty", "frequency_penalty", 0.0, 1.0),
    ("presence_penalty", "presence_penalty", 0.0, 1.0),
)
"""OpenAI's name, the vendor's, and the least and the greatest that it takes."""

_PASSED = (("seed", "seed"), ("top_k", "k"))

_ANY_OBJECT = Raw(b'{"type":"object","additionalProperties":true}')

_THINKING_MEMBERS = frozenset({"type", "budget_tokens", "token_budget"})
_THINKING = msgspec.json.Decoder(dict[str, Raw])


class RequestRenderer:
    """Renders one conversation for one target; call :meth:`render` once.

    Args:
        conversation: What to say.
        target: Whom to say it to.

    Raises:
        InvalidRequest: It cannot be said there.
    """

    def __init__(self, conversation: Conversation, target: Target) -> None:
        self.report = Report(target, conversation, _COLUMN, NATIVE)
        self._conversation = conversation
        self._unsupported = target.unsupported
        self._is_thinker = _SILENT.fullmatch(target.model) is None
        self._fields: dict[str, Any] = {}

    def render(self) -> dict[str, Any]:
        """Return the members of the body, without ``model`` and ``stream``."""
        conversation, fields = self._conversation, self._fields
        renderer = MessagesRenderer(self.report, is_thinker=self._is_thinker)
        messages = renderer.render(conversation.messages)
        if not messages:
            raise self.report.silent()
        fields["messages"] = messages
        if conversation.max_tokens is not UNSET:
            fields["max_tokens"] = conversation.max_tokens
        if conversation.stop:
            fields["stop_sequences"] = list(conversation.stop)
        self._tools()
        self._reasoning()
        self._sampling()
        for name, raw in conversation.parameters.items():
            if name in NATIVE and name not in fields and name != "thinking":
                fields[name] = raw
        return fields

    # -- tools and the shape of the answer ----------------------------------------

    def _tools(self) -> None:
        conversation, fields = self._conversation, self._fields
        choice = conversation.tool_choice
        tools: list[Any] = []
        for index, tool in enumerate(conversation.tools):
            if isinstance(tool, FunctionTool):
                if _is_allowed(tool.name, choice):
                    tools.append(self._function(index, tool))
            elif isinstance(tool, CustomTool):
                reason = "Custom tools are OpenAI's own."
                self.report.handle("tools.custom", f"tools[{index}]", reason)
            else:
                reason = "It runs no tools itself in this version of its API."
                self.report.handle("tools.provider", f"tools[{index}]", reason)
        if isinstance(choice, ToolChoice) and tools:
            if choice.mode == "named" or choice.mode == "required":
                fields["tool_choice"] = "REQUIRED"
            elif choice.mode == "none":
                fields["tool_choice"] = "NONE"
        if conversation.response_format is not UNSET:
            self._structured(tools)
        if tools:
            fields["tools"] = tools

    def _function(self, index: int, tool: FunctionTool) -> dict[str, Any]:
        path = f"tools[{index}].function"
        if tool.name == ANSWER_TOOL:
            message = f"The name {ANSWER_TOOL} is the gateway's own."
            raise self.report.invalid(f"{path}.name", message)
        made: dict[str, Any] = {"name": tool.name}
        if tool.description is not UNSET:
            made["description"] = tool.description
        made["parameters"] = self._schema(tool.parameters, f"{path}.parameters")
        if tool.is_strict is True:
            # strict_tools is for all tools at once, and refuses tools without a
            # required parameter.
            self.report.handle("tools.strict", f"{path}.strict")
        if tool.cache is not UNSET:
            self.report.handle("cache_control", f"tools[{index}].cache_control")
        return {"type": "function", "function": made}

    def _schema(self, schema: Any, path: str) -> Raw:
        try:
            return as_object(schema)
        except ValueError as error:
            raise self.report.invalid(path, f"{path} {error}.") from None

    def _structured(self, tools: list[Any]) -> None:
        """Ask for the answer's shape: in the vendor's JSON mode, or by a tool."""
        shape, fields = self._conversation.response_format, self._fields
        if shape is UNSET:
            return
        schema = None
        if shape.schema is not UNSET:
            path = "response_format.json_schema.schema"
            schema = self._schema(shape.schema, path)
        if fields.get("tool_choice") == "NONE":
            # Not to be called, and in the way of the JSON mode.
            tools.clear()
            del fields["tool_choice"]
        if not tools:
            made: dict[str, Any] = {"type": "json_object"}
            if schema is not None:
                made["json_schema"] = schema
            if shape.description is not UNSET and shape.description:
                self.report.drop("response_format.json_schema.description")
            fields["response_format"] = made
            return
        choice = self._conversation.tool_choice
        if isinstance(choice, ToolChoice) and choice.mode == "named":
            # The answer is that call. Required is all that can be said of it, so
            # that a second tool might be called instead.
            return
        description = "Give the answer by calling this tool, and only in this way."
        if shape.description is not UNSET:
            description = f"{description} {shape.description}"
        answer = {
            "name": ANSWER_TOOL,
            "description": description,
            "parameters": _ANY_OBJECT if schema is None else schema,
        }
        tools.append({"type": "function", "function": answer})
        if "tool_choice" not in fields:
            fields["tool_choice"] = "REQUIRED"

    # -- reasoning and sampling ---------------------------------------------------

    def _reasoning(self) -> None:
        reasoning = self._conversation.reasoning
        if reasoning is UNSET:
            return
        effort, budget = reasoning.effort, reasoning.budget_tokens
        is_off = effort == "none" or budget == 0
        if effort is not UNSET and effort != "none" and effort not in _EFFORTS:
            words = ", ".join(["none", *_EFFORTS])
            message = f"reasoning_effort must be one of {words}."
            raise self.report.invalid("reasoning_effort", message)
        if not self._is_thinker:
            if not is_off:
                given = self._conversation.given
                names = ("reasoning_effort", "reasoning", "thinking")
                for name in (name for name in names if name in given):
                    self.report.drop(name)
            return
        is_worded = budget is UNSET or (effort == "none" and budget != 0)
        self.report.contradiction(reasoning, kept="effort" if is_worded else "budget")
        if is_off:
            self._fields["thinking"] = {"type": "disabled"}
        else:
            self._think(effort, budget)

    def _think(self, effort: Any, budget: Any) -> None:
        made: dict[str, Any] = {"type": "enabled"}
        if budget is not UNSET:
            made["token_budget"] = budget
        elif effort is not UNSET and (most := _EFFORTS[effort]) is not None:
            made["token_budget"] = most
        raw = self._conversation.parameters.get("thinking")
        own = {} if raw is None else _THINKING.decode(raw)
        if "token_budget" in own:
            made["token_budget"] = own["token_budget"]
        for name in own.keys() - _THINKING_MEMBERS:
            self.report.drop(f"thinking.{name}")
        self._fields["thinking"] = made

    def _sampling(self) -> None:
        parameters, fields, report = (
            self._conversation.parameters,
            self._fields,
            self.report,
        )
        for name, theirs, least, most in _RANGES:
            value = report.number(name)
            if value is None or name in self._unsupported:
                continue
            if least <= value <= most:
                fields[theirs] = parameters[name]
                continue
            # p ends short of 0 and 1, which is as good as the same.
            if name != "top_p" or not 0 <= value <= 1:
                report.drop(name)
            fields[theirs] = least if value < least else most
        for name, theirs in _PASSED:
            if name in parameters and name not in self._unsupported:
                fields[theirs] = parameters[name]


def _is_allowed(name: str, choice: Any) -> bool:
    """Return whether a tool may be called: the vendor calls whatever it is given."""
    if not isinstance(choice, ToolChoice):
        return True
    if choice.mode == "named":
        return name == choice.name
    return not choice.allowed or name in choice.allowed
