"""What a flow may ask of ClickHouse, and of the folder that stands in for it.

The one rule: the same as for ``operations.py``, whose table these complete: an
operation is data with a deadline, and none of them decides. All of them are performed
in worker threads, by the same code under every event loop, so that one whose deadline
has passed may still come to its end: it is to be asked for in such a way that doing it
twice does no harm. What is written where, and when, is ``flows/recorder.py``'s and
``flows/caching.py``'s business; the bytes of a segment are ``wire/spool.py``'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from tz_protocol.operations import Operation
from tz_protocol.types.secret import Secret

__all__ = [
    "AppendFile",
    "CheckCertificate",
    "ClaimSpool",
    "ClickHouseInsert",
    "ClickHouseQuery",
    "IsOwned",
    "MakeFolder",
    "OpenEmbedded",
    "ReadFile",
    "ReadFolder",
    "RemoveFile",
    "RemoveFolder",
    "ReplaceFile",
]

Pairs = tuple[tuple[str, str], ...]


# -- the server -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClickHouseQuery(Operation[bytes]):
    """Have *sql* carried out; return what it answers, in the format that it names.

    Fails with ``OperationBroken`` if the server cannot be reached or the connection is
    lost (kinds ``dns``, ``refused``, ``tls``, ``reset``, ``timeout``), with kind
    ``denied`` if it does not know the user, and with ``errors.StoreRefused`` if it
    answers with an error: its ``code`` is then ClickHouse's number of it, in digits.
    After the first two the statement may or may not have been carried out.
    """

    url: Secret
    """``http://user:password@host:8123/database``, or https. Without a database it is
    the user's default."""
    sql: str
    parameters: Pairs = ()
    """Values of ``{name:Type}`` in the statement."""
    settings: Pairs = ()
    """Of this statement; ``database`` replaces the URL's."""


@dataclass(frozen=True, slots=True)
class ClickHouseInsert(Operation[None]):
    """Insert *data* into *table*, all of it or, if it is refused, nothing.

    Fails as :class:`ClickHouseQuery` does. Resumes once the rows are there.
    """

    url: Secret
    table: str
    data: bytes
    """JSON objects, one on each line (ClickHouse's format JSONEachRow)."""
    token: str = ""
    """The server takes what has the token of an earlier insert into this table for
    the same once more, and does nothing; empty: no such check."""


@dataclass(frozen=True, slots=True)
class OpenEmbedded(Operation[Secret]):
    """Return the URL of the engine that owns the folder at *path*, on loopback.

    If no process serves it yet, one is started. It ends by itself some time after all
    that asked for it have ended. Asking again is cheap, and finds a new one if the old
    one is gone. Fails with ``OperationBroken`` (kind ``missing`` if the engine is not
    installed; else ``engine``, with a sentence in ``detail``).
    """

    path: str


# -- files ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClaimSpool(Operation[tuple[tuple[str, int], ...]]):
    """Own *own*, a folder within *folder*, and every other one whose owner is gone.

    Returns (path, bytes) of each file that is in the other ones, in the order of the
    files' names. What is missing is made, for nobody but this user. A folder is owned
    for as long as the process lives, however it ends, and by one process; those that
    turn out to be empty are removed. Fails as :class:`AppendFile` does.
    """

    folder: str
    own: str


@dataclass(frozen=True, slots=True)
class AppendFile(Operation[None]):
    """Append *data* to the file at *path*, in one write, making it if it is missing.

    If not all of it could be written the file is as long as before. Fails with
    ``OperationBroken``: kinds ``full``, ``readonly``, ``denied``, ``limit``, and
    ``disk`` for anything else.
    """

    path: str
    data: bytes
    is_synced: bool = False
    """True: return only when it has reached the disk (fdatasync)."""
    limit: int | None = None
    """Bytes that the file may have; what would make it longer is not appended."""


@dataclass(frozen=True, slots=True)
class ReadFile(Operation[bytes]):
    """Return what is in the file at *path*; ``missing`` if there is none."""

    path: str


@dataclass(frozen=True, slots=True)
class RemoveFile(Operation[None]):
    """Remove the file at *path*; harmless if there is none."""

    path: str


# -- what several processes have in common ---------------------------------------


@dataclass(frozen=True, slots=True)
class MakeFolder(Operation[str]):
    """Make a new folder that lasts no longer than this process; return its path.

    Nobody but this user can look into it, and this process owns it until it ends,
    however that may be. Fails as :class:`AppendFile` does.
    """


@dataclass(frozen=True, slots=True)
class IsOwned(Operation[bool]):
    """Return True while the process that made the folder at *path* is alive.

    Fails as :class:`ReadFile` does.
    """

    path: str


@dataclass(frozen=True, slots=True)
class RemoveFolder(Operation[None]):
    """Remove the folder at *path* with the files in it; harmless if there is none."""

    path: str


@dataclass(frozen=True, slots=True)
class ReplaceFile(Operation[None]):
    """Make *data* the content of the file at *path*, as a whole or not at all.

    Whoever reads it meanwhile finds the old content or the new one. It need not have
    reached the disk. One process writes a file. Fails as :class:`AppendFile` does.
    """

    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class ReadFolder(Operation[tuple[tuple[str, bytes], ...]]):
    """Return (name, content) of each file in the folder at *path*, in no given order.

    A file that is removed meanwhile is left out; ``missing`` if there is no folder.
    """

    path: str
    last: str = ""
    """The name of a file that is read after all others."""


# -- before it is needed --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CheckCertificate(Operation[None]):
    """Do what ``Listen`` does with a certificate and its key, and fail as it does."""

    cert_file: str
    key_file: str | None = None
