"""What whoever approves a version is shown of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dicode_mcp.service.changes import changes, grants
from dicode_mcp.spec.loader import TaskLoader
from dicode_mcp.spec.model import Task

HEAD = "name: x\nruntime: python\n"


def load(folder: Path, files: dict[str, str | bytes]) -> Task:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    loader = TaskLoader(
        runtimes={"python": ("task.py",)},
        environ={},
        home=folder,
        data_dir=folder,
        config_dir=folder,
    )
    return loader.load(folder, task_id="x", source="s", source_root=folder)


def version(folder: Path, more: str = "trigger: {manual: true}\n") -> Task:
    return load(folder, {"task.yaml": HEAD + more, "task.py": "result = 1\n"})


def test_grants_name_what_a_task_may_do_and_never_a_secrets_value(tmp_path: Path) -> None:
    task = version(
        tmp_path / "a",
        "trigger: {webhook: /hooks/x, webhook_secret: s3cr3t-canary}\n"
        "permissions: {net: [api.example], env: [{name: KEY, secret: api_key}]}\n"
        "params: {city: Oslo}\n",
    )
    shown = grants(task)
    assert shown["permissions"] == {
        "net": ["api.example"],
        "env": [{"name": "KEY", "secret": "api_key"}],
    }
    assert shown["trigger"]["webhook"] == "/hooks/x"
    assert "params" not in shown
    assert "s3cr3t-canary" not in str(shown)
    assert "s3cr3t-canary" not in str(changes(None, task)["grants"])


def test_a_version_that_may_do_more_shows_what(tmp_path: Path) -> None:
    old = version(
        tmp_path / "a",
        'trigger: {cron: "0 9 * * *"}\npermissions: {net: [a.example, b.example]}\n',
    )
    new = version(
        tmp_path / "b",
        'trigger: {cron: "* * * * *"}\npermissions: {net: [b.example, c.example], run: [git]}\n'
        "params: {city: Oslo}\n",
    )
    found = changes(old, new)
    assert found["grants"] == {
        "added": {"permissions.net[c.example]": "c.example", "permissions.run[git]": "git"},
        "removed": {"permissions.net[a.example]": "a.example"},
        "changed": {"trigger.cron": {"from": "0 9 * * *", "to": "* * * * *"}},
    }
    assert set(found["settings"]["added"]) == {"params.city.default", "params.city.type"}
    assert [(f["path"], f["change"]) for f in found["files"]] == [("task.yaml", "changed")]


def test_files_are_compared_with_what_is_no_text_only_named(tmp_path: Path) -> None:
    old = version(tmp_path / "a")
    (tmp_path / "a" / "gone.txt").write_text("old\n")
    new = version(tmp_path / "b")
    load(tmp_path / "b", {"lib/more.py": "x = 1\n", "logo.png": b"\xff\xd8\x00"})
    (tmp_path / "b" / "task.py").write_text("result = 2\n")
    files = {f["path"]: f for f in changes(old, new)["files"]}
    assert files["gone.txt"] == {"path": "gone.txt", "change": "removed"}
    assert files["lib/more.py"]["change"] == "added"
    assert "+x = 1" in files["lib/more.py"]["diff"]
    assert files["logo.png"] == {"path": "logo.png", "change": "added", "binary": True}
    assert "-result = 1\n+result = 2" in files["task.py"]["diff"]


def diffs(found: dict[str, Any]) -> str:
    return "".join(file.get("diff", "") for file in found["files"])


def test_a_huge_change_is_cut_and_says_so(tmp_path: Path) -> None:
    old = version(tmp_path / "a")
    new = load(version(tmp_path / "b").folder, {"data.txt": "line\n" * 100_000, "z.txt": "end\n"})
    found = changes(old, new)
    assert [set(file) for file in found["files"]] == [
        {"path", "change", "diff", "diff_cut"},
        {"path", "change", "diff_left_out"},
    ]
    assert found["truncated"]
    assert found["left_out"]["diffs"] == 2
    assert len(diffs(found)) == 64 * 1024
    assert found["left_out"]["characters"] + len(diffs(found)) > 600_000


def test_what_runs_is_shown_before_padding_and_every_file_is_named(tmp_path: Path) -> None:
    padding = {f"a{number:03}.txt": "padding\n" * 100 for number in range(231)}
    new = load(version(tmp_path / "a").folder, {**padding, "0.bin": b"\xff", "zz.py": "evil = 1\n"})
    found = changes(None, new)
    names = [file["path"] for file in found["files"]]
    assert names == ["task.yaml", "task.py", *sorted(padding), "zz.py", "0.bin"]
    shown = {file["path"]: file for file in found["files"]}
    assert "+runtime: python" in shown["task.yaml"]["diff"]
    assert "+result = 1" in shown["task.py"]["diff"]
    assert shown["zz.py"]["diff_left_out"]
    whole = changes(None, new, room=2**20)
    assert "+evil = 1" in diffs(whole)
    assert "truncated" not in whole


def test_a_long_diff_is_shown_to_its_last_line(tmp_path: Path) -> None:
    new = load(version(tmp_path / "a").folder, {"task.py": "pass\n" * 1_000 + "evil = 1\n"})
    found = changes(None, new)
    assert diffs(found).endswith("+evil = 1")
    assert "truncated" not in found


def test_more_files_than_are_named_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicode_mcp.service.changed_files.MOST_NAMES", 3)
    new = load(version(tmp_path / "a").folder, {f"{n}.txt": "x" for n in range(5)})
    found = changes(None, new)
    assert [file["path"] for file in found["files"]] == ["task.yaml", "task.py", "0.txt"]
    assert found["truncated"]
    assert found["left_out"] == {"names": 4}


def test_a_large_file_of_the_same_size_is_another_when_its_bytes_are(tmp_path: Path) -> None:
    big = b"\xff" * (2**20 + 10)
    old = load(version(tmp_path / "a").folder, {"data.bin": big + b"a"})
    new = load(version(tmp_path / "b").folder, {"data.bin": big + b"b"})
    assert changes(old, new)["files"] == [{"path": "data.bin", "change": "changed", "binary": True}]
    load(new.folder, {"data.bin": big + b"a"})
    assert "files" not in changes(old, new)


def test_a_change_of_line_ends_alone_is_seen(tmp_path: Path) -> None:
    old = load(version(tmp_path / "a").folder, {"task.py": "a = 1\nb = 2\n"})
    new = load(version(tmp_path / "b").folder, {"task.py": "a = 1\r\nb = 2"})
    lines = diffs(changes(old, new)).split("\n")
    assert "+a = 1\r" in lines
    assert "+b = 2" in lines
    assert "\\ No newline at end of file" in lines


def test_diffs_deep_in_a_long_file_name_the_right_lines(tmp_path: Path) -> None:
    lines = [f"x{number} = {number}\n" for number in range(10_000)]
    old = load(version(tmp_path / "a").folder, {"task.py": "".join(lines)})
    lines[8_000] = "evil = 1\n"
    new = load(version(tmp_path / "b").folder, {"task.py": "".join(lines)})
    shown = diffs(changes(old, new))
    assert "@@ -7998,7 +7998,7 @@" in shown
    assert "-x8000 = 8000\n+evil = 1\n x8001" in shown


def test_files_that_have_nothing_in_common_are_compared_at_once(tmp_path: Path) -> None:
    old = load(version(tmp_path / "a").folder, {"task.py": "a = 1\nb = 2\n" * 20_000})
    new = load(version(tmp_path / "b").folder, {"task.py": "c = 1\na = 1\nd = 1\n" * 20_000})
    shown = diffs(changes(old, new, room=8 * 2**20))
    assert shown.count("\n-") == 40_001 - 1
    assert shown.count("\n+") == 60_001


def test_an_empty_version_is_no_removed_grant(tmp_path: Path) -> None:
    first = changes(None, version(tmp_path / "a"))
    assert set(first["grants"]) == {"added"}
    assert set(first.get("settings", {"added": {}})) == {"added"}
    old = version(tmp_path / "b", "trigger: {manual: true}\nparams: {}\n")
    new = version(tmp_path / "c", "trigger: {manual: true}\nparams: {city: Oslo}\n")
    assert "removed" not in changes(old, new)["settings"]


def test_in_a_folder_that_was_written_over_the_script_is_compared(tmp_path: Path) -> None:
    old = version(tmp_path / "a")
    new = load(tmp_path / "a", {"task.py": "result = 2\n", "lib/new.py": "evil = 1\n"})
    found = changes(old, new)
    files = {file["path"]: file for file in found["files"]}
    assert "-result = 1\n+result = 2" in files["task.py"]["diff"]
    assert files["lib/new.py"]["change"] == "present"
    assert "+evil = 1" in files["lib/new.py"]["diff"]
    assert "written over" in found["note"]
