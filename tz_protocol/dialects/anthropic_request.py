"""The neutral conversation -> the body of an Anthropic Messages request.

The one rule: the body is what the vendor accepts, and says what the caller said; where
two things that the caller asked for exclude each other there, the hint gives way and
is named, and if neither is one the request is refused.

Sources: https://platform.claude.com/docs/en/api/messages; .../build-with-claude/
extended-thinking ("Feature compatibility"), adaptive-thinking, effort,
structured-outputs, prompt-caching.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Raw

from tz_protocol.dialects.anthropic_messages import (
    TOOL_NAME,
    TOOL_NAME_REASON,
    MessagesRenderer,
    cache_control,
)
from tz_protocol.dialects.anthropic_models import Generation, generation_of
from tz_protocol.dialects.losses import Report
from tz_protocol.dialects.parameters import column
from tz_protocol.dialects.schemas import as_object, closed
from tz_protocol.errors import InvalidRequest
from tz_protocol.types.conversation import (
    Conversation,
    CustomTool,
    FunctionTool,
    Thinking,
    ToolChoice,
)
from tz_protocol.types.request import Target

__all__ = ["ANSWER_TOOL", "MAX_TOKENS_OPTION", "RequestRenderer"]

ANSWER_TOOL = "tz_structured_answer"
"""The tool through which structured output is asked for where there is no other way;
decoders know an answer by this name and turn it back into text."""

MAX_TOKENS_OPTION = "default_max_tokens"
"""Key of the provider's table: ``max_tokens`` where the client sets none."""

NATIVE = frozenset(
    {
        "cache_control",
        "container",
        "context_management",
        "inference_geo",
        "mcp_servers",
        "speed",
        "thinking",
        "top_k",
        "top_p",
    }
)
"""Members of the vendor's own format that are handed on as the client wrote them."""

_COLUMN = column("anthropic")

_MIN_BUDGET = 1_024
"""The vendor's least ``budget_tokens``."""

_BUDGETS = {
    "minimal": 1_024,
    "low": 2_048,
    "medium": 8_192,
    "high": 16_384,
    "xhigh": 32_768,
    "max": 32_768,
}
"""For models that are told how many tokens to think for. 1,024 is the vendor's least;
the documentation advises 16,384 for hard tasks and batches above 32,768."""

_LEAST_TOP_P = 0.95
"""While thinking: .../extended-thinking, "Feature compatibility"."""

_THOUGHTS = frozenset({"thinking", "redacted_thinking"})

_EFFORTS = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}

_ADAPTIVE = Raw(b'{"type":"adaptive"}')
_DISABLED = Raw(b'{"type":"disabled"}')
_ANY_OBJECT = Raw(b'{"type":"object","additionalProperties":true}')


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
        self._given = conversation.given
        self._target = target
        self._generation: Generation = generation_of(target.model)
        self._fields: dict[str, Any] = {}
        self._config: dict[str, Any] = {}
        self._forces_tool = False
        self._is_thinking = False

    def render(self) -> dict[str, Any]:
        """Return the members of the body, without ``model`` and ``stream``."""
        conversation, fields = self._conversation, self._fields
        renderer = MessagesRenderer(self.report)
        system, turns = renderer.render(conversation.messages)
        if not turns:
            raise self.report.silent()
        fields["max_tokens"] = self._max_tokens()
        if system:
            fields["system"] = _plain(system)
        for turn in turns:
            turn["content"] = _plain(turn["content"])
        fields["messages"] = turns
        if conversation.stop:
            fields["stop_sequences"] = self._stop()
        for name, raw in conversation.parameters.items():
            if name in NATIVE:
                fields[name] = raw
        self._tools()
        if conversation.reasoning is not UNSET:
            self._reasoning()
        if not self._is_thinking:
            self._forget_thoughts(turns[-1])
        self._sampling()
        self._identity()
        if self._config:
            fields["output_config"] = self._config
        return fields

    # -- sizes and stops ----------------------------------------------------------

    def _max_tokens(self) -> int:
        """The vendor demands a limit; without one of the client the model's own."""
        limit = self._conversation.max_tokens
        if limit is not UNSET:
            return limit
        option = self._target.options.get(MAX_TOKENS_OPTION)
        if option is None:
            return self._generation.max_tokens
        if not option.isascii() or not option.isdigit():
            message = f"{MAX_TOKENS_OPTION} of the provider must be a whole number."
            raise InvalidRequest(message, param="max_tokens", code="invalid_value")
        return int(option)

    def _stop(self) -> list[str]:
        stop = self._conversation.stop
        kept = [text for text in stop if text.strip()]
        if len(kept) < len(stop):
            reason = "A stop sequence must hold more than white space."
            self.report.refuse("stop", reason)
        return kept

    # -- tools and the shape of the answer ----------------------------------------

    def _tools(self) -> None:
        conversation = self._conversation
        choice = conversation.tool_choice
        allowed = () if choice is UNSET else choice.allowed
        tools: list[Any] = []
        for index, tool in enumerate(conversation.tools):
            if isinstance(tool, FunctionTool):
                if not allowed or tool.name in allowed:
                    self._function(index, tool, tools)
            elif isinstance(tool, CustomTool):
                reason = "Custom tools are OpenAI's own."
                self.report.handle("tools.custom", f"tools[{index}]", reason)
            elif allowed:
                # Not among those that may be called.
                continue
            elif self.report.handle("tools.provider", f"tools[{index}]"):
                tools.append(tool.value)
        chosen = self._tool_choice(choice) if tools else None
        if conversation.response_format is not UNSET:
            chosen = self._structured(tools, chosen)
        if not tools:
            return
        self._fields["tools"] = tools
        if conversation.is_parallel is False and (
            chosen is None or chosen["type"] != "none"
        ):
            chosen = {**(chosen or {"type": "auto"}), "disable_parallel_tool_use": True}
        if chosen is not None:
            self._fields["tool_choice"] = chosen
            self._forces_tool = chosen["type"] in {"any", "tool"}

    def _function(self, index: int, tool: FunctionTool, out: list[Any]) -> None:
        path = f"tools[{index}].function.name"
        if tool.name == ANSWER_TOOL:
            message = f"The name {ANSWER_TOOL} is the gateway's own."
            raise self.report.invalid(path, message)
        if not TOOL_NAME.fullmatch(tool.name):
            self.report.refuse(path, TOOL_NAME_REASON)
            return
        made: dict[str, Any] = {"name": tool.name}
        if tool.description is not UNSET:
            made["description"] = tool.description
        path = f"tools[{index}].function.parameters"
        try:
            made["input_schema"] = as_object(tool.parameters)
        except ValueError as error:
            raise self.report.invalid(path, f"{path} {error}.") from None
        if tool.is_strict is not UNSET:
            if self._generation.has_strict_tools:
                made["strict"] = tool.is_strict
            elif tool.is_strict:
                self.report.drop(f"tools[{index}].function.strict")
        if tool.cache is not UNSET:
            made["cache_control"] = cache_control(tool.cache)
        out.append(made)

    def _tool_choice(self, choice: Any) -> dict[str, Any] | None:
        if not isinstance(choice, ToolChoice):
            return None
        if choice.mode == "named":
            return {"type": "tool", "name": choice.name}
        return {"type": "any" if choice.mode == "required" else choice.mode}

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
            grammar = closed(schema) if self._generation.has_format else None
            if grammar is not None:
                self._config["format"] = {"type": "json_schema", "schema": grammar}
                if shape.description is not UNSET and shape.description:
                    self.report.drop("response_format.json_schema.description")
                return chosen
        description = "Give the answer by calling this tool, and only in this way."
        if shape.description is not UNSET:
            description = f"{description} {shape.description}"
        tools.append(
            {"name": ANSWER_TOOL, "description": description, "input_schema": schema}
        )
        if len(tools) == 1 or (chosen is not None and chosen["type"] == "none"):
            return {"type": "tool", "name": ANSWER_TOOL}
        if chosen is None or chosen["type"] == "auto":
            return {"type": "any"}
        return chosen

    # -- reasoning and sampling ---------------------------------------------------

    def _reasoning(self) -> None:
        if "thinking" in self._fields:
            self._explicit_thinking()
            return
        reasoning, kind = self._conversation.reasoning, self._generation.thinking
        if reasoning is UNSET:
            return
        effort, budget = reasoning.effort, reasoning.budget_tokens
        if effort == "none" or budget == 0:
            self.report.contradiction(
                reasoning, kept="effort" if effort == "none" else "budget"
            )
            if kind == "adaptive":
                self._fields["thinking"] = _DISABLED
            return
        self._check_effort(effort)
        self.report.contradiction(reasoning, kept="effort")
        name = "reasoning_effort" if "reasoning_effort" in self._given else "reasoning"
        if (
            kind == "none"
            or (self._forces_tool and kind == "budget")
            or (kind == "budget" and self._is_in_loop_without_thought())
        ):
            # A model that must call a tool cannot think first, and one that did not
            # think before its calls cannot think after them.
            self.report.drop(name)
        elif kind == "adaptive":
            if effort is not UNSET:
                self._config["effort"] = _EFFORTS[effort]
            elif budget is not UNSET:
                # Such a model decides for itself how long it thinks.
                self.report.drop(name)
            if not self._forces_tool:
                self._think(_ADAPTIVE)
            elif effort is UNSET:
                self.report.drop(name)
        else:
            self._budget(_BUDGETS[effort] if effort is not UNSET else budget, name)
            if effort is UNSET and budget is not UNSET and not self._has_budget(budget):
                self.report.drop(name)

    def _has_budget(self, budget: int) -> bool:
        thinking = self._fields.get("thinking")
        return type(thinking) is dict and thinking["budget_tokens"] == budget

    def _check_effort(self, effort: Any) -> None:
        if effort is not UNSET and effort not in _EFFORTS:
            words = ", ".join(["none", *_EFFORTS])
            message = f"reasoning_effort must be one of {words}."
            raise self.report.invalid("reasoning_effort", message)

    def _is_in_loop_without_thought(self) -> bool:
        """Return whether the conversation stands between calls and an answer, and the
        calls came without a sealed thought: models that are told how many tokens to
        think for refuse to think then."""
        turns = self._fields["messages"]
        if len(turns) < 2 or not _has_blocks(turns[-1], "tool_result"):
            return False
        content = turns[-2]["content"]
        first = content[0] if type(content) is list else None
        return type(first) is dict and first["type"] not in _THOUGHTS

    def _budget(self, budget: Any, name: str) -> None:
        limit = self._fields["max_tokens"]
        if budget is UNSET:
            budget = _BUDGETS["medium"]
        # The limit holds for thoughts and answer together; a quarter is left for the
        # answer, and the least budget if there is room for one at all.
        budget = max(_MIN_BUDGET, min(budget, limit * 3 // 4))
        if budget >= limit:
            self.report.drop(name)
        else:
            self._think({"type": "enabled", "budget_tokens": budget})

    def _explicit_thinking(self) -> None:
        """Anthropic's own parameter, said by the client: handed on as it is."""
        raw, kind = self._fields["thinking"], self._generation.thinking
        reasoning = self._conversation.reasoning
        if reasoning is UNSET:
            return
        effort = reasoning.effort
        if effort != "none":
            self._check_effort(effort)
        if effort is not UNSET:
            if kind == "adaptive" and effort != "none":
                self._config["effort"] = _EFFORTS[effort]
            elif effort != "none" or reasoning.budget_tokens != 0:
                is_own = "reasoning_effort" in self._given
                self.report.drop("reasoning_effort" if is_own else "reasoning.effort")
        if reasoning.budget_tokens == 0:
            return
        if self._forces_tool and not reasoning.is_adaptive:
            # A model that must call a tool cannot think first.
            del self._fields["thinking"]
            self.report.drop("thinking")
            return
        if reasoning.budget_tokens is not UNSET or reasoning.is_adaptive:
            self._think(raw)
            return
        # DeepSeek's form: switched on, and no word about how much.
        del self._fields["thinking"]
        if kind == "adaptive":
            self._think(_ADAPTIVE)
        elif kind == "budget":
            self._budget(UNSET, "thinking")
        else:
            self.report.drop("thinking")

    def _forget_thoughts(self, last: dict[str, Any]) -> None:
        """Leave thoughts out of an answer that is to be gone on with: a model that is
        not to think refuses them there, and passes over them anywhere else."""
        content = last["content"]
        if last["role"] != "assistant" or type(content) is not list:
            return
        kept = [
            one for one in content if type(one) is Raw or one["type"] not in _THOUGHTS
        ]
        left = len(content) - len(kept)
        if not left:
            return
        messages = self._conversation.messages
        for index in reversed(range(len(messages))):
            role = messages[index].role
            if left <= 0 and (role == "user" or role == "tool"):
                break  # what stands after the turn may have been left out
            thoughts = [one for one in messages[index].content if type(one) is Thinking]
            if thoughts:
                self.report.drop(f"messages[{index}].reasoning_content")
                left -= len(thoughts)
        last["content"] = _plain(kept)
        if not kept:
            self._fields["messages"].pop()

    def _think(self, value: Any) -> None:
        self._fields["thinking"] = value
        self._is_thinking = True

    def _sampling(self) -> None:
        """``temperature`` goes from 0 to 1; while thinking it is 1, and of ``top_p``
        only the uppermost part is taken."""
        fields, report = self._fields, self.report
        parameters = self._conversation.parameters
        top_p = report.number("top_p")
        temperature = report.number("temperature")
        if top_p == 1:
            fields.pop("top_p", None)
        elif top_p is not None and self._is_thinking and top_p < _LEAST_TOP_P:
            fields.pop("top_p", None)
            report.drop("top_p")
        is_exclusive = self._generation.has_exclusive_sampling and "top_p" in fields
        if temperature is not None:
            if self._is_thinking and temperature != 1:
                report.drop("temperature")
            elif temperature > 1:
                report.drop("temperature")
                fields["temperature"] = 1
            elif temperature != 1 or not is_exclusive:
                # 1 is what the vendor takes it for where it is not said.
                fields["temperature"] = parameters["temperature"]
        if is_exclusive and "temperature" in fields:
            report.refuse("top_p", "This model takes temperature or top_p, not both.")
            fields.pop("top_p", None)
        if self._is_thinking and fields.pop("top_k", None) is not None:
            report.drop("top_k")

    # -- who asks -----------------------------------------------------------------

    def _identity(self) -> None:
        user = self.report.text("user")
        identifier = self.report.text("safety_identifier")
        if user and identifier and user != identifier:
            self.report.drop("safety_identifier")
        if name := user or identifier:
            self._fields["metadata"] = {"user_id": name}
        tier = self.report.text("service_tier")
        if tier == "auto":
            self._fields["service_tier"] = "auto"
        elif tier == "default" or tier == "standard_only":
            self._fields["service_tier"] = "standard_only"
        elif tier is not None:
            self.report.drop("service_tier")


def _has_blocks(turn: dict[str, Any], kind: str) -> bool:
    content = turn["content"]
    return type(content) is list and any(
        type(block) is dict and block["type"] == kind for block in content
    )


def _plain(blocks: list[Any]) -> Any:
    """Return a lone text as a string, which says the same and reads better."""
    if len(blocks) == 1 and type(only := blocks[0]) is dict and len(only) == 2:
        return only["text"] if only["type"] == "text" else blocks
    return blocks
