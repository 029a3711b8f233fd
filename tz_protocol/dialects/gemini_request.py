"""The neutral conversation -> the body of a Gemini request.

The one rule: the body is what the vendor accepts, and says what the caller said; what
cannot be said is refused or named. Schemas go out as the JSON Schemas that they are
(``parametersJsonSchema``, ``responseJsonSchema``): the vendor's older fields take a
subset of OpenAPI only.

Sources: https://ai.google.dev/api/generate-content; https://ai.google.dev/gemini-api/
docs/openai ("Thinking": how efforts are meant), thinking, structured-output,
function-calling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from tz_protocol.dialects.anthropic_request import ANSWER_TOOL
from tz_protocol.dialects.gemini_contents import TOOL_NAME, ContentsRenderer
from tz_protocol.dialects.gemini_models import Generation, generation_of
from tz_protocol.dialects.losses import Report
from tz_protocol.dialects.parameters import column
from tz_protocol.types.conversation import (
    Conversation,
    CustomTool,
    FunctionTool,
    ProviderTool,
    ToolChoice,
)
from tz_protocol.types.request import Target

__all__ = ["AI_STUDIO", "VERTEX", "RequestRenderer", "Service"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What the vendor's two services differ in."""

    has_any_id: bool
    """True if calls and results may have ids that it did not give."""
    has_service_tier: bool
    """True if the body says the tier; Vertex is told by a header."""


AI_STUDIO = Service(has_any_id=True, has_service_tier=True)
VERTEX = Service(has_any_id=False, has_service_tier=False)

NATIVE = frozenset(
    {"cachedContent", "generationConfig", "labels", "safetySettings", "toolConfig"}
)
"""Members of the vendor's own format that clients may send beside OpenAI's. Those that
are objects which we fill too keep what we do not set."""

_COLUMN = column("gemini")

_NAMES = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "n": "candidateCount",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
"""Our parameter -> theirs in ``generationConfig``; the values mean the same."""

_MAX_STOPS = 5

_BUDGETS = {
    "minimal": 1_024,
    "low": 1_024,
    "medium": 8_192,
    "high": 24_576,
    "xhigh": 24_576,
    "max": 32_768,
}
_LEVELS = {
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "HIGH",
    "max": "HIGH",
}
"""Both as Google's own OpenAI-compatible endpoint takes efforts, and on from there."""

_ALL_LEVELS = ("MINIMAL", "LOW", "MEDIUM", "HIGH")

_TIERS = {"default": "standard", "flex": "flex", "priority": "priority"}

_TOOLS = frozenset(
    {
        "codeExecution",
        "computerUse",
        "enterpriseWebSearch",
        "fileSearch",
        "googleMaps",
        "googleSearch",
        "googleSearchRetrieval",
        "mcpServers",
        "retrieval",
        "urlContext",
    }
)
"""Tools that the vendor runs itself: the members of its ``Tool``."""

_MEMBERS = msgspec.json.Decoder(dict[str, Raw])
_WORDS = msgspec.json.Decoder(list[str])
_TRUE = Raw(b"true")


class RequestRenderer:
    """Renders one conversation for one target; call :meth:`render` once.

    Args:
        conversation: What to say.
        target: Whom to say it to.
        service: Which of the vendor's.

    Raises:
        InvalidRequest: It cannot be said there.
    """

    def __init__(
        self, conversation: Conversation, target: Target, service: Service
    ) -> None:
        self.report = Report(target, conversation, _COLUMN, NATIVE)
        self._conversation = conversation
        self._service = service
        self._generation: Generation = generation_of(target.model)
        self._config: dict[str, Any] = {}
        """The member ``generationConfig``."""

    def render(self) -> dict[str, Any]:
        """Return the members of the body."""
        conversation, parameters = self._conversation, self._conversation.parameters
        renderer = ContentsRenderer(
            self.report, self._generation, has_any_id=self._service.has_any_id
        )
        system, contents = renderer.render(conversation.messages)
        if not contents:
            raise self.report.silent()
        fields: dict[str, Any] = {"contents": contents}
        if system:
            fields["systemInstruction"] = {"parts": system}
        for name in NATIVE:
            if (raw := parameters.get(name)) is not None:
                fields[name] = raw
        self._generate()
        tools, calling = self._tools()
        if tools:
            fields["tools"] = tools
        if calling:
            config = self._own(parameters, "toolConfig")
            fields["toolConfig"] = {**config, "functionCallingConfig": calling}
        if conversation.reasoning is not UNSET:
            self._think()
        if self._config:
            config = self._own(parameters, "generationConfig")
            fields["generationConfig"] = {**config, **self._config}
        self._tier(fields)
        return fields

    def _own(self, parameters: Mapping[str, Raw], name: str) -> dict[str, Raw]:
        """Return the client's own member *name*, to be filled."""
        raw = parameters.get(name)
        if raw is None:
            return {}
        try:
            return _MEMBERS.decode(raw)
        except msgspec.DecodeError:
            raise self.report.invalid(name, f"{name} must be an object.") from None

    # -- sizes, stops, sampling ---------------------------------------------------

    def _generate(self) -> None:
        conversation, config = self._conversation, self._config
        parameters, report = conversation.parameters, self.report
        if conversation.max_tokens is not UNSET:
            config["maxOutputTokens"] = conversation.max_tokens
        if conversation.stop:
            config["stopSequences"] = conversation.stop[:_MAX_STOPS]
            if len(conversation.stop) > _MAX_STOPS:
                report.refuse("stop", f"It takes at most {_MAX_STOPS} sequences.")
        for name, theirs in _NAMES.items():
            if name in parameters:
                report.number(name)
                config[theirs] = parameters[name]
        tops = parameters.get("top_logprobs")
        is_wanted = parameters.get("logprobs") == _TRUE
        if not is_wanted and report.number("top_logprobs"):
            report.drop("top_logprobs")
        if is_wanted:
            config["responseLogprobs"] = True
            if tops is not None:
                report.number("top_logprobs")
                config["logprobs"] = tops
        if (raw := parameters.get("modalities")) is not None:
            try:
                words = _WORDS.decode(raw)
            except msgspec.DecodeError:
                text = "modalities must be a list of strings."
                raise report.invalid("modalities", text) from None
            if words not in ([], ["text"]):
                config["responseModalities"] = [word.upper() for word in words]

    def _tier(self, fields: dict[str, Any]) -> None:
        tier = self.report.text("service_tier")
        if tier is None or tier == "auto":
            return
        word = _TIERS.get(tier)
        if word is not None and self._service.has_service_tier:
            fields["serviceTier"] = word
        elif tier != "default":
            self.report.drop("service_tier")

    # -- tools and the shape of the answer ----------------------------------------

    def _tools(self) -> tuple[list[Any], dict[str, Any]]:
        """Return ``tools`` and the ``functionCallingConfig``."""
        conversation, report = self._conversation, self.report
        functions: list[Any] = []
        tools: list[Any] = []
        for index, tool in enumerate(conversation.tools):
            if isinstance(tool, FunctionTool):
                if self._is_legal(index, tool):
                    functions.append(self._function(index, tool))
            elif isinstance(tool, CustomTool):
                reason = "Custom tools are OpenAI's own."
                report.handle("tools.custom", f"tools[{index}]", reason)
            elif (made := self._provider_tool(index, tool)) is not None:
                tools.append(made)
        calling = self._calling(functions)
        if conversation.response_format is not UNSET:
            calling = self._structured(functions, calling)
        if functions:
            tools.insert(0, {"functionDeclarations": functions})
        return tools, calling

    def _is_legal(self, index: int, tool: FunctionTool) -> bool:
        if TOOL_NAME.fullmatch(tool.name):
            return True
        reason = "Its tools have names of up to 128 letters, digits and any of _.:-."
        self.report.refuse(f"tools[{index}].function.name", reason)
        return False

    def _function(self, index: int, tool: FunctionTool) -> dict[str, Any]:
        if tool.name == ANSWER_TOOL:
            message = f"The name {ANSWER_TOOL} is the gateway's own."
            raise self.report.invalid(f"tools[{index}].function.name", message)
        made: dict[str, Any] = {"name": tool.name}
        if tool.description is not UNSET:
            made["description"] = tool.description
        if tool.parameters is not UNSET:
            path = f"tools[{index}].function.parameters"
            if self._schema(tool.parameters, path):
                made["parametersJsonSchema"] = tool.parameters
        if tool.is_strict is True:
            path = f"tools[{index}].function.strict"
            self.report.handle("tools.strict", path)
        if tool.cache is not UNSET:
            path = f"tools[{index}].cache_control"
            self.report.handle("cache_control", path)
        return made

    def _schema(self, schema: Raw, path: str) -> bool:
        """Check that *schema* is an object; False if it is empty."""
        try:
            return bool(_MEMBERS.decode(schema))
        except msgspec.DecodeError:
            message = f"{path} must be a JSON Schema: an object."
            raise self.report.invalid(path, message) from None

    def _provider_tool(self, index: int, tool: ProviderTool) -> Any:
        """Return a tool of the vendor's own: ``{"type": "googleSearch", ...}``, with
        its settings beside the type or in a member of its name."""
        kind = tool.kind
        members = _MEMBERS.decode(tool.value)
        members.pop("type", None)
        if kind in members:
            return members
        if _camel(kind) in _TOOLS:
            return {_camel(kind): members}
        names = ", ".join(sorted(_TOOLS))
        self.report.refuse(f"tools[{index}]", f"Its own tools are {names}.")
        return None

    def _calling(self, functions: list[Any]) -> dict[str, Any]:
        choice = self._conversation.tool_choice
        if not functions or not isinstance(choice, ToolChoice):
            return {}
        if choice.mode == "named":
            return {"mode": "ANY", "allowedFunctionNames": [choice.name]}
        if choice.allowed and choice.mode != "none":
            # Names are taken in these two modes; the first lets it answer in words.
            mode = "VALIDATED" if choice.mode == "auto" else "ANY"
            return {"mode": mode, "allowedFunctionNames": choice.allowed}
        mode = {"required": "ANY", "none": "NONE"}.get(choice.mode, "AUTO")
        return {"mode": mode}

    def _structured(
        self, functions: list[Any], calling: dict[str, Any]
    ) -> dict[str, Any]:
        """Ask for the answer's shape; returns the calling that this leaves."""
        shape = self._conversation.response_format
        if shape is UNSET:
            return calling
        schema = shape.schema
        path = "response_format.json_schema.schema"
        has_schema = schema is not UNSET and self._schema(schema, path)
        mode = calling.get("mode")
        if not functions or mode == "NONE" or self._generation.has_json_with_tools:
            self._config["responseMimeType"] = "application/json"
            if has_schema:
                self._config["responseJsonSchema"] = schema
            if shape.description is not UNSET and shape.description:
                self.report.drop("response_format.json_schema.description")
            if mode == "NONE" and not self._generation.has_json_with_tools:
                # Older models refuse the two together, called or not.
                functions.clear()
                return {}
            return calling
        description = "Give the answer by calling this tool, and only in this way."
        if shape.description is not UNSET:
            description = f"{description} {shape.description}"
        answer: dict[str, Any] = {"name": ANSWER_TOOL, "description": description}
        if has_schema:
            answer["parametersJsonSchema"] = schema
        functions.append(answer)
        if "allowedFunctionNames" in calling and mode == "VALIDATED":
            names = (*calling["allowedFunctionNames"], ANSWER_TOOL)
            return {"mode": "ANY", "allowedFunctionNames": names}
        return calling if mode == "ANY" else {"mode": "ANY"}

    # -- reasoning ----------------------------------------------------------------

    def _think(self) -> None:
        reasoning, generation = self._conversation.reasoning, self._generation
        if reasoning is UNSET:
            return
        effort, budget = reasoning.effort, reasoning.budget_tokens
        name = self._reasoning_name()
        is_off = effort == "none" or budget == 0
        if effort is not UNSET and effort != "none" and effort not in _LEVELS:
            words = ", ".join(["none", *_LEVELS])
            message = f"reasoning_effort must be one of {words}."
            raise self.report.invalid("reasoning_effort", message)
        if generation.thinking == "none":
            if not is_off:
                self.report.drop(name)
            return
        config: dict[str, Any]
        is_worded = budget is UNSET or (effort == "none" and budget != 0)
        self.report.contradiction(reasoning, kept="effort" if is_worded else "budget")
        if is_off:
            config = self._least(name)
        elif budget is not UNSET:
            given = self._conversation.given
            name = "thinking" if "thinking" in given else "reasoning"
            config = {"thinkingBudget": self._within(budget, name)}
        elif generation.thinking == "budget":
            # -1: as many as the model sees fit.
            wanted = -1 if effort is UNSET else _BUDGETS[effort]
            config = {"thinkingBudget": min(wanted, generation.max_budget)}
        elif effort is not UNSET:
            config = {"thinkingLevel": _nearest(_LEVELS[effort], generation.levels)}
        else:
            config = {}
        if not is_off:
            config["includeThoughts"] = True
        self._config["thinkingConfig"] = config

    def _reasoning_name(self) -> str:
        for name in ("reasoning_effort", "reasoning", "thinking"):
            if name in self._conversation.given:
                return name
        return "reasoning_effort"

    def _least(self, name: str) -> dict[str, Any]:
        """Return the least thinking; named if it is more than none."""
        generation = self._generation
        if generation.thinking == "level":
            self.report.drop(name)
            return {"thinkingLevel": generation.levels[0]}
        if generation.min_budget:
            self.report.drop(name)
        return {"thinkingBudget": generation.min_budget}

    def _within(self, budget: int, name: str) -> int:
        generation = self._generation
        if generation.thinking == "level":
            return budget
        kept = max(generation.min_budget, min(budget, generation.max_budget))
        if kept != budget:
            self.report.drop(name)
        return kept


def _nearest(level: str, levels: tuple[str, ...]) -> str:
    """Return *level*, or the next higher one that the model has."""
    start = _ALL_LEVELS.index(level)
    return next(one for one in _ALL_LEVELS[start:] if one in levels)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
