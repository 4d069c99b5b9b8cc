"""Values that the server keeps for itself among the secrets."""

from __future__ import annotations

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.secrets.keys import KeyRing
from dicode_mcp.secrets.master import new_key
from dicode_mcp.secrets.vault import Vault
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.store import MemoryStore


async def test_they_are_sealed_kept_and_no_secret_of_anybody() -> None:
    store, key = MemoryStore(), new_key()
    vault = await Vault.open(store, KeyRing([key]), FakeClock(), {})
    assert vault.get_own("x") is None
    await vault.put_own("x", b"first \x00\xff")
    await vault.put_own("x", b"second")
    sealed = await store.secrets()
    assert "second" not in str(sealed[".x"].sealed)
    assert vault.names() == []
    assert ".x" not in vault
    assert vault.value_of(".x") is None
    again = await Vault.open(store, KeyRing([key]), FakeClock(), sealed)
    assert again.get_own("x") == b"second"
    for call in (vault.set(".x", "mine", "me"), vault.delete(".x")):
        with pytest.raises(DicodeError) as caught:
            await call
        assert caught.value.code is Code.INVALID_ARGUMENT


async def test_they_outlive_a_change_of_the_master_key() -> None:
    store, old, new = MemoryStore(), new_key(), new_key()
    vault = await Vault.open(store, KeyRing([old]), FakeClock(), {})
    chain_key = vault.own("audit")
    await vault.put_own("x", b"value")
    await vault.reseal(KeyRing([new, old]))
    fresh = await Vault.open(store, KeyRing([new]), FakeClock(), await store.secrets())
    assert fresh.own("audit") == chain_key
    assert fresh.get_own("x") == b"value"
