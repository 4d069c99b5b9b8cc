"""What an archive says of itself: its form, its versions, and every file with size and digest.

Reading one is where a foreign file is first believed, so everything in it is checked.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, cast

from dicode_mcp.errors import Code, DicodeError

FORMAT = 1
PRODUCT = "dicode-mcp"
NAME = "manifest.json"
MAX_BYTES = 4 * 1024 * 1024
STATE, LOGS, PINNED, CONFIG = "state.db", "logs.db", "pinned.json", "dicode.yaml"
INSTALLED = "installed"
MAX_FILES = 10_000
MAX_DATABASE = 256 * 1024**3
MAX_FILE = 16 * 1024**2
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"[^\x00-\x1f\x7f/\\]{1,255}")
_MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: its path below the data dir, its length in bytes, its SHA-256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """An archive's description. ``key_id`` is of the master key; None when nothing is sealed."""

    version: str
    created_at: str
    state_schema: str
    files: tuple[Entry, ...]
    logs_schema: str | None = None
    key_id: str | None = None

    def text(self) -> bytes:
        """Write it as it stands in the archive."""
        facts = {"format": FORMAT, "product": PRODUCT, **asdict(self)}
        return (json.dumps(facts, indent=1) + "\n").encode()

    @property
    def paths(self) -> dict[str, Entry]:
        """The files by path."""
        return {entry.path: entry for entry in self.files}

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)


def read_manifest(data: bytes) -> Manifest:
    """Read and check a manifest; raises INVALID_ARGUMENT."""
    try:
        found: Any = json.loads(data)
    except (ValueError, RecursionError):
        raise damaged("its manifest cannot be read") from None
    if not isinstance(found, dict):
        raise damaged("its manifest is no object")
    facts = cast("dict[str, Any]", found)
    if facts.get("product") != PRODUCT:
        raise damaged("it is not one of dicode-mcp")
    if facts.get("format") != FORMAT:
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            "the backup was made by a newer dicode-mcp: this version does not know its form",
            hint="upgrade dicode-mcp, then restore",
        )
    files = facts.get("files")
    if not isinstance(files, list) or len(cast("list[Any]", files)) > MAX_FILES:
        raise damaged(f"it names no files, or more than {MAX_FILES}")
    entries = tuple(_entry(item) for item in cast("list[Any]", files))
    if len({entry.path for entry in entries}) != len(entries):
        raise damaged("it names a file twice")
    if STATE not in {entry.path for entry in entries}:
        raise damaged(f"it has no {STATE}")
    return Manifest(
        version=_text(facts, "version"),
        created_at=_text(facts, "created_at"),
        state_schema=_text(facts, "state_schema"),
        logs_schema=_optional(facts, "logs_schema"),
        key_id=_optional(facts, "key_id"),
        files=entries,
    )


def damaged(why: str) -> DicodeError:
    """Say that an archive is not one that ``dicode backup`` wrote."""
    return DicodeError(
        Code.INVALID_ARGUMENT,
        f"the backup cannot be used: {why}; nothing was restored",
        hint="give a file that `dicode backup` wrote, as it was written",
    )


def check_path(path: str) -> None:
    """Refuse a path that no backup has: absolute, upwards, or of something else."""
    if path in (STATE, LOGS, PINNED, CONFIG):
        return
    head, *parts = path.split("/")
    good = head == INSTALLED and 0 < len(parts) <= _MAX_DEPTH
    if not good or any(not _PART.fullmatch(p) or p in (".", "..") for p in parts):
        raise damaged("it holds a path that does not belong to a backup")


def max_size(path: str) -> int:
    """Give how long the file of a path may be."""
    return MAX_DATABASE if path in (STATE, LOGS) else MAX_FILE


def _entry(item: Any) -> Entry:
    facts = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
    path, size, digest = facts.get("path"), facts.get("size"), facts.get("sha256")
    if not isinstance(path, str) or not isinstance(digest, str) or type(size) is not int:
        raise damaged("its manifest does not describe its files")
    check_path(path)
    if not 0 <= size <= max_size(path) or not _DIGEST.fullmatch(digest):
        raise damaged("its manifest gives a file an impossible size or digest")
    return Entry(path, size, digest)


def _text(facts: dict[str, Any], name: str) -> str:
    value = facts.get(name)
    if not isinstance(value, str) or not re.fullmatch(r"[0-9A-Za-z.:+_-]{1,64}", value):
        raise damaged(f"its manifest has no {name}")
    return value


def _optional(facts: dict[str, Any], name: str) -> str | None:
    return None if facts.get(name) is None else _text(facts, name)
