"""The files an installed entry stands in: a TaskSet's file and the lock beside it, changed as one.

Blocks. What is written is decided elsewhere; here it is written whole or not at all, and never
over an edit that somebody else made meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.spec.files import decode
from dicode_mcp.spec.problems import SpecError
from dicode_mcp.spec.taskset.documents import TaskSetDoc, read_set
from dicode_mcp.spec.taskset.lock import LOCK, LockFile, read_lock

_NEW = ".dicode-new-"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Changed(Exception):
    """Somebody else wrote one of the files since it was read."""


@dataclass(frozen=True, slots=True)
class Texts:
    """The two files as they were read; None: the file is not there."""

    file: Path
    set_text: bytes | None
    lock_text: bytes | None

    @property
    def lock_path(self) -> Path:
        """Where the lock is."""
        return self.file.parent / LOCK

    def text(self) -> str:
        """Give the set's text. Raises ``SpecError``."""
        return decode(self.set_text or b"", self.file.name)

    def document(self) -> TaskSetDoc:
        """Read the set. Raises ``SpecError``."""
        return read_set(self.text(), self.file.name)

    def lock(self) -> LockFile:
        """Read the lock, an empty one when there is none. Raises ``SpecError``."""
        if self.lock_text is None:
            return LockFile()
        shown = str(self.lock_path)
        return read_lock(decode(self.lock_text, shown), shown)


def read_texts(file: Path) -> Texts:
    """Read both files. Raises FORBIDDEN when one cannot be read."""
    return Texts(file, _read(file), _read(file.parent / LOCK))


def _read(path: Path) -> bytes | None:
    try:
        if path.is_symlink():
            what = f"{path} is a link; what it leads to is not edited"
            raise DicodeError(Code.FORBIDDEN, what, hint="put the file itself there")
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _os_error(path, "read", error) from error


def require_writable(file: Path) -> None:
    """Refuse early what could not be written: a read-only file, or its folder."""
    for path in (file, file.parent / LOCK):
        # For root every file is writable; that it was made read-only still means something.
        if path.exists() and not (path.stat().st_mode & 0o222 and os.access(path, os.W_OK)):
            raise DicodeError(
                Code.FORBIDDEN,
                f"{path} is read-only for the server",
                hint="give the server's user write access, or name another source",
            )
    if file.parent.exists() and not os.access(file.parent, os.W_OK | os.X_OK):
        raise DicodeError(
            Code.FORBIDDEN,
            f"the server may not write files in {file.parent}",
            hint="give the server's user write access, or name another source",
        )


def write_texts(old: Texts, set_text: str, lock: LockFile, *, lock_first: bool) -> None:
    """Put both files in place of what was read.

    ``lock_first``: the lock must never be missing while the entry is there, since an entry that
    no lock knows counts as the user's own. Raises ``Changed`` when a file is not what was read,
    and leaves both as they were when one cannot be written.
    """
    require_writable(old.file)
    # A lock that pins nothing any more says so by standing there; its absence would not.
    wanted = any(lock.sets.values()) or old.lock_text is not None
    lock_text = lock.dump().encode() if wanted else None
    of_set = _Move(old.file, old.set_text, set_text.encode())
    of_lock = _Move(old.lock_path, old.lock_text, lock_text)
    moves = [of_lock, of_set] if lock_first else [of_set, of_lock]
    done: list[_Move] = []
    try:
        for move in moves:
            move.prepare()
        if read_texts(old.file) != old:
            raise Changed
        for move in moves:
            move.take_place()
            done.append(move)
    except OSError as error:
        for move in reversed(done):
            move.undo()
        raise _os_error(old.file, "written", error) from error
    finally:
        for move in moves:
            move.tidy()


class _Move:
    """One file's new content, beside it until its time has come."""

    def __init__(self, path: Path, before: bytes | None, after: bytes | None) -> None:
        self._path = path
        self._before = before
        self._after = after
        self._new: Path | None = None

    def prepare(self) -> None:
        """Write the new content where nobody looks. Raises ``OSError``."""
        if self._after is not None and self._after != self._before:
            self._new = _written(self._path, self._after)

    def take_place(self) -> None:
        """Put it in place of the old. Raises ``OSError``."""
        if self._after == self._before:
            return
        if self._new is None:
            self._path.unlink()
        else:
            os.replace(self._new, self._path)

    def undo(self) -> None:
        """Put the old content back."""
        with suppress(OSError):
            if self._before is None:
                self._path.unlink(missing_ok=True)
            elif self._after != self._before:
                os.replace(_written(self._path, self._before), self._path)

    def tidy(self) -> None:
        """Remove what was not used."""
        if self._new is not None:
            with suppress(OSError):
                self._new.unlink(missing_ok=True)


def _written(path: Path, content: bytes) -> Path:
    """Write a file beside ``path``, owned and permitted like it."""
    descriptor, name = tempfile.mkstemp(prefix=_NEW, dir=path.parent)
    new = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            _like(path, file.fileno())
            os.fsync(file.fileno())
    except OSError:
        new.unlink(missing_ok=True)
        raise
    return new


def _like(path: Path, descriptor: int) -> None:
    try:
        info = path.stat()
    except FileNotFoundError:
        os.fchmod(descriptor, 0o644)
        return
    os.fchmod(descriptor, stat.S_IMODE(info.st_mode))
    with suppress(PermissionError):
        os.fchown(descriptor, info.st_uid, info.st_gid)


def changed(file: Path) -> DicodeError:
    """Say that a file keeps changing while it is edited."""
    return DicodeError(
        Code.CONFLICT,
        f"{file} or the {LOCK} beside it was changed by somebody else meanwhile; nothing was done",
        hint="call again",
    )


def not_read(file: Path, error: SpecError) -> DicodeError:
    """Say that a set or lock has to be mended before it can be edited."""
    return DicodeError(
        Code.CONFLICT,
        f"{file} is not edited while it cannot be read:\n{error.message}",
        hint="mend the lines named first",
        data=error.data,
    )


def _os_error(path: Path, what: str, error: OSError) -> DicodeError:
    if error.errno in _FULL:
        return DicodeError(Code.STORAGE_FULL, "the disk is full; nothing was changed")
    return DicodeError(
        Code.FORBIDDEN,
        f"{path} cannot be {what}: {error.strerror}; nothing was changed",
        hint="give the server's user access, or name another source",
    )
