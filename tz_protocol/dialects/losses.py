"""How a conversion tells what it could not say.

The one rule: what is lost is refused or named, never neither. A :class:`Report` is
opened for each rendering; it applies the table at once, and the dialect's own code
tells it the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec
from msgspec import UNSET

from tz_protocol.dialects.base import Losses
from tz_protocol.dialects.parameters import DEFAULTS, Handling
from tz_protocol.errors import InvalidRequest
from tz_protocol.types.conversation import Conversation, Opaque, Reasoning
from tz_protocol.types.request import Target

__all__ = ["POLICY_OPTION", "Report", "permitted"]

POLICY_OPTION = "on_unsupported_param"
"""Key of the provider's table that overrides what the parameter table says: ``error``
refuses whatever would be lost, ``warn`` drops it and names it, ``drop`` drops it in
silence because the operator said so."""

_NUMBER = msgspec.json.Decoder(float)
_STRING = msgspec.json.Decoder(str)

_MOST_CHOICES = (
    "It is asked once for each answer, and at most {limit} times "
    "(gateway.limits.emulated_choices, or pool_per_origin where that is less)."
)

_WHITE_SPACE = str.maketrans("", "", " \t\r\n")


def permitted(losses: Collection[str], target: Target) -> Losses:
    """Return what to report of *losses*, sorted; for formats without a table.

    Raises:
        InvalidRequest: The operator wants nothing dropped, and there is something.
    """
    policy = target.options.get(POLICY_OPTION)
    if policy == "error" and losses:
        raise _refusal(target, min(losses), "")
    return () if policy == "drop" else tuple(sorted(losses))


def _refusal(target: Target, path: str, reason: str) -> InvalidRequest:
    message = f"The provider {target.provider} cannot express {path}."
    if reason:
        message = f"{message} {reason}"
    return InvalidRequest(message, param=path, code="unsupported_parameter")


class Report:
    """What one rendering lost; raises as soon as something must not be lost.

    Args:
        target: Whom the rendering is for.
        conversation: What is rendered.
        column: The format's column of the parameter table.
        native: Top-level members that the format has itself and that clients may
            therefore send beside OpenAI's.

    Raises:
        InvalidRequest: A parameter that the format cannot say changes the meaning.
    """

    __slots__ = (
        "_column",
        "_given",
        "_losses",
        "_parameters",
        "_policy",
        "_target",
        "choices",
    )

    def __init__(
        self,
        target: Target,
        conversation: Conversation,
        column: Mapping[str, Handling],
        native: frozenset[str] = frozenset(),
    ) -> None:
        self._target = target
        self._column = column
        self._parameters = conversation.parameters
        self._given = conversation.given
        self._policy = target.options.get(POLICY_OPTION)
        self._losses: set[str] = set()
        unsupported = target.unsupported
        for name in conversation.given:
            handling = column.get(name)
            if unsupported and name in unsupported:
                handling = Handling.DROPPED
            elif handling is None:
                if name in native:
                    continue
                handling = Handling.DROPPED
            if handling is Handling.DROPPED or handling is Handling.REFUSED:
                self._lose(conversation, name, handling)
        for path in conversation.unread:
            if path.partition(".")[0] not in native:
                self.drop(path)
        self.choices = 1
        """How many answers are to be had by asking as often (``n``, emulated)."""
        if column.get("n") is Handling.EMULATED and "n" not in unsupported:
            self.choices = self._choices()

    def _choices(self) -> int:
        count, limit = self.number("n"), self._target.emulated_choices
        if count is not None and count > limit:
            self.refuse("n", _MOST_CHOICES.format(limit=limit))
            return 1
        return 1 if count is None else int(count)

    def _lose(self, conversation: Conversation, name: str, handling: Handling) -> None:
        value = conversation.parameters.get(name)
        if value is not None:
            text = bytes(value).decode("utf-8", "replace").translate(_WHITE_SPACE)
            if text.encode() in DEFAULTS.get(name, ()):
                return
        path, _, use = name.partition(".")
        if handling is Handling.REFUSED:
            self.refuse(path, f"That is its {use} use." if use else "")
        else:
            self.drop(path)

    def drop(self, path: str) -> None:
        """Leave a hint out and name it.

        Args:
            path: The request's field, such as ``messages[0].name``.

        Raises:
            InvalidRequest: The operator wants nothing dropped.
        """
        if self._policy == "error":
            raise _refusal(self._target, path, "")
        if self._policy != "drop":
            self._losses.add(path)

    def refuse(self, path: str, reason: str = "") -> None:
        """Refuse the request because of a field that cannot be said.

        Returns only if the operator wants such fields dropped: leave it out then.

        Args:
            path: The request's field.
            reason: A whole sentence that says what would be accepted, or empty.

        Raises:
            InvalidRequest: Unless the operator says ``warn`` or ``drop``.
        """
        if self._policy == "warn":
            self._losses.add(path)
        elif self._policy != "drop":
            raise _refusal(self._target, path, reason)

    def silent(self) -> InvalidRequest:
        """Return the error for messages in which nobody says anything.

        OpenAI answers instructions alone and messages without content, and these
        vendors answer neither.
        """
        message = (
            f"The provider {self._target.provider} answers messages of the user only, "
            "and messages holds none that has content."
        )
        return InvalidRequest(message, param="messages", code="invalid_value")

    def contradiction(self, reasoning: Reasoning, *, kept: str) -> None:
        """Name what gives way if *reasoning* says twice how much to think.

        Args:
            reasoning: Of the conversation.
            kept: Which of the two counts here: ``effort`` or ``budget``.
        """
        effort, budget = reasoning.effort, reasoning.budget_tokens
        if effort is UNSET or budget is UNSET or (effort == "none" and budget == 0):
            return
        if kept == "budget":
            is_own = "reasoning_effort" in self._given
            self.drop("reasoning_effort" if is_own else "reasoning.effort")
        elif "thinking" in self._given:
            self.drop("thinking")
        else:
            self.drop("reasoning.max_tokens")

    def foreign(self, block: Opaque, path: str, *, is_answer: bool) -> None:
        """Refuse or name a block that only another format knows.

        Answers hold such blocks beside what they say (``provider_content``), callers
        hand them back without a thought, and another vendor goes on without them as it
        does without foreign seals. What a caller says is another matter.

        Args:
            block: What cannot be said.
            path: Where it is.
            is_answer: Whether an assistant said it.

        Raises:
            InvalidRequest: As for :meth:`refuse` and :meth:`drop`.
        """
        if is_answer:
            self.drop(f"{path.partition('.')[0]}.provider_content")
        else:
            self.refuse(path, f"It does not know content of the type {block.kind}.")

    def handle(self, use: str, path: str, reason: str = "") -> bool:
        """Apply the table to one use of a parameter; True if it can be said.

        Args:
            use: The row, such as ``image_url.detail``.
            path: Where the request uses it.
            reason: As for :meth:`refuse`.

        Raises:
            InvalidRequest: As for :meth:`refuse` and :meth:`drop`.
        """
        handling = self._column[use]
        if handling is Handling.REFUSED:
            self.refuse(path, reason)
            return False
        if handling is Handling.DROPPED:
            self.drop(path)
            return False
        return True

    def number(self, name: str) -> float | None:
        """Return the value of a numeric parameter, None if it was not given.

        Raises:
            InvalidRequest: It is not a number.
        """
        raw = self._parameters.get(name)
        if raw is None:
            return None
        try:
            return _NUMBER.decode(raw)
        except msgspec.DecodeError:
            raise self.invalid(name, f"{name} must be a number.") from None

    def text(self, name: str) -> str | None:
        """Return the value of a string parameter, None if it was not given.

        Raises:
            InvalidRequest: It is not a string.
        """
        raw = self._parameters.get(name)
        if raw is None:
            return None
        try:
            return _STRING.decode(raw)
        except msgspec.DecodeError:
            raise self.invalid(name, f"{name} must be a string.") from None

    def invalid(self, path: str, message: str) -> InvalidRequest:
        """Return the error for a value that is wrong whatever the operator wants."""
        return InvalidRequest(message, param=path, code="invalid_value")

    def losses(self) -> Losses:
        """Return the names of everything dropped, sorted."""
        return tuple(sorted(self._losses))
