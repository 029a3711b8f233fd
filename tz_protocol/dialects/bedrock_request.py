"""The neutral conversation -> the body of a Converse request.

The one rule: the body is what the vendor accepts, and says what the caller said; where
two things that the caller asked for exclude each other there, the hint gives way and
is named, and if neither is one the request is refused. What a model takes beyond
Converse's own members goes into ``additionalModelRequestFields``.

Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/
API_runtime_Converse.html; .../bedrock/latest/userguide/structured-output.html,
claude-messages-extended-thinking.html, prompt-caching.html, conversation-inference-
call.html; https://docs.aws.amazon.com/nova/latest/nova2-userguide/
extended-thinking.html.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from tz_protocol.dialects.anthropic_request import ANSWER_TOOL
from tz_protocol.dialects.bedrock_messages import TOOL_NAME, MessagesRenderer
from tz_protocol.dialects.bedrock_models import family_of
from tz_protocol.dialects.losses import Report
from tz_protocol.dialects.parameters import column
from tz_protocol.dialects.schemas import EMPTY_OBJECT, as_object, closed
from tz_protocol.types.conversation import (
    CacheHint,
    Conversation,
    CustomTool,
    FunctionTool,
    ProviderTool,
)
from tz_protocol.types.request import Target

__all__ = ["NATIVE", "RequestRenderer"]

_ADDITIONAL = "additionalModelRequestFields"

NATIVE = frozenset(
    {
        _ADDITIONAL,
        "additionalModelResponseFieldPaths",
        "guardrailConfig",
        "outputConfig",
        "performanceConfig",
        "promptVariables",
        "requestMetadata",
        "serviceTier",
    }
)
"""Members of the vendor's own format that are handed on as the client wrote them."""

_NATIVE_AND_THINKING = NATIVE | {"thinking"}
"""For the models that are told of it in Anthropic's words."""

_COLUMN = column("bedrock")

_MIN_BUDGET = 1_024
"""Claude's least ``budget_tokens``."""

_BUDGETS = {
    "minimal": 1_024,
    "low": 2_048,
    "medium": 8_192,
    "high": 16_384,
    "xhigh": 32_768,
    "max": 32_768,
}
"""For models that are told how many tokens to think for; the same as at Anthropic."""

_LEAST_TOP_P = 0.95
"""Claude's, while thinking: claude-messages-extended-thinking.html."""

_EFFORTS = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
_THREE_EFFORTS = {**_EFFORTS, "xhigh": "high", "max": "high"}
"""For models that know three words only."""

_MEMBERS = msgspec.json.Decoder(dict[str, Raw])
_LABELS = msgspec.json.Decoder(dict[str, str])
_LABEL = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,.-]{0,256}")
"""API_runtime_Converse.html, ``requestMetadata``."""

_TIERS = frozenset({"default", "flex", "priority"})
_ANY_OBJECT = Raw(b'{"type":"object","additionalProperties":true}')
_ADAPTIVE = Raw(b'{"type":"adaptive"}')
_DISABLED = Raw(b'{"type":"disabled"}')


class RequestRenderer:
    """Renders one conversation for one target; call :meth:`render` once.

    Args:
        conversation: What to say.
        target: Whom to say it to.

    Raises:
        InvalidRequest: It cannot be said there.
    """

    def __init__(self, conversation: Conversation, target: Target) -> None:
        self._family = family_of(target.model)
        is_adaptive = self._family.thinking == "adaptive"
        native = _NATIVE_AND_THINKING if is_adaptive else NATIVE
        self.report = Report(target, conversation, _COLUMN, native)
        self._conversation = conversation
        self._renderer = MessagesRenderer(self.report, self._family)
        self._fields: dict[str, Any] = {}
        self._inference: dict[str, Any] = {}
        self._more: dict[str, Any] = {}
        self._output: dict[str, Any] = {}
        self._forces_tool = False
        self._is_thinking = False
        self._has_no_sampling = False

    def render(self) -> dict[str, Any]:
        """Return the members of the body."""
        conversation, fields = self._conversation, self._fields
        system, turns = self._renderer.render(conversation.messages)
        if not turns:
            raise self.report.silent()
        if system:
            fields["system"] = system
        self._cache_all(turns[-1]["content"])
        fields["messages"] = turns
        for name, raw in conversation.parameters.items():
            if name in NATIVE:
                fields[name] = raw
        if conversation.max_tokens is not UNSET:
            self._inference["maxTokens"] = conversation.max_tokens
        self._tools()
        if conversation.reasoning is not UNSET:
            self._reasoning()
        self._sampling()
        if conversation.stop:
            self._stop()
        self._labels()
        if self._inference:
            fields["inferenceConfig"] = self._inference
        self._add("outputConfig", self._output)
        self._add(_ADDITIONAL, self._more)
        return fields

    def _add(self, name: str, ours: dict[str, Any]) -> None:
        """Add *ours* to a member; what the client wrote there itself counts."""
        if not ours:
            return
        theirs = self._fields.get(name)
        if theirs is None:
            self._fields[name] = ours
            return
        try:
            self._fields[name] = {**ours, **_MEMBERS.decode(theirs)}
        except msgspec.DecodeError:
            raise self.report.invalid(name, f"{name} must be an object.") from None

    def _cache_all(self, content: list[Any]) -> None:
        """``cache_control`` of the whole request: up to and including its end."""
        raw = self._conversation.parameters.get("cache_control")
        if raw is None:
            return
        try:
            hint = msgspec.json.decode(raw, type=CacheHint)
        except msgspec.DecodeError:
            message = "cache_control must be an object whose ttl is a string."
            raise self.report.invalid("cache_control", message) from None
        self._renderer.cache_point(content, hint, "messages", "cache_control")

    def _stop(self) -> None:
        stop = self._conversation.stop
        kept = [text for text in stop if text]
        if len(kept) < len(stop):
            self.report.refuse("stop", "A stop sequence must not be empty.")
        if kept:
            self._inference["stopSequences"] = kept

    # -- tools and the shape of the answer ----------------------------------------

    def _tools(self) -> None:
        conversation = self._conversation
        choice = conversation.tool_choice
        mode = "auto" if choice is UNSET else choice.mode
        tools = [] if mode == "none" else self._declared()
        chosen: dict[str, Any] | None = None
        if tools and choice is not UNSET:
            if choice.mode == "named":
                chosen = {"tool": {"name": choice.name}}
            elif choice.mode == "required":
                chosen = {"any": {}}
            elif choice.mode == "auto":
                chosen = {"auto": {}}
        if conversation.response_format is not UNSET:
            chosen = self._structured(tools, chosen)
        if not tools and self._renderer.has_tool_blocks:
            # https://docs.aws.amazon.com/bedrock/latest/userguide/tool-use.html: calls
            # in the conversation want their tools declared, whoever may call them.
            if conversation.tools:
                reason = "After calls of tools, they cannot be forbidden."
                self.report.refuse("tool_choice", reason)
                tools = self._declared()
            else:
                tools = [_tool(name, EMPTY_OBJECT) for name in self._renderer.called]
        if not tools:
            return
        config: dict[str, Any] = {"tools": tools}
        if chosen is not None:
            config["toolChoice"] = chosen
            self._forces_tool = "auto" not in chosen
        self._fields["toolConfig"] = config

    def _declared(self) -> list[Any]:
        choice = self._conversation.tool_choice
        allowed = () if choice is UNSET else choice.allowed
        tools: list[Any] = []
        for index, tool in enumerate(self._conversation.tools):
            path = f"tools[{index}]"
            if isinstance(tool, FunctionTool):
                if (not allowed or tool.name in allowed) and self._is_legal(path, tool):
                    tools.append(self._function(path, tool))
                    hint_path = f"{path}.cache_control"
                    self._renderer.cache_point(tools, tool.cache, "tools", hint_path)
            elif isinstance(tool, CustomTool):
                reason = "Custom tools are OpenAI's own."
                self.report.handle("tools.custom", path, reason)
            elif not allowed:
                self._native_tool(path, tool, tools)
        return tools

    def _is_legal(self, path: str, tool: FunctionTool) -> bool:
        if TOOL_NAME.fullmatch(tool.name):
            return True
        reason = "Its tools have names of up to 64 letters, digits, _ and -."
        self.report.refuse(f"{path}.function.name", reason)
        return False

    def _native_tool(self, path: str, tool: ProviderTool, tools: list[Any]) -> None:
        """Converse's own kinds, as ``{"type": "systemTool", "systemTool": {...}}``."""
        value = _MEMBERS.decode(tool.value).get(tool.kind)
        if tool.kind not in ("systemTool", "cachePoint") or value is None:
            reason = "Of the tools of providers it knows systemTool."
            self.report.refuse(path, reason)
        else:
            tools.append({tool.kind: value})

    def _function(self, path: str, tool: FunctionTool) -> dict[str, Any]:
        path = f"{path}.function"
        if tool.name == ANSWER_TOOL:
            message = f"The name {ANSWER_TOOL} is the gateway's own."
            raise self.report.invalid(f"{path}.name", message)
        where = f"{path}.parameters"
        try:
            schema = as_object(tool.parameters)
        except ValueError as error:
            raise self.report.invalid(where, f"{where} {error}.") from None
        made = _tool(tool.name, schema)
        spec = made["toolSpec"]
        if tool.description is not UNSET and tool.description:
            spec["description"] = tool.description
        if tool.is_strict is not UNSET:
            if self._family.has_format:
                spec["strict"] = tool.is_strict
            elif tool.is_strict:
                self.report.drop(f"{path}.strict")
        return made

    def _structured(
        self, tools: list[Any], chosen: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        """Ask for the answer's shape; returns the tool choice that this leaves."""
        shape = self._conversation.response_format
        if shape is UNSET:
            return chosen
        path = "response_format.json_schema.schema"
        schema: Raw = _ANY_OBJECT
        if shape.schema is not UNSET:
            try:
                schema = as_object(shape.schema)
            except ValueError as error:
                raise self.report.invalid(path, f"{path} {error}.") from None
            grammar = closed(schema) if self._family.has_format else None
            if grammar is not None:
                self._format(grammar)
                return chosen
        spec = _tool(ANSWER_TOOL, schema)
        description = "Give the answer by calling this tool, and only in this way."
        if shape.description is not UNSET:
            description = f"{description} {shape.description}"
        spec["toolSpec"]["description"] = description
        tools.append(spec)
        if len(tools) == 1:
            return {"tool": {"name": ANSWER_TOOL}}
        return {"any": {}} if chosen is None or "auto" in chosen else chosen

    def _format(self, grammar: Raw) -> None:
        shape = self._conversation.response_format
        definition: dict[str, Any] = {"schema": bytes(grammar).decode()}
        if shape is not UNSET:
            if shape.name:
                definition["name"] = shape.name
            if shape.description is not UNSET:
                definition["description"] = shape.description
        structure = {"jsonSchema": definition}
        self._output["textFormat"] = {"type": "json_schema", "structure": structure}

    # -- reasoning and sampling ---------------------------------------------------

    def _reasoning(self) -> None:
        reasoning, kind = self._conversation.reasoning, self._family.thinking
        if reasoning is UNSET:
            return
        effort, budget = reasoning.effort, reasoning.budget_tokens
        name = next(
            (n for n in ("reasoning_effort", "reasoning") if self._is_given(n)),
            "thinking",
        )
        if effort == "none" or budget == 0:
            is_worded = effort == "none"
            self.report.contradiction(
                reasoning, kept="effort" if is_worded else "budget"
            )
            if kind == "adaptive":
                self._more["thinking"] = _DISABLED
            elif kind == "effort":
                # It cannot be kept from it.
                self.report.drop(name)
            return
        if effort is not UNSET and effort not in _EFFORTS:
            words = ", ".join(["none", *_EFFORTS])
            message = f"reasoning_effort must be one of {words}."
            raise self.report.invalid("reasoning_effort", message)
        if kind != "adaptive" or "thinking" not in self._conversation.given:
            self.report.contradiction(reasoning, kept="effort")
        if kind == "budget":
            self._budget(_BUDGETS[effort] if effort is not UNSET else budget, name)
            made = self._more.get("thinking", {}).get("budget_tokens", budget)
            if effort is UNSET and budget is not UNSET and made != budget:
                self.report.drop(name)
        elif kind == "adaptive":
            self._adaptive(effort, name)
        elif kind == "none" or (effort is UNSET and budget is not UNSET):
            self.report.drop(name)
        else:
            word = _THREE_EFFORTS["medium" if effort is UNSET else effort]
            self._worded(kind, word)

    def _is_given(self, name: str) -> bool:
        return name in self._conversation.given

    def _worded(self, kind: str, word: str) -> None:
        if kind == "nova":
            config = {"type": "enabled", "maxReasoningEffort": word}
            self._more["reasoningConfig"] = config
            if word == "high":
                # Nova's guide: high effort goes with no limit and no sampling.
                if self._inference.pop("maxTokens", None) is not None:
                    self.report.drop(self._limit_name())
                self._is_thinking = self._has_no_sampling = True
        elif kind == "effort":
            self._more["reasoning_effort"] = word
        else:
            self._more["reasoning_config"] = word

    def _limit_name(self) -> str:
        is_new = self._is_given("max_completion_tokens")
        return "max_completion_tokens" if is_new else "max_tokens"

    def _adaptive(self, effort: Any, name: str) -> None:
        if effort is not UNSET:
            self._output["effort"] = _EFFORTS[effort]
        if not self._forces_tool:
            reasoning = self._conversation.reasoning
            raw = self._conversation.parameters.get("thinking")
            # DeepSeek's form of it is switched on, and no word about how much.
            is_claudes = reasoning is not UNSET and (
                reasoning.budget_tokens is not UNSET or reasoning.is_adaptive
            )
            has_own = raw is not None and is_claudes
            self._think(raw if has_own else _ADAPTIVE)
            if not has_own and effort is UNSET and self._has_budget():
                # Such a model decides for itself how long it thinks.
                self.report.drop(name)
        elif effort is UNSET:
            self.report.drop(name)

    def _has_budget(self) -> bool:
        reasoning = self._conversation.reasoning
        return reasoning is not UNSET and reasoning.budget_tokens is not UNSET

    def _is_in_loop_without_thought(self) -> bool:
        """Return whether the conversation stands between calls and an answer, and the
        calls came without a sealed thought: Claude refuses to think then."""
        turns = self._fields["messages"]
        if len(turns) < 2 or "toolResult" not in turns[-1]["content"][0]:
            return False
        return "reasoningContent" not in turns[-2]["content"][0]

    def _budget(self, budget: Any, name: str) -> None:
        if budget is UNSET:
            budget = _BUDGETS["medium"]
        budget = max(_MIN_BUDGET, budget)
        limit = self._conversation.max_tokens
        if limit is not UNSET:
            # The limit holds for thoughts and answer together; a quarter is left for
            # the answer, and the least budget if there is room for one at all.
            budget = max(_MIN_BUDGET, min(budget, limit * 3 // 4))
        if (
            self._forces_tool
            or (limit is not UNSET and budget >= limit)
            or self._is_in_loop_without_thought()
        ):
            # A model that must call a tool cannot think first, and one that did not
            # think before its calls cannot think after them.
            self.report.drop(name)
        else:
            self._think({"type": "enabled", "budget_tokens": budget})

    def _think(self, value: Any) -> None:
        self._more["thinking"] = value
        self._is_thinking = True

    def _sampling(self) -> None:
        """``temperature`` goes from 0 to 1, and is 1 while thinking."""
        inference, report, family = self._inference, self.report, self._family
        parameters = self._conversation.parameters
        temperature, top_p = report.number("temperature"), report.number("top_p")
        if top_p is not None and top_p != 1:
            if self._has_no_sampling or (
                self._is_thinking and family.is_claude and top_p < _LEAST_TOP_P
            ):
                report.drop("top_p")
            else:
                inference["topP"] = parameters["top_p"]
        is_exclusive = family.has_exclusive_sampling and "topP" in inference
        if temperature is not None:
            if self._has_no_sampling or (self._is_thinking and temperature != 1):
                report.drop("temperature")
            elif temperature > 1:
                report.drop("temperature")
                inference["temperature"] = 1
            elif temperature != 1 or not is_exclusive:
                # 1 is what Claude takes it for where it is not said.
                inference["temperature"] = parameters["temperature"]
        if is_exclusive and "temperature" in inference:
            reason = "This model takes temperature or top_p, not both."
            report.refuse("top_p", reason)
            del inference["topP"]
        if report.number("top_k") is None:
            return
        if not family.top_k:
            report.refuse("top_k", "This model has no such parameter.")
        elif self._is_thinking:
            report.drop("top_k")
        else:
            *parents, last = family.top_k
            place = self._more
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = parameters["top_k"]

    # -- labels -------------------------------------------------------------------

    def _labels(self) -> None:
        parameters, fields = self._conversation.parameters, self._fields
        metadata = parameters.get("metadata")
        if metadata is not None and "requestMetadata" not in fields:
            try:
                labels = _LABELS.decode(metadata)
            except msgspec.DecodeError:
                message = "metadata must be an object of strings."
                raise self.report.invalid("metadata", message) from None
            kept = {
                name: value
                for name, value in labels.items()
                if name and _LABEL.fullmatch(name) and _LABEL.fullmatch(value)
            }
            for name in labels.keys() - kept.keys():
                self.report.drop(f"metadata.{name}")
            if kept:
                fields["requestMetadata"] = kept
        tier = self.report.text("service_tier")
        if tier is not None and "serviceTier" not in fields:
            if tier in _TIERS:
                fields["serviceTier"] = {"type": tier}
            elif tier != "auto":
                self.report.drop("service_tier")


def _tool(name: str, schema: Raw) -> dict[str, Any]:
    return {"toolSpec": {"name": name, "inputSchema": {"json": schema}}}
