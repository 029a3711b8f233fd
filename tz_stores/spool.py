"""The spool's files.

The one rule: a file is as long as what was written whole, and a folder belongs to the
process that holds the lock in it, which the kernel takes back however that process
ends (flock(2)).
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from threading import Lock

from tz_protocol.errors import OperationBroken
from tz_protocol.recordops import AppendFile, ClaimSpool, ReadFile, RemoveFile

__all__ = ["Spool", "broken", "write_whole"]

_LOCK = "lock"
_FOR_US = 0o700
_FILE_FOR_US = 0o600

_KINDS = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EFBIG: "full",
    errno.EROFS: "readonly",
    errno.EACCES: "denied",
    errno.EPERM: "denied",
    errno.ENOENT: "missing",
}


class Spool:
    """The folders that this process owns."""

    def __init__(self) -> None:
        self._locks: dict[Path, int] = {}
        self._turn = Lock()
        """One append at a time: a thread that was given up may still be at it."""

    def claim(self, operation: ClaimSpool) -> tuple[tuple[str, int], ...]:
        """Own a folder, and those whose owner is gone."""
        root = Path(operation.folder)
        own = root / operation.own
        try:
            for folder in (root, own):
                folder.mkdir(mode=_FOR_US, parents=True, exist_ok=True)
            if not self._lock(own):
                raise OperationBroken("disk", "the spool's own folder is locked")
            found = []
            for folder in sorted(path for path in root.iterdir() if path.is_dir()):
                if folder != own and self._lock(folder):
                    found += self._files(folder)
        except OSError as error:
            raise broken(error) from None
        found.sort(key=lambda pair: pair[0].rpartition("/")[2])
        return tuple(found)

    def _lock(self, folder: Path) -> bool:
        if folder in self._locks:
            return True
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, _FILE_FOR_US)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except OSError:
            os.close(handle)
            raise
        self._locks[folder] = handle
        return True

    def _files(self, folder: Path) -> list[tuple[str, int]]:
        """Return the files of a folder that is ours now; an empty one is removed."""
        files = [path for path in folder.iterdir() if path.name != _LOCK]
        if not files:
            self._remove_folder(folder)
        return [(str(path), path.stat().st_size) for path in files]

    def _remove_folder(self, folder: Path) -> None:
        handle = self._locks.pop(folder, None)
        with suppress(OSError):
            (folder / _LOCK).unlink()
            folder.rmdir()
        if handle is not None:
            os.close(handle)

    def append(self, operation: AppendFile) -> None:
        """Append in one write; undo what was written in part."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        with self._turn:
            try:
                handle = os.open(operation.path, flags, _FILE_FOR_US)
            except OSError as error:
                raise broken(error) from None
            size = os.fstat(handle).st_size
            try:
                if operation.limit is not None:
                    _require_room(size + len(operation.data), operation.limit)
                write_whole(handle, operation.data)
                if operation.is_synced:
                    os.fdatasync(handle)
            except OSError as error:
                with suppress(OSError):
                    os.ftruncate(handle, size)
                raise broken(error) from None
            finally:
                os.close(handle)

    def read(self, operation: ReadFile) -> bytes:
        """Read a file."""
        try:
            return Path(operation.path).read_bytes()
        except OSError as error:
            raise broken(error) from None

    def remove(self, operation: RemoveFile) -> None:
        """Remove a file, if it is there."""
        try:
            Path(operation.path).unlink(missing_ok=True)
        except OSError as error:
            raise broken(error) from None

    def close(self) -> None:
        """Give every folder up; those with nothing in them are removed."""
        for folder, handle in list(self._locks.items()):
            with suppress(OSError):
                if all(path.name == _LOCK for path in folder.iterdir()):
                    self._remove_folder(folder)
                    continue
                os.close(handle)
        self._locks.clear()


def _require_room(size: int, limit: int) -> None:
    if size > limit:
        raise OperationBroken("limit", f"a file of {limit} bytes is full")


def write_whole(handle: int, data: bytes) -> None:
    """Write all of *data*."""
    written = os.write(handle, data)
    while written < len(data):  # a signal, or the last bytes of a disk
        written += os.write(handle, data[written:])


def broken(error: OSError) -> OperationBroken:
    """Return what the core is told of a file or a folder that failed."""
    kind = _KINDS.get(error.errno or 0, "disk")
    return OperationBroken(kind, error.strerror or type(error).__name__)
