"""The cron loop: which tasks it follows, how it meets overlap, pauses, faults and storms."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from cron_days import Shop, open_shop

from dicode_mcp.clock import parse_iso
from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.events import RunChanged
from dicode_mcp.protocols import RunQuery
from dicode_mcp.registry import Entry
from dicode_mcp.runs.model import Payload, Reason, Run, RunRequest, RunStatus, Trigger
from dicode_mcp.spec.model import Task
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.rooms import SOURCE, Rooms, make_task
from dicode_mcp.testing.store import MemoryStore
from dicode_mcp.triggers.cron import CronTrigger
from dicode_mcp.triggers.zone import server_zone

HOUR = 3600
NOON = parse_iso("2026-01-01T12:00Z")


def hourly(task_id: str = "t", digest: str = "0", **options: object) -> Task:
    return make_task(task_id, digest, trigger={"cron": "0 * * * *", **options})


def at(hour: int, minute: int = 0) -> int:
    return NOON + ((hour - 12) * 60 + minute) * 60_000


def full() -> DicodeError:
    return DicodeError(Code.STORAGE_FULL, "the disk is full", retry=Retry.AFTER)


async def slots(shop: Shop, task_id: str = "t") -> list[tuple[int | None, RunStatus]]:
    return [(run.slot_ms, run.status) for run in await shop.rooms.runs(task_id)]


DONE = RunStatus.SUCCESS


async def test_a_run_says_that_cron_started_it_and_for_which_slot() -> None:
    async with open_shop(None, FakeClock(at(12, 30)), hourly()) as shop:
        await shop.let(HOUR)
        (run,) = await shop.rooms.runs("t")
        assert (run.trigger, run.actor, run.slot_ms) == (Trigger.CRON, "cron", at(13))
        assert not run.catchup
        assert run.status is DONE


async def test_the_next_run_is_told_and_moves_on() -> None:
    async with open_shop(None, FakeClock(at(12, 30)), hourly(), make_task("manual")) as shop:
        assert shop.cron.next_run_ms("t") == at(13)
        await shop.let(HOUR)
        assert shop.cron.next_run_ms("t") == at(14)
        assert shop.cron.next_run_ms("manual") is None
        assert shop.cron.next_run_ms("nobody") is None
        shop.rooms.pause("t")
        await shop.settled()
        assert shop.cron.next_run_ms("t") is None


async def test_tasks_that_name_no_zone_follow_the_server() -> None:
    async with open_shop(None, FakeClock(NOON), hourly(), zone="Asia/Kolkata") as shop:
        assert shop.cron.next_run_ms("t") == at(12, 30)


# What is in force


async def test_a_task_that_appears_and_one_that_is_removed_are_followed() -> None:
    async with open_shop(None, FakeClock(at(12, 30))) as shop:
        shop.rooms.put(hourly())
        await shop.let(HOUR)
        shop.rooms.remove("t")
        await shop.let(2 * HOUR)
        assert await slots(shop) == [(at(13), DONE)]


async def test_a_changed_expression_starts_from_now() -> None:
    async with open_shop(None, FakeClock(at(12, 30)), hourly()) as shop:
        await shop.let(HOUR)
        shop.rooms.put(make_task("t", "1", trigger={"cron": "15 * * * *"}))
        await shop.let(HOUR)
        assert await slots(shop) == [(at(13), DONE), (at(14, 15), DONE)]


async def test_another_version_with_the_same_schedule_keeps_its_place() -> None:
    async with open_shop(None, FakeClock(at(12, 30)), hourly()) as shop:
        await shop.let(HOUR / 2 - 1)
        shop.rooms.put(hourly(digest="1"))
        await shop.let(2)
        shop.rooms.put(hourly(digest="2", catchup="skip"))
        await shop.let(HOUR)
        assert await slots(shop) == [(at(13), DONE), (at(14), DONE)]


async def test_what_a_paused_task_missed_is_not_caught_up() -> None:
    async with open_shop(None, FakeClock(at(12, 30)), hourly(catchup="all")) as shop:
        shop.rooms.pause("t")
        await shop.let(3 * HOUR)
        shop.rooms.pause("t", on=False)
        await shop.let(HOUR)
        assert await slots(shop) == [(at(16), DONE)]


async def test_what_a_paused_task_missed_stays_missed_over_a_restart() -> None:
    store, clock = MemoryStore(), FakeClock(at(12, 30))
    async with open_shop(store, clock, hourly(catchup="all")) as shop:
        await shop.let(HOUR)
        shop.rooms.pause("t")
        await shop.let(3 * HOUR)
        shop.rooms.pause("t", on=False)
        await shop.let(60)
    async with open_shop(store, clock, hourly(catchup="all")) as shop:
        await shop.let(HOUR)
        assert await slots(shop) == [(at(13), DONE), (at(17), DONE)]


async def test_a_task_that_never_loaded_is_silent_and_starts_afresh_when_mended() -> None:
    store, clock = MemoryStore(), FakeClock(at(12, 30))
    async with open_shop(store, clock, hourly()) as shop:
        await shop.let(HOUR)
    async with open_shop(store, clock) as shop:
        shop.rooms.put_broken("t")
        await shop.let(3 * HOUR)
        shop.rooms.put(hourly())
        await shop.let(HOUR)
        assert await slots(shop) == [(at(13), DONE), (at(17), DONE)]


async def test_a_broken_edit_keeps_the_last_good_version_on_time() -> None:
    async with open_shop(None, FakeClock(at(12, 30)), hourly()) as shop:
        task = hourly()
        broken = (Condition(ConditionType.READY, False, "Invalid"),)
        shop.rooms.registry.apply(SOURCE, put=[Entry("t", SOURCE, task.folder, task, broken)])
        await shop.let(HOUR)
        assert await slots(shop) == [(at(13), DONE)]


async def test_a_source_that_comes_late_after_a_restart_is_caught_up() -> None:
    store, clock = MemoryStore(), FakeClock(at(12, 30))
    async with open_shop(store, clock, hourly()) as shop:
        await shop.let(HOUR)
    async with open_shop(store, clock) as shop:
        await shop.let(3 * HOUR)
        shop.rooms.put(hourly())
        await shop.settled()
        runs = await shop.rooms.runs("t")
        assert [(run.slot_ms, run.catchup) for run in runs] == [(at(13), False), (at(16), True)]


# Overlap


async def test_a_slot_that_meets_a_run_still_on_is_recorded_as_skipped() -> None:
    async with open_shop(None, FakeClock(at(12, 30)), hourly()) as shop:
        shop.runner.held.add("t")
        await shop.let(2 * HOUR)
        first, second = await shop.rooms.runs("t")
        assert first.status is RunStatus.RUNNING
        assert (second.status, second.reason, second.slot_ms) == (
            RunStatus.SKIPPED,
            Reason.OVERLAP,
            at(14),
        )
        assert second.error is not None
        assert first.id in second.error.message
        shop.runner.held.clear()
        shop.runner.release("t")
        await shop.let(HOUR)
        assert (await slots(shop))[-1] == (at(15), DONE)
        assert shop.runner.most_on["t"] == 1


async def test_a_run_started_by_hand_that_is_still_on_is_an_overlap_too() -> None:
    async with open_shop(None, FakeClock(at(12, 30)), hourly(), held=("t",)) as shop:
        by_hand = await shop.rooms.queue.submit(RunRequest("t", Trigger.MANUAL))
        await shop.let(HOUR)
        (skipped,) = [run for run in await shop.rooms.runs("t") if run.slot_ms]
        assert (skipped.status, skipped.slot_ms) == (RunStatus.SKIPPED, at(13))
        assert skipped.error is not None
        assert by_hand.id in skipped.error.message
        # The other way round nobody is in the way: only slots are skipped unless the task says so.
        again = await shop.rooms.queue.submit(RunRequest("t", Trigger.MANUAL))
        assert again.status is RunStatus.QUEUED


async def test_overlap_that_is_allowed_starts_every_slot() -> None:
    task = make_task(
        "t", trigger={"cron": "0 * * * *"}, concurrency={"limit": 5, "overlap": "allow"}
    )
    async with open_shop(None, FakeClock(at(12, 30)), task) as shop:
        shop.runner.held.add("t")
        await shop.let(3 * HOUR)
        assert shop.runner.most_on["t"] == 3


async def test_overlap_is_known_after_a_restart() -> None:
    store, clock = MemoryStore(), FakeClock(at(12, 30))
    left = Run("left", "t", RunStatus.QUEUED, Trigger.CRON, clock.now_ms(), slot_ms=at(12))
    await store.add_run(left, Payload())
    async with open_shop(store, clock, hourly(), held=("t",)) as shop:
        await shop.let(HOUR)
        runs = await slots(shop)
        assert runs == [(at(12), RunStatus.RUNNING), (at(13), RunStatus.SKIPPED)]


async def test_runs_that_are_caught_up_one_by_one_never_overlap() -> None:
    store, clock = MemoryStore(), FakeClock(at(12, 30))
    task = hourly(catchup="all")
    async with open_shop(store, clock, task) as shop:
        await shop.let(60)
    clock.advance(4 * HOUR)
    async with open_shop(store, clock, task, held=("t",)) as shop:
        for _ in range(4):
            await shop.settled()
            shop.runner.release("t")
        await shop.settled()
        runs = await shop.rooms.runs("t")
        assert sorted(r.slot_ms or 0 for r in runs) == [at(13), at(14), at(15), at(16)]
        assert {run.status for run in runs} == {DONE}
        assert all(run.catchup for run in runs)
        assert shop.runner.most_on["t"] == 1


# Faults


async def test_a_full_disk_delays_a_slot_and_does_not_lose_it() -> None:
    store = MemoryStore()
    async with open_shop(store, FakeClock(at(12, 30)), hourly(catchup="skip")) as shop:
        store.failure = full()
        await shop.let(HOUR + 600)
        assert await slots(shop) == []
        store.failure = None
        await shop.let(60)
        assert await slots(shop) == [(at(13), DONE)]
        await shop.let(HOUR)
        assert await slots(shop) == [(at(13), DONE), (at(14), DONE)]


async def test_a_store_that_fails_at_the_start_is_waited_for() -> None:
    class Slow(MemoryStore):
        failing = True

        async def schedule_slots(self) -> Mapping[str, int]:
            if self.failing:
                raise full()
            return await super().schedule_slots()

    store = Slow()
    async with open_shop(store, FakeClock(at(12, 30)), hourly()) as shop:
        assert shop.cron.next_run_ms("t") is None
        store.failing = False
        shop.clock.advance(1)
        await shop.let(HOUR)
        assert await slots(shop) == [(at(13), DONE)]


async def test_an_answer_lost_after_the_commit_makes_no_second_run_and_the_first_goes_on() -> None:
    class Deaf(MemoryStore):
        losing = 0

        async def add_run(self, run: Run, payload: Payload) -> Run:
            stored = await super().add_run(run, payload)
            if self.losing:
                self.losing -= 1
                raise DicodeError(Code.STORAGE_UNAVAILABLE, "no answer", retry=Retry.BACKOFF)
            return stored

    store = Deaf()
    async with open_shop(store, FakeClock(at(12, 30)), hourly()) as shop:
        store.losing = 2
        await shop.let(HOUR)
        assert await slots(shop) == [(at(13), DONE)]


async def test_a_slot_that_cannot_start_leaves_a_row_that_says_why() -> None:
    task = make_task(
        "t", trigger={"cron": "0 * * * *"}, params={"city": {"type": "string", "required": True}}
    )
    async with open_shop(None, FakeClock(at(12, 30)), task) as shop:
        await shop.let(HOUR)
        (run,) = await shop.rooms.runs("t")
        assert (run.status, run.slot_ms) == (RunStatus.FAILURE, at(13))
        assert run.error is not None
        assert run.error.code == Code.INVALID_PARAMS
        assert "city" in run.error.message


async def test_one_task_that_cannot_be_dealt_with_delays_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_shop(None, FakeClock(at(12, 30)), hourly("a"), hourly("b")) as shop:
        submit = shop.rooms.queue.submit

        async def failing(request: object) -> Run:
            if getattr(request, "task_id", "") == "a":
                raise RuntimeError("a bug")
            return await submit(request)  # pyright: ignore[reportArgumentType]

        monkeypatch.setattr(shop.rooms.queue, "submit", failing)
        await shop.let(HOUR)
        assert await slots(shop, "a") == []
        assert await slots(shop, "b") == [(at(13), DONE)]
        monkeypatch.setattr(shop.rooms.queue, "submit", submit)
        await shop.let(60)
        assert await slots(shop, "a") == [(at(13), DONE)]


async def test_a_server_that_stops_leaves_the_slot_to_the_next_one() -> None:
    store, clock = MemoryStore(), FakeClock(at(12, 30))
    async with open_shop(store, clock, hourly()) as shop:
        shop.rooms.queue.refuse(DicodeError(Code.SHUTTING_DOWN, "stopping"))
        await shop.let(HOUR)
        assert await slots(shop) == []
    async with open_shop(store, clock, hourly()) as shop:
        assert await slots(shop) == [(at(13), DONE)]


async def test_events_that_were_lost_are_made_up_for() -> None:
    async with open_shop(None, FakeClock(at(12, 30))) as shop:
        shop.rooms.put(hourly())
        for _ in range(70_000):
            shop.rooms.bus.publish(RunChanged("r", "other", "running"))
        await shop.let(HOUR)
        assert await slots(shop) == [(at(13), DONE)]


# Many


@pytest.mark.slow
async def test_ten_thousand_tasks_due_at_once_do_not_block_the_loop(tmp_path: Path) -> None:
    clock = FakeClock(at(12, 30))
    async with SqliteStore.open(tmp_path, clock, ballast_bytes=0) as store:
        rooms = Rooms(store, clock)
        rooms.put(*(hourly(f"t{n:05}") for n in range(10_000)))
        zone = ZoneInfo("UTC")
        cron = CronTrigger(rooms.queue, rooms.registry, store, rooms.bus, clock, zone)
        loop = asyncio.create_task(cron.run())
        await clock.asleep()
        clock.advance(HOUR / 2)
        most = await _most_in_a_turn(clock, rooms)
        assert rooms.dispatcher.waiting == 10_000
        page = await store.list_runs(RunQuery(limit=1000))
        assert {run.slot_ms for run in page.items} == {at(13)}
        assert most <= 100
        loop.cancel()
        await asyncio.wait([loop])


async def _most_in_a_turn(clock: FakeClock, rooms: Rooms) -> int:
    """Give how many runs were handed on between two turns of another task, at most."""
    most = before = 0
    asleep = asyncio.create_task(clock.asleep())
    while not asleep.done():
        await asyncio.sleep(0)
        most = max(most, rooms.dispatcher.waiting - before)
        before = rooms.dispatcher.waiting
    return most


# The server's zone


def test_the_servers_zone_is_the_one_tz_names() -> None:
    assert server_zone({"TZ": "Asia/Tokyo"}).key == "Asia/Tokyo"
    assert server_zone({"TZ": ":Asia/Tokyo"}).key == "Asia/Tokyo"


def test_without_tz_it_is_read_off_the_machines_link_or_file(tmp_path: Path) -> None:
    known = tmp_path / "zoneinfo" / "Europe" / "Paris"
    known.parent.mkdir(parents=True)
    known.write_bytes(b"TZif")
    link = tmp_path / "localtime"
    link.symlink_to(known)
    assert server_zone({}, link).key == "Europe/Paris"
    assert server_zone({"TZ": "Nowhere/Land"}, link).key == "Europe/Paris"


def test_a_machine_that_says_nothing_is_on_utc(tmp_path: Path) -> None:
    assert server_zone({}, tmp_path / "missing").key == "UTC"
    (tmp_path / "garbage").write_bytes(b"not a zone")
    assert server_zone({}, tmp_path / "garbage").key == "UTC"
