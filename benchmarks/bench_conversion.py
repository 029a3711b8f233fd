"""CPU time of the vendors' own formats over passing OpenAI's through.

    python -m benchmarks.bench_conversion

Prints microseconds per request, per exchange (the request, and its whole answer) and
per chunk of a stream, and how much more each is than for a provider that speaks
OpenAI's format. The core alone, no HTTP codec; the formats take turns.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks.bench_core import REQUEST_HEAD, WHOLE, exchange, make_gateway
from benchmarks.payloads import Answers, chat_request, stream
from benchmarks.vendors import VENDORS, answers_of
from tz_protocol.dialects.base import AnyDialect
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.gateway import Gateway
from tz_protocol.types.request import Target

__all__ = ["PASSED", "Figures", "measure"]

PASSED = "openai (passed through)"
ROUNDS, COUNT, STREAMS, CHUNKS = 15, 200, 4, 500


@dataclass
class Figures:
    """Seconds of one format; the least of all rounds."""

    request: float
    """To read the client's request and render the provider's."""
    exchange: float
    """From the request to the end of a whole answer."""
    chunk: float
    """One more of them."""


class _Format:
    """One provider's format, ready to be measured."""

    def __init__(
        self,
        dialect: AnyDialect,
        options: dict[str, str],
        short: Answers,
        long: Answers,
    ) -> None:
        self._dialect = dialect
        self._target = Target(provider="bench", model="gpt-4.1-mini", options=options)
        self._short = make_gateway(short, dialect=dialect, options=options)
        self._long = make_gateway(long, dialect=dialect, options=options)
        self._whole, self._streamed = chat_request(), chat_request(is_stream=True)

    def request(self) -> None:
        parsed = OPENAI_CHAT.parse_request(self._whole, REQUEST_HEAD)
        self._dialect.render_request(parsed, self._target)

    def measure(self, count: int, streams: int) -> tuple[float, ...]:
        """Return the seconds of a request, an exchange, a short and a long stream."""
        begun = time.process_time()
        for _ in range(count):
            self.request()
        requested = time.process_time()
        for _ in range(count):
            exchange(self._short, self._whole)
        exchanged = time.process_time()
        short = _streaming(self._short, self._streamed, streams)
        long = _streaming(self._long, self._streamed, streams)
        return (
            (requested - begun) / count,
            (exchanged - requested) / count,
            short / streams,
            long / streams,
        )


def _streaming(gateway: Gateway, body: bytes, streams: int) -> float:
    begun = time.process_time()
    for _ in range(streams):
        exchange(gateway, body)
    return time.process_time() - begun


def measure(
    names: tuple[str, ...] = tuple(VENDORS),
    *,
    rounds: int = ROUNDS,
    count: int = COUNT,
    streams: int = STREAMS,
    chunks: int = CHUNKS,
) -> dict[str, Figures]:
    """Return the figures of ``PASSED`` and of every vendor among *names*."""
    plain = Answers(WHOLE, stream(0)), Answers(WHOLE, stream(chunks))
    formats = {PASSED: _Format(OPENAI_CHAT, {}, *plain)}
    for name in names:
        answers = answers_of(name, 0), answers_of(name, chunks)
        formats[name] = _Format(*VENDORS[name], *answers)
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in formats}
    for _ in range(rounds):
        for name, one in formats.items():
            found[name].append(one.measure(count, streams))
    figures = {}
    for name, rows in found.items():
        # Of each the least, and only then the difference: one that was disturbed once
        # would otherwise seem to cost less than nothing.
        request, answered, short, long = map(min, zip(*rows, strict=True))
        figures[name] = Figures(request, answered, (long - short) / chunks)
    return figures


def main() -> None:
    """Measure and print."""
    found = measure()
    base = found[PASSED]
    heads = ("request", "exchange", "chunk")
    print(f"{'us':24}" + "".join(f"{head:>20}" for head in heads))
    for name, figures in found.items():
        pairs = [(getattr(figures, head), getattr(base, head)) for head in heads]
        cells = [
            f"{own * 1e6:10.2f} {(own - passed) * 1e6:+9.2f}" for own, passed in pairs
        ]
        print(f"{name:24}" + "".join(cells))


if __name__ == "__main__":
    main()
