"""Reading one small text file strictly: a regular file, within a size, in UTF-8."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NoReturn

from dicode_mcp.spec.problems import Problem, SpecError


def read_text(path: Path, name: str, *, max_bytes: int, follow_links: bool = False) -> str:
    """Read a file; ``name`` is what problems call it.

    Raises ``SpecError`` when it is missing, unreadable, a link, too large or not UTF-8.
    """
    return decode(_read(path, name, max_bytes, follow_links), name)


def _read(path: Path, name: str, max_bytes: int, follow_links: bool) -> bytes:
    # O_NONBLOCK: a named pipe must not hold up the reader
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    try:
        if not follow_links and path.is_symlink():
            _refuse(name, "is a symbolic link", "put the file itself in the folder")
        descriptor = os.open(path, flags)
    except OSError as error:
        _refuse_os(name, error)
    try:
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                _refuse(name, "is not a regular file")
            content = file.read(max_bytes + 1)
    except OSError as error:
        _refuse_os(name, error)
    if len(content) > max_bytes:
        _refuse(name, f"is larger than {max_bytes // 1024} KiB")
    return content


def _refuse_os(name: str, error: OSError) -> NoReturn:
    if isinstance(error, FileNotFoundError):
        _refuse(name, "is missing")
    if isinstance(error, IsADirectoryError):
        _refuse(name, "is not a regular file")
    if isinstance(error, PermissionError):
        _refuse(name, "cannot be read: permission denied", "let the server's user read it")
    _refuse(name, f"cannot be read: {error.strerror or 'input/output error'}")


def _refuse(name: str, message: str, hint: str = "") -> NoReturn:
    raise SpecError([Problem(name, 0, 0, "", message, hint)])


def decode(content: bytes, name: str) -> str:
    """Read bytes as UTF-8. Raises ``SpecError`` with the line of the first bad byte."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - (content.rfind(b"\n", 0, error.start) + 1) + 1
        problem = Problem(name, line, column, "", "is not UTF-8 text", "save the file as UTF-8")
        raise SpecError([problem]) from None
