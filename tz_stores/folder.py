"""A folder in which the processes of one gateway leave word for each other.

The one rule: a file is replaced, never written to, so that whoever reads it finds one
whole content; what is being made has a name that nobody reads. A folder is locked
(flock(2)) by the process that made it, which the others can see, and which keeps
systemd-tmpfiles from cleaning it up.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from tz_protocol.recordops import (
    IsOwned,
    MakeFolder,
    ReadFolder,
    RemoveFolder,
    ReplaceFile,
)
from tz_stores.spool import broken, write_whole

__all__ = ["Folders", "is_owned", "read", "replace"]

_UNFINISHED = ".tmp"
_FOR_US = 0o600


class Folders:
    """The folders that this process made, and owns."""

    def __init__(self) -> None:
        self._locks: dict[str, int] = {}

    def make(self, operation: MakeFolder) -> str:
        """Make a folder that only we can look into, and lock it."""
        try:
            folder = tempfile.mkdtemp(prefix="tz-gateway-")
            handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            self._locks[folder] = handle
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise broken(error) from None
        return folder

    def remove(self, operation: RemoveFolder) -> None:
        """Remove a folder of files."""
        folder = Path(operation.path)
        try:
            for path in folder.iterdir():
                path.unlink(missing_ok=True)
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise broken(error) from None
        self._unlock(operation.path)

    def close(self) -> None:
        """Give every folder up."""
        for folder in tuple(self._locks):
            self._unlock(folder)

    def _unlock(self, folder: str) -> None:
        handle = self._locks.pop(folder, None)
        if handle is not None:
            os.close(handle)


def is_owned(operation: IsOwned) -> bool:
    """Try to lock a folder beside its owner."""
    try:
        handle = os.open(operation.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        finally:
            os.close(handle)
    except BlockingIOError:
        return True
    except OSError as error:
        raise broken(error) from None
    return False


def replace(operation: ReplaceFile) -> None:
    """Write beside the file, then take its place."""
    path = operation.path + _UNFINISHED
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        handle = os.open(path, flags, _FOR_US)
        try:
            write_whole(handle, operation.data)
        finally:
            os.close(handle)
        os.replace(path, operation.path)
    except OSError as error:
        raise broken(error) from None


def read(operation: ReadFolder) -> tuple[tuple[str, bytes], ...]:
    """Read every file, one of them after all others."""
    found = []
    try:
        names = os.listdir(operation.path)
    except OSError as error:
        raise broken(error) from None
    names = [name for name in names if name != operation.last]
    for name in (*names, operation.last):
        if not name or name.endswith(_UNFINISHED):
            continue
        with suppress(OSError):  # removed meanwhile
            found.append((name, Path(operation.path, name).read_bytes()))
    return tuple(found)
