"""What is handed to a process at its start: pipes, files, the marks and variables it carries."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.executor import tree
from dicode_mcp.protocols import Launch


def marks(launch: Launch) -> frozenset[bytes]:
    """Give what the environment of a launch's processes has in it."""
    return tree.Root(0, 0, launch.run_id, launch.instance_id).marks


def written_marks(launch: Launch) -> bytes:
    """Give the marks as they stand in a process's first environment."""
    return b"\0".join(sorted(marks(launch), reverse=True))


def with_fd(env: Mapping[str, str], ipc_fd: int | None) -> dict[str, str]:
    """Add to an environment where the process finds its connection to the server."""
    return dict(env) if ipc_fd is None else {**env, "DICODE_IPC_FD": str(ipc_fd)}


def memory_file(data: bytes) -> BinaryIO:
    """Make a file without a name."""
    file = os.fdopen(os.memfd_create("plan", os.MFD_CLOEXEC), "w+b", buffering=0)
    file.write(data)
    return file


def pipe(kept: ExitStack, given: ExitStack) -> tuple[int, int]:
    """Make a pipe: our reading end and the child's writing end, each with who closes it."""
    ours, theirs = os.pipe()
    kept.callback(os.close, ours)
    given.callback(os.close, theirs)
    return ours, theirs


def write_files(scratch: Path, files: Mapping[str, bytes]) -> None:
    """Write a launch's files below ``scratch``, 0600; a name that ends in ``/`` is a folder, 0700.

    Raises ``DicodeError(INTERNAL)`` for a name that leaves the folder.
    """
    for name, content in files.items():
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or name.startswith("/"):
            raise DicodeError(Code.INTERNAL, f"a launch may not write outside its folder: {name}")
        path = scratch.joinpath(*parts)
        folder = path if name.endswith("/") else path.parent
        if folder != scratch:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not name.endswith("/"):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
                file.write(content)
