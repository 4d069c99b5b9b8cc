"""A data dir saved and brought back: nothing is lost, and what is wrong changes nothing."""

from __future__ import annotations

import base64
import os
import sqlite3
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from dicode_mcp.backup import databases
from dicode_mcp.backup.auditing import Checked, check_audit
from dicode_mcp.backup.restoring import Asked, restore
from dicode_mcp.backup.saving import Wanted, save
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.model import Payload, Run, RunStatus, Trigger
from dicode_mcp.secrets.master import find_keys
from dicode_mcp.secrets.vault import Vault
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.principal import local_principal
from dicode_mcp.service.trail import AuditTrail
from dicode_mcp.store.lock import DataDirLock
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.clock import START_MS, FakeClock

ME = local_principal("cli")
CANARY = "canary-7f3a91"


def opened(folder: Path) -> Any:
    return SqliteStore.open(folder, FakeClock(), ballast_bytes=0)


async def vault_of(store: SqliteStore, folder: Path) -> Vault:
    sealed = await store.secrets()
    keys = find_keys(folder, {}, anything_sealed=bool(sealed))
    return await Vault.open(store, keys, FakeClock(), sealed)


async def lived_in(folder: Path) -> Path:
    """Make a data dir that has something of everything."""
    os.mkdir(folder)
    async with opened(folder) as store:
        vault = await vault_of(store, folder)
        await vault.set("TOKEN", CANARY, "me")
        run = Run("r1", "hello", RunStatus.QUEUED, Trigger.CLI, START_MS)
        await store.add_run(run, Payload(params={"n": 1}))
        audit = Audit(store, FakeClock(), vault.own("audit"))
        audit.note(ME, "run_task", "hello", "ok")
        audit.close()
        await audit.run()
    installed = folder / "installed"
    (installed / "deep").mkdir(parents=True)
    (installed / "taskset.yaml").write_text("entries: {}\n")
    (installed / "deep" / "dicode.lock").write_text("{}")
    (installed / "link").symlink_to("/etc/passwd")
    (folder / "pinned.json").write_text("{}")
    return folder


def saved(folder: Path, to: Path, **more: Any) -> dict[str, Any]:
    return save(Wanted(folder, to, **more), {}, FakeClock())


def restored(folder: Path, file: Path, **more: Any) -> dict[str, Any]:
    return restore(Asked(folder, file, **more), FakeClock())


async def contents(folder: Path) -> tuple[str | None, list[str], dict[str, Any]]:
    async with opened(folder) as store:
        vault = await vault_of(store, folder)
        key = vault.own("audit")
        trail = AuditTrail(store, Audit(store, FakeClock(), key), key)
        run = await store.get_run("r1")
        return vault.value_of("TOKEN"), [run.id if run else "-"], await trail.verify(ME)


async def test_secrets_runs_and_the_audit_chain_come_back(tmp_path: Path) -> None:
    first = await lived_in(tmp_path / "first")
    config = tmp_path / "dicode.yaml"
    config.write_text("data_dir: x\n")
    file, key = tmp_path / "b.tar.gz", tmp_path / "b.key"
    told = saved(first, file, key=key, config=config, logs=True)
    assert (told["files"], told["logs"]) == (6, True)
    for path in (file, key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    told = restored(tmp_path / "second", file, key=key)
    assert told["key"] == "restored"
    value, runs, audit = await contents(tmp_path / "second")
    assert (value, runs) == (CANARY, ["r1"])
    assert (audit["intact"], audit["checked"]) == (True, 1)
    second = tmp_path / "second"
    assert (second / "installed/deep/dicode.lock").read_text() == "{}"
    assert not (second / "installed/link").exists()
    assert (second / "dicode.yaml").read_text() == "data_dir: x\n"
    assert not list(second.glob(".restoring*"))


@pytest.mark.parametrize("also", ["", "DELETE FROM audit", "UPDATE audit SET chain = NULL"])
async def test_a_backup_of_a_log_whose_head_was_taken_away_is_not_intact(
    tmp_path: Path, also: str
) -> None:
    first = await lived_in(tmp_path / "first")
    with sqlite3.connect(first / "state.db") as raw:
        raw.execute("DELETE FROM meta WHERE key = 'audit_head'")
        raw.execute(also)
    raw.close()
    file, key = tmp_path / "b.tar.gz", tmp_path / "b.key"
    saved(first, file, key=key)
    told = check_audit(Checked(tmp_path / "nowhere", file, key), {})
    assert not told["intact"]
    assert told["problem"]


async def test_neither_the_master_key_nor_a_secret_is_in_the_archive(tmp_path: Path) -> None:
    first = await lived_in(tmp_path / "first")
    key = (first / "master.key").read_text().strip()
    told = saved(first, tmp_path / "b", logs=True)
    out = tmp_path / "out"
    out.mkdir()
    with tarfile.open(tmp_path / "b") as tar:
        tar.extractall(out, filter="data")
    names = {path.name for path in out.rglob("*")}
    assert "master.key" not in names
    assert len(names) == told["files"] + 3
    for path in (p for p in out.rglob("*") if p.is_file()):
        data = path.read_bytes()
        for word in (key.encode(), base64.b64decode(key), CANARY.encode()):
            assert word not in data, path.name


async def test_a_backup_while_others_write_is_of_one_moment(tmp_path: Path) -> None:
    first = await lived_in(tmp_path / "first")
    async with opened(first) as store:
        await store.kv_set("t", "a", "1", now_ms=START_MS)
        with DataDirLock(first):
            saved(first, tmp_path / "b")
        await store.kv_set("t", "b", "2", now_ms=START_MS)
    restored(tmp_path / "second", tmp_path / "b")
    with sqlite3.connect(tmp_path / "second/state.db") as raw:
        keys = [row[0] for row in raw.execute("SELECT key FROM kv")]
    raw.close()
    assert keys == ["a"]


async def test_without_its_key_it_says_which_one_is_missing_and_a_wrong_one_is_refused(
    tmp_path: Path,
) -> None:
    first = await lived_in(tmp_path / "first")
    saved(first, tmp_path / "b")
    told = restored(tmp_path / "second", tmp_path / "b")
    assert told["key"] == "missing"
    assert told["key_id"] == databases.sealed_with(first / "state.db")
    other = await lived_in(tmp_path / "other")
    with pytest.raises(DicodeError) as caught:
        restored(tmp_path / "third", tmp_path / "b", key=other / "master.key")
    assert caught.value.code is Code.SECRETS_LOCKED
    assert not (tmp_path / "third/state.db").exists()


async def test_a_key_that_is_there_is_used_and_not_replaced(tmp_path: Path) -> None:
    first = await lived_in(tmp_path / "first")
    other = await lived_in(tmp_path / "other")
    saved(first, tmp_path / "b", key=tmp_path / "k")
    second = tmp_path / "second"
    second.mkdir()
    (second / "master.key").write_bytes((first / "master.key").read_bytes())
    assert restored(second, tmp_path / "b")["key"] == "present"
    third = tmp_path / "third"
    third.mkdir()
    (third / "master.key").write_bytes((other / "master.key").read_bytes())
    with pytest.raises(DicodeError) as caught:
        restored(third, tmp_path / "b", key=tmp_path / "k")
    assert caught.value.code is Code.CONFLICT
    assert (third / "master.key").read_bytes() == (other / "master.key").read_bytes()
    told = restored(third, tmp_path / "b", key=tmp_path / "k", force=True)
    aside = Path(told["before"]) / "master.key"
    assert aside.read_bytes() == (other / "master.key").read_bytes()


async def test_a_state_that_is_there_is_put_aside_only_with_force(tmp_path: Path) -> None:
    first = await lived_in(tmp_path / "first")
    saved(first, tmp_path / "b", key=tmp_path / "k")
    (first / "state.db-wal").write_bytes(b"of another database")
    with pytest.raises(DicodeError) as caught:
        restored(first, tmp_path / "b")
    assert caught.value.code is Code.CONFLICT
    assert "--force" in (caught.value.hint or "")
    told = restored(first, tmp_path / "b", key=tmp_path / "k", force=True)
    aside = Path(told["before"])
    assert {"state.db", "state.db-wal", "installed", "pinned.json"} <= set(os.listdir(aside))
    assert (await contents(first))[0] == CANARY
    again = restored(first, tmp_path / "b", key=tmp_path / "k", force=True)
    assert "state.db" in os.listdir(aside)
    assert again["before"] != told["before"]


async def test_a_running_server_is_left_alone(tmp_path: Path) -> None:
    first = await lived_in(tmp_path / "first")
    saved(first, tmp_path / "b")
    with DataDirLock(first), pytest.raises(DicodeError) as caught:
        restored(first, tmp_path / "b", force=True)
    assert caught.value.code is Code.ALREADY_RUNNING
    assert (first / "state.db").exists()


async def test_a_newer_version_is_refused_with_both_named(tmp_path: Path) -> None:
    first = await lived_in(tmp_path / "first")
    with sqlite3.connect(first / "state.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    saved(first, tmp_path / "b")
    with pytest.raises(DicodeError) as caught:
        restored(tmp_path / "second", tmp_path / "b")
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert "newer" in caught.value.message
    assert not (tmp_path / "second/state.db").exists()


async def test_files_that_are_there_are_replaced_only_with_force(tmp_path: Path) -> None:
    first = await lived_in(tmp_path / "first")
    file, key = tmp_path / "b", tmp_path / "k"
    for taken in (file, key):
        taken.write_text("mine")
        with pytest.raises(DicodeError) as caught:
            saved(first, file, key=key)
        assert caught.value.code is Code.CONFLICT
        assert taken.read_text() == "mine"
        taken.unlink()
    file.write_text("mine")
    saved(first, file, force=True)
    assert file.read_bytes() != b"mine"
    assert sorted(os.listdir(tmp_path)) == ["b", "first"]


async def test_what_is_no_data_dir_or_is_damaged_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(DicodeError) as caught:
        saved(tmp_path / "nothing", tmp_path / "b")
    assert caught.value.code is Code.DATA_DIR
    first = await lived_in(tmp_path / "first")
    (first / "state.db").write_bytes(b"SQLite format 3\0" + bytes(4000))
    with pytest.raises(DicodeError) as caught:
        saved(first, tmp_path / "b")
    assert caught.value.code is Code.DATA_DIR
    assert os.listdir(tmp_path) == ["first"]


async def test_a_key_that_is_asked_for_and_gone_leaves_no_archive(tmp_path: Path) -> None:
    first = await lived_in(tmp_path / "first")
    (first / "master.key").unlink()
    with pytest.raises(DicodeError) as caught:
        saved(first, tmp_path / "b", key=tmp_path / "k")
    assert caught.value.code is Code.SECRETS_LOCKED
    assert os.listdir(tmp_path) == ["first"]
