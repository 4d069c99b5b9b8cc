"""A new master key takes over, and whatever ends the server in between leaves all readable."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import SealedSecret
from dicode_mcp.secrets import master
from dicode_mcp.secrets.keys import KeyRing
from dicode_mcp.secrets.vault import Vault
from dicode_mcp.service import rotation
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.principal import local_principal
from dicode_mcp.service.rotation import KeyRotation
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.secrets import NoBodies
from dicode_mcp.testing.store import MemoryStore

OWNER = local_principal("cli")
VALUES = {"A": "value-of-a", "B": "value-of-b"}


class Crash(BaseException):
    """The process ends here."""


class Room:
    def __init__(self, tmp_path: Path) -> None:
        self.data = tmp_path
        self.clock = FakeClock()
        self.store = MemoryStore()
        self.file = tmp_path / master.FILE

    async def start(self, environ: dict[str, str] | None = None) -> KeyRotation:
        """Start as the server does."""
        env = dict(environ or {})
        given = master.given_by(env)
        sealed = dict(await self.store.secrets())
        self.ring = master.find_keys(self.data, env, anything_sealed=bool(sealed))
        self.vault = await Vault.open(self.store, self.ring, self.clock, sealed)
        audit = Audit(self.store, self.clock)
        self.bodies = NoBodies()
        return KeyRotation(self.vault, self.bodies, self.ring, self.file, given, audit)

    def require_all(self) -> None:
        assert {name: self.vault.value_of(name) for name in VALUES} == VALUES

    def key_ids(self) -> list[str]:
        lines = self.file.read_text().split()
        return [key.id for key in KeyRing([master.read_key(line) for line in lines])]


@pytest.fixture
async def room(tmp_path: Path) -> Room:
    made = Room(tmp_path)
    await made.start()
    for name, value in VALUES.items():
        await made.vault.set(name, value, "cli")
    return made


async def test_everything_is_sealed_anew_and_the_old_key_is_gone(room: Room) -> None:
    (old,) = room.key_ids()
    answer = await (await room.start()).rotate(OWNER)
    assert answer["old_key_ids"] == [old]
    assert room.key_ids() == [answer["key_id"]] != [old]
    assert answer["resealed"] == len(await room.store.secrets())
    assert room.bodies.changes == 1
    room.require_all()
    await room.vault.set("C", "later", "cli")
    await room.start()
    room.require_all()
    assert room.vault.value_of("C") == "later"
    assert {s.sealed.split(".")[1] for s in (await room.store.secrets()).values()} == {
        answer["key_id"]
    }


async def test_rotating_twice_in_one_life_works(room: Room) -> None:
    keys = await room.start()
    first = await keys.rotate(OWNER)
    second = await keys.rotate(OWNER)
    assert second["old_key_ids"] == [first["key_id"]]
    await room.start()
    room.require_all()


@pytest.mark.parametrize("step", ["first write", "after the first write", "after sealing"])
async def test_an_end_at_any_step_leaves_all_readable_and_another_rotation_ends_it(
    room: Room, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await room.start()
    writes = 0

    def write(file: Path, wanted: list[master.MasterKey]) -> master.MasterKey:
        nonlocal writes
        writes += 1
        if (step, writes) in (("first write", 1), ("after sealing", 2)):
            raise Crash
        return master.write_keys(file, wanted)

    async def put(secrets: list[SealedSecret]) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(rotation, "write_keys", write)
        if step == "after the first write":
            patch.setattr(room.store, "put_secrets", put)
        with pytest.raises(Crash):
            await keys.rotate(OWNER)
    await (again := await room.start()).rotate(OWNER)
    room.require_all()
    assert len(room.key_ids()) == 1
    assert again is not keys
    await room.start()
    room.require_all()


async def test_a_store_that_fails_leaves_the_old_key_at_work(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await room.start()

    async def put(secrets: list[SealedSecret]) -> None:
        raise DicodeError(Code.STORAGE_FULL, "the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(room.store, "put_secrets", put)
        with pytest.raises(DicodeError):
            await keys.rotate(OWNER)
    room.require_all()
    await room.vault.set("C", "meanwhile", "cli")
    await keys.rotate(OWNER)
    await room.start()
    room.require_all()
    assert room.vault.value_of("C") == "meanwhile"


async def test_a_file_that_cannot_be_written_changes_nothing(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await room.start()
    before = room.file.read_bytes()

    def refuse(*args: object, **kwargs: object) -> int:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(DicodeError) as caught:
            await keys.rotate(OWNER)
    assert caught.value.code is Code.SECRETS_LOCKED
    assert room.file.read_bytes() == before
    room.require_all()


async def test_a_key_from_outside_is_rotated_outside(tmp_path: Path) -> None:
    room = Room(tmp_path)
    old, new = master.new_key().text(), master.new_key().text()
    keys = await room.start({master.VARIABLE: old})
    for name, value in VALUES.items():
        await room.vault.set(name, value, "cli")
    with pytest.raises(DicodeError) as caught:
        await keys.rotate(OWNER)
    assert caught.value.code is Code.NOT_SUPPORTED
    assert master.VARIABLE in caught.value.message
    assert "take the old line out" in (caught.value.hint or "")
    answer = await (await room.start({master.VARIABLE: f"{new}\n{old}"})).rotate(OWNER)
    assert answer["key_id"] == master.read_key(new).id
    await room.start({master.VARIABLE: new})
    room.require_all()
    assert not room.file.exists()


async def test_only_the_owner_rotates(room: Room) -> None:
    keys = await room.start()
    for principal in (local_principal("mcp"), replace(OWNER, read_only=True)):
        with pytest.raises(DicodeError) as caught:
            await keys.rotate(principal)
        assert caught.value.code is Code.FORBIDDEN
