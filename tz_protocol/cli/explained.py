"""What ``explain`` found, as text for people.

The one rule: nothing is looked up or left out here that the JSON form does not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

__all__ = ["render"]

_FOLLOWS = {
    "retry_here": "tried again after the others",
    "next": "not tried again",
    "stop": "told to the caller at once",
}


def render(found: dict[str, Any]) -> str:
    """Return the text."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"configuration {found['config_id'] or 'none'}"
    model = found.get("model")
    if model is not None:
        origin = "configured" if model["is_configured"] else "by its type's shorthand"
        yield f"model         {model['name']} ({origin})"
        if model["fallback_models"]:
            yield f"falls back to {', '.join(model['fallback_models'])}"
    if "endpoint" in found:
        yield f"endpoint      {found['endpoint']}"
    for one in found.get("dropped", ()):
        yield ""
        yield f"never tried   {_name(one)}"
        yield f"  {one['why']}"
    for number, one in enumerate(found.get("candidates", ()), 1):
        yield ""
        yield f"{number}. {_name(one)}"
        yield from _candidate(one)
    if "timers" in found:
        yield ""
        yield from _timers(found["timers"])
    if "failures" in found:
        yield ""
        yield "if every attempt fails in one way"
        for one in found["failures"]:
            yield from _failure(one)
    if "refused" in found:
        refused = found["refused"]
        yield ""
        yield f"the caller gets {refused['status']} {refused['code'] or ''}".rstrip()
        yield f"  {refused['message']}"


def _name(one: dict[str, Any]) -> str:
    return f"{one['model']}/{one['provider']}: {one['type']} {one['upstream_model']}"


def _candidate(one: dict[str, Any]) -> Iterator[str]:
    yield f"  dialect {one['dialect']}; key {one['key']}"
    facts = [
        f"{name.replace('_', ' ')} {one[name]}"
        for name in ("weight", "context_tokens", "retry_count")
        if one[name] is not None
    ]
    if facts:
        yield f"  {'; '.join(facts)}"
    timeouts = one["timeouts"]
    names = type(timeouts).__struct_fields__
    listed = ", ".join(
        f"{name.replace('_', ' ')} {getattr(timeouts, name):.12g}" for name in names
    )
    yield f"  seconds: {listed}"
    yield f"  breaker {_breaker(one['breaker'])}"
    request = one["request"]
    if request is None:
        yield f"  nothing is sent: {one['why']}"
        return
    if one["dropped_parameters"]:
        yield f"  left out: {', '.join(one['dropped_parameters'])}"
    for link in one.get("fetched_links", ()):
        yield f"  fetched first: {link}"
    yield f"  {request['method']} {request['url']}"
    for name, value in request["headers"]:
        yield f"    {name}: {value}"
    if isinstance(request["body"], str):
        yield f"    {request['body']}"
    elif request["body"] is not None:
        body = msgspec.json.format(msgspec.json.encode(request["body"]), indent=2)
        for line in body.decode().split("\n"):
            yield f"    {line}"


def _breaker(policy: Any) -> str:
    if not policy.is_enabled:
        return "off"
    return (
        f"opens after {policy.failures} failures in a row ({policy.failures_alone} if "
        f"nobody else is ready)\n    or {policy.share:.0%} of at least {policy.volume} "
        f"in {policy.window:.12g} s; rests {policy.rest:.12g} to "
        f"{policy.rest_max:.12g} s"
    )


def _timers(timers: dict[str, Any]) -> Iterator[str]:
    retries = timers["retries"]
    yield f"total time    {timers['total']:.12g} s"
    yield f"retries       {retries.count} further rounds"
    yield (
        f"  pauses up to {retries.base:.12g} s, doubling to {retries.cap:.12g} s; none "
        f"begins later than {retries.within:.12g} s after the first try"
    )
    yield f"  if a provider asks for it, a pause of {retries.retry_after_cap:.12g} s"
    after = timers["hedge_after"]
    if after is not None:
        yield f"hedge         a second attempt after {after:.12g} s without content"
    stream = timers["stream"]
    if stream is None:
        return
    if stream.hold_events or stream.hold:
        events = f"{stream.hold_events} events" if stream.hold_events else ""
        time = f"{stream.hold:.12g} s" if stream.hold else ""
        yield f"held back     {' or '.join(filter(None, (events, time)))}"
    yield f"malformed     an event that cannot be read: {stream.on_malformed_event}"
    if stream.ping_after is not None:
        yield f"pings         after {stream.ping_after:.12g} s without content"


def _failure(one: dict[str, Any]) -> Iterator[str]:
    marks = [_FOLLOWS[one["follow"]]]
    if one["counts"]:
        marks.append("counts for the breaker")
    if one["demotes"]:
        marks.append("puts the target behind the others for a while")
    if one["is_loud"]:
        marks.append("logged as an error")
    yield f"  {one['kind']}: {', '.join(marks)}"
    steps = [_step(step) for step in one["steps"]]
    told = one["told"]
    steps.append(f"{told['status']} {told['code'] or ''}".rstrip())
    yield f"    {' -> '.join(steps)}"


def _step(step: dict[str, Any]) -> str:
    if "pause" in step:
        return f"(up to {step['pause']:.12g} s)"
    return step["try"] if step["is_sent"] else f"{step['try']} (nothing sent)"
