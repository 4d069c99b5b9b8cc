"""``task search`` as the sharing document prints it, and ``registry lint``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_fakes import Dicode, FakeServer

from dicode_mcp.cli.commands.registries import offer_lines

ROWS = [
    (
        "monitoring/uptime-ping",
        "HTTP health checks with Slack alerting",
        "github.com/dicode-ayo/task-uptime",
    ),
    (
        "monitoring/ssl-expiry",
        "SSL certificate expiration checker",
        "github.com/user/task-ssl-check",
    ),
    ("monitoring/dns-resolve", "DNS resolution monitoring", "github.com/user/task-dns"),
]
PRINTED = """
  monitoring/uptime-ping     HTTP health checks with Slack alerting    github.com/dicode-ayo/task-uptime
  monitoring/ssl-expiry      SSL certificate expiration checker        github.com/user/task-ssl-check
  monitoring/dns-resolve     DNS resolution monitoring                 github.com/user/task-dns

  3 tasks found. Install with: dicode task install <name>
"""  # noqa: E501


def answer(rows: list[tuple[str, str, str]], **more: Any) -> dict[str, Any]:
    tasks: list[dict[str, Any]] = [
        {
            "path": path,
            "name": path,
            "description": description,
            "repo": repo,
            "tags": [],
            "registry": "community",
            "installed": False,
        }
        for path, description, repo in rows
    ]
    install = "dicode task install <name>"
    return {"tasks": tasks, "count": len(tasks), "install": install, "problems": [], **more}


def test_a_search_prints_what_the_sharing_document_shows(
    dicode: Dicode, server: FakeServer
) -> None:
    server.tools["search_tasks"] = lambda _: answer(ROWS)
    said = dicode("task", "search", "monitoring")
    assert (said.code, said.out, said.err) == (0, PRINTED, "")
    assert server.calls == [("search_tasks", {"query": "monitoring"})]


def test_one_task_is_counted_as_one(dicode: Dicode, server: FakeServer) -> None:
    server.tools["search_tasks"] = lambda _: answer(ROWS[:1])
    said = dicode("task", "search", "uptime", "slack", "--registry", "community", "--limit", "5")
    assert said.out.splitlines()[-1] == ("  1 task found. Install with: dicode task install <name>")
    wanted = {"query": "uptime slack", "registry": "community", "limit": 5}
    assert server.calls == [("search_tasks", wanted)]


def test_more_than_is_shown_is_said(dicode: Dicode, server: FakeServer) -> None:
    server.tools["search_tasks"] = lambda _: answer(ROWS, count=57)
    assert "57 tasks found, 3 shown (--limit N shows more)." in dicode("task", "search", "m").out


def test_nothing_found_and_nothing_configured_are_said(dicode: Dicode, server: FakeServer) -> None:
    server.tools["search_tasks"] = lambda _: answer([])
    said = dicode("task", "search", "x")
    assert (said.code, said.out, said.err) == (0, "", "no task matches 'x'\n")
    note = "no registry is configured; add one to dicode.yaml"
    server.tools["search_tasks"] = lambda _: answer([], note=note)
    said = dicode("task", "search", "x")
    assert (said.code, said.out, said.err) == (0, "", f"{note}\n")


def test_problems_stand_beside_the_result(dicode: Dicode, server: FakeServer) -> None:
    problem = {"file": "c:taskset.yaml", "line": 3, "message": "is\nwrong", "hint": "mend it"}
    server.tools["search_tasks"] = lambda _: answer(ROWS, problems=[problem])
    said = dicode("task", "search", "x")
    assert said.out == PRINTED
    assert said.err == "c:taskset.yaml:3: is wrong; mend it\n"


def test_json_is_the_server_s_own_answer_to_a_search(dicode: Dicode, server: FakeServer) -> None:
    server.tools["search_tasks"] = lambda _: answer(ROWS)
    assert json.loads(dicode("task", "search", "x", "--json").out) == answer(ROWS)


def test_control_characters_of_strangers_are_shown_as_text(
    dicode: Dicode, server: FakeServer
) -> None:
    server.tools["search_tasks"] = lambda _: answer([("a", "x\x1b]0;title\x07y", "r")])
    out = dicode("task", "search", "x").out
    assert "\x1b" not in out
    assert "\\x1b" in out


def test_a_description_gives_way_to_the_terminal() -> None:
    lines = offer_lines(ROWS, 100)
    assert [len(line) <= 100 for line in lines] == [True] * 3
    assert lines[0] == (
        "  monitoring/uptime-ping     HTTP health checks with Slack ale…    "
        "github.com/dicode-ayo/task-uptime"
    )


def test_on_a_narrow_terminal_a_description_goes_below_its_path() -> None:
    long = "x" * 30 + " " + "y" * 30
    lines = offer_lines([*ROWS[2:], ("a/b", long, "github.com/a/b")], 50)
    assert lines == [
        "  monitoring/dns-resolve",
        "      DNS resolution monitoring",
        "      github.com/user/task-dns",
        "  a/b",
        "      " + "x" * 30,
        "      " + "y" * 30,
        "      github.com/a/b",
    ]


def test_nothing_is_cut_when_nobody_looks() -> None:
    long = "word " * 60
    (line,) = offer_lines([("a", long.strip(), "r")], None)
    assert long.strip() in line


# registry lint

ENTRY = """\
kind: TaskSet
spec:
  entries:
    good:
      ref: {url: https://github.com/a/b, branch: main}
      overrides: {description: d, tags: [t]}
"""


@pytest.fixture
def registry(data_dir: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "registry"
    folder.mkdir()
    (folder / "taskset.yaml").write_text(ENTRY)
    return folder


def test_a_good_registry_passes_without_a_server(
    dicode: Dicode, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dicode("registry", "lint", "registry") == (0, "1 entry: no problems\n", "")
    monkeypatch.chdir(registry)
    assert dicode("registry", "lint").code == 0
    assert dicode("registry", "lint", "taskset.yaml").code == 0


def test_errors_are_lines_and_exit_code_1(dicode: Dicode, registry: Path) -> None:
    text = ENTRY.replace("https:", "http:").replace(", tags: [t]", "")
    (registry / "taskset.yaml").write_text(text)
    said = dicode("registry", "lint", "registry")
    assert said.code == 1
    assert said.out.splitlines() == [
        "registry/taskset.yaml:4: warning: spec.entries.good: has no tags; write 'tags: […]' in "
        "overrides, so that it is found by other words too",
        "registry/taskset.yaml:5: spec.entries.good.ref.url: http:// is not fetched for anyone who "
        "installs it; use https://HOST/PATH, ssh://git@HOST/PATH or git@HOST:PATH",
        "1 entry: 1 error, 1 warning",
    ]


def test_warnings_fail_only_when_that_is_asked_for(dicode: Dicode, registry: Path) -> None:
    (registry / "taskset.yaml").write_text(ENTRY.replace(", tags: [t]", ""))
    assert dicode("registry", "lint", "registry").code == 0
    strict = dicode("registry", "lint", "registry", "--strict")
    assert strict.code == 1
    assert "warning: " not in strict.out
    told = json.loads(dicode("registry", "lint", "registry", "--strict", "--json").out)
    assert (told["ok"], told["entries"], told["errors"]) == (False, 1, [])
    assert told["warnings"][0]["line"] == 4


def test_a_path_that_is_not_there_is_a_usage_error(dicode: Dicode, registry: Path) -> None:
    said = dicode("registry", "lint", "nowhere")
    assert said.code == 2
    assert "does not exist" in said.err
