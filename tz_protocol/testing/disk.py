"""A folder for the spool, in memory, for ``Simulator``: files, owners, and faults.

The one rule: what was appended stays when a simulated process is killed, and what it
owned is then nobody's. A test holds one of these and gives it to one simulator after
another.
"""

from __future__ import annotations

from collections.abc import Hashable

from tz_protocol.errors import OperationBroken

__all__ = ["ScriptedDisk"]


class ScriptedDisk:
    """Files by path.

    Args:
        capacity: Bytes that fit.
    """

    def __init__(self, capacity: int = 1 << 40) -> None:
        self.capacity = capacity
        self.files: dict[str, bytes] = {}
        self.failure = ""
        """What every write fails with: ``readonly``, ``denied``, ``disk``; empty: it
        does not."""
        self.latency = 0.0
        """Seconds before anything is carried out."""
        self.is_kept = False
        """True: what is removed is there all the same, as after a kill just before."""
        self.appends = 0
        self._makers: dict[str, Hashable] = {}
        self._abandoned: set[str] = set()
        self._owners: dict[str, Hashable] = {}

    def killed(self, owner: Hashable) -> None:
        """Give up what the process *owner* owned."""
        self._owners = {
            name: other for name, other in self._owners.items() if other != owner
        }
        made = (name for name, other in self._makers.items() if other == owner)
        self._abandoned.update(made)

    def claim(self, folder: str, own: str, owner: Hashable) -> list[tuple[str, int]]:
        """Own a folder, and those that are nobody's; return the files in the latter."""
        self._check()
        self._owners[f"{folder}/{own}"] = owner
        found = []
        for path in sorted(self.files, key=lambda path: path.rpartition("/")[2]):
            place = path.rpartition("/")[0]
            is_inside = place.startswith(folder + "/")
            if is_inside and self._owners.setdefault(place, owner) == owner:
                found.append((path, len(self.files[path])))
        return [pair for pair in found if not pair[0].startswith(f"{folder}/{own}/")]

    def append(self, path: str, data: bytes, limit: int | None = None) -> None:
        """Append, all or nothing."""
        self._check()
        if limit is not None and len(self.files.get(path, b"") + data) > limit:
            raise OperationBroken("limit")
        if sum(map(len, self.files.values())) + len(data) > self.capacity:
            raise OperationBroken("full")
        self.appends += 1
        self.files[path] = self.files.get(path, b"") + data

    def read(self, path: str) -> bytes:
        """Return what is in a file."""
        if path not in self.files:
            raise OperationBroken("missing")
        return self.files[path]

    def remove(self, path: str) -> None:
        """Remove a file."""
        self._check()
        if not self.is_kept:
            self.files.pop(path, None)

    def make_folder(self, owner: Hashable) -> str:
        """Return the path of a folder that nobody has had before."""
        self._check()
        folder = f"/tmp/folder-{len(self._makers) + 1}"
        self._makers[folder] = owner
        return folder

    def is_owned(self, folder: str) -> bool:
        """Return True unless who made it was killed."""
        self._check()
        return folder not in self._abandoned

    def replace(self, path: str, data: bytes) -> None:
        """Make *data* the content of a file."""
        self._check()
        self.files[path] = data

    def read_folder(self, folder: str) -> list[tuple[str, bytes]]:
        """Return what is in a folder."""
        self._check()
        return [
            (path.removeprefix(folder + "/"), data)
            for path, data in self.files.items()
            if path.startswith(folder + "/")
        ]

    def remove_folder(self, folder: str) -> None:
        """Remove a folder and what is in it."""
        self._check()
        for name, _ in self.read_folder(folder):
            del self.files[f"{folder}/{name}"]

    def _check(self) -> None:
        if self.failure:
            raise OperationBroken(self.failure)
