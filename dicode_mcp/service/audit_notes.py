"""Entries for the audit log from those that work without the server: backup and restore.

They cannot write into the chain, which has one writer. They leave a line in a file of the data dir,
and the server takes it over: at its start, and whenever the log is read.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from dicode_mcp.service.audit import Audit
from dicode_mcp.service.principal import Principal

log = logging.getLogger("dicode.audit")

FILE = "audit.pending"
BAD = "audit.unreadable"
_TAKING = "audit.taking"
MAX_BYTES = 1024 * 1024
MAX_LINE = 4096
_APPENDING = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_ASIDE = Principal("local", "cli", frozenset())
"""Whoever can write the data dir is the server's own user."""


def leave(data_dir: Path, action: str, target: str, detail: dict[str, Any]) -> None:
    """Leave an entry for the server. Raises OSError. Blocks."""
    line = json.dumps({"action": action, "target": target[:256], "detail": detail})
    descriptor = os.open(data_dir / FILE, _APPENDING, 0o600)
    try:
        os.write(descriptor, line.encode("ascii") + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class AuditNotes:
    """Takes over what was left in ``data_dir``. What cannot be read is told and put aside."""

    def __init__(self, data_dir: Path, audit: Audit) -> None:
        self._data_dir = data_dir
        self._audit = audit
        self._taking = asyncio.Lock()

    async def take(self) -> None:
        """Note what was left, at least once: after a crash in between, it is noted again."""
        async with self._taking:
            try:
                lines = await asyncio.to_thread(self._read)
                if not lines:
                    return
                bad = [line for line in lines.splitlines() if not self._noted(line)]
                if bad:
                    await asyncio.to_thread(self._put_aside, bad)
                await self._audit.settled()
                await asyncio.to_thread((self._data_dir / _TAKING).unlink, missing_ok=True)
            except OSError as error:
                log.error("what was left for the audit log cannot be read: %s", error.strerror)
                with suppress(OSError):
                    # It would stand in the way of what is left later.
                    (self._data_dir / _TAKING).unlink(missing_ok=True)

    def _noted(self, line: bytes) -> bool:
        """Note what one line says; tells whether it says anything."""
        try:
            action, target, detail = _entry(line)
            self._audit.note(_ASIDE, action, target, "ok", **detail)
        except Exception as error:
            log.error(
                "a line that was left for the audit log is none (%s); it is kept in %s",
                type(error).__name__,
                BAD,
            )
            return False
        return True

    def _put_aside(self, lines: list[bytes]) -> None:
        """Keep lines that say nothing, up to a bound, for whoever wants to know why."""
        descriptor = os.open(self._data_dir / BAD, _APPENDING, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            room = MAX_BYTES - file.tell()
            file.write(b"".join(line + b"\n" for line in lines)[: max(room, 0)])

    def _read(self) -> bytes:
        """Move the file away, so that nothing is added to it meanwhile, and read it."""
        taking = self._data_dir / _TAKING
        if not taking.exists():
            try:
                (self._data_dir / FILE).rename(taking)
            except FileNotFoundError:
                return b""
        descriptor = os.open(taking, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(MAX_BYTES)


def _entry(line: bytes) -> tuple[str, str, dict[str, Any]]:
    """Read action, target and detail. Raises whatever the line brings about."""
    if len(line) > MAX_LINE:
        raise ValueError("too long")
    found: Any = json.loads(line)
    action, target, detail = (found[name] for name in ("action", "target", "detail"))
    if not (isinstance(action, str) and isinstance(target, str) and isinstance(detail, dict)):
        raise TypeError("not an entry")
    return action[:64], target, cast("dict[str, Any]", detail)
