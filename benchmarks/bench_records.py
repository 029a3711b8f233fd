"""CPU time of records and of the cache, of what a request waits for.

    python -m benchmarks.bench_records

Prints microseconds per exchange with records beside the same exchange without, for
whole answers and for streams of 100 chunks, by how much of the content is kept; what
the writer needs per record later, when nobody waits for it; and what the cache needs
to give an answer again, or to find none and store one. The core alone, no HTTP codec;
what is compared takes turns.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import msgspec

from benchmarks.bench_core import REQUEST_HEAD, WHOLE, exchange, make_gateway
from benchmarks.payloads import Answers, chat_request, stream
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.flows.recorder import Recorder
from tz_protocol.flows.writing import render
from tz_protocol.gateway import Gateway
from tz_protocol.machine import Machine
from tz_protocol.operations import ReceiveBody, SendBody
from tz_protocol.types.records import Capture, RecordSettings
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import GatewaySettings

__all__ = [
    "CAPTURES",
    "CHUNKS",
    "cache_costs",
    "record_costs",
    "record_waits",
    "writer_cost",
]

CAPTURES: tuple[Capture, ...] = ("none", "redacted", "full")
CHUNKS = 100
ROUNDS, COUNT = 20, 200

Work = Callable[[], object]
Kind = Literal["whole", "stream"]

_ANSWERS = Answers(WHOLE, stream(CHUNKS))
_BODIES: dict[Kind, bytes] = {
    "whole": chat_request(),
    "stream": chat_request(is_stream=True),
}


def _gateway(capture: Capture | None = None) -> Gateway:
    """Return a gateway that keeps records, unless *capture* is None."""
    if capture is None:
        return make_gateway(_ANSWERS)
    records = RecordSettings(url=Secret("http://store.test"), capture=capture)
    return make_gateway(_ANSWERS, settings=GatewaySettings(records=records))


def _count_of(kind: Kind, count: int) -> int:
    return count if kind == "whole" else max(1, count // 10)


def compared(
    works: Mapping[str, Callable[[int], Iterable[Work]]], rounds: int, count: int
) -> dict[str, float]:
    """Return the least CPU seconds of each work; all take turns, round by round.

    Args:
        works: Given how many, makes that many pieces of work; not in the time.
        rounds: How many.
        count: Pieces of work in a round.
    """
    found = {name: float("inf") for name in works}
    for _ in range(rounds):
        for name, make in works.items():
            pieces = list(make(count))
            begun = time.process_time()
            for piece in pieces:
                piece()
            spent = time.process_time() - begun
            found[name] = min(found[name], spent / count)
    return found


# -- records --------------------------------------------------------------------


def record_costs(
    kind: Kind, rounds: int = ROUNDS, count: int = COUNT
) -> dict[str, float]:
    """Return the seconds of one exchange, by capture, and with records ``off``."""

    def work(capture: Capture | None) -> Callable[[int], Iterable[Work]]:
        def make(count: int) -> Iterable[Work]:
            # Anew each round: nobody takes from its queue here.
            gateway = _gateway(capture)
            body = _BODIES[kind]
            return [lambda: exchange(gateway, body)] * count

        return make

    levels: tuple[Capture | None, ...] = (None, *CAPTURES)
    works = {str(level or "off"): work(level) for level in levels}
    return compared(works, rounds, _count_of(kind, count))


def record_waits(
    kind: Kind, rounds: int = ROUNDS, count: int = COUNT
) -> dict[str, float]:
    """As :func:`record_costs`, of what comes before the last byte is out.

    That is what a client waits for; the rest follows, and only others wait.
    """
    levels: tuple[Capture | None, ...] = (None, *CAPTURES)
    found = {str(level or "off"): float("inf") for level in levels}
    for _ in range(rounds):
        for level in levels:
            gateway, name = _gateway(level), str(level or "off")
            number = _count_of(kind, count)
            spent = sum(_waited(gateway, _BODIES[kind]) for _ in range(number))
            found[name] = min(found[name], spent / number)
    return found


def _waited(gateway: Gateway, body: bytes) -> float:
    """Run one exchange; return the CPU seconds until its last byte was sent."""
    begun, waited = time.process_time(), 0.0
    machine = Machine(gateway.handle(REQUEST_HEAD), gateway.context)
    received = iter((body, b""))
    operation = machine.start(0.0)
    while operation is not None:
        if isinstance(operation, SendBody) and operation.end:
            waited = time.process_time() - begun
        is_receiving = isinstance(operation, ReceiveBody)
        operation = machine.resume(next(received) if is_receiving else None, 0.0)
    machine.notices()
    return waited


def writer_cost(kind: Kind, rounds: int = ROUNDS, count: int = COUNT) -> float:
    """Return the seconds in which one record, with all of its content, becomes rows."""
    gateway = _gateway("full")
    for _ in range(count):
        exchange(gateway, _BODIES[kind])
    payloads = _queued(gateway.recorder)

    def work() -> None:
        machine = Machine(render(payloads, gateway.context), gateway.context)
        operation = machine.start(0.0)
        while operation is not None:
            operation = machine.resume(None, 0.0)

    works = {"rows": lambda count: [work] * count}
    return compared(works, rounds, 1)["rows"] / count


def _queued(recorder: Recorder | None) -> list[bytes]:
    assert recorder is not None
    recorder.queue.close()
    batch, _ = recorder.queue.next_to_write(0.0)
    assert batch is not None
    return batch.payloads


# -- the cache ------------------------------------------------------------------


def _asking(body: bytes, enabled: str, number: int = 0) -> bytes:
    """Return *body* with a wish about the cache; *number* tells it from others."""
    value = msgspec.json.decode(body)
    value["seed"] = number
    value["tensorzero::cache_options"] = {"enabled": enabled}
    return msgspec.json.encode(value)


def cache_costs(
    kind: Kind, rounds: int = ROUNDS, count: int = COUNT
) -> dict[str, float]:
    """Return the seconds of one exchange that asks for the cache, and of its parts.

    ``parse``: to read the request; ``off``: the cache does nothing; ``hit``: the answer
    comes from the process's memory; ``miss``: it does not, and is stored.
    """
    count = _count_of(kind, count)
    gateway = _gateway()
    off, hit = (_asking(_BODIES[kind], enabled) for enabled in ("off", "on"))
    numbers = itertools.count(1)
    exchange(gateway, hit)

    def misses(count: int) -> list[Work]:
        bodies = [
            _asking(_BODIES[kind], "on", number)
            for number in itertools.islice(numbers, count)
        ]
        return [lambda body=body: exchange(gateway, body) for body in bodies]  # type: ignore[misc]

    works: dict[str, Callable[[int], Iterable[Work]]] = {
        "parse": lambda count: (
            [lambda: OPENAI_CHAT.parse_request(hit, REQUEST_HEAD)] * count
        ),
        "off": lambda count: [lambda: exchange(gateway, off)] * count,
        "hit": lambda count: [lambda: exchange(gateway, hit)] * count,
        "miss": misses,
    }
    return compared(works, rounds, count)


def main() -> None:
    """Measure and print."""
    kinds: tuple[Kind, ...] = ("whole", "stream")
    for kind in kinds:
        found, waits = record_costs(kind), record_waits(kind)
        off = found.pop("off")
        print(f"{kind:8} records off       {off * 1e6:8.1f} us per exchange")
        for capture, cost in found.items():
            more, waited = cost - off, waits[capture] - waits["off"]
            print(
                f"{kind:8} capture {capture:9} {more * 1e6:+8.1f} us"
                f" {cost / off:8.3f} of records off,"
                f" {waited * 1e6:+8.1f} us before the last byte"
            )
        rows = writer_cost(kind)
        print(f"{kind:8} rows of a record  {rows * 1e6:8.1f} us, by the writer")
    for kind in kinds:
        found = cache_costs(kind)
        parse, off = found.pop("parse"), found["off"]
        print(f"{kind:8} parse a request   {parse * 1e6:8.1f} us")
        for name, cost in found.items():
            print(
                f"{kind:8} cache {name:10}  {cost * 1e6:8.1f} us per exchange,"
                f" {(cost - parse) * 1e6:8.1f} us above the parsing,"
                f" {cost / off:8.3f} of off"
            )


if __name__ == "__main__":
    main()
