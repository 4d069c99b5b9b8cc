"""Opening a database file up to the point where threads may own its connections. It blocks."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.store.database import Database
from dicode_mcp.store.faults import Fault, fault_of, symbol_of, translate
from dicode_mcp.store.schema import Schema, bring_up, is_current


@dataclass(frozen=True, slots=True)
class Opened:
    """Connections to one database whose tables are today's."""

    where: str
    writer: Connection
    readers: tuple[Connection, ...]

    def close(self) -> None:
        """Close the connections; for when no thread took them over."""
        for connection in (self.writer, *self.readers):
            connection.close()


def open_database(database: Database, schema: Schema, readers: int) -> Opened:
    """Open a file, making or migrating it.

    Raises ``DicodeError``: DATA_DIR when the file is unusable or of a newer version,
    STORAGE_UNAVAILABLE when another process has it locked, STORAGE_FULL.
    """
    database.make_private()
    where = str(database.path)
    try:
        writer = database.writer()
        try:
            if not is_current(writer, schema):
                bring_up(writer, schema, where)
            return Opened(where, writer, tuple(database.reader() for _ in range(readers)))
        except BaseException:
            writer.close()
            raise
    except DBAPIError as error:
        if fault_of(error) is Fault.BROKEN:
            raise _unusable(where, symbol_of(error)) from error
        raise translate(error, where) from error


def _unusable(where: str, symbol: str) -> DicodeError:
    return DicodeError(
        Code.DATA_DIR,
        f"{where} cannot be opened: {symbol}",
        hint="put a backup of that file in its place, or choose another data dir (--data-dir)",
        data={"path": where, "cause": symbol},
    )
