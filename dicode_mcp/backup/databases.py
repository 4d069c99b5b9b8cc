"""SQLite files as a backup sees them: a copy at one moment, its version, and what is sealed in it.

Blocks. The store's own code is not used: it would migrate what it opens.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.secrets.cipher import Cipher
from dicode_mcp.secrets.keys import KeyRing

_BUSY_S = 30.0


def copy(source: Path, to: Path) -> None:
    """Write what a database holds at one moment, while others may go on writing to it.

    Raises DATA_DIR when it cannot be read, or is damaged.
    """
    with _translated(source), closing(_open(source)) as live, closing(sqlite3.connect(to)) as file:
        # In one step: another process's commit in between would begin it anew.
        live.backup(file, pages=-1)
        # Else the copy has a second file beside it, which would be left out.
        file.execute("PRAGMA journal_mode = DELETE")
    check(to)


@contextmanager
def reading(path: Path) -> Generator[sqlite3.Connection]:
    """Give a connection to read with; what SQLite says of it is DATA_DIR."""
    with _translated(path), closing(_open(path)) as file:
        yield file


def check(path: Path) -> None:
    """Raise DATA_DIR unless the database is whole."""
    with _translated(path), closing(_open(path)) as file:
        found = file.execute("PRAGMA quick_check(1)").fetchone()
    if found != ("ok",):
        raise _damaged(path)


def revision(path: Path) -> str:
    """Give the version of a database's tables."""
    with _translated(path), closing(_open(path)) as file:
        row = file.execute("SELECT version_num FROM alembic_version").fetchone()
    if row is None:
        raise _damaged(path)
    return str(row[0])


def sealed_with(path: Path) -> str | None:
    """Give the id of the key that seals in ``state.db``; None when nothing was ever sealed."""
    for name, sealed, _ in _sealed(path):
        if name == ".check":
            return sealed.split(".")[1] if sealed.count(".") == 3 else None
    return None


def open_all(path: Path, keys: KeyRing) -> int:
    """Open every sealed value once, giving how many; raises SECRETS_LOCKED for a wrong key."""
    cipher, count = Cipher(keys), 0
    for name, sealed, updated_at_ms in _sealed(path):
        cipher.open(name, sealed, updated_at_ms)
        count += 1
    return count


def _sealed(path: Path) -> list[tuple[str, str, int]]:
    with _translated(path), closing(_open(path)) as file:
        known = file.execute("SELECT 1 FROM sqlite_master WHERE name = 'secrets'").fetchone()
        if known is None:
            return []
        return file.execute("SELECT name, sealed, updated_at_ms FROM secrets").fetchall()


def _open(path: Path) -> sqlite3.Connection:
    # Read and write: a database that was left in the middle is only then put in order.
    quoted = str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return sqlite3.connect(f"file:{quoted}?mode=rw", uri=True, timeout=_BUSY_S)


@contextmanager
def _translated(path: Path) -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "") or "SQLITE_ERROR"
        if name in ("SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_ERROR"):
            raise _damaged(path) from None
        raise DicodeError(
            Code.DATA_DIR,
            f"{path.name} cannot be read or copied: {name}",
            hint="look whether the disk is full, and whether this user may read it; then again",
            data={"path": str(path), "cause": name},
            retry=Retry.BACKOFF,
        ) from None


def _damaged(path: Path) -> DicodeError:
    return DicodeError(
        Code.DATA_DIR,
        f"{path.name} is damaged, or no database of dicode-mcp",
        hint="use an older backup",
        data={"path": str(path)},
    )
