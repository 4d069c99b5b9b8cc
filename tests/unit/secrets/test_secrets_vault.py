"""Secrets are kept sealed, opened one at a time, and stop the server when they cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.secrets.keys import KeyRing, MasterKey
from dicode_mcp.secrets.vault import MAX_VALUE, Vault
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.store import MemoryStore

OLD = MasterKey(b"o" * 32)
NEW = MasterKey(b"n" * 32)


async def opened(store: MemoryStore, *keys: MasterKey) -> Vault:
    return await Vault.open(store, KeyRing(keys or (OLD,)), FakeClock(), await store.secrets())


async def locked(store: MemoryStore, *keys: MasterKey) -> DicodeError:
    with pytest.raises(DicodeError) as caught:
        await opened(store, *keys)
    assert caught.value.code is Code.SECRETS_LOCKED
    return caught.value


async def test_a_secret_survives_a_restart_and_is_never_stored_as_it_is() -> None:
    store = MemoryStore()
    vault = await opened(store)
    assert await vault.set("API_KEY", "hunter2-hunter2", "cli") is True
    assert await vault.set("API_KEY", "hunter3-hunter3", "cli") is False
    again = await opened(store)
    assert again.value_of("API_KEY") == "hunter3-hunter3"
    assert again.names() == ["API_KEY"]
    assert again.changed("API_KEY") is not None
    kept = [secret.sealed for secret in (await store.secrets()).values()]
    assert not any("hunter" in text for text in kept)
    assert "hunter" not in repr(vault.__dict__)


async def test_a_wrong_key_stops_before_anything_is_changed() -> None:
    store = MemoryStore()
    await (await opened(store)).set("API_KEY", "hunter2", "cli")
    before = await store.secrets()
    error = await locked(store, NEW)
    assert OLD.id in error.message
    assert await store.secrets() == before


async def test_a_wrong_key_is_noticed_before_the_first_secret() -> None:
    store = MemoryStore()
    await opened(store)
    await locked(store, NEW)


async def test_a_moved_or_altered_value_stops_with_its_name() -> None:
    store = MemoryStore()
    vault = await opened(store)
    await vault.set("STAGING", "staging-secret", "cli")
    await vault.set("PRODUCTION", "production-secret", "cli")
    rows = await store.secrets()
    moved = replace(rows["STAGING"], name="PRODUCTION")
    await store.put_secrets([moved])
    assert "PRODUCTION" in (await locked(store)).message
    await store.put_secrets([rows["PRODUCTION"]])
    older = replace(rows["STAGING"], updated_at_ms=rows["STAGING"].updated_at_ms - 1)
    await store.put_secrets([older])
    assert "STAGING" in (await locked(store)).message


@pytest.mark.parametrize("name", [".check", ".audit", ".payloads"])
async def test_a_value_of_the_server_s_own_that_is_gone_stops_it_and_is_not_made_anew(
    name: str,
) -> None:
    store = MemoryStore()
    await (await opened(store)).set("API_KEY", "hunter2", "cli")
    assert await store.delete_secret(name)
    before = await store.secrets()
    error = await locked(store)
    assert f"'{name}'" in error.message
    assert "dicode restore" in (error.hint or "")
    assert await store.secrets() == before


async def test_a_start_that_ends_before_the_vault_is_stored_is_begun_again() -> None:
    store = MemoryStore()
    seen: list[bytes] = []

    async def before_first(made: Mapping[str, bytes]) -> None:
        seen.append(made["audit"])
        if len(seen) == 1:
            raise DicodeError(Code.STORAGE_FULL, "full")

    ring, clock = KeyRing([OLD]), FakeClock()
    with pytest.raises(DicodeError):
        await Vault.open(store, ring, clock, await store.secrets(), before_first)
    assert await store.secrets() == {}
    vault = await Vault.open(store, ring, clock, await store.secrets(), before_first)
    assert vault.own("audit") == seen[1]
    await Vault.open(store, ring, clock, await store.secrets(), before_first)
    assert len(seen) == 2


async def test_a_new_key_takes_over_all_values() -> None:
    store = MemoryStore()
    vault = await opened(store)
    await vault.set("A", "value of a", "cli")
    own = vault.own("audit")
    both = await opened(store, NEW, OLD)
    assert await both.reseal(KeyRing([NEW, OLD])) == 4
    alone = await opened(store, NEW)
    assert alone.value_of("A") == "value of a"
    assert alone.own("audit") == own
    await locked(store, OLD)


async def test_a_failed_rotation_leaves_everything_as_it_was() -> None:
    store = MemoryStore()
    vault = await opened(store)
    await vault.set("A", "value of a", "cli")
    store.failure = DicodeError(Code.STORAGE_FULL, "full")
    with pytest.raises(DicodeError):
        await vault.reseal(KeyRing([NEW, OLD]))
    store.failure = None
    assert vault.value_of("A") == "value of a"
    assert (await opened(store, OLD)).value_of("A") == "value of a"


async def test_the_server_s_own_values_are_nobody_s() -> None:
    store = MemoryStore()
    vault = await opened(store)
    vault.own("audit")
    assert vault.names() == []
    assert ".audit" not in vault
    assert vault.value_of(".audit") is None
    with pytest.raises(DicodeError):
        await vault.delete(".audit")


@pytest.mark.parametrize("name", ["", ".x", "-x", "a b", "a/b", "ä", "a\0", "x" * 129])
async def test_what_is_no_name_is_refused(name: str) -> None:
    vault = await opened(MemoryStore())
    with pytest.raises(DicodeError) as caught:
        await vault.set(name, "value", "cli")
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("value", ["", "secret\0rest", "secret\ud800", "s" * (MAX_VALUE + 1)])
async def test_a_refused_value_is_not_shown(value: str) -> None:
    store = MemoryStore()
    vault = await opened(store)
    with pytest.raises(DicodeError) as caught:
        await vault.set("API_KEY", value, "cli")
    assert "secret\0" not in str(caught.value)
    assert "ssss" not in str(caught.value)
    assert vault.names() == []


async def test_listeners_hear_names_alone() -> None:
    vault = await opened(MemoryStore())
    heard: list[str] = []
    vault.on_change(heard.append)
    await vault.set("A", "value", "cli")
    await vault.delete("A")
    assert await vault.delete("A") is False
    assert heard == ["A", "A"]
