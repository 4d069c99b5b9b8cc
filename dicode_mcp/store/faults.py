"""Where the database's errors become ours. Nothing above this file sees a driver's exception."""

from __future__ import annotations

import logging
import sqlite3
from enum import Enum

from sqlalchemy.exc import DBAPIError

from dicode_mcp.errors import Code, DicodeError, Retry

_log = logging.getLogger("dicode.store")


class Fault(Enum):
    """What a failure means for the one who has to answer it."""

    FULL = "full"
    BUSY = "busy"
    """Another process holds the database."""
    BROKEN = "broken"
    """The file or the disk under it does not do what it should."""
    TAKEN = "taken"
    """A row with the same key is there."""
    BUG = "bug"
    """A statement that should not have failed."""


STORAGE_FAULTS = frozenset({Fault.FULL, Fault.BUSY, Fault.BROKEN})
"""Faults that any statement would have met at that moment."""

# Only a disk without a free block keeps SQLite from growing its shared memory file.
_NO_BLOCK = sqlite3.SQLITE_IOERR_SHMSIZE
_TAKEN = (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE)
_BY_SQLITE_CODE = {
    sqlite3.SQLITE_FULL: Fault.FULL,
    sqlite3.SQLITE_BUSY: Fault.BUSY,
    sqlite3.SQLITE_LOCKED: Fault.BUSY,
    sqlite3.SQLITE_IOERR: Fault.BROKEN,
    sqlite3.SQLITE_CANTOPEN: Fault.BROKEN,
    sqlite3.SQLITE_READONLY: Fault.BROKEN,
    sqlite3.SQLITE_PERM: Fault.BROKEN,
    sqlite3.SQLITE_CORRUPT: Fault.BROKEN,
    sqlite3.SQLITE_NOTADB: Fault.BROKEN,
    sqlite3.SQLITE_NOMEM: Fault.BROKEN,
    sqlite3.SQLITE_PROTOCOL: Fault.BROKEN,
}


def fault_of(error: BaseException) -> Fault:
    """Tell what an exception of a driver (or of SQLAlchemy around it) means."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlite_errorcode", None)
    if not isinstance(code, int):
        return Fault.BUG
    if code in _TAKEN:
        return Fault.TAKEN
    if code == _NO_BLOCK:
        return Fault.FULL
    return _BY_SQLITE_CODE.get(code & 0xFF, Fault.BUG)


def symbol_of(error: BaseException) -> str:
    """Name an exception for a message, never with the values of the statement."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(cause, "sqlite_errorname", None) or type(cause).__name__)


def storage_full(where: str) -> DicodeError:
    """Say that the disk is full."""
    return DicodeError(
        Code.STORAGE_FULL,
        f"the disk that holds {where} is full; nothing new is accepted, reading still works",
        hint="free space on that disk and call again; no restart is needed",
        data={"path": where},
        retry=Retry.AFTER,
    )


def storage_busy(where: str, waited_s: float) -> DicodeError:
    """Say that another process kept the database locked."""
    return DicodeError(
        Code.STORAGE_UNAVAILABLE,
        f"another process has kept {where} locked for {waited_s:.0f} s",
        hint="end the program that has the file open for writing, then call again",
        data={"path": where},
        retry=Retry.BACKOFF,
    )


def storage_broken(where: str, symbol: str) -> DicodeError:
    """Say that the database file cannot be used."""
    return DicodeError(
        Code.STORAGE_UNAVAILABLE,
        f"{where} cannot be used: {symbol}",
        hint="look at the disk and at the file's permissions; `dicode doctor` checks both",
        data={"path": where, "cause": symbol},
        retry=Retry.BACKOFF,
    )


def taken() -> DicodeError:
    """Say that a row with the same key is there."""
    return DicodeError(
        Code.CONFLICT,
        "what should be added is in the store already, under the same id",
        hint="use a new id, or read what is there",
    )


def store_closed() -> DicodeError:
    """Say that the store has been closed."""
    return DicodeError(
        Code.SHUTTING_DOWN,
        "the store is closed because the server is stopping",
        hint="call again when the server is back",
        retry=Retry.BACKOFF,
    )


def translate(error: BaseException, where: str) -> DicodeError:
    """Give our error for whatever a statement raised; ``where`` names the database file."""
    if isinstance(error, DicodeError):
        return error
    fault = fault_of(error)
    if fault is Fault.FULL:
        return storage_full(where)
    if fault is Fault.BUSY:
        return storage_busy(where, 0)
    if fault is Fault.BROKEN:
        return storage_broken(where, symbol_of(error))
    if fault is Fault.TAKEN:
        return taken()
    if isinstance(error, UnicodeEncodeError):
        return DicodeError(
            Code.INVALID_ARGUMENT,
            "a text to be stored is not valid Unicode (it has half of a surrogate pair)",
            hint="send well-formed UTF-8",
        )
    _log.error("a statement failed unexpectedly", exc_info=error, extra={"path": where})
    return DicodeError(
        Code.INTERNAL,
        f"the store failed on {where}: {symbol_of(error)}",
        hint="this is a defect; the server's log has the details",
    )
