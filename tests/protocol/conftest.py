"""Every test of the core runs under the guard against I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.protocol.purity import guard
from tz_protocol.machine import Machine

_STEPS = ("resume", "_throw", "tell", "cancel")
"""The methods in which a machine runs the core's code; the others call these."""


def _guarded(step: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        guard.arm()
        try:
            return step(*args, **kwargs)
        finally:
            guard.disarm()
            del args  # an error among them has a traceback that holds this frame

    return call


@pytest.fixture(autouse=True)
def _machines_do_no_io(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail the test if anything touches the world while a machine is stepped."""
    for name in _STEPS:
        monkeypatch.setattr(Machine, name, _guarded(getattr(Machine, name)))
    guard.take()
    yield
    found = guard.take()
    assert not found, "the core touched the world: " + "; ".join(found)
