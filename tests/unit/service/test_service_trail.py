"""The audit log on a real database: what tampering shows, and what it survives."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import AuditQuery, Store
from dicode_mcp.service.audit import Audit, begin_chain
from dicode_mcp.service.principal import local_principal
from dicode_mcp.service.trail import AuditTrail
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.faults import Fault, FaultyStore
from dicode_mcp.testing.store import MemoryStore
from dicode_mcp.testing.waiting import running, until

KEY = b"the chain's key, 32 bytes long.."
ME = local_principal("cli")


async def wrote(store: Store, *targets: str, key: bytes = KEY, begun: bool = False) -> None:
    """Serve once: note an entry for each target, and end in order."""
    audit = Audit(store, FakeClock(), key, begun=begun)
    for target in targets:
        audit.note(ME, "run_task", target, "ok", n=1)
    audit.close()
    await audit.run()


async def verdict(store: Store, key: bytes = KEY) -> dict[str, Any]:
    return await AuditTrail(store, Audit(store, FakeClock(), key), key).verify(ME)


def opened(folder: Path) -> Any:
    return SqliteStore.open(folder, FakeClock())


def changed(folder: Path, *statements: str) -> None:
    """Do what somebody does who can write the file."""
    with sqlite3.connect(folder / "state.db") as raw:
        for statement in statements:
            raw.execute(statement)
    raw.close()


async def after(folder: Path, *statements: str) -> dict[str, Any]:
    """Write five entries in two lives of a server, tamper, and look."""
    async with opened(folder) as store:
        await wrote(store, "a", "b", "c")
    async with opened(folder) as store:
        await wrote(store, "d", "e")
    changed(folder, *statements)
    async with opened(folder) as store:
        return await verdict(store)


async def test_an_untouched_log_is_intact_over_restarts(tmp_path: Path) -> None:
    told = await after(tmp_path)
    assert told["intact"]
    assert told["checked"] == 5


@pytest.mark.parametrize(
    ("statement", "at"),
    [
        ("UPDATE audit SET actor = 'nobody' WHERE target = 'c'", "c"),
        ("UPDATE audit SET outcome = 'forbidden' WHERE target = 'a'", "a"),
        ("UPDATE audit SET detail = CAST('{\"n\":2}' AS BLOB) WHERE target = 'b'", "b"),
        ("UPDATE audit SET at_ms = at_ms - 60000 WHERE target = 'e'", "e"),
        ("UPDATE audit SET chain = NULL WHERE target = 'b'", "b"),
        ("DELETE FROM audit WHERE target = 'a'", "b"),
        ("DELETE FROM audit WHERE target = 'c'", "d"),
        ("INSERT INTO audit SELECT 99, at_ms, actor, surface, action, 'x', outcome, detail, chain"
         " FROM audit WHERE target = 'e'", "x"),
        ("UPDATE audit SET id = 100 - id", "e"),
    ],
)  # fmt: skip
async def test_tampering_is_found_where_it_begins(tmp_path: Path, statement: str, at: str) -> None:
    told = await after(tmp_path, statement)
    assert not told["intact"]
    assert told["entries"][0]["target"] == at


async def test_two_entries_that_change_places_are_found(tmp_path: Path) -> None:
    told = await after(
        tmp_path,
        "UPDATE audit SET id = 50 WHERE target = 'b'",
        "UPDATE audit SET id = 2 WHERE target = 'c'",
        "UPDATE audit SET id = 3 WHERE target = 'b'",
    )
    assert (told["intact"], told["entries"][0]["target"]) == (False, "c")


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("DELETE FROM audit WHERE id > 3", "2 entries are missing at the end"),
        ("DELETE FROM audit", "5 entries are missing at the end"),
        ("DELETE FROM meta WHERE key = 'audit_head'", "head is gone"),
        ("UPDATE meta SET value = 'x' WHERE key = 'audit_head'", "head was changed"),
        ("UPDATE meta SET value = replace(value, ': 5', ': 3') WHERE key = 'audit_head'",
         "head was changed"),
    ],
)  # fmt: skip
async def test_a_cut_off_end_is_found(tmp_path: Path, statement: str, problem: str) -> None:
    told = await after(tmp_path, statement)
    assert not told["intact"]
    assert problem in told["problem"]


@pytest.mark.parametrize(
    "statements",
    [
        ("DELETE FROM audit WHERE id > 3",),
        ("DELETE FROM audit WHERE id > 3", "DELETE FROM meta WHERE key = 'audit_head'"),
        ("UPDATE audit SET actor = 'nobody' WHERE target = 'c'",),
    ],
)
async def test_what_was_tampered_with_stays_so_however_long_the_server_goes_on(
    tmp_path: Path, statements: tuple[str, ...]
) -> None:
    await after(tmp_path, *statements)
    async with opened(tmp_path) as store:
        await wrote(store, "f", "g")
        told = await verdict(store)
    assert not told["intact"]


async def test_a_missing_end_is_told_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await after(tmp_path, "DELETE FROM audit WHERE id > 3")
    async with opened(tmp_path) as store:
        await wrote(store)
    assert "entries at the end of the audit log are missing" in caplog.text


async def test_another_key_makes_no_chain_that_fits(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await wrote(store, "a", "b", key=b"another")
        told = await verdict(store)
    assert (told["intact"], told["entries"][0]["target"]) == (False, "a")


WIPED = ("DELETE FROM audit", "DELETE FROM meta WHERE key = 'audit_head'")


@pytest.mark.parametrize(
    "statements",
    [
        ("UPDATE audit SET chain = NULL", WIPED[1]),
        ("DELETE FROM audit WHERE id > 3", WIPED[1]),
        ("DELETE FROM audit", "UPDATE meta SET value = 'x' WHERE key = 'audit_head'"),
        WIPED,
    ],
)
async def test_a_log_whose_head_was_taken_away_is_never_intact_again(
    tmp_path: Path, statements: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as store:
        await begin_chain(store, KEY)
        assert (await verdict(store))["intact"]
    told = await after(tmp_path, *statements)
    assert not told["intact"]
    for targets in ((), ("f", "g")):
        async with opened(tmp_path) as store:
            await wrote(store, *targets, begun=True)
            assert not (await verdict(store))["intact"]
    assert "may be missing" in caplog.text
    async with opened(tmp_path) as store:
        lost = await store.list_audit(query=AuditQuery(action="audit_lost"))
        told = await verdict(store)
    assert len(lost.items) == 1
    if statements[0] != "UPDATE audit SET chain = NULL":
        assert told["entries"][0]["action"] == "audit_lost"
        assert "began anew at this entry" in told["problem"]


class LateStore(MemoryStore):
    """Its first look at the chain fails."""

    looks = 0

    async def audit_head(self) -> str | None:
        self.looks += 1
        if self.looks == 1:
            raise DicodeError(Code.STORAGE_UNAVAILABLE, "not now")
        return await super().audit_head()


async def test_the_loss_is_written_down_also_when_the_log_cannot_be_read_at_the_start() -> None:
    store = LateStore()
    audit = Audit(store, FakeClock(), KEY, begun=True)
    audit.note(ME, "run_task", "a", "ok")
    audit.close()
    await audit.run()
    kept = [entry.action for entry in (await store.list_audit(after_id=0)).items]
    assert kept == ["audit_lost", "run_task"]
    assert not (await verdict(store))["intact"]


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("number", range(1, 6))
async def test_a_failure_or_a_crash_at_any_call_leaves_no_gap(
    fault: Fault, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicode_mcp.service.audit._RETRY_PAUSE_S", 0.001)
    store = MemoryStore()
    await wrote(store, "a")
    faulty: Any = FaultyStore(store, number, fault)
    audit = Audit(faulty, FakeClock(), KEY)
    audit.note(ME, "run_task", "b", "ok")
    async with running(audit.run()) as loop:
        await until(lambda: audit.idle or faulty.crashed.is_set())
        audit.note(ME, "run_task", "c", "ok")
        audit.close()
        await until(lambda: loop.done() or faulty.crashed.is_set())
    await wrote(store, "d")
    told = await verdict(store)
    assert told["intact"]
    kept = [entry.target for entry in (await store.list_audit(after_id=0)).items]
    assert kept[0] == "a"
    assert kept[-1] == "d"
    if not faulty.crashed.is_set():
        assert set("abcd") <= set(kept)


async def test_a_flood_of_refusals_is_counted_and_not_written_down_one_by_one() -> None:
    store, clock = MemoryStore(), FakeClock()
    audit = Audit(store, clock, KEY)
    for n in range(500):
        audit.note(ME, "refused_call", f"t{n}", "forbidden")
    audit.note(local_principal("mcp", "other"), "refused_call", "own", "forbidden")
    audit.close()
    await audit.run()
    found = (await store.list_audit(limit=1_000)).items
    assert [e.target for e in found if e.actor == "other"] == ["own"]
    assert sum(e.actor == "local" for e in found) == 10
    assert [e.detail for e in found if e.action == "refused_calls"] == [{"not_noted": 490}]


async def test_pages_filters_and_the_export_show_all_of_it() -> None:
    store = MemoryStore()
    await wrote(store, *"abcdefg")
    trail = AuditTrail(store, Audit(store, FakeClock(), KEY), KEY)
    first = await trail.entries(ME, AuditQuery(), limit=3)
    assert [e["target"] for e in first["entries"]] == ["g", "f", "e"]
    second = await trail.entries(ME, AuditQuery(), limit=9, cursor=first["next_cursor"])
    assert [e["target"] for e in second["entries"]] == ["d", "c", "b", "a"]
    assert "next_cursor" not in second
    whole = await trail.entries(ME, AuditQuery(), limit=9, export=True)
    assert [e["id"] for e in whole["entries"]] == [1, 2, 3, 4, 5, 6, 7]
    assert all(len(e["chain"]) == 64 and e["at_ms"] for e in whole["entries"])


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "9" * 30, "²"])
async def test_a_cursor_that_no_page_gave_is_refused(cursor: str) -> None:
    store = MemoryStore()
    trail = AuditTrail(store, Audit(store, FakeClock()))
    with pytest.raises(DicodeError) as caught:
        await trail.entries(ME, AuditQuery(), limit=1, cursor=cursor)
    assert caught.value.code is Code.INVALID_ARGUMENT


async def test_who_is_no_administrator_reads_nothing_of_it() -> None:
    store = MemoryStore()
    trail = AuditTrail(store, Audit(store, FakeClock()))
    reader = ME.narrowed(read_only=True)
    for call in (trail.entries(reader, AuditQuery(), limit=1), trail.verify(reader)):
        with pytest.raises(DicodeError) as caught:
            await call
        assert caught.value.code is Code.FORBIDDEN


async def test_details_that_are_no_json_do_not_end_the_log() -> None:
    store = MemoryStore()
    audit = Audit(store, FakeClock(), KEY)
    audit.note(ME, "run_task", "half \ud800", "ok", odd=object())
    audit.close()
    await audit.run()
    (entry,) = (await store.list_audit()).items
    assert entry.detail == {"unreadable": True}
    assert (await verdict(store))["intact"]
