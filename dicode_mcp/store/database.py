"""One SQLite file: its permissions, its pragmas, its connections. It knows no table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import NullPool

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.store.prepared import driver_of

Synchronous = Literal["NORMAL", "FULL"]

BUSY_SLICE_MS = 100
"""How long SQLite itself waits for a lock; the writer decides after each slice whether to go on."""
READ_BUSY_MS = 2_000
_WAL_KEPT_BYTES = 64 * 1024 * 1024
_PAGES_AT_ONCE = 2_000


class Database:
    """Opens connections to ``path``. Every connection is in autocommit: BEGIN is written out."""

    def __init__(self, path: Path, synchronous: Synchronous) -> None:
        self.path = path
        self._synchronous = synchronous
        self._engine = _engine(path)

    def make_private(self) -> None:
        """Create the file, and let nobody but its owner read it (the WAL follows its mode).

        Raises ``DicodeError(DATA_DIR)`` when it cannot.
        """
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.fchmod(fd, 0o600)
            finally:
                os.close(fd)
        except OSError as error:
            raise DicodeError(
                Code.DATA_DIR,
                f"cannot open {self.path} for writing: {error.strerror}",
                hint="make the data dir writable for this user, or choose another with --data-dir",
                data={"path": str(self.path)},
            ) from error

    def writer(self) -> Connection:
        """Open a connection that writes; lock waits are short (``BUSY_SLICE_MS``)."""
        return self._connect(
            f"busy_timeout = {READ_BUSY_MS}",
            # Only a new file takes this over; it lets deletes give room back to the disk.
            "auto_vacuum = INCREMENTAL",
            "journal_mode = WAL",
            f"synchronous = {self._synchronous}",
            "temp_store = MEMORY",
            f"journal_size_limit = {_WAL_KEPT_BYTES}",
            f"busy_timeout = {BUSY_SLICE_MS}",
        )

    def reader(self) -> Connection:
        """Open a connection that cannot write."""
        return self._connect(
            f"busy_timeout = {READ_BUSY_MS}", "query_only = ON", "temp_store = MEMORY"
        )

    def _connect(self, *pragmas: str) -> Connection:
        connection = self._engine.connect()
        try:
            for pragma in pragmas:
                connection.exec_driver_sql(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection


def _engine(path: Path) -> Engine:
    return create_engine(
        f"sqlite:///{path}",
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        # A connection is made before its thread starts and used by that thread alone.
        connect_args={"check_same_thread": False},
        # Statements' values can be secrets; an exception must not quote them.
        hide_parameters=True,
    )


def give_back(connection: Connection) -> None:
    """Return pages that deletes left empty to the disk: some each time, so that none waits."""
    driver = driver_of(connection)
    row = driver.execute("PRAGMA freelist_count").fetchone()
    empty = 0 if row is None else int(row[0])
    for _ in range(min(empty, _PAGES_AT_ONCE)):
        # A larger number would change nothing: Python takes one step, and a step is a page.
        driver.execute("PRAGMA incremental_vacuum(1)")
