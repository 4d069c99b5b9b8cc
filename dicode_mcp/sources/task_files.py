"""Files of one task's folder, by relative path: listed, read, written whole. It all blocks.

No path leaves the folder and no link is followed: each part is opened below the one before it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.spec.digest import is_ignored

MAX_PATH = 512
MAX_DEPTH = 16
MAX_NAME_BYTES = 255
MAX_READ_BYTES = 4 * 2**20
MAX_WRITE_BYTES = 2**20
MAX_LISTED = 200

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Content:
    """A file's bytes and their SHA-256 in hex."""

    data: bytes
    hash: str


def content_hash(data: bytes) -> str:
    """Give the hash by which a later write says what it has seen."""
    return hashlib.sha256(data).hexdigest()


def check_path(path: str) -> tuple[str, ...]:
    """Give the parts of a path below a task's folder. Raises INVALID_ARGUMENT with the reason."""
    fault = _fault(path)
    if fault:
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            f"path {fault}",
            hint='give a path below the task\'s folder, e.g. "task.py" or "lib/helpers.py"',
        )
    return tuple(path.split("/"))


def _fault(path: str) -> str | None:
    if not path or len(path) > MAX_PATH:
        return f"has 1 to {MAX_PATH} characters"
    if path.startswith("/"):
        return "is absolute"
    if "\\" in path or not path.isprintable():
        return "holds a backslash or a character that cannot be seen"
    parts = path.split("/")
    if len(parts) > MAX_DEPTH:
        return f"is deeper than {MAX_DEPTH} folders"
    return next((fault for part in parts if (fault := _fault_of_part(part))), None)


def _fault_of_part(part: str) -> str | None:
    if part in ("", ".", ".."):
        return "has an empty part, '.' or '..'"
    if part.startswith("."):
        return "names a hidden file or folder; these are no part of a task"
    if part.startswith(("~", " ")) or part.endswith((" ", ".")):
        return "has a part that begins with '~' or a space, or ends with a space or '.'"
    if part.lower().startswith("git~") or ":" in part:
        return "has a part that some file systems read as another name"
    if is_ignored(part):
        return "names a file that is no part of a task (editors' and interpreters' own)"
    if len(part.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        return f"has a part longer than {MAX_NAME_BYTES} bytes"
    return None


def list_files(folder: Path) -> tuple[list[tuple[str, int]], bool]:
    """Give the files that belong to a task with their sizes, by path; and whether there are more.

    Folders that cannot be read are left out.
    """
    found: list[tuple[str, int]] = []
    pending = [(str(folder), "", 1)]
    while pending and len(found) <= MAX_LISTED:
        path, prefix, depth = pending.pop()
        with suppress(OSError), os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = prefix + entry.name
                if is_ignored(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False) and depth < MAX_DEPTH:
                    pending.append((entry.path, f"{name}/", depth + 1))
                elif entry.is_file(follow_symlinks=False):
                    shown = name.encode("utf-8", "replace").decode()
                    found.append((shown, entry.stat(follow_symlinks=False).st_size))
    return sorted(found[:MAX_LISTED]), len(found) > MAX_LISTED or bool(pending)


def read_file(folder: Path, path: str) -> Content:
    """Read a file. Raises INVALID_ARGUMENT, NOT_FOUND, FORBIDDEN, TOO_LARGE."""
    *above, name = check_path(path)
    with _translated(path), _opened(folder, above) as parent:
        return _read(parent, name, path)


def write_file(folder: Path, path: str, data: bytes, expected: str | None = None) -> Content | None:
    """Write a file whole, making the folders above it; gives what was there before.

    With ``expected`` (a hash, or ``absent``) nothing is written when something else is there:
    CONFLICT. Raises as ``read_file`` does.
    """
    *above, name = check_path(path)
    if len(data) > MAX_WRITE_BYTES:
        raise DicodeError(
            Code.TOO_LARGE,
            f"content is {len(data)} bytes; a file may be {MAX_WRITE_BYTES}",
            hint="keep data outside of the task's folder, or split the file",
        )
    with _translated(path), _opened(folder, above, make=True) as parent:
        try:
            before = _read(parent, name, path)
        except FileNotFoundError:
            before = None
        _require_expected(before, expected, path)
        if before is None or before.data != data:
            _replace(parent, name, data)
        return before


@contextmanager
def _opened(folder: Path, above: list[str], *, make: bool = False) -> Generator[int]:
    """Open the folder that a path ends in, one part below the other, without following a link."""
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in above:
            below = _enter(here, part, make=make)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def _enter(here: int, part: str, *, make: bool) -> int:
    if make:
        with suppress(FileExistsError):
            os.mkdir(part, 0o755, dir_fd=here)
            _give_to_owner(here, part)
    return os.open(part, _FOLDER, dir_fd=here)


def _read(parent: int, name: str, path: str) -> Content:
    # Looked at first: opening a device may already do something.
    if not stat.S_ISREG(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        raise DicodeError(
            Code.FORBIDDEN,
            f"{path} is not a plain file (a link, a folder or a device)",
            hint="get_task lists the files of a task",
        )
    with open(os.open(name, _FILE, dir_fd=parent), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("changed its kind")
        data = file.read(MAX_READ_BYTES + 1)
    if len(data) > MAX_READ_BYTES:
        raise DicodeError(
            Code.TOO_LARGE,
            f"{path} is larger than {MAX_READ_BYTES // 2**20} MiB",
            hint="read it on the server's machine",
        )
    return Content(data, content_hash(data))


def _replace(parent: int, name: str, data: bytes) -> None:
    """Write beside the place and move there, so that nobody ever sees half a file."""
    beside = f".dicode-{secrets.token_hex(6)}.tmp"
    mode = _mode_of(parent, name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(beside, flags, 0o600, dir_fd=parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        _give_to_owner(parent, beside)
        os.replace(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=parent)
        raise


def _mode_of(parent: int, name: str) -> int:
    try:
        return stat.S_IMODE(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode) & 0o777
    except FileNotFoundError:
        return 0o644


def _give_to_owner(parent: int, name: str) -> None:
    """Give a new file to whom its folder belongs; a server run as root writes others' folders."""
    if os.geteuid() == 0:
        owner = os.fstat(parent)
        os.chown(name, owner.st_uid, owner.st_gid, dir_fd=parent, follow_symlinks=False)


def _require_expected(before: Content | None, expected: str | None, path: str) -> None:
    if expected is None or expected == (before.hash if before else "absent"):
        return
    if before is None:
        what, data = f"{path} is not there any more", {"hash": "absent"}
    elif expected == "absent":
        what, data = f"{path} is there already", {"hash": before.hash}
    else:
        what, data = f"{path} has changed since it was read", {"hash": before.hash}
    raise DicodeError(
        Code.CONFLICT,
        f"{what}; nothing was written",
        hint="read it again with read_task_file, redo the edit, and pass the hash given there",
        data=data,
    )


@contextmanager
def _translated(path: str) -> Generator[None]:
    try:
        yield
    except DicodeError:
        raise
    except FileNotFoundError:
        raise DicodeError(
            Code.NOT_FOUND,
            f"the task has no file {path}",
            hint="get_task lists the files of a task",
        ) from None
    except OSError as error:
        # A link on the way is ELOOP or ENOTDIR, as the flags ask.
        raise DicodeError(
            Code.FORBIDDEN,
            f"{path} cannot be opened: {error.strerror or error}",
            hint="links are not followed, and the server's user needs access to the folder",
        ) from None


def make_folder(root: Path, parts: tuple[str, ...], files: Mapping[str, str]) -> Path:
    """Make a folder with files below ``root``, whole or not at all. Raises CONFLICT, FORBIDDEN."""
    *above, name = parts
    place = "/".join(parts)
    with _translated(place), _opened(root, above, make=True) as parent:
        making = f".dicode-{secrets.token_hex(6)}.tmp"
        os.mkdir(making, 0o755, dir_fd=parent)
        _give_to_owner(parent, making)
        here = os.open(making, _FOLDER, dir_fd=parent)
        try:
            for file, text in files.items():
                _replace(here, file, text.encode())
            # Replaces an empty folder and nothing else.
            os.rename(making, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException as error:
            for file in os.listdir(here):
                os.unlink(file, dir_fd=here)
            os.rmdir(making, dir_fd=parent)
            if isinstance(error, OSError) and error.errno in _TAKEN:
                raise DicodeError(
                    Code.CONFLICT,
                    f"there is something at {place} already",
                    hint="choose another id, or edit what is there with write_task_file",
                ) from None
            raise
        finally:
            os.close(here)
    return root.joinpath(*parts)


_TAKEN = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR})
