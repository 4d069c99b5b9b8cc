"""Inputs, answers and kv under a new key: while the server serves, and whatever ends it."""

from __future__ import annotations

import asyncio
import hmac
import os
import sqlite3
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.model import Payload, Run, RunStatus, Trigger
from dicode_mcp.runs.questions import Answered, Question
from dicode_mcp.secrets.bodies import OLDER_NAME, SealedBodies
from dicode_mcp.secrets.keys import KeyRing
from dicode_mcp.secrets.vault import Vault
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.rekeying import BodyKeys, open_bodies
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.faults import Fault, FaultyStore
from dicode_mcp.testing.secrets import TEST_KEY
from dicode_mcp.testing.waiting import running, until

PARAMS = {"token": "s3cret-of-a-run"}
COUNT = 12


class Life:
    """A server's life on a data dir: its store, its bodies and what gives them new keys."""

    def __init__(self, store: SqliteStore, vault: Vault, bodies: SealedBodies) -> None:
        self.store = store
        self.vault = vault
        self.bodies = bodies
        self.keys = BodyKeys(store, vault, bodies, Audit(store, FakeClock()))

    async def fill(self, first: int = 0, count: int = COUNT) -> None:
        for n in range(first, first + count):
            run = Run(f"r{n:03d}", "t", RunStatus.QUEUED, Trigger.MCP, n)
            await self.store.add_run(run, Payload(params=PARAMS, input=n))
            await self.store.kv_set("t", f"k{n:03d}", f'"value {n}"', now_ms=n)
            await self.store.once_put(run.id, "step", f'"once {n}"')
        run = await self.store.start_run(f"r{first:03d}", now_ms=1, task_hash="", revision=None)
        question = Question(run.id, 1, "May I?", {"type": "object"}, 2, 10**15)
        await self.store.suspend_run(run, question)
        answered = Answered({"word": "s3cret answer"}, 3, "local", "cli")
        await self.store.answer_question(run.id, 1, answered)

    async def require_all(self, count: int = COUNT) -> None:
        for n in range(count):
            run_id = f"r{n:03d}"
            assert await self.store.get_payload(run_id) == Payload(params=PARAMS, input=n)
            assert await self.store.kv_get("t", f"k{n:03d}") == f'"value {n}"'
            assert await self.store.once_get(run_id, "step") == f'"once {n}"'
        [question] = await self.store.questions("r000")
        assert question.answered is not None
        assert question.answered.value == {"word": "s3cret answer"}

    async def follow(self) -> None:
        """Let the work be done to its end."""
        async with running(self.keys.run()):
            await until(lambda: not self.keys.at_work)


@asynccontextmanager
async def living(folder: Path) -> AsyncGenerator[Life]:
    """Start on a folder."""
    async with SqliteStore.open(folder, FakeClock(), ballast_bytes=0) as opened:
        vault = await Vault.open(opened, KeyRing([TEST_KEY]), FakeClock(), await opened.secrets())
        bodies = open_bodies(vault)
        yield Life(opened.sealing(bodies), vault, bodies)


def stored_bodies(folder: Path) -> dict[str, list[bytes]]:
    queries = {
        "payload": "SELECT body FROM run_payloads",
        "answer": "SELECT answer FROM questions WHERE answer IS NOT NULL",
        "once": "SELECT value FROM once_values",
        "kv": "SELECT value FROM kv",
    }
    with sqlite3.connect(folder / "state.db") as connection:
        return {kind: [row[0] for row in connection.execute(q)] for kind, q in queries.items()}


def opened_with(folder: Path, key: bytes) -> Mapping[str, int]:
    """Count, by kind, the bodies that one key opens."""
    found: dict[str, int] = {}
    for kind, bodies in stored_bodies(folder).items():
        for body in bodies:
            try:
                SealedBodies(key).open(kind, body)
            except DicodeError:
                continue
            found[kind] = found.get(kind, 0) + 1
    return found


ALL = {"payload": COUNT, "answer": 1, "once": COUNT, "kv": COUNT}


async def test_after_a_change_the_old_key_opens_nothing_and_the_new_one_all(
    tmp_path: Path,
) -> None:
    async with living(tmp_path) as life:
        await life.fill()
        old = life.bodies.keys[0]
        assert opened_with(tmp_path, old) == ALL
        await life.keys.change()
        new = life.bodies.keys[0]
        assert new != old
        await life.require_all()
        await life.follow()
        assert opened_with(tmp_path, old) == {}
        assert opened_with(tmp_path, new) == ALL
        assert life.vault.get_own(OLDER_NAME) is None
        await life.require_all()
    async with living(tmp_path) as life:
        assert life.bodies.keys == (new,)
        assert not life.keys.at_work
        await life.require_all()


async def test_what_is_written_meanwhile_has_the_new_key_and_all_can_be_read(
    tmp_path: Path,
) -> None:
    async with living(tmp_path) as life:
        await life.fill()
        await life.keys.change()
        async with running(life.keys.run()):
            for n in range(COUNT, COUNT + 150):
                await life.store.add_run(
                    Run(f"r{n:03d}", "t", RunStatus.QUEUED, Trigger.MCP, n), Payload(input=n)
                )
                assert (await life.store.get_payload(f"r{n - 1:03d}") or Payload()).input == n - 1
            await until(lambda: not life.keys.at_work)
        assert opened_with(tmp_path, life.bodies.keys[0])["payload"] == COUNT + 150


async def test_a_second_change_before_the_first_is_through_keeps_every_key_it_needs(
    tmp_path: Path,
) -> None:
    async with living(tmp_path) as life:
        await life.fill()
        await life.keys.change()
        await life.fill(COUNT, 1)
        await life.keys.change()
        keys = life.bodies.keys
    async with living(tmp_path) as life:
        assert life.bodies.keys == keys
        await life.require_all(COUNT + 1)
        await life.follow()
        await life.require_all(COUNT + 1)
    async with living(tmp_path) as life:
        assert life.bodies.keys == keys[:1]
        await life.require_all(COUNT + 1)


@pytest.mark.slow
@pytest.mark.parametrize("fault", list(Fault))
async def test_whatever_call_of_the_store_fails_nothing_is_lost(
    tmp_path: Path, fault: Fault
) -> None:
    number = 0
    while True:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        async with living(folder) as life:
            await life.fill()
        async with SqliteStore.open(folder, FakeClock(), ballast_bytes=0) as opened:
            ring = KeyRing([TEST_KEY])
            first = await Vault.open(opened, ring, FakeClock(), await opened.secrets())
            bodies = open_bodies(first)
            # One count for what the vault and what the bodies ask of the store.
            faulty: Any = FaultyStore(opened.sealing(bodies), number, fault)
            vault = await Vault.open(faulty, ring, FakeClock(), await opened.secrets())
            keys = BodyKeys(faulty, vault, bodies, Audit(opened, FakeClock()), pause_s=0)

            async def rotate(keys: BodyKeys = keys) -> None:
                await keys.change()
                async with running(keys.run()):
                    await until(lambda: not keys.at_work)

            work = asyncio.create_task(rotate())
            crashed = asyncio.create_task(faulty.crashed.wait())
            await asyncio.wait({work, crashed}, return_when=asyncio.FIRST_COMPLETED)
            for task in (work, crashed):
                task.cancel()
            for ended in await asyncio.gather(work, crashed, return_exceptions=True):
                assert not isinstance(ended, Exception) or isinstance(ended, DicodeError)
            calls = faulty.calls
        # The next start finds it all, and goes on where it was left.
        async with living(folder) as life:
            await life.require_all()
            await life.follow()
            await life.require_all()
            assert opened_with(folder, life.bodies.keys[0]) == ALL
        async with living(folder) as life:
            assert len(life.bodies.keys) == 1
            await life.require_all()
        if calls < number:
            break
    # put, four kinds and their ends twice, delete
    assert number > 10


async def test_bodies_of_before_they_named_their_key_are_read_and_taken_along(
    tmp_path: Path,
) -> None:
    async with living(tmp_path) as life:
        await life.fill()
        key = life.bodies.keys[0]
    old = _Nameless(key)
    with sqlite3.connect(tmp_path / "state.db") as connection:
        for run_id, body in connection.execute("SELECT run_id, body FROM run_payloads").fetchall():
            plain = SealedBodies(key).open("payload", body)
            # Every other one as it was before anything was sealed.
            fresh = plain if run_id.endswith("1") else old.seal("payload", plain)
            connection.execute("UPDATE run_payloads SET body = ? WHERE run_id = ?", (fresh, run_id))
    async with living(tmp_path) as life:
        await life.require_all()
        await life.keys.change()
        await life.follow()
        await life.require_all()
        assert opened_with(tmp_path, life.bodies.keys[0]) == ALL
    raw = b"".join(stored_bodies(tmp_path)["payload"])
    assert b"s3cret-of-a-run" not in raw


class _Nameless:
    """Seals as an earlier version did."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def seal(self, kind: str, body: bytes) -> bytes:
        salt = os.urandom(16)
        cipher = AESGCM(hmac.digest(self._key, b"dicode/body/v1" + salt, "sha256"))
        return b"\x01" + salt + cipher.encrypt(bytes(12), body, kind.encode())


async def test_a_body_that_no_key_opens_is_left_and_holds_nothing_up(tmp_path: Path) -> None:
    async with living(tmp_path) as life:
        await life.fill()
        with sqlite3.connect(tmp_path / "state.db") as connection:
            [(body,)] = connection.execute("SELECT value FROM kv WHERE key = 'k003'").fetchall()
            altered = body[:-1] + bytes([body[-1] ^ 1])
            connection.execute("UPDATE kv SET value = ? WHERE key = 'k003'", (altered,))
        await life.keys.change()
        await life.follow()
        assert life.vault.get_own(OLDER_NAME) is None
        with pytest.raises(DicodeError) as caught:
            await life.store.kv_get("t", "k003")
        assert caught.value.code is Code.SECRETS_LOCKED
        assert await life.store.kv_get("t", "k004") == '"value 4"'


@pytest.mark.parametrize("at", [0, 1, 8, 9, 24, 25, -1])
async def test_a_body_that_was_altered_anywhere_or_moved_to_another_kind_does_not_open(
    at: int,
) -> None:
    bodies = SealedBodies(b"k" * 32, [b"o" * 32])
    sealed = bodies.seal("kv", b'{"a": "value of a"}')
    assert bodies.open("kv", sealed) == b'{"a": "value of a"}'
    altered = bytearray(sealed)
    # Not to a mark of another form, which would be another body.
    altered[at] ^= 0x03 if at == 0 else 0x80
    for kind, body in (("kv", bytes(altered)), ("payload", sealed), ("kv", sealed[:-3])):
        with pytest.raises(DicodeError) as caught:
            bodies.open(kind, body)
        assert caught.value.code is Code.SECRETS_LOCKED
        assert "value of a" not in str(caught.value)


async def test_the_work_is_in_the_audit_log(tmp_path: Path) -> None:
    clock = FakeClock()
    async with living(tmp_path) as life:
        await life.fill()
        audit = Audit(life.store, clock)
        keys = BodyKeys(life.store, life.vault, life.bodies, audit)
        async with running(audit.run()):
            await keys.change()
            async with running(keys.run()):
                await until(lambda: not keys.at_work)
            await audit.settled()
        [entry] = (await life.store.list_audit(limit=5)).items
        assert (entry.actor, entry.action, entry.outcome) == ("server", "bodies_resealed", "ok")
        assert entry.detail == {"resealed": 3 * COUNT + 1, "unreadable": 0}
