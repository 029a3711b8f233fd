"""Access tokens, as a decision object: which are there, wanted, due.

The one rule: whoever needs a token takes what is here or waits for news, and never
fetches; whoever fetches (``flows/tokens.py``) takes what is due and says how it went.
All state changes are synchronous, so that no cancellation can tear them. Times are the
driver's clock.
"""

from __future__ import annotations

from tz_protocol.errors import UpstreamError
from tz_protocol.operations import Signal
from tz_protocol.types.secret import Secret
from tz_protocol.types.tokens import Grant, Token

__all__ = ["TokenTable"]

MOST_GRANTS = 1_000
"""Callers may bring credentials of their own, so they are bounded."""

EARLY = 300.0
"""Seconds before its end in which a token is replaced: Google's own libraries take
225 to 300, and its metadata server hands out a new one from 300 on."""

MARGIN = 10.0
"""Seconds before its end in which a token is not used any more: requests take time."""

UNUSED = 3_600.0
"""Seconds without a request after which a token is not renewed any more."""

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Seconds between two tries that fail; doubled each time."""


class _Entry:
    """One grant."""

    __slots__ = (
        "due",
        "error",
        "expires",
        "failures",
        "grant",
        "is_taken",
        "news",
        "token",
        "used",
    )

    def __init__(self, grant: Grant, now: float) -> None:
        self.grant = grant
        self.token: Secret | None = None
        self.expires = 0.0
        self.due = now
        """When to fetch."""
        self.used = now
        self.is_taken = False
        """True while somebody fetches."""
        self.error: UpstreamError | None = None
        self.failures = 0
        self.news = Signal()
        """Set when the next fetch has ended."""


class TokenTable:
    """The tokens of one process."""

    def __init__(self) -> None:
        self._entries: dict[Grant, _Entry] = {}
        self.demand = Signal()
        """Set when something may have become due before ``next_due``."""

    def __len__(self) -> int:
        """Return how many grants are known."""
        return len(self._entries)

    # -- for requests -------------------------------------------------------------

    def get(self, grant: Grant, now: float) -> Secret | None:
        """Return the token to use, None if there is none yet.

        Raises:
            UpstreamError: The last try failed and the next one is not due yet.
        """
        entry = self._entries.get(grant)
        if entry is None:
            return None
        entry.used = now
        if entry.due <= now and not entry.is_taken:
            # Nobody had used it for so long that nobody waits for its moment.
            self._wake()
        if entry.token is not None and now < entry.expires - MARGIN:
            return entry.token
        if entry.error is not None and now < entry.due:
            raise entry.error.with_traceback(None)  # else it would grow with each
        return None

    def want(self, grant: Grant, now: float) -> Signal:
        """Ask for a token of *grant*; the signal is set when a try has ended."""
        entry = self._entries.get(grant)
        if entry is None:
            if len(self._entries) >= MOST_GRANTS:
                self._forget()
            entry = self._entries[grant] = _Entry(grant, now)
        entry.used = now
        if not entry.is_taken:
            entry.due = min(entry.due, now)
            self._wake()
        return entry.news

    def refused(self, grant: Grant, token: Secret, now: float) -> None:
        """Say that a provider did not take *token*: another one is needed."""
        entry = self._entries.get(grant)
        if entry is not None and entry.token == token:
            entry.token = None
            entry.due = now
            self._wake()

    # -- for who fetches ----------------------------------------------------------

    def take(self, now: float) -> Grant | None:
        """Return a grant to fetch a token for, None if none is due.

        Until ``store`` or ``fail`` is called nobody else gets it.
        """
        for entry in self._entries.values():
            if entry.due <= now and not entry.is_taken and self._is_used(entry, now):
                entry.is_taken = True
                return entry.grant
        return None

    def next_due(self, now: float) -> float | None:
        """Return when ``take`` will have something, None if only demand can tell."""
        moments = [
            entry.due
            for entry in self._entries.values()
            if not entry.is_taken and self._is_used(entry, max(now, entry.due))
        ]
        return min(moments, default=None)

    def store(self, grant: Grant, token: Token, now: float) -> None:
        """Keep *token* and tell whoever waits."""
        entry = self._entries.get(grant)
        if entry is None:
            return
        entry.token = token.secret
        entry.expires = now + token.lifetime
        early = min(EARLY, token.lifetime / 4)
        entry.due = max(now + FIRST_PAUSE, entry.expires - early)
        entry.error, entry.failures = None, 0
        self._tell(entry)

    def fail(
        self, grant: Grant, error: UpstreamError, now: float, jitter: float
    ) -> None:
        """Keep *error* for those who ask before the next try.

        Args:
            grant: As taken.
            error: Why there is no token.
            now: The time.
            jitter: In [0, 1).
        """
        entry = self._entries.get(grant)
        if entry is None:
            return
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(entry.failures, 10))
        entry.due = now + pause * (0.5 + jitter / 2)
        entry.failures += 1
        entry.error = error
        self._tell(entry)

    def release(self, grant: Grant) -> None:
        """Say that a taken grant was neither stored nor failed (a cancellation)."""
        entry = self._entries.get(grant)
        if entry is not None and entry.is_taken:
            self._tell(entry)

    # -- inside -------------------------------------------------------------------

    def _is_used(self, entry: _Entry, now: float) -> bool:
        return now - entry.used < UNUSED

    def _wake(self) -> None:
        demand, self.demand = self.demand, Signal()
        demand.set()

    def _tell(self, entry: _Entry) -> None:
        entry.is_taken = False
        news, entry.news = entry.news, Signal()
        news.set()

    def _forget(self) -> None:
        """Drop the grant that was used the longest time ago."""
        idle = [entry for entry in self._entries.values() if not entry.is_taken]
        if idle:
            oldest = min(idle, key=lambda entry: entry.used)
            del self._entries[oldest.grant]
            self._tell(oldest)
