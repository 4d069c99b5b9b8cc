"""Remembers which entries the locks of this machine pinned, over restarts too. Blocks.

A lock may be gone for a moment, by a checkout of another branch say; what it pinned is then still
others' code.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dicode_mcp.spec.taskset.lock import LockFile

_log = logging.getLogger("dicode.reconciler")
_Known = dict[str, dict[str, list[str]]]
_FORM: TypeAdapter[_Known] = TypeAdapter(_Known)


class PinnedKeys:
    """The keys by lock and set file's name; any thread may ask. Without a file, until the end."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._writing = threading.Lock()
        self._known = _read(file)

    def of(self, lock: Path, set_name: str) -> frozenset[str]:
        """Give the entries of a set file that its lock pinned when it was last read."""
        return frozenset(self._known.get(str(lock), {}).get(set_name, ()))

    def note(self, lock: Path, content: LockFile) -> None:
        """Take what a lock pins now."""
        pins = {name: sorted(entries) for name, entries in content.sets.items() if entries}
        with self._writing:
            if self._known.get(str(lock), {}) == pins:
                return
            rest = {path: found for path, found in self._known.items() if path != str(lock)}
            self._known = {**rest, str(lock): pins} if pins else rest
            self._write()

    def _write(self) -> None:
        if self._file is None:
            return
        new = self._file.with_suffix(".new")
        try:
            new.write_text(json.dumps(self._known, indent=1, sort_keys=True))
            os.replace(new, self._file)
        except OSError as error:
            _log.warning("what dicode.lock pins cannot be remembered: %s", error.strerror)


def _read(file: Path | None) -> _Known:
    if file is None or not file.exists():
        return {}
    try:
        return _FORM.validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        _log.warning("%s cannot be read (%s); it is made anew", file, type(error).__name__)
        return {}
