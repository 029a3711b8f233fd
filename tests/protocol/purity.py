"""A guard that sees every file, socket, process, thread and sleep.

The one rule: what runs under :func:`no_io` may compute and nothing else. CPython tells
audit hooks of whatever touches the world, so that no clever call gets past; what an
import reads to load a module is not the code's own doing and is left out.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Guard", "guard", "no_io"]

_EVENTS = frozenset(
    {"open", "time.sleep", "builtins.input", "_thread.start_new_thread"}
)
_PREFIXES = (
    "socket.",
    "subprocess.",
    "os.",
    "shutil.",
    "tempfile.",
    "glob.",
    "pathlib.",
    "urllib.",
    "http.client.",
    "sqlite3.",
    "fcntl.",
    "mmap.",
    "ctypes.",
    "signal.",
)


class Guard:
    """Collects the forbidden events of one thread while it is armed.

    An audit hook cannot be taken back, so there is one guard for the whole process.
    """

    def __init__(self) -> None:
        self.found: list[str] = []
        self._depth = 0
        self._thread = 0
        self._is_hooked = False

    def arm(self) -> None:
        """Begin to look; calls nest."""
        if not self._is_hooked:
            self._is_hooked = True
            sys.addaudithook(self._hook)
        self._thread = threading.get_ident()
        self._depth += 1

    def disarm(self) -> None:
        """Stop looking, once for every :meth:`arm`."""
        self._depth -= 1

    def take(self) -> list[str]:
        """Return what was found since the last call."""
        found, self.found = self.found, []
        return found

    def _hook(self, event: str, args: tuple[object, ...]) -> None:
        if not self._depth:
            return
        if event not in _EVENTS and not event.startswith(_PREFIXES):
            return
        if threading.get_ident() != self._thread:
            return
        frame = sys._getframe(1)
        if not _is_import(frame):
            code = frame.f_code
            self.found.append(
                f"{event} from {code.co_filename}:{frame.f_lineno} ({code.co_name})"
            )


def _is_import(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


guard = Guard()


@contextmanager
def no_io() -> Iterator[None]:
    """Fail with ``AssertionError`` if anything inside touches the world.

    The garbage collector rests meanwhile: a finaliser of some earlier test might
    close a file, and that would be blamed on the code inside.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    guard.arm()
    try:
        yield
    finally:
        guard.disarm()
        if was_enabled:
            gc.enable()
        found = guard.take()
        assert not found, "the core touched the world: " + "; ".join(found)
