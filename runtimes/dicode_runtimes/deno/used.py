"""What Deno wrote of the permissions a run used: a file that the run itself can write.

So it is read as a stranger's: no links, no pipes, so many bytes, and every line may be anything.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from dicode_mcp.runs.accesses import EVERY, LONGEST, Hint, Kind

VARIABLE = "DENO_AUDIT_PERMISSIONS"
FILE = "home/.used.jsonl"
"""Below the run's scratch folder."""
MOST_BYTES = 2 * 1024 * 1024
_KINDS: dict[str, Kind] = {
    "read": "read",
    "write": "write",
    "net": "net",
    "env": "env",
    "sys": "sys",
    "run": "run",
}
_AT = b'"permission":'


def read_used(scratch: Path) -> tuple[list[Hint], bool]:
    """Give what a run used, and whether that is all of it. Blocks.

    It is not when the file is not there, is no file, or is longer than is read.
    """
    data = _read(scratch)
    if data is None:
        return [], False
    hints = (_hint(line) for line in _different(data.split(b"\n")))
    found = dict.fromkeys(hint for hint in hints if hint is not None)
    return list(found), len(data) <= MOST_BYTES


def _read(scratch: Path) -> bytes | None:
    folder, name = os.path.split(FILE)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        # The folder too: the run may have put a link in its place where nothing holds it there.
        place = os.open(scratch / folder, flags | os.O_DIRECTORY)
        try:
            fd = os.open(name, flags, dir_fd=place)
        finally:
            os.close(place)
        with os.fdopen(fd, "rb") as file:
            return file.read(MOST_BYTES + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    except OSError:
        return None


def _different(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Give each line once, whatever time it tells: a busy run repeats itself."""
    known: set[bytes] = set()
    for line in lines:
        what = line[line.find(_AT) :]
        if what and what not in known:
            known.add(what)
            yield line


def _hint(line: bytes) -> Hint | None:
    try:
        raw: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict):
        return None
    told = cast("dict[str, Any]", raw)
    kind, what = told.get("permission"), told.get("value")
    if not isinstance(kind, str) or kind not in _KINDS:
        return None
    if what is None:
        return _KINDS[kind], EVERY
    if not isinstance(what, str) or len(what) > LONGEST:
        return None
    # A URL is what a fetch begins with; where it leads to comes as host and port.
    return None if kind == "net" and ("/" in what or what.endswith(":0")) else (_KINDS[kind], what)
