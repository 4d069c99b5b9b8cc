"""The version of a database's tables, and bringing an older database up to it.

A new database gets today's tables at once; an older one is migrated by Alembic, which is imported
only then (half a second). A newer one is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, MetaData, inspect

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.store.tables import LOGS, STATE

_MIGRATIONS = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True)
class Schema:
    """Tables, and the revisions that led to them, oldest first (ids of the migration files)."""

    name: str
    metadata: MetaData
    revisions: tuple[str, ...]

    @property
    def head(self) -> str:
        """The revision that equals ``metadata``."""
        return self.revisions[-1]

    @property
    def migrations(self) -> Path:
        """The folder of Alembic's scripts."""
        return _MIGRATIONS / self.name


STATE_SCHEMA = Schema("state", STATE, tuple(f"{n:04d}" for n in range(1, 13)))
LOGS_SCHEMA = Schema("logs", LOGS, ("0001",))


def bring_up(connection: Connection, schema: Schema, where: str) -> None:
    """Give the database the tables of ``schema``, in one transaction.

    Raises ``DicodeError(DATA_DIR)`` when it was written by a newer version or is something else.
    """
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        version = current_version(connection)
        if version is None:
            _create(connection, schema, where)
        elif version not in schema.revisions:
            raise _newer(schema, version, where)
        elif version != schema.head:
            migrate(connection, schema)
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")


def is_current(connection: Connection, schema: Schema) -> bool:
    """Tell, by reading alone, whether the database already has the tables of ``schema``."""
    return current_version(connection) == schema.head


def current_version(connection: Connection) -> str | None:
    """Read the revision of a database; None when it has none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if version is None else str(version)


def migrate(connection: Connection, schema: Schema) -> None:
    """Run the migrations from the database's revision (or from nothing) to the newest."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(schema.migrations).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _create(connection: Connection, schema: Schema, where: str) -> None:
    if inspect(connection).get_table_names():
        raise DicodeError(
            Code.DATA_DIR,
            f"{where} is a database of another program",
            hint="choose another data dir with --data-dir, or move that file away",
            data={"path": where},
        )
    schema.metadata.create_all(connection, checkfirst=False)
    connection.exec_driver_sql(
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
        "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
    )
    connection.exec_driver_sql(f"INSERT INTO alembic_version VALUES ('{schema.head}')")


def _newer(schema: Schema, version: str, where: str) -> DicodeError:
    return DicodeError(
        Code.DATA_DIR,
        f"{where} was written by a newer dicode-mcp (tables {version}, this version knows "
        f"them up to {schema.head})",
        hint="upgrade dicode-mcp, or choose another data dir with --data-dir",
        data={"path": where, "version": version},
    )
