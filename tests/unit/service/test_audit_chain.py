"""A change of any audit entry is noticed, and which one it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dicode_mcp.protocols import AuditEntry
from dicode_mcp.service.audit_chain import BEGINNING, Head, first_broken, link, open_head, seal_head

KEY = b"k" * 32


def chained(number: int) -> list[AuditEntry]:
    entries: list[AuditEntry] = []
    before = BEGINNING
    for n in range(1, number + 1):
        entry = AuditEntry(n, "me", "cli", "run_task", f"t{n}", "ok", {"n": n}, id=n)
        before = link(KEY, before, entry)
        entries.append(replace(entry, chain=before))
    return entries


def test_an_untouched_log_is_whole() -> None:
    assert first_broken(KEY, []) is None
    assert first_broken(KEY, chained(50)) is None


def test_an_entry_without_a_chain_value_has_no_place_in_the_log() -> None:
    loose = AuditEntry(0, "me", "cli", "run_task", "t0", "ok", id=99)
    assert first_broken(KEY, [loose, *chained(3)]) == 99
    assert first_broken(KEY, [*chained(3), loose]) == 99


@pytest.mark.parametrize("count", [0, 1, 10**9])
def test_a_head_is_of_its_key_count_and_chain(count: int) -> None:
    head = Head(count, "ab" * 32)
    text = seal_head(KEY, head)
    assert open_head(KEY, text) == head
    assert open_head(b"x" * 32, text) is None
    for old, new in (("ab" * 32, "ba" * 32), (f": {count},", f": {count + 1},")):
        assert open_head(KEY, text.replace(old, new)) is None
    for other in ("", "x", "[]", "null", "{}", '{"count": true, "chain": "", "seal": "\u00fc"}'):
        assert open_head(KEY, other) is None


@pytest.mark.parametrize(
    "change",
    [
        {"at_ms": 0},
        {"actor": "you"},
        {"surface": "mcp"},
        {"action": "cancel_run"},
        {"target": "t"},
        {"outcome": "forbidden"},
        {"detail": {}},
        {"chain": None},
        {"chain": BEGINNING},
    ],
)
def test_every_field_is_bound(change: dict[str, Any]) -> None:
    entries = chained(5)
    entries[2] = replace(entries[2], **change)
    assert first_broken(KEY, entries) == 3


def test_a_missing_or_moved_entry_is_noticed() -> None:
    entries = chained(5)
    assert first_broken(KEY, [*entries[:2], *entries[3:]]) == 4
    assert first_broken(KEY, [entries[1], entries[0], *entries[2:]]) == 2
    assert first_broken(KEY, entries[1:]) == 2


def test_a_chain_made_without_the_key_does_not_fit() -> None:
    assert first_broken(b"x" * 32, chained(3)) == 1


def test_a_part_is_checked_from_where_it_begins() -> None:
    entries = chained(5)
    assert first_broken(KEY, entries[2:], entries[1].chain or "") is None
    assert first_broken(KEY, entries[3:], entries[1].chain or "") == 4


def test_values_that_look_alike_are_not_alike() -> None:
    one = AuditEntry(1, "a", "b", "c", "d", "e")
    two = replace(one, actor='a","b', surface="")
    assert link(KEY, BEGINNING, one) != link(KEY, BEGINNING, two)
