"""A statement of SQLAlchemy Core, compiled once and then run on the driver itself.

For the few statements that every run passes: it costs a fifth of ``Connection.execute``. Values go
to the driver as they are, so columns must be of types that need no conversion; and the statement
has no IN, whose length is not known when it is compiled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from sqlalchemy import ClauseElement, Connection, Dialect


class Cursor(Protocol):
    """What a driver answers."""

    @property
    def rowcount(self) -> int:
        """How many rows a change touched."""
        ...

    def fetchone(self) -> Sequence[Any] | None:
        """Give the next row."""
        ...

    def fetchall(self) -> Sequence[Sequence[Any]]:
        """Give the rows that are left."""
        ...


class Driver(Protocol):
    """A connection of a driver that can execute without making a cursor first."""

    def execute(self, sql: str, values: Any = ..., /) -> Cursor:
        """Run one statement."""
        ...


def driver_of(connection: Connection) -> Driver:
    """Give the driver's own connection."""
    return cast("Driver", connection.connection.driver_connection)


class Prepared:
    """Callable with a connection and the values of the statement's parameters."""

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._compiled: dict[str, tuple[str, tuple[str, ...] | None, Mapping[str, Any]]] = {}

    def __call__(self, connection: Connection, values: Mapping[str, Any]) -> Cursor:
        """Run the statement; gives the driver's cursor."""
        dialect = connection.dialect
        sql, order, constants = self._compiled.get(dialect.name) or self._compile(dialect)
        given = {**constants, **values}
        if order is None:
            return driver_of(connection).execute(sql, given)
        return driver_of(connection).execute(sql, [given[name] for name in order])

    def _compile(self, dialect: Dialect) -> tuple[str, tuple[str, ...] | None, Mapping[str, Any]]:
        compiled: Any = self._statement.compile(dialect=dialect)
        order = tuple(compiled.positiontup) if compiled.positional else None
        constants = {name: v for name, v in compiled.params.items() if v is not None}
        found = (str(compiled), order, constants)
        self._compiled[dialect.name] = found
        return found
