"""One server per data dir: a locked file that also says who holds it and where to reach it.

The lock is the kernel's (``flock``), so it ends with its holder however that ends; the file stays.
Its text is one JSON object: ``pid version host port socket started_at_ms``.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from dicode_mcp.errors import Code, DicodeError

LOCK_NAME = "server.lock"
_TRIES = 25
"""A look at the lock (``read_lock_info``) holds it for an instant; that must not stop a server."""
_PAUSE_S = 0.02
_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class LockInfo:
    """What a server says of itself. ``port`` is None while it does not listen on TCP."""

    pid: int
    version: str
    started_at_ms: int
    host: str | None = None
    port: int | None = None
    socket: str | None = None


class DataDirLock:
    """Holds a data dir while the ``with`` block lasts; makes the folder when it is not there.

    Entering raises ``DicodeError``: ALREADY_RUNNING with the other server's pid, DATA_DIR when the
    folder cannot be made or written. It blocks for half a second at most.
    """

    def __init__(self, data_dir: Path) -> None:
        self._dir = data_dir
        self._fd = -1

    def __enter__(self) -> DataDirLock:
        """Take the lock."""
        fd = _open(self._dir)
        if not _lock(fd):
            os.close(fd)
            raise _already_running(self._dir)
        self._fd = fd
        os.ftruncate(fd, 0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lock back."""
        fd, self._fd = self._fd, -1
        os.ftruncate(fd, 0)
        os.close(fd)

    def publish(self, info: LockInfo) -> None:
        """Write who holds the lock; may be called again when more is known."""
        text = (json.dumps(asdict(info)) + "\n").encode()
        os.pwrite(self._fd, text, 0)
        os.ftruncate(self._fd, len(text))


def read_lock_info(data_dir: Path) -> LockInfo | None:
    """Give what the server that holds ``data_dir`` says of itself; None when none holds it.

    A server that has only just started may have said nothing yet; its ``pid`` is 0 then.
    """
    try:
        fd = os.open(data_dir / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return _parse(os.pread(fd, _MAX_BYTES, 0))
        return None
    finally:
        os.close(fd)


def _open(data_dir: Path) -> int:
    path = data_dir / LOCK_NAME
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise DicodeError(
            Code.DATA_DIR,
            f"the data dir {data_dir} cannot be used: {error.strerror}",
            hint="make it a folder that this user can write to, or choose another (--data-dir)",
            data={"path": str(data_dir)},
        ) from error


def _lock(fd: int) -> bool:
    """Try to take the lock; gives False when a server has it."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE_S)
        except OSError as error:
            os.close(fd)
            raise DicodeError(
                Code.DATA_DIR,
                f"the file system of the data dir has no locks: {error.strerror}",
                hint="put the data dir on a local disk (--data-dir)",
            ) from error
        else:
            return True
    return False


def _already_running(data_dir: Path) -> DicodeError:
    info = read_lock_info(data_dir)
    pid = info.pid if info is not None and info.pid else None
    who = "another server" if pid is None else f"the server with pid {pid}"
    return DicodeError(
        Code.ALREADY_RUNNING,
        f"{who} is using the data dir {data_dir}",
        hint="use that server, stop it (`dicode stop`), or choose another data dir (--data-dir)",
        data={"path": str(data_dir), "pid": pid},
    )


def _parse(text: bytes) -> LockInfo:
    try:
        found: Any = json.loads(text)
    except ValueError:
        found = None
    values = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    pid, started = values.get("pid"), values.get("started_at_ms")
    port, host, socket = values.get("port"), values.get("host"), values.get("socket")
    return LockInfo(
        pid=pid if isinstance(pid, int) else 0,
        version=str(values.get("version", "")),
        started_at_ms=started if isinstance(started, int) else 0,
        host=host if isinstance(host, str) else None,
        port=port if isinstance(port, int) else None,
        socket=socket if isinstance(socket, str) else None,
    )
