"""Which files of a task's folder a browser may have: its page and what lies below it. It blocks.

Allowed are types, not names: what a browser shows or plays. Never served are the task's own files
(manifest, script, tests, settings of tools), hidden ones, and anything that is not a plain file
within the folder; no link is followed, each part is opened below the one before it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dicode_mcp.spec.digest import is_ignored

INDEX = "index.html"
PUBLIC = "public"
MAX_PATH = 512
MAX_DEPTH = 16

TYPES: Mapping[str, str] = {
    "html": "text/html",
    "htm": "text/html",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "json": "application/json",
    "map": "application/json",
    "webmanifest": "application/manifest+json",
    "txt": "text/plain; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "xml": "application/xml",
    "svg": "image/svg+xml",
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "avif": "image/avif",
    "ico": "image/x-icon",
    "woff": "font/woff",
    "woff2": "font/woff2",
    "ttf": "font/ttf",
    "otf": "font/otf",
    "wasm": "application/wasm",
    "mp4": "video/mp4",
    "webm": "video/webm",
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
    "wav": "audio/wav",
    "pdf": "application/pdf",
}
"""Content types by the end of a file's name, in lower case."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OWN = re.compile(
    r"task\..*|taskset\..*|dicode\..*|test_.*|.*_test\..*|.*\.test\..*"
    r"|package(-lock)?\.json|(deno|tsconfig|jsconfig)\.jsonc?|requirements.*\.txt|.*\.lock\.json"
)
"""Names, in lower case, of what belongs to the task and not to its page."""


@dataclass(frozen=True, slots=True)
class PageFile:
    """An open file of a page. Whoever has it closes it."""

    descriptor: int
    media_type: str
    size: int
    tag: str
    """Another one when the file is another: for ``ETag``, without quotes."""

    @property
    def is_html(self) -> bool:
        """Tell whether it is a document that gets our elements."""
        return self.media_type.startswith("text/html")

    def read(self, start: int, size: int) -> bytes:
        """Read up to ``size`` bytes from ``start``."""
        return os.pread(self.descriptor, size, start)

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        """Give it, to be closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def has_page(folder: Path) -> bool:
    """Tell whether a task shows a page."""
    return _above(folder) is not None


def open_page_file(folder: Path, rest: str) -> PageFile | None:
    """Open what ``rest`` (decoded; empty or beginning with ``/``) names in a task's page.

    None when the task has no page or there is nothing a browser may have at that place.
    """
    parts = _parts(rest)
    above = _above(folder) if parts is not None else None
    if parts is None or above is None:
        return None
    media_type = TYPES[parts[-1].rpartition(".")[2].lower()]
    try:
        descriptor = _open(folder, [*above, *parts])
    except (OSError, ValueError):
        return None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return None
    tag = f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}"
    return PageFile(descriptor, media_type, status.st_size, tag)


def _parts(rest: str) -> list[str] | None:
    """Give the path's parts; None for what is never served."""
    if rest in ("", "/"):
        return [INDEX]
    if len(rest) > MAX_PATH or not rest.startswith("/"):
        return None
    # A percent sign is left over from a name that was encoded twice.
    if not rest.isprintable() or any(char in rest for char in "\\%:\ufffd"):
        return None
    parts = rest[1:].split("/")
    if len(parts) > MAX_DEPTH or not all(_may_be_named(part) for part in parts):
        return None
    name = parts[-1].lower()
    stem, dot, end = name.rpartition(".")
    if not dot or not stem or end not in TYPES:
        return None
    return parts


def _may_be_named(part: str) -> bool:
    if not part or part.endswith((".", " ")) or part.startswith(("~", " ")):
        return False
    return not is_ignored(part) and not _OWN.fullmatch(part.lower())


def _above(folder: Path) -> tuple[str, ...] | None:
    """Give the folders above a task's page: ``public``, or none where it lies beside the script."""
    for above in ((PUBLIC,), ()):
        try:
            inside = not above or stat.S_ISDIR(os.lstat(folder / PUBLIC).st_mode)
            if inside and stat.S_ISREG(os.lstat(folder.joinpath(*above, INDEX)).st_mode):
                return above
        except OSError:
            continue
    return None


def _open(folder: Path, parts: list[str]) -> int:
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            below = os.open(part, _FOLDER, dir_fd=here)
            os.close(here)
            here = below
        return os.open(parts[-1], _FILE, dir_fd=here)
    finally:
        os.close(here)
