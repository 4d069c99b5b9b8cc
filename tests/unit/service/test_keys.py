"""Keys open what their scopes name, are shown once, and end when they are revoked or expire."""

from __future__ import annotations

import asyncio
import json

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import BearerKey
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.keys import Keys
from dicode_mcp.service.principal import Principal, key_principal, local_principal
from dicode_mcp.service.scopes import read_scopes
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.store import MemoryStore
from dicode_mcp.testing.waiting import until

OWNER = local_principal("cli")


class Room:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore()
        self.audit = Audit(self.store, self.clock)
        self.keys = Keys(self.store, [], self.audit, self.clock)

    async def restarted(self) -> Keys:
        return Keys(self.store, await self.store.keys(), Audit(self.store, self.clock), self.clock)


@pytest.fixture
def room() -> Room:
    return Room()


async def refused(keys: Keys, text: str) -> DicodeError:
    with pytest.raises(DicodeError) as caught:
        await keys.authenticate(text, "http")
    assert caught.value.code is Code.UNAUTHENTICATED
    return caught.value


async def test_a_key_is_shown_once_and_kept_as_a_digest(room: Room) -> None:
    made = await room.keys.create(OWNER, "ci", ["run:infra/*"])
    text = made["key"]
    assert text.startswith("dck_")
    assert made["scopes"] == ["run:infra/*"]
    stored = await room.store.keys()
    assert text not in repr(stored)
    assert text not in json.dumps(room.keys.list(OWNER))
    caller = await (await room.restarted()).authenticate(text, "mcp")
    assert (caller.actor, caller.surface) == (f"key:ci#{made['id']}", "mcp")
    assert caller.credential == f"key:{made['id']}"
    assert caller.allows("run", "infra/x")
    assert not caller.allows("run", "web/x")


async def test_every_wrong_key_gets_the_same_answer(room: Room) -> None:
    made = await room.keys.create(OWNER, "ci", ["read"])
    text = str(made["key"])
    answers = {
        (await refused(room.keys, wrong)).message
        for wrong in ("", "x", text[:-1], text + "x", text[:15] + "A" * 43, text.upper(), "ä\udcff")
    }
    assert len(answers) == 1
    assert text not in answers.pop()


async def test_a_revoked_key_is_refused_at_once_and_after_a_restart(room: Room) -> None:
    made = await room.keys.create(OWNER, "ci", ["read"])
    assert room.keys.usable
    shown = await room.keys.revoke(OWNER, "ci")
    assert shown["state"] == "revoked"
    await refused(room.keys, made["key"])
    await refused(await room.restarted(), made["key"])
    assert not room.keys.usable


async def test_a_key_ends_with_its_time(room: Room) -> None:
    made = await room.keys.create(OWNER, "ci", ["read"], expires_s=3600)
    room.clock.advance(3599)
    await room.keys.authenticate(made["key"], "http")
    room.clock.advance(1)
    await refused(room.keys, made["key"])
    assert room.keys.list(OWNER)["keys"][0]["state"] == "expired"


async def test_the_last_use_is_noted_but_not_written_for_each_call(room: Room) -> None:
    made = await room.keys.create(OWNER, "ci", ["read"])
    await room.keys.authenticate(made["key"], "http")
    first = (await room.store.keys())[0].last_used_at_ms
    room.clock.advance(59)
    await room.keys.authenticate(made["key"], "http")
    assert (await room.store.keys())[0].last_used_at_ms == first
    room.clock.advance(1)
    await room.keys.authenticate(made["key"], "http")
    assert (await room.store.keys())[0].last_used_at_ms != first


async def test_a_name_is_free_again_once_its_key_is_revoked(room: Room) -> None:
    await room.keys.create(OWNER, "ci", ["read"])
    with pytest.raises(DicodeError) as caught:
        await room.keys.create(OWNER, "ci", ["read"])
    assert caught.value.code is Code.CONFLICT
    await room.keys.revoke(OWNER, "ci")
    await room.keys.create(OWNER, "ci", ["read"])


@pytest.mark.parametrize(
    ("name", "scopes", "expires"),
    [
        ("", ["read"], None),
        ("a\nb", ["read"], None),
        ("ci", [], None),
        ("ci", ["reads"], None),
        ("ci", ["read"], 0),
        ("ci", ["read"], -1),
        ("ci", ["read"], 1e12),
    ],
)
async def test_a_wrong_order_makes_no_key(
    room: Room, name: str, scopes: list[str], expires: float | None
) -> None:
    with pytest.raises(DicodeError) as caught:
        await room.keys.create(OWNER, name, scopes, expires_s=expires)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert await room.store.keys() == []


@pytest.mark.parametrize("wanted", ["approve", "run:*", "run:web/*", "secrets"])
async def test_nobody_gives_away_more_than_he_has(room: Room, wanted: str) -> None:
    some: Principal = key_principal("key:a", "http", read_scopes(["admin", "run:infra/*", "read"]))
    with pytest.raises(DicodeError) as caught:
        await room.keys.create(some, "b", [wanted])
    assert caught.value.code is Code.FORBIDDEN
    await room.keys.create(some, "c", ["run:infra/*", "read:x"])


async def test_only_an_admin_sees_or_changes_keys(room: Room) -> None:
    caller = key_principal("key:a", "http", read_scopes(["run", "author", "approve", "secrets"]))
    with pytest.raises(DicodeError):
        room.keys.list(caller)
    with pytest.raises(DicodeError):
        await room.keys.create(caller, "b", ["read"])
    with pytest.raises(DicodeError):
        await room.keys.revoke(caller, "b")


class SlowRows:
    """A store whose writes wait, and end in the order in which they were let go."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.held: list[asyncio.Event] = []
        self.failing = False

    async def put_key(self, key: BearerKey) -> None:
        gate = asyncio.Event()
        self.held.append(gate)
        await gate.wait()
        if self.failing:
            raise DicodeError(Code.STORAGE_FULL, "the disk is full")
        await self._store.put_key(key)


async def test_a_use_at_the_moment_of_its_revocation_does_not_bring_a_key_back() -> None:
    clock, store = FakeClock(), MemoryStore()
    first = Keys(store, [], Audit(store, clock), clock)
    made = await first.create(OWNER, "ci", ["read"])
    rows = SlowRows(store)
    keys = Keys(rows, await store.keys(), Audit(store, clock), clock)
    using = asyncio.create_task(keys.authenticate(made["key"], "http"))
    await until(lambda: len(rows.held) == 1)
    revoking = asyncio.create_task(keys.revoke(OWNER, "ci"))
    rows.held[0].set()
    await using
    await until(lambda: len(rows.held) == 2)
    # Shut before it is stored.
    await refused(keys, made["key"])
    rows.held[1].set()
    await revoking
    assert (await store.keys())[0].revoked_at_ms is not None


async def test_a_full_disk_shuts_nobody_out_and_lets_no_revoked_key_in() -> None:
    clock, store = FakeClock(), MemoryStore()
    first = Keys(store, [], Audit(store, clock), clock)
    made = await first.create(OWNER, "ci", ["read"])
    rows = SlowRows(store)
    rows.failing = True
    keys = Keys(rows, await store.keys(), Audit(store, clock), clock)
    using = asyncio.create_task(keys.authenticate(made["key"], "http"))
    await until(lambda: len(rows.held) == 1)
    rows.held[0].set()
    assert (await using).allows("read")
    revoking = asyncio.create_task(keys.revoke(OWNER, "ci"))
    await until(lambda: len(rows.held) == 2)
    rows.held[1].set()
    with pytest.raises(DicodeError):
        await revoking
    await refused(keys, made["key"])
    rows.failing = False
    again = asyncio.create_task(keys.revoke(OWNER, made["id"]))
    await until(lambda: len(rows.held) == 3)
    rows.held[2].set()
    await again
    assert (await store.keys())[0].revoked_at_ms is not None


async def test_whoever_asked_for_a_run_is_judged_again_by_his_very_key(room: Room) -> None:
    made = await room.keys.create(OWNER, "ci", ["run:infra/*"])
    caller = await room.keys.authenticate(made["key"], "mcp")
    assert room.keys.may(caller.actor, "run", "infra/x")
    assert not room.keys.may(caller.actor, "run", "web/x")
    assert not room.keys.may(caller.actor, "approve", "infra/x")
    await room.keys.revoke(OWNER, "ci")
    # Another key of the same name does not take over what the first has asked for.
    await room.keys.create(OWNER, "ci", ["run"])
    assert not room.keys.may(caller.actor, "run", "infra/x")
    assert not room.keys.may("key:nobody", "run", "x")
    assert not room.keys.may("key:", "run", "x")
    for other in ("local", "chain:a", "webhook", "oauth:ada", "session:1"):
        assert room.keys.may(other, "run", "x")


@pytest.mark.parametrize("expires", ["90d", "1h30m", "60"])
async def test_a_keys_time_is_read_as_durations_are(room: Room, expires: str) -> None:
    made = await room.keys.create(OWNER, "ci", ["read"], expires=expires)
    assert made["expires_at"] > made["created_at"]


@pytest.mark.parametrize("expires", ["soon", "-1d", "", "59s", "11000d"])
async def test_a_time_that_no_key_lasts_is_refused(room: Room, expires: str) -> None:
    with pytest.raises(DicodeError) as caught:
        await room.keys.create(OWNER, "ci", ["read"], expires=expires)
    assert caught.value.code is Code.INVALID_ARGUMENT


async def test_a_key_given_in_the_place_of_its_name_is_not_in_the_audit(room: Room) -> None:
    made = await room.keys.create(OWNER, "ci", ["read"])
    with pytest.raises(DicodeError) as caught:
        await room.keys.revoke(OWNER, made["key"])
    assert made["key"] not in str(caught.value.as_dict())
    room.audit.close()
    await room.audit.run()
    assert made["key"][4:] not in repr((await room.store.list_audit()).items)


async def test_an_agent_of_the_owners_does_not_administer_keys(room: Room) -> None:
    agent = local_principal("mcp")
    for call in (
        room.keys.create(agent, "b", ["read"]),
        room.keys.revoke(agent, "b"),
    ):
        with pytest.raises(DicodeError) as caught:
            await call
        assert caught.value.code is Code.FORBIDDEN
    with pytest.raises(DicodeError):
        room.keys.list(agent)
    with pytest.raises(DicodeError):
        room.keys.list(OWNER.narrowed(read_only=True))
