"""Thoughts that a model writes into its answer, told from the answer.

The one rule: a think block is what the content begins with, white space aside; a tag
anywhere else is text that somebody may be writing about. Text may be cut anywhere, and
what comes out does not depend on where.
"""

from __future__ import annotations

__all__ = ["ThinkSplitter"]

_OPEN = "<think>"
_CLOSE = "</think>"


class ThinkSplitter:
    """Splits one choice's content: feed :meth:`split`, then take :meth:`rest`."""

    __slots__ = ("_held", "_is_begun", "_step", "is_over")

    def __init__(self) -> None:
        self._step = ThinkSplitter._before
        self._held = ""
        """Text of which it is not clear yet what it is."""
        self._is_begun = False
        """Whether anything of the thought has come out."""
        self.is_over = False
        """True once all that follows is content."""

    def split(self, text: str) -> tuple[str, str]:
        """Return the thought and the content in *text*, as far as they are clear."""
        if self.is_over:
            return "", text
        text, self._held = self._held + text, ""
        return self._step(self, text)

    def rest(self) -> tuple[str, str]:
        """Return what is left when no more text follows."""
        held, self._held = self._held, ""
        if self._step is ThinkSplitter._within:
            return (held, "") if self._is_begun else (held.lstrip(), "")
        self.is_over = True
        return "", held if self._step is ThinkSplitter._before else ""

    def _before(self, text: str) -> tuple[str, str]:
        begun = text.lstrip()
        if begun.startswith(_OPEN):
            self._step = ThinkSplitter._within
            return self._within(begun[len(_OPEN) :])
        if _OPEN.startswith(begun):
            self._held = text
            return "", ""
        self.is_over = True
        return "", text

    def _within(self, text: str) -> tuple[str, str]:
        if not self._is_begun:
            text = text.lstrip()
        thought, tag, said = text.partition(_CLOSE)
        if tag:
            self._step = ThinkSplitter._after
            return thought, self._after(said)[1]
        kept = _overlap(text, _CLOSE)
        if kept:
            text, self._held = text[:-kept], text[-kept:]
        self._is_begun = self._is_begun or bool(text)
        return text, ""

    def _after(self, text: str) -> tuple[str, str]:
        """Pass over the white space between the thought and the answer."""
        said = text.lstrip()
        self.is_over = bool(said)
        return "", said


def _overlap(text: str, tag: str) -> int:
    """Return how many of the last characters of *text* may begin *tag*."""
    for size in range(min(len(text), len(tag) - 1), 0, -1):
        if tag.startswith(text[-size:]):
            return size
    return 0
