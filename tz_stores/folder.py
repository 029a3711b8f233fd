"""A folder in which the processes of one gateway leave word for each other.

The one rule: a file is replaced, never written to, so that whoever reads it finds one
whole content; what is being made has a name that nobody reads.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from tz_protocol.recordops import MakeFolder, ReadFolder, RemoveFolder, ReplaceFile
from tz_stores.spool import broken, write_whole

__all__ = ["make", "read", "remove", "replace"]

_UNFINISHED = ".tmp"
_FOR_US = 0o600


def make(operation: MakeFolder) -> str:
    """Make a folder that only we can look into."""
    try:
        return tempfile.mkdtemp(prefix="tz-gateway-")
    except OSError as error:
        raise broken(error) from None


def remove(operation: RemoveFolder) -> None:
    """Remove a folder of files."""
    folder = Path(operation.path)
    try:
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        raise broken(error) from None


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
