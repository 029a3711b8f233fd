"""The links of one exchange, followed for providers that take only bytes.

The one rule: what is behind a link is fetched at most once for an exchange, however
many candidates, retries and hedges need it, and not before one does. A link that
cannot be followed is the caller's mistake (400) and no provider's: the plan goes on to
a candidate that takes the link itself, if there is one.

How one link is followed is in ``download.py``, where it may lead in
``routing/reach.py``, which links need it in the dialects (``Dialect.links``).
"""

from __future__ import annotations

from base64 import b64encode
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tz_protocol.dialects.base import Link
from tz_protocol.dialects.losses import POLICY_OPTION
from tz_protocol.dialects.media import IMAGES, sniffed
from tz_protocol.errors import GatewayError, InvalidRequest, Overloaded
from tz_protocol.flows.download import Download, Unfetched
from tz_protocol.operations import All, Flow, Signal, Wait
from tz_protocol.records.record import Stage
from tz_protocol.routing.admission import Memory
from tz_protocol.routing.candidates import Candidate
from tz_protocol.routing.reach import Unfollowable, named, target_of
from tz_protocol.types.conversation import Inline
from tz_protocol.types.request import ParsedRequest
from tz_protocol.types.settings import FetchSettings

if TYPE_CHECKING:
    from tz_protocol.flows.exchange import Exchange

__all__ = ["Fetched", "check_link", "links_for"]

_PARALLEL = 4
"""Links of one request that are followed at one time."""

_LEEWAY = 5.0
"""Seconds after the deadline of every link at which all of them are given up, which is
never reached: each keeps its own."""


def links_for(
    exchange: Exchange, candidate: Candidate, parsed: ParsedRequest
) -> Sequence[Link]:
    """Return the links that are followed before *candidate* is asked.

    Raises:
        InvalidRequest: They are not followed, or are more than may be, or the
            request cannot be read.
    """
    settings, links = exchange.settings.fetch, candidate.dialect.links
    found: Sequence[Link] = () if links is None else links.find(parsed)
    if not found:
        return ()
    provider = candidate.settings
    if not settings.is_enabled:
        if provider.options.get(POLICY_OPTION) in ("warn", "drop"):
            # Left out by the dialect, or refused by the vendor.
            return ()
        message = (
            f"The provider {provider.type} does not follow links, and this gateway "
            f"does not follow them for it: {found[0].path} must be a data URL."
        )
        raise InvalidRequest(message, param=found[0].path, code="unsupported_parameter")
    if len(found) > settings.links:
        message = (
            f"The provider {provider.type} does not follow links, and this "
            f"gateway follows {settings.links} for a request, not {len(found)}."
        )
        param = found[settings.links].path
        raise InvalidRequest(message, param=param, code="too_many_links")
    return found


def check_link(link: Link, settings: FetchSettings) -> None:
    """Check what can be checked of *link* without following it.

    Raises:
        InvalidRequest: It would not be followed.
    """
    try:
        target_of(link.url, settings)
    except Unfollowable as error:
        raise _unfollowed(link, error.reason) from None


class Fetched:
    """What is behind the links of one exchange, as far as anybody wanted to know.

    The exchange has it, and it does not have the exchange: a cycle would keep both
    until the collector comes.
    """

    __slots__ = ("_found", "_held", "_running", "_total")

    def __init__(self) -> None:
        self._found: dict[str, Inline | Unfetched] = {}
        """By URL."""
        self._held = 0
        self._total = 0
        self._running: Signal | None = None

    def request_for(
        self, exchange: Exchange, candidate: Candidate
    ) -> Flow[ParsedRequest]:
        """Return the request of *exchange* as *candidate* can take it.

        Raises:
            InvalidRequest: A link cannot be followed.
            Overloaded: There is no memory for what is behind it.
        """
        parsed, links = exchange.parsed, candidate.dialect.links
        wanted = links_for(exchange, candidate, parsed)
        if links is None or not wanted:
            return parsed
        exchange.record.stage = Stage.FETCH
        while self._running is not None:
            # A hedge: the attempt beside it is fetching.
            yield from Wait(exchange.deadline + _LEEWAY, self._running)
        self._require_none_failed(wanted)
        yield from self._fetch(exchange, wanted)
        self._require_none_failed(wanted)
        contents = {link.path: self._content(link) for link in wanted}
        placed: ParsedRequest = links.place(parsed, contents)
        return placed

    def close(self, memory: Memory) -> None:
        """Let go of everything, and give its memory back. May be called again."""
        self._found = {}
        held, self._held = self._held, 0
        if held:
            memory.give(held)

    # -- inside -------------------------------------------------------------------

    def _require_none_failed(self, wanted: Sequence[Link]) -> None:
        for link in wanted:
            found = self._found.get(link.url)
            if isinstance(found, Unfetched):
                raise _unfollowed(link, found.reason)

    def _content(self, link: Link) -> Inline:
        found = self._found[link.url]
        assert isinstance(found, Inline), "every link was followed"
        if link.is_image and found.media_type not in IMAGES:
            raise _unfollowed(link, "it is not a PNG, JPEG, GIF or WebP picture")
        if not found.media_type:
            raise _unfollowed(link, "it is no kind of file that is known")
        return found

    def _fetch(self, exchange: Exchange, wanted: Sequence[Link]) -> Flow[None]:
        """Follow those of *wanted* that nobody has followed; the first that fails
        ends it."""
        names: dict[str, list[str]] = {}
        for link in wanted:
            if link.url not in self._found:
                names.setdefault(link.url, []).append(link.name)
        if not names:
            return
        missing = deque(names.items())
        deadline = exchange.deadline + _LEEWAY
        self._running = running = Signal()
        try:
            workers = range(min(_PARALLEL, len(missing)))
            yield from All(
                deadline, tuple(self._work(exchange, missing) for _ in workers)
            )
        except _Ended:
            return
        finally:
            self._running = None
            running.set()

    def _work(
        self, exchange: Exchange, missing: deque[tuple[str, list[str]]]
    ) -> Flow[None]:
        """Follow one link after the other until there are none.

        Raises:
            _Ended: One could not be followed: nobody needs the others.
        """
        while missing:
            url, names = missing.popleft()
            outcome = "cancelled"
            try:
                self._found[url] = content = yield from self._download(
                    exchange, url, names
                )
                outcome = "ok" if content.media_type else "unknown_type"
            except Unfetched as error:
                outcome = error.outcome
                self._found[url] = error.with_traceback(None)
                raise _Ended("a link could not be followed") from None
            except Overloaded:
                outcome = "no_memory"
                raise
            finally:
                metrics = exchange.gateway.metrics
                metrics.add("tz_media_fetches_total", outcome=outcome)

    def _download(self, exchange: Exchange, url: str, names: list[str]) -> Flow[Inline]:
        held = 0
        gateway, settings = exchange.gateway, exchange.settings.fetch

        def take(size: int) -> None:
            nonlocal held
            self._total += size
            if self._total > settings.total_bytes:
                total = settings.total_bytes
                reason = f"with the other links it comes to more than {total} bytes"
                raise Unfetched("too_large", reason)
            gateway.memory.take(size)
            held += size

        download = Download(
            url,
            settings,
            exchange.settings.limits,
            user_agent=gateway.user_agent,
            context=gateway.context,
            take=take,
        )
        deadline = min(exchange.deadline, gateway.context.now + settings.timeout)
        try:
            data = yield from download.run(deadline)
            size = (len(data) + 2) // 3 * 4
            gateway.memory.take(size)
            self._held += size
        finally:
            gateway.memory.give(held)
        media_type = sniffed(data, *names, _last_segment(url))
        return Inline(media_type, b64encode(data).decode("ascii"))


class _Ended(GatewayError):
    """Ends the links that are being followed; never told to anybody."""


def _last_segment(url: str) -> str:
    """Return the name of the file that a link, which could be followed, leads to."""
    return unquote(urlsplit(url).path.rpartition("/")[2])


def _unfollowed(link: Link, reason: str) -> InvalidRequest:
    what = "image" if link.is_image else "file"
    message = f"The {what} at {named(link.url)} cannot be fetched: {reason}."
    return InvalidRequest(message, param=link.path, code=f"invalid_{what}_url")
