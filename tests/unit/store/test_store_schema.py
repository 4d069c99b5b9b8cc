"""Making, migrating and refusing databases."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import DevMode, Pause, SourceOverrides
from dicode_mcp.store.database import Database
from dicode_mcp.store.schema import (
    LOGS_SCHEMA,
    STATE_SCHEMA,
    Schema,
    bring_up,
    current_version,
    migrate,
)
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.clock import FakeClock

SCHEMAS = pytest.mark.parametrize("schema", [STATE_SCHEMA, LOGS_SCHEMA], ids=lambda s: s.name)


@contextmanager
def a_connection(path: Path) -> Generator[Connection]:
    database = Database(path, "FULL")
    database.make_private()
    connection = database.writer()
    try:
        yield connection
    finally:
        connection.close()


def shape(connection: Connection) -> dict[str, str]:
    """Give every table and index as SQLite wrote it down, without regard to spaces."""
    found = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {name: "".join(sql.split()) for name, sql in found}


@SCHEMAS
def test_a_migrated_database_equals_a_new_one(schema: Schema, tmp_path: Path) -> None:
    with a_connection(tmp_path / "new 100%.db") as new, a_connection(tmp_path / "old.db") as old:
        bring_up(new, schema, "new.db")
        old.exec_driver_sql("BEGIN IMMEDIATE")
        migrate(old, schema)
        old.exec_driver_sql("COMMIT")
        assert shape(old) == shape(new)
        assert current_version(old) == current_version(new) == schema.head
        assert compare_metadata(MigrationContext.configure(old), schema.metadata) == []


@SCHEMAS
def test_the_known_revisions_are_the_migration_files(schema: Schema) -> None:
    script = ScriptDirectory(str(schema.migrations))
    in_files = [revision.revision for revision in script.walk_revisions()]
    assert tuple(reversed(in_files)) == schema.revisions


async def test_an_older_database_keeps_what_it_holds(tmp_path: Path) -> None:
    with a_connection(tmp_path / "state.db") as connection:
        config = Config()
        config.set_main_option("script_location", str(STATE_SCHEMA.migrations))
        config.attributes["connection"] = connection
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        command.upgrade(config, "0001")
        connection.exec_driver_sql("INSERT INTO pauses VALUES ('t', 5, 'me', 'why')")
        connection.exec_driver_sql("COMMIT")
    async with SqliteStore.open(tmp_path, FakeClock(), ballast_bytes=0) as store:
        assert await store.pauses() == {"t": Pause("t", 5, "me", "why")}
        decided = SourceOverrides(DevMode(branch="b"))
        await store.set_source_overrides("src", decided)
        assert await store.source_overrides() == {"src": decided}


async def test_a_newer_database_is_refused_and_untouched(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path, FakeClock(), ballast_bytes=0):
        pass
    raw = sqlite3.connect(tmp_path / "state.db")
    raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.commit()
    with pytest.raises(DicodeError) as caught:
        async with SqliteStore.open(tmp_path, FakeClock(), ballast_bytes=0):
            pass
    assert caught.value.code is Code.DATA_DIR
    assert "newer" in caught.value.message
    assert "9999" in caught.value.message
    assert raw.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)
    raw.close()


async def test_a_file_that_is_no_database_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"dear diary, " * 1_000)
    with pytest.raises(DicodeError) as caught:
        async with SqliteStore.open(tmp_path, FakeClock(), ballast_bytes=0):
            pass
    assert caught.value.code is Code.DATA_DIR
    assert (tmp_path / "state.db").read_bytes().startswith(b"dear diary")


async def test_the_database_of_another_program_is_refused(tmp_path: Path) -> None:
    raw = sqlite3.connect(tmp_path / "state.db")
    raw.execute("CREATE TABLE recipes (name)")
    raw.commit()
    raw.close()
    with pytest.raises(DicodeError) as caught:
        async with SqliteStore.open(tmp_path, FakeClock(), ballast_bytes=0):
            pass
    assert caught.value.code is Code.DATA_DIR
    assert "another program" in caught.value.message


async def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DicodeError) as caught:
        async with SqliteStore.open(tmp_path / "none", FakeClock(), ballast_bytes=0):
            pass
    assert caught.value.code is Code.DATA_DIR


def test_opening_a_current_store_does_not_import_alembic(tmp_path: Path) -> None:
    program = """
import asyncio, pathlib, sys
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.clock import FakeClock

async def main():
    for _ in range(2):
        async with SqliteStore.open(pathlib.Path(sys.argv[1]), FakeClock(), ballast_bytes=0):
            pass

asyncio.run(main())
assert "alembic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=60)
