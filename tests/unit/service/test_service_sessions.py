"""The owner's passphrase and what is begun with it."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.secrets.keys import KeyRing
from dicode_mcp.secrets.master import new_key
from dicode_mcp.secrets.vault import Vault
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.login_attempts import ALL_FREE, FREE, LoginAttempts
from dicode_mcp.service.passphrases import Hash, Passphrase
from dicode_mcp.service.principal import LOCAL_VERBS, key_principal, local_principal
from dicode_mcp.service.scopes import VERBS, Scope
from dicode_mcp.service.sessions import (
    IDLE_S,
    LASTS_S,
    MOST,
    Session,
    Sessions,
    form_fits,
    form_token,
)
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.store import MemoryStore

OWNER = local_principal("cli")
RIGHT = "correct horse battery"


def _fast(given: bytes, form: Hash) -> bytes:
    return hashlib.sha256(form.salt + given).digest()


class House:
    def __init__(self) -> None:
        self.store, self.clock = MemoryStore(), FakeClock()
        self.ring = KeyRing([new_key()])
        self.vault = Vault(self.store, self.ring, self.clock, {})
        self.audit = Audit(self.store, self.clock)
        self.ended: list[str] = []
        self.sessions = Sessions(self.vault, self.audit, self.clock, self.ended.append)

    async def login(self, given: str = RIGHT, peer: str = "p", **more: Any) -> str:
        return await self.sessions.login(given, peer, **more)

    def session(self, token: str) -> Session:
        found = self.sessions.find(token)
        assert found is not None
        return found

    async def refused(self, given: str = "wrong", peer: str = "p") -> DicodeError:
        with pytest.raises(DicodeError) as caught:
            await self.login(given, peer)
        return caught.value

    async def entries(self) -> list[tuple[str, str, str]]:
        self.audit.close()
        await self.audit.run()
        found = (await self.store.list_audit(after_id=0)).items
        return [(e.actor, e.action, e.outcome) for e in found]


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr("dicode_mcp.service.passphrases._derive", _fast)
    made = House()
    await made.sessions.set_passphrase(OWNER, RIGHT)
    return made


async def test_the_passphrase_is_kept_as_a_slow_hash_alone() -> None:
    house = House()
    house.vault = await Vault.open(house.store, house.ring, house.clock, {})
    passphrase = Passphrase(house.vault)
    assert not passphrase.is_set
    assert not await passphrase.fits("")
    await passphrase.set(RIGHT)
    kept = house.vault.get_own("passphrase") or b""
    assert b"argon2id" in kept
    assert b'"memory_kib": 65536, "rounds": 3' in kept
    assert RIGHT.encode() not in kept
    assert "passphrase" not in house.vault.names()
    assert await passphrase.fits(RIGHT)
    assert not await passphrase.fits(RIGHT + " ")
    fresh = await Vault.open(house.store, house.ring, house.clock, await house.store.secrets())
    assert await Passphrase(fresh).fits(RIGHT)


@pytest.mark.parametrize("given", ["", "tiny-one", "x" * 1025, "a tab\tis not typed", "\0" * 20])
async def test_a_passphrase_that_is_none_is_refused(house: House, given: str) -> None:
    with pytest.raises(DicodeError) as caught:
        await house.sessions.set_passphrase(OWNER, given)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert given not in caught.value.message or not given
    assert await house.login()


async def test_only_whoever_administers_sets_it(house: House) -> None:
    session = house.session(await house.login())
    for principal in (local_principal("mcp"), session.principal, OWNER.narrowed(read_only=True)):
        with pytest.raises(DicodeError) as caught:
            await house.sessions.set_passphrase(principal, "another good one")
        assert caught.value.code is Code.FORBIDDEN


@pytest.mark.parametrize("surface", ["http", "mcp", "cli"])
async def test_no_key_sets_it_whatever_its_scopes(house: House, surface: str) -> None:
    everything = frozenset(Scope(verb) for verb in VERBS)
    for holder in (
        key_principal("key:boss", surface, frozenset({Scope("admin")}), "key:1"),
        key_principal("key:all", surface, everything, "key:2"),
        key_principal("oauth:somebody", surface, everything, "oauth:3"),
    ):
        with pytest.raises(DicodeError) as caught:
            await house.sessions.set_passphrase(holder, "another good one")
        assert caught.value.code is Code.FORBIDDEN
        assert "dicode passphrase set" in (caught.value.hint or "")
    assert await house.login()


async def test_a_session_is_the_owner_without_approvals_and_without_keys(house: House) -> None:
    principal = house.session(await house.login()).principal
    assert principal.verbs == LOCAL_VERBS
    assert not principal.allows("approve")
    assert not principal.administers
    assert principal.credential


async def test_a_page_may_use_a_session_for_its_own_task_alone(house: House) -> None:
    principal = house.session(await house.login()).page_principal("infra/a")
    assert principal.allows("run", "infra/a")
    assert principal.allows("read", "infra/a")
    assert not principal.allows("run", "infra/b")
    assert not principal.allows("secrets")
    assert not principal.has_all("read")


async def test_wrong_and_unset_get_the_same_answer(house: House) -> None:
    bare = House()
    wrong, unset = await house.refused(), await bare.refused()
    assert (wrong.code, wrong.as_dict()) == (Code.UNAUTHENTICATED, unset.as_dict())
    assert "wrong" not in str(wrong.as_dict()).replace("wrong passphrases", "")


async def test_a_session_ends_when_idle_and_at_the_latest_after_a_day(house: House) -> None:
    idle = await house.login()
    house.clock.advance(IDLE_S - 1)
    assert house.sessions.find(idle)
    house.clock.advance(IDLE_S)
    assert house.sessions.find(idle) is None
    busy, used = await house.login(), 0.0
    while used + IDLE_S / 2 < LASTS_S:
        used += IDLE_S / 2
        house.clock.advance(IDLE_S / 2)
        assert house.sessions.find(busy)
    house.clock.advance(IDLE_S / 2)
    assert house.sessions.find(busy) is None
    assert len(house.ended) == 2


async def test_logging_in_again_takes_the_place_of_the_session_there_was(house: House) -> None:
    first = await house.login()
    second = await house.login(before=house.session(first))
    assert house.sessions.find(first) is None
    assert house.sessions.find(second)


async def test_a_new_passphrase_ends_every_session(house: House) -> None:
    tokens = [await house.login() for _ in range(3)]
    assert await house.sessions.set_passphrase(OWNER, "another good one") == 3
    assert [house.sessions.find(token) for token in tokens] == [None] * 3
    assert (await house.refused(RIGHT)).code is Code.UNAUTHENTICATED
    assert await house.login("another good one")


async def test_logout_ends_one_session_and_no_other(house: House) -> None:
    mine, other = await house.login(), await house.login()
    session = house.session(mine)
    house.sessions.logout(session)
    assert house.sessions.find(mine) is None
    assert house.sessions.find(other)
    assert house.ended == [session.credential]
    assert house.sessions.named(session.id) is None


async def test_there_are_never_more_sessions_than_so_many(house: House) -> None:
    tokens: list[str] = []
    for _ in range(MOST + 5):
        house.clock.advance(1)
        tokens.append(await house.login())
    alive = [token for token in tokens if house.sessions.find(token)]
    assert alive == tokens[5:]


async def test_who_guesses_waits_ever_longer_and_others_do_not(house: House) -> None:
    for _ in range(FREE):
        assert (await house.refused()).code is Code.UNAUTHENTICATED
    waits: list[int] = []
    for _ in range(12):
        limited = await house.refused(RIGHT)
        assert limited.code is Code.RATE_LIMITED
        waits.append(limited.data["retry_after_s"])
        house.clock.advance(waits[-1])
        assert (await house.refused()).code is Code.UNAUTHENTICATED
    assert waits[:5] == [1, 2, 4, 8, 16]
    assert waits[-1] == 900
    assert await house.login(peer="q")


async def test_a_right_one_makes_the_wrong_ones_forgotten(house: House) -> None:
    for _ in range(FREE):
        await house.refused()
    house.clock.advance(1)
    assert await house.login()
    assert (await house.refused()).code is Code.UNAUTHENTICATED


async def test_many_peers_together_slow_all_down_and_lock_nobody_out(house: House) -> None:
    for n in range(ALL_FREE):
        await house.refused(peer=f"p{n}")
    limited = await house.refused(RIGHT, peer="owner")
    assert limited.code is Code.RATE_LIMITED
    assert limited.data["retry_after_s"] <= 3
    house.clock.advance(3)
    assert await house.login(peer="owner")


async def test_tries_at_the_same_time_are_counted_before_they_are_judged(house: House) -> None:
    results = await asyncio.gather(
        *(house.login("wrong") for _ in range(FREE + 10)), return_exceptions=True
    )
    codes = [error.code for error in results if isinstance(error, DicodeError)]
    assert codes.count(Code.UNAUTHENTICATED) == FREE
    assert codes.count(Code.RATE_LIMITED) == 10


def test_the_memory_for_peers_is_bounded() -> None:
    attempts = LoginAttempts(FakeClock(), most_peers=3)
    for n in range(50):
        attempts.failed(str(n))
    assert len(attempts._wrong) == 3  # pyright: ignore[reportPrivateUsage]


async def test_a_form_is_of_one_session_and_one_purpose(house: House) -> None:
    mine, other = house.session(await house.login()), house.session(await house.login())
    token = form_token(mine, "logout")
    assert form_fits(mine, "logout", token)
    for session, purpose, given in (
        (other, "logout", token),
        (mine, "else", token),
        (mine, "logout", ""),
        (mine, "logout", "ü"),
    ):
        assert not form_fits(session, purpose, given)


async def test_logins_and_their_refusals_are_in_the_audit_log(house: House) -> None:
    await house.refused(peer="10.0.0.9")
    house.sessions.logout(house.session(await house.login()))
    assert await house.entries() == [
        ("local", "passphrase_set", "ok"),
        ("peer:10.0.0.9", "login", "unauthenticated"),
        ("peer:p", "login", "ok"),
        ("owner", "logout", "ok"),
    ]
