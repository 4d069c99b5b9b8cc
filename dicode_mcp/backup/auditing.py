"""Checking the audit log of a data dir, or of a backup, without a server. Blocks."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Generator, Iterator, MutableMapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicode_mcp.backup import databases
from dicode_mcp.backup.archive import unpack
from dicode_mcp.backup.manifest import STATE
from dicode_mcp.backup.restoring import opened, read_keys
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import AuditEntry
from dicode_mcp.secrets.cipher import Cipher
from dicode_mcp.secrets.keys import KeyRing
from dicode_mcp.secrets.master import find_keys
from dicode_mcp.service.trail import verify_all
from dicode_mcp.store.codec import audit_of

_PAGE = 1_000
_KEY = ".audit"
"""The name under which the chain's key is among the sealed values."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What to check: ``file``, a backup, or else ``data_dir``. ``key`` is a file with the key."""

    data_dir: Path
    file: Path | None = None
    key: Path | None = None


def check_audit(asked: Checked, environ: MutableMapping[str, str]) -> dict[str, Any]:
    """Recompute the chain: ``{intact, checked, entries, since?, until?, problem?}``.

    Raises DATA_DIR, INVALID_ARGUMENT, SECRETS_LOCKED.
    """
    if asked.key is not None:
        keys = read_keys(asked.key)
    else:
        # ``anything_sealed`` keeps it from making a key where there is none.
        keys = find_keys(asked.data_dir, environ, anything_sealed=True)
    with _state(asked) as path, databases.reading(path) as file:
        # One transaction, so that a server may go on writing meanwhile.
        file.execute("BEGIN")
        head = file.execute("SELECT value FROM meta WHERE key = 'audit_head'").fetchone()
        return verify_all(_chain_key(file, keys), _pages(file), head[0] if head else None)


@contextmanager
def _state(asked: Checked) -> Generator[Path]:
    if asked.file is None:
        path = asked.data_dir / STATE
        if not path.is_file():
            raise DicodeError(
                Code.DATA_DIR,
                f"there is nothing to check: {asked.data_dir} has no {STATE}",
                hint="name the server's data dir with --data-dir, or a backup with --backup FILE",
            )
        yield path
        return
    folder = Path(tempfile.mkdtemp(prefix="dicode-audit-"))
    try:
        with opened(asked.file) as archive:
            unpack(archive, folder, shutil.disk_usage(folder).free)
        databases.check(folder / STATE)
        yield folder / STATE
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _chain_key(file: sqlite3.Connection, keys: KeyRing) -> bytes:
    row = file.execute(
        "SELECT sealed, updated_at_ms FROM secrets WHERE name = ?", (_KEY,)
    ).fetchone()
    if row is None:
        raise DicodeError(
            Code.DATA_DIR,
            "the audit log here has no chain: the key that binds it is not among the sealed values",
            hint="it was taken out, or no server of this version has run on this data dir yet",
        )
    return bytes.fromhex(Cipher(keys).open(_KEY, row[0], row[1]).decode("ascii"))


def _pages(file: sqlite3.Connection) -> Iterator[tuple[AuditEntry, ...]]:
    names = ("id", "at_ms", "actor", "surface", "action", "target", "outcome", "detail", "chain")
    query = f"SELECT {', '.join(names)} FROM audit ORDER BY id"
    with closing(file.execute(query)) as rows:
        while page := rows.fetchmany(_PAGE):
            yield tuple(audit_of(dict(zip(names, row, strict=True))) for row in page)
