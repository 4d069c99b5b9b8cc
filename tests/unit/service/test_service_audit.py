import asyncio

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.principal import local_principal
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.store import MemoryStore
from dicode_mcp.testing.waiting import running, until

ME = local_principal("mcp")


async def entries(store: MemoryStore) -> list[tuple[str, str, str]]:
    page = await store.list_audit()
    return [(entry.action, entry.target, entry.outcome) for entry in page.items]


async def test_an_action_is_kept_with_how_it_ended() -> None:
    store = MemoryStore()
    audit = Audit(store, FakeClock())
    async with audit.action(ME, "run_task", "hello"):
        pass
    with pytest.raises(DicodeError):
        async with audit.action(ME, "run_task", "nope"):
            raise DicodeError(Code.TASK_NOT_FOUND, "no")
    audit.close()
    await audit.run()
    assert await entries(store) == [
        ("run_task", "nope", "task_not_found"),
        ("run_task", "hello", "ok"),
    ]


@pytest.mark.parametrize("code", [Code.STORAGE_FULL, Code.STORAGE_UNAVAILABLE])
async def test_a_disk_in_trouble_delays_the_audit_and_ends_nothing(
    code: Code, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicode_mcp.service.audit._RETRY_PAUSE_S", 0.001)
    store = MemoryStore()
    store.failure = DicodeError(code, "the disk is full")
    audit = Audit(store, FakeClock())
    audit.note(ME, "run_task", "hello", "ok")
    async with running(audit.run()) as loop:
        for _ in range(20):
            await asyncio.sleep(0)
        assert not loop.done()
        store.failure = None
        stored: list[tuple[str, str, str]] = []

        async def look() -> None:
            while not stored:
                # The double answers without suspending: the other loop needs its turn.
                await asyncio.sleep(0.001)
                stored.extend(await entries(store))

        await asyncio.wait_for(look(), 20)
    assert stored == [("run_task", "hello", "ok")]


async def test_an_entry_that_can_never_be_stored_does_not_end_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore()
    store.failure = DicodeError(Code.INTERNAL, "broken for good")
    audit = Audit(store, FakeClock())
    audit.note(ME, "run_task", "hello", "ok")
    async with running(audit.run()):
        await until(lambda: "broken for good" in caplog.text)


async def test_waiting_entries_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicode_mcp.service.audit.MAX_WAITING", 3)
    store = MemoryStore()
    audit = Audit(store, FakeClock())
    for number in range(5):
        audit.note(ME, "run_task", str(number), "ok")
    audit.close()
    await audit.run()
    assert await entries(store) == [
        ("audit_dropped", "", "storage_full"),
        *(("run_task", target, "ok") for target in "210"),
    ]
