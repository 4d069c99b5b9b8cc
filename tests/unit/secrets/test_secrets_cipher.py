"""Sealed values open under their own name, key and time, and under nothing else."""

from __future__ import annotations

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.secrets.cipher import Cipher
from dicode_mcp.secrets.keys import KeyRing, MasterKey, read_key

KEY = MasterKey(bytes(range(32)))
OTHER = MasterKey(bytes(range(1, 33)))


def refusal(cipher: Cipher, name: str, text: str, at: int = 7) -> DicodeError:
    with pytest.raises(DicodeError) as caught:
        cipher.open(name, text, at)
    assert caught.value.code is Code.SECRETS_LOCKED
    return caught.value


def test_a_value_comes_back_as_it_was() -> None:
    cipher = Cipher(KeyRing([KEY]))
    for value in (b"", b"hunter2", "päss\0wörd\n".encode(), bytes(range(256)) * 100):
        assert cipher.open("API", cipher.seal("API", value, 7), 7) == value


def test_the_same_value_is_never_sealed_to_the_same_text_twice() -> None:
    cipher = Cipher(KeyRing([KEY]))
    assert len({cipher.seal("API", b"same", 7) for _ in range(100)}) == 100


def test_a_value_moved_to_another_name_or_time_does_not_open() -> None:
    cipher = Cipher(KeyRing([KEY]))
    sealed = cipher.seal("STAGING", b"s3cr3t", 7)
    assert "PRODUCTION" in refusal(cipher, "PRODUCTION", sealed).message
    refusal(cipher, "STAGING", sealed, at=8)


def test_every_altered_character_is_noticed() -> None:
    cipher = Cipher(KeyRing([KEY]))
    sealed = cipher.seal("API", b"s3cr3t value", 7)
    for at, letter in enumerate(sealed):
        other = "A" if letter != "A" else "B"
        error = refusal(cipher, "API", sealed[:at] + other + sealed[at + 1 :])
        assert "s3cr3t" not in error.message
    for cut in range(len(sealed)):
        refusal(cipher, "API", sealed[:cut])


def test_a_key_that_is_not_here_is_named_by_its_id() -> None:
    sealed = Cipher(KeyRing([OTHER])).seal("API", b"s3cr3t", 7)
    assert OTHER.id in refusal(Cipher(KeyRing([KEY])), "API", sealed).message


def test_older_keys_open_and_the_first_one_seals() -> None:
    old = Cipher(KeyRing([OTHER])).seal("API", b"s3cr3t", 7)
    both = Cipher(KeyRing([KEY, OTHER]))
    assert both.open("API", old, 7) == b"s3cr3t"
    assert both.seal("API", b"s3cr3t", 7).split(".")[1] == KEY.id


def test_names_have_keys_of_their_own() -> None:
    assert len({KEY.derive(name) for name in ("a", "b", "a/b", "", "ä")}) == 5
    assert KEY.derive("a") != OTHER.derive("a")


def test_a_key_shows_itself_nowhere() -> None:
    assert KEY.text() not in repr(KEY)
    assert read_key(f" {KEY.text()}\n") == KEY
    with pytest.raises(ValueError, match="32 bytes") as caught:
        read_key("bm90IGxvbmcgZW5vdWdo")
    assert "bm90" not in str(caught.value)
    with pytest.raises(ValueError, match="base64"):
        read_key("no base64 at all, ä")
