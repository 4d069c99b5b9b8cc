"""The lock: read strictly, written the same for the same pins, and what it says of repositories."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dicode_mcp.clock import SystemClock
from dicode_mcp.reconciler.locks import Locks
from dicode_mcp.spec.problems import SpecError
from dicode_mcp.spec.taskset.documents import RefAuth
from dicode_mcp.spec.taskset.lock import (
    LockFile,
    Pin,
    SetLock,
    pin_of,
    read_lock,
)
from dicode_mcp.spec.taskset.world import Remote

A, B, C = "a" * 40, "b" * 40, "1" * 40
URL, OTHER = "https://github.com/a/b", "git@github.com:c/d.git"
LOCK = LockFile().with_entry("taskset.yaml", "x/y", [Pin(URL, A, branch="main")])


def test_a_lock_is_read_as_it_was_written() -> None:
    lock = (
        LOCK.with_entry("taskset.yaml", "a", [Pin(OTHER, B, tag="v1"), Pin(URL, C)])
        .with_entry("prod.yaml", "true", [Pin(URL, B, branch="no"), Pin(URL, A, branch="#1")])
    )  # fmt: skip
    text = lock.dump()
    found = read_lock(text, "dicode.lock")
    assert found.dump() == text
    assert set(found.of("taskset.yaml")["a"]) == {Pin(OTHER, B, tag="v1"), Pin(URL, C)}
    assert found.of("prod.yaml").keys() == {"true"}
    assert found.of("other.yaml") == {}


def test_equal_locks_are_equal_text_in_whatever_order_they_were_made() -> None:
    one = LOCK.with_entry("taskset.yaml", "a", [Pin(URL, A, tag="1"), Pin(URL, B, branch="x")])
    two = LockFile().with_entry(
        "taskset.yaml", "a", [Pin(URL, B, branch="x"), Pin(URL, A, tag="1")]
    )
    two = two.with_entry("taskset.yaml", "x/y", [Pin(URL, A, branch="main")])
    assert one.dump() == two.dump()


def test_the_written_form_is_the_documented_one() -> None:
    assert LOCK.dump().partition("\nversion")[2] == (
        f": 1\nsets:\n  taskset.yaml:\n    x/y:\n      - url: {URL}\n        branch: main\n"
        f"        commit: {A}\n"
    )
    assert LockFile().dump().endswith("version: 1\nsets: {}\n")
    assert LOCK.without("taskset.yaml", "x/y") == LockFile()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "dicode.lock"),
        ("version: 2\nsets: {}\n", "dicode.lock:1: version"),
        ("version: 1\n", "sets: is required"),
        ("version: 1\nsets: {}\nmore: 1\n", "dicode.lock:3: more: unknown key"),
        ("version: 1\nsets:\n  t.yaml:\n    a: []\n", "dicode.lock:4: sets.t.yaml.a: pins nothing"),
        ("version: 1\nsets:\n  ../t.yaml: {}\n", "dicode.lock:3"),
        ("version: 1\nsets:\n  t.yaml:\n    a b: []\n", "dicode.lock:4"),
        (
            f"version: 1\nsets:\n  t.yaml:\n    a:\n    - {{url: '{URL}', commit: abc}}\n",
            "dicode.lock:5: sets.t.yaml.a[0].commit",
        ),
        (
            f"version: 1\nsets:\n  t.yaml:\n    a:\n    - {{url: 'ext::id', commit: {A}}}\n",
            "names a transport helper",
        ),
        (
            f"version: 1\nsets:\n  t.yaml:\n    a:\n    - {{url: '{URL}', branch: x, tag: y,"
            f" commit: {A}}}\n",
            "stands beside branch",
        ),
        (
            f"version: 1\nsets:\n  t.yaml:\n    a:\n    - &p {{url: '{URL}', commit: {A}}}\n"
            "    b:\n    - *p\n",
            "anchors are not allowed",
        ),
        (
            f"version: 1\nsets:\n  t.yaml:\n    a:\n    - {{url: '{URL}', commit: {A}}}\n"
            f"    a:\n    - {{url: '{URL}', commit: {B}}}\n",
            "is there twice",
        ),
        (
            f"version: 1\nsets:\n  t.yaml:\n    a:\n"
            f"    - {{url: '{URL}', branch: m, commit: {A}}}\n"
            f"    - {{url: '{URL}', branch: m, commit: {B}}}\n",
            "dicode.lock:6: sets.t.yaml.a[1]: pins a version that is pinned already",
        ),
    ],
)
def test_a_lock_that_cannot_be_read_whole_says_where(text: str, told: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_lock(text, "dicode.lock")
    assert told in caught.value.message


def test_a_pin_is_for_what_the_ref_asks_and_nothing_else() -> None:
    lock = SetLock({"a": (Pin(URL, A, branch="main"), Pin(URL, B, tag="v1"), Pin(URL, C))})
    main = Remote(URL, trusted=True)
    found = lock.pinned("a", main)
    assert found == Remote(URL, commit=A, trusted=False)
    assert lock.pinned("a", Remote(URL, branch="dev")) is None
    assert lock.pinned("a", Remote("https://github.com/a/c")) is None
    assert lock.pinned("b", main) is None
    tagged = lock.pinned("a", Remote(URL, tag="v1"))
    assert tagged is not None
    assert (tagged.commit, tagged.tag) == (B, None)
    assert lock.pinned("a", Remote(URL, commit=C)) is not None
    assert lock.pinned("a", Remote(URL, commit=A)) is None


def test_only_what_the_user_vouches_for_may_lead_anywhere() -> None:
    pins = {"a": (Pin(URL, A, branch="main"),)}
    mine = Remote(URL, trusted=True)
    assert SetLock(pins, lambda url: url == URL).pinned("a", mine) == replace(mine, commit=A)
    theirs = replace(mine, trusted=False)
    found = SetLock(pins, lambda url: True).pinned("a", theirs)
    assert found is not None
    assert not found.trusted
    with_key = replace(mine, auth=RefAuth(token_env="TOKEN"))
    assert SetLock(pins).pinned("a", with_key) == replace(with_key, commit=A)


def test_a_ref_is_pinned_by_what_it_names() -> None:
    assert pin_of(Remote(URL, branch="x"), A) == Pin(URL, A, branch="x")
    assert pin_of(Remote(URL, tag="x"), A) == Pin(URL, A, tag="x")
    assert pin_of(Remote(URL, commit=B), A) == Pin(URL, B)


def test_the_lock_beside_a_set_speaks_of_that_set_alone(tmp_path: Path) -> None:
    locks = Locks(SystemClock())
    assert locks.find(tmp_path / "taskset.yaml") is None
    (tmp_path / "dicode.lock").write_text(LOCK.dump())
    found = locks.find(tmp_path / "taskset.yaml")
    assert found is not None
    assert found.holds("x/y")
    other = locks.find(tmp_path / "prod.yaml")
    assert other is not None
    assert not other.holds("x/y")


def test_a_lock_that_cannot_be_read_may_pin_every_entry(tmp_path: Path) -> None:
    locks = Locks(SystemClock())
    (tmp_path / "dicode.lock").write_text("version: 3\n")
    found = locks.find(tmp_path / "taskset.yaml")
    assert found is not None
    assert "dicode.lock:1" in found.fault
    assert found.holds("whatever")
    assert found.pinned("whatever", Remote(URL)) is None
    (tmp_path / "dicode.lock").unlink()
    (tmp_path / "dicode.lock").symlink_to(tmp_path / "elsewhere")
    found = locks.find(tmp_path / "taskset.yaml")
    assert found is not None
    assert "symbolic link" in found.fault


def test_a_lock_that_is_gone_still_holds_what_it_pinned_over_restarts_too(tmp_path: Path) -> None:
    memory, lock = tmp_path / "pinned.json", tmp_path / "dicode.lock"
    lock.write_text(LOCK.dump())
    assert Locks(SystemClock(), memory=memory).find(tmp_path / "taskset.yaml") is not None
    lock.unlink()
    found = Locks(SystemClock(), memory=memory).find(tmp_path / "taskset.yaml")
    assert found is not None
    assert found.holds("x/y")
    assert not found.holds("mine")
    assert "is gone" in found.fault
    lock.write_text(LockFile().dump())
    locks = Locks(SystemClock(), memory=memory)
    assert locks.find(tmp_path / "taskset.yaml") is not None
    lock.unlink()
    assert locks.find(tmp_path / "taskset.yaml") is None


def test_a_memory_that_is_damaged_is_made_anew(tmp_path: Path) -> None:
    memory = tmp_path / "pinned.json"
    memory.write_text("[")
    (tmp_path / "dicode.lock").write_text(LOCK.dump())
    Locks(SystemClock(), memory=memory).find(tmp_path / "taskset.yaml")
    assert "x/y" in memory.read_text()
