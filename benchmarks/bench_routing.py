"""CPU time of routing: what it adds, and what a dead target costs.

    python -m benchmarks.bench_routing

Prints microseconds for one plan that succeeds at its first try, and the ratio of an
exchange with an open breaker before a healthy fallback to one with the fallback alone.
Rounds of both are interleaved; the median of their ratios is the figure.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import msgspec

from benchmarks.bench_core import (
    REQUEST_HEAD,
    WHOLE,
    best,
    connection,
    exchange,
    http_request,
    http_response,
    make_gateway,
)
from benchmarks.payloads import Answers, chat_request
from tz_protocol.endpoints import ENDPOINTS
from tz_protocol.flows.exchange import Exchange
from tz_protocol.flows.trying import make_plan
from tz_protocol.gateway import Gateway
from tz_protocol.routing.breaker import State, TargetKey
from tz_protocol.routing.plan import Try
from tz_protocol.types.request import ParsedRequest
from tz_protocol.types.settings import Model, ProviderSettings, Snapshot

COUNT, ROUNDS = 400, 25

ANSWERS = Answers(WHOLE, [])


def with_dead_target(gateway: Gateway) -> Gateway:
    """Put a provider before the others of *gateway*'s model whose breaker is open."""
    snapshot = gateway.snapshot
    model = snapshot.models["bench"]
    dead = msgspec.structs.replace(model.providers["bench"], name="dead")
    changed = many(model, {"dead": dead, **model.providers})
    gateway.snapshot = msgspec.structs.replace(snapshot, models={"bench": changed})
    policy = snapshot.gateway.policy.breaker
    breaker = gateway.breakers.get(TargetKey("bench", "dead"), policy, dead)
    while breaker.state(0.0) is not State.OPEN:
        ticket = breaker.begin(0.0)
        breaker.failed(ticket, 0.0, has_alternative=True, error="status_503")
    return gateway


def many(model: Model, providers: dict[str, ProviderSettings]) -> Model:
    """Return *model* over *providers*, in their order."""
    return msgspec.structs.replace(model, routing=tuple(providers), providers=providers)


def plan_cost(providers: int) -> float:
    """Return the seconds that routing takes of a request that succeeds at once."""
    gateway = make_gateway(ANSWERS)
    model = gateway.snapshot.models["bench"]
    one = model.providers["bench"]
    names = [f"bench{number}" for number in range(providers)]
    model = many(
        model, {name: msgspec.structs.replace(one, name=name) for name in names}
    )
    gateway.snapshot = Snapshot(models={"bench": model})
    asked = Exchange(gateway, ENDPOINTS[0], REQUEST_HEAD, "request", ())
    asked.parsed = ParsedRequest(model="bench")

    def route() -> None:
        plan = make_plan(asked, model)
        step = plan.next(0.0)
        plan.hedge_at()
        if isinstance(step, Try):
            plan.answered(step, 0.0)
            plan.completed(step)
        plan.close()

    count = 5_000

    def work() -> None:
        for _ in range(count):
            route()

    return best(work) / count


def ratio(dead: Callable[[], object], alone: Callable[[], object]) -> float:
    """Return how much more CPU time *dead* takes than *alone*."""
    ratios = []
    for _ in range(ROUNDS):
        figures = []
        for work in (alone, dead):
            start = time.process_time()
            work()
            figures.append(time.process_time() - start)
        ratios.append(figures[1] / figures[0])
    return statistics.median(ratios)


def main() -> None:
    """Measure and print."""
    for providers in (1, 3):
        cost = plan_cost(providers) * 1e6
        print(f"routing, first of {providers} answers        {cost:8.1f} us")
    body = chat_request()
    alone = make_gateway(ANSWERS)
    dead = with_dead_target(make_gateway(ANSWERS))
    bare = ratio(
        lambda: [exchange(dead, body) for _ in range(COUNT)],
        lambda: [exchange(alone, body) for _ in range(COUNT)],
    )
    requests, answers = [http_request(body)] * COUNT, [http_response(WHOLE)]
    alone = make_gateway()
    dead = with_dead_target(make_gateway())
    whole = ratio(
        lambda: connection(dead, requests, answers),
        lambda: connection(alone, requests, answers),
    )
    print(f"open breaker, core without codec     {bare:8.3f} of the fallback alone")
    print(f"open breaker, h11 on both faces      {whole:8.3f} of the fallback alone")


if __name__ == "__main__":
    main()
