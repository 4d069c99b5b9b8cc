from __future__ import annotations

import os
from pathlib import Path

import pytest

from dicode_mcp.clock import SystemClock
from dicode_mcp.conditions import ConditionType
from dicode_mcp.spec.digest import DigestCache, folder_digest
from dicode_mcp.spec.ids import check_task_id
from dicode_mcp.spec.loader import parse_document
from dicode_mcp.spec.model import Task, TaskSpec
from dicode_mcp.spec.problems import SpecError
from dicode_mcp.spec.support import not_in_force
from dicode_mcp.spec.templates import expand, has_placeholder

BASE = "name: T\nruntime: python\ntrigger: {manual: true}\n"


def test_built_ins_win_and_unknown_names_stay() -> None:
    text = "${A}/${B}/${C}/$A/${a b}"
    assert expand(text, {"A": "${B}"}, {"A": "x", "B": "y"}) == "${B}/y/${C}/$A/${a b}"
    assert has_placeholder("${C}")
    assert not has_placeholder("$C")


@pytest.mark.parametrize("good", ["a", "0", "a.b_c-d", "set/entry/x", "A" * 128])
def test_good_ids(good: str) -> None:
    assert check_task_id(good) == good


@pytest.mark.parametrize(
    "bad", ["", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "-a", "a b", "a\n", "ä", "a" * 129]
)
def test_bad_ids(bad: str) -> None:
    with pytest.raises(ValueError, match="is "):
        check_task_id(bad)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "task.py").write_text("1")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/a.py").write_text("2")
    return tmp_path


def test_a_digest_changes_with_every_byte_name_and_spec(folder: Path) -> None:
    seen = {folder_digest(folder, "{}")}

    def is_new(spec: str = "{}") -> bool:
        digest = folder_digest(folder, spec)
        fresh = digest not in seen
        seen.add(digest)
        return fresh

    assert not is_new()
    assert is_new("{ }")
    (folder / "lib/a.py").write_text("3")
    assert is_new()
    (folder / "lib/a.py").rename(folder / "lib/b.py")
    assert is_new()
    (folder / "empty").touch()
    assert is_new()


def test_what_is_no_part_of_a_task_does_not_change_its_digest(folder: Path) -> None:
    before = folder_digest(folder, "{}")
    for name in ("__pycache__", ".git", ".venv"):
        (folder / name).mkdir()
        (folder / name / "x").write_text("x")
    (folder / ".hidden").touch()
    (folder / "task.py~").touch()
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "dirlink").symlink_to("/etc")
    os.mkfifo(folder / "pipe")
    assert folder_digest(folder, "{}") == before


def test_moved_bytes_do_not_give_the_same_digest(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, first, second in ((one, "ab", "c"), (two, "a", "bc")):
        folder.mkdir()
        (folder / "x").write_text(first)
        (folder / "y").write_text(second)
    assert folder_digest(one, "{}") != folder_digest(two, "{}")


class AheadClock(SystemClock):
    """A clock on which every file is old."""

    def now_ms(self) -> int:
        return super().now_ms() + 60_000


def test_a_cache_gives_the_same_digests_and_sees_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = DigestCache(AheadClock())
    plain = folder_digest(folder, "{}")
    assert folder_digest(folder, "{}", cache) == plain
    with monkeypatch.context() as patch:
        patch.setattr("dicode_mcp.spec.digest._hash_files", None)
        assert folder_digest(folder, "{}", cache) == plain
        assert folder_digest(folder, "{ }", cache) != plain
    (folder / "task.py").write_text("22")
    assert folder_digest(folder, "{}", cache) == folder_digest(folder, "{}") != plain


def test_a_fresh_file_is_not_trusted_to_the_cache(folder: Path) -> None:
    cache = DigestCache(SystemClock())
    before = folder_digest(folder, "{}", cache)
    info = os.stat(folder / "task.py")
    (folder / "task.py").write_text("9")
    os.utime(folder / "task.py", ns=(info.st_atime_ns, info.st_mtime_ns))
    assert folder_digest(folder, "{}", cache) != before


def test_a_folder_too_large_for_a_task_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicode_mcp.spec.digest.MAX_FILES", 1)
    with pytest.raises(SpecError, match="more than 1 files"):
        folder_digest(folder, "{}")


def task(text: str) -> Task:
    spec = TaskSpec.read(parse_document(text).data)
    return Task("t", spec, Path("/t"), None, "0" * 64, "s")


def test_a_plain_task_has_nothing_that_is_not_in_force() -> None:
    plain = BASE + "params: {a: b}\ntimeout: 5s\npermissions: {env: [HOME, A=b]}\n"
    assert not_in_force(task(plain)) == ()


def test_what_is_declared_and_not_in_force_is_said() -> None:
    (condition,) = not_in_force(
        task(
            "name: T\nruntime: python\ntrigger: {webhook: /hooks/x}\nnotify: {on_failure: true}\n"
            "permissions: {net: [x], env: [{name: A, secret: b}], dicode: {authoring: true}}\n"
        )
    )
    assert condition.type is ConditionType.NOT_IN_FORCE
    assert condition.status
    assert "env[].secret" not in condition.message
    assert "permissions.dicode.authoring" in condition.message
    assert "permissions.net" not in condition.message


def test_what_holds_for_deno_tasks_alone_is_not_said_of_them() -> None:
    permissions = "permissions: {net: [x], run: [git], sys: [cpus]}\n"
    manifest = f"name: T\nruntime: RUNTIME\ntrigger: {{manual: true}}\n{permissions}"
    assert not_in_force(task(manifest.replace("RUNTIME", "deno"))) == ()
    (condition,) = not_in_force(task(manifest.replace("RUNTIME", "python")))
    assert "permissions.sys" in condition.message
