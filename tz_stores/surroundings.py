"""A process's environment, files and standard output, each function one operation.

The one rule: as in ``threads.py``, which is for what stores do; these are performed in
threads of the loop's own. What an operation means is in ``tz_protocol.operations``.
"""

from __future__ import annotations

import glob
import os
import sys
from pathlib import Path

from tz_protocol.errors import OperationBroken
from tz_protocol.operations import Print, ReadFiles, ResolveSecret, WriteFile
from tz_protocol.types.secret import Secret

__all__ = ["print_text", "read_files", "resolve_secret", "write_file"]


def resolve_secret(operation: ResolveSecret) -> Secret:
    """Look up a variable, or read a file."""
    kind, _, name = operation.location.partition("::")
    try:
        if kind == "env":
            return Secret(os.environ[name])
        path = os.environ[name] if kind == "path_from_env" else name
        return Secret(Path(path).read_text("utf-8").strip())
    except (OSError, KeyError, ValueError):
        raise OperationBroken("missing", f"nothing at {operation.location}")


def read_files(operation: ReadFiles) -> tuple[tuple[str, str], ...]:
    """Read every file that matches."""
    paths = sorted(glob.glob(operation.pattern))
    try:
        return tuple((path, Path(path).read_text("utf-8")) for path in paths)
    except UnicodeDecodeError:
        raise OperationBroken("encoding", f"{operation.pattern}: not UTF-8")


def write_file(operation: WriteFile) -> None:
    """Replace a file."""
    path = Path(f"{operation.path}.{os.getpid()}.tmp")
    path.write_text(operation.text, "utf-8")
    path.replace(operation.path)


def print_text(operation: Print) -> None:
    """Write to standard output or standard error."""
    file = sys.stderr if operation.is_error else sys.stdout
    file.write(operation.text)
    file.flush()
