from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_fakes import Dicode, FakeServer, ToolError

READY = {"type": "Ready", "status": "True", "reason": "Loaded"}
BROKEN = {
    "type": "Ready",
    "status": "False",
    "reason": "InvalidSpec",
    "message": "task.yaml:3: unknown key 'triger'",
}


LACKING = {
    "type": "RuntimeAvailable",
    "status": "False",
    "reason": "Unhealthy",
    "message": "docker is not there",
}


def task(name: str, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "name": name,
        "description": f"about {name}",
        "runtime": "python",
        "trigger": {"manual": True},
        "enabled": True,
        "hash": "a1b2c3",
        "source": "tasks",
        "conditions": [READY],
        **more,
    }


def test_list_shows_aligned_columns_and_what_is_broken(dicode: Dicode, server: FakeServer) -> None:
    tasks = [
        task("hello", trigger={"cron": "*/5 * * * *"}),
        task("a/longer-name", conditions=[BROKEN], kept=True),
        task("hook", conditions=[BROKEN]),
        task("docker", conditions=[READY, LACKING]),
        task("lost", conditions=[{"type": "Conflict", "status": "True", "reason": "IdTaken"}]),
        {"id": "never", "name": "never", "enabled": False, "conditions": [BROKEN]},
        task("off", conditions=[READY, {"type": "Paused", "status": "True", "reason": "Paused"}]),
    ]
    server.tools["list_tasks"] = lambda _: {"tasks": tasks}
    said = dicode("list")
    lines = said.out.splitlines()
    assert said.code == 0
    column = lines[0].index("STATE")
    assert [line[column:].split("  ")[0] for line in lines[1:8]] == [
        "ready",
        "broken (kept)",
        "broken",
        "unavailable",
        "conflict",
        "broken",
        "paused",
    ]
    assert "cron */5 * * * *" in lines[1]
    assert "a/longer-name: not Ready: task.yaml:3: unknown key 'triger'" in lines


def test_list_walks_all_pages(dicode: Dicode, server: FakeServer) -> None:
    pages = {None: ("a", "1"), "1": ("b", "2"), "2": ("c", None)}

    def listing(arguments: dict[str, Any]) -> dict[str, Any]:
        name, cursor = pages[arguments.get("cursor")]
        return {"tasks": [task(name)], **({"next_cursor": cursor} if cursor else {})}

    server.tools["list_tasks"] = listing
    rows = dicode("list", "--tag", "t").out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["a", "b", "c"]
    assert all(arguments["tag"] == "t" for _, arguments in server.calls)


def test_json_is_the_servers_result_untouched(dicode: Dicode, server: FakeServer) -> None:
    result = {"tasks": [task("x")], "next_cursor": "later", "of_tomorrow": [1, None]}
    server.tools["list_tasks"] = lambda _: result
    for words in (("--json", "list"), ("list", "--json")):
        said = dicode(*words)
        assert json.loads(said.out) == result
        assert said.err == ""


def test_without_a_server_one_line_says_what_to_do(dicode: Dicode) -> None:
    said = dicode("list")
    assert said.code == 3
    assert said.out == ""
    assert "dicode serve" in said.err
    assert len(said.err.splitlines()) == 2
    as_json = dicode("list", "--json")
    assert as_json.code == 3
    assert json.loads(as_json.out)["error"]["code"] == "unreachable"


def test_a_refused_call_gives_message_hint_and_exit_code_1(
    dicode: Dicode, server: FakeServer
) -> None:
    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise ToolError("task_not_found", "task 'helo' not found", "did you mean 'hello'?")

    server.tools["get_task"] = refuse
    said = dicode("get", "helo")
    assert (said.code, said.out) == (1, "")
    assert said.err.splitlines() == ["dicode: task 'helo' not found", "  see `dicode list`"]
    as_json = dicode("get", "helo", "--json")
    assert as_json.code == 1
    assert json.loads(as_json.out) == {
        "error": {
            "code": "task_not_found",
            "message": "task 'helo' not found",
            "hint": "did you mean 'hello'?",
        }
    }


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("list", "--nonsense"),
        ("get",),
        (),
        ("source",),
        ("list", "--limit", "0"),
        ("logs", "r1", "--tail", "0"),
        ("runs", "--since", "yesterday"),
        ("run", "x", "novalue"),
        ("run", "x", "a=1", "a=2"),
        ("run", "x", "--param-json", "a={"),
        ("run", "x", "--input", "absent.json"),
        ("run",),
        ("run", "x", "--wait", "-1"),
        ("--config", "absent.yaml", "list"),
        ("task", "validate", "./absent"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_a_sentence(
    dicode: Dicode, server: FakeServer, words: tuple[str, ...]
) -> None:
    said = dicode(*words)
    assert said.code == 2
    assert said.out == ""
    assert said.err.strip()
    assert server.calls == []


def test_get_shows_the_task_its_params_and_each_problem(dicode: Dicode, server: FakeServer) -> None:
    server.tools["get_task"] = lambda _: task(
        "hello",
        conditions=[BROKEN],
        spec={"runtime": "python", "timeout": "1m", "params": {"city": {"required": True}}},
        problems=[{"file": "task.yaml", "line": 3, "path": "triger", "message": "unknown key"}],
        last_run={"run_id": "r1", "status": "failure", "finished_at": "2026-01-01T00:00:00Z"},
    )
    out = dicode("get", "hello").out
    assert "task.yaml:3: triger: unknown key" in out
    assert "timeout: 1m" in out
    assert "last run: failure" in out
    assert "city" in out
    assert "(required)" in out


def test_runs_shows_where_a_failure_was(dicode: Dicode, server: FakeServer) -> None:
    server.tools["get_runs"] = lambda arguments: {
        "runs": [
            {
                "run_id": "r1",
                "task": arguments["task"],
                "status": "failure",
                "trigger": "cli",
                "created_at": "2026-01-01T00:00:00Z",
                "duration_ms": 1500,
                "error": {"code": "x", "message": "boom", "file": "task.py", "line": 7},
            }
        ]
    }
    said = dicode("runs", "hello", "--status", "failure", "--since", "2h")
    assert "task.py:7 boom" in said.out
    assert "1.5 s" in said.out
    _, arguments = server.calls[0]
    assert arguments["status"] == "failure"
    assert arguments["since"].endswith("Z")


def test_runs_gives_the_asked_number_over_several_pages(dicode: Dicode, server: FakeServer) -> None:
    def listing(arguments: dict[str, Any]) -> dict[str, Any]:
        start = int(arguments.get("cursor", "0"))
        given = min(2, arguments["limit"])
        names = range(start, start + given)
        runs = [{"run_id": f"r{n}", "task": "t", "status": "success"} for n in names]
        return {"runs": runs, "next_cursor": str(start + given)}

    server.tools["get_runs"] = listing
    said = dicode("runs", "--limit", "5")
    rows = [line.split()[0] for line in said.out.splitlines()[1:]]
    assert rows == ["r0", "r1", "r2", "r3", "r4"]
    assert "--cursor 5" in said.err


def test_logs_pages_through_a_long_log(dicode: Dicode, server: FakeServer) -> None:
    def page(arguments: dict[str, Any]) -> dict[str, Any]:
        after = arguments.get("after", 0)
        lines = [log(seq) for seq in range(after + 1, min(after + 100, 250) + 1)]
        more = {"next_after": lines[-1]["seq"]} if lines and lines[-1]["seq"] < 250 else {}
        return {"run_id": "r1", "status": "running", "lines": lines, **more}

    server.tools["get_logs"] = page
    out = dicode("logs", "r1").out.splitlines()
    assert [line.split()[-1] for line in out] == [f"line{n}" for n in range(1, 251)]


def log(seq: int, message: str | None = None, level: str = "info") -> dict[str, Any]:
    text = message if message is not None else f"line{seq}"
    return {"seq": seq, "ts": "2026-01-01T00:00:00.000Z", "level": level, "message": text}


def test_logs_follow_shows_each_line_once_until_the_run_ends(
    dicode: Dicode, server: FakeServer
) -> None:
    looks: list[int] = []

    def page(arguments: dict[str, Any]) -> dict[str, Any]:
        looks.append(arguments.get("after", 0))
        known = min(len(looks), 3)
        lines = [log(seq) for seq in range(arguments.get("after", 0) + 1, known + 1)]
        return {"status": "success" if len(looks) > 4 else "running", "lines": lines}

    server.tools["get_logs"] = page
    server.tools["get_run"] = lambda _: {"run_id": "r1", "task": "t", "status": "success"}
    said = dicode("logs", "r1", "-f")
    assert [line.split()[-1] for line in said.out.splitlines()] == ["line1", "line2", "line3"]
    assert "success" in said.err
    assert looks == [0, 1, 2, 3, 3]
    assert server.watched == ["dicode://runs/r1", "dicode://runs/r1/logs"]


def test_logs_follow_looks_by_itself_where_the_server_tells_nothing(
    dicode: Dicode, server: FakeServer
) -> None:
    server.tells = False
    states = ["running", "running", "success"]
    server.tools["get_logs"] = lambda _: {"status": states.pop(0), "lines": []}
    server.tools["get_run"] = lambda _: {"run_id": "r1", "task": "t", "status": "success"}
    assert dicode("logs", "r1", "-f").code == 0
    assert states == []


def test_a_tasks_control_characters_cannot_move_the_cursor(
    dicode: Dicode, server: FakeServer
) -> None:
    nasty = "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J back\rspace"
    server.tools["get_logs"] = lambda _: {"status": "success", "lines": [log(1, nasty)]}
    out = dicode("logs", "r1").out
    assert "red" in out
    assert "\x1b" not in out
    assert "\r" not in out
    assert "\\x1b]0;title\\x07" in out


def test_cancel_says_how_the_run_stands(dicode: Dicode, server: FakeServer) -> None:
    server.tools["cancel_run"] = lambda a: {"run_id": a["run_id"], "status": "cancelled"}
    assert dicode("cancel", "r1").out == "run r1 is cancelled\n"


def test_sources_show_their_state_and_problems(dicode: Dicode, server: FakeServer) -> None:
    source = {
        "name": "tasks",
        "type": "local",
        "path": "/srv/tasks",
        "dev_mode": False,
        "tasks": 2,
        "conditions": [
            {"type": "Synced", "status": "False", "reason": "Gone", "message": "no such folder"}
        ],
    }
    server.tools["list_sources"] = lambda _: {"sources": [source]}
    server.tools["sync_source"] = lambda _: source
    listed = dicode("source", "list")
    assert listed.code == 0
    assert "not Synced" in listed.out
    assert "tasks: not Synced: no such folder" in listed.out
    assert dicode("source", "sync", "tasks").code == 1
    assert server.calls[-1] == ("sync_source", {"source": "tasks"})


def test_sources_show_their_broken_tasks(dicode: Dicode, server: FakeServer) -> None:
    told = "3 of 9 tasks are broken: bad, worse, worst"
    source = {
        "name": "tasks",
        "type": "local",
        "path": "/srv/tasks",
        "dev_mode": False,
        "tasks": 9,
        "conditions": [
            READY,
            {"type": "TasksReady", "status": "False", "reason": "SomeBroken", "message": told},
        ],
        "broken": [{"id": "bad", "message": "task.yaml:3: unknown key 'triger'"}],
        "broken_count": 3,
    }
    server.tools["list_sources"] = lambda _: {"sources": [source]}
    server.tools["sync_source"] = lambda _: source
    lines = dicode("source", "list").out.splitlines()
    assert "3 broken" in lines[1]
    assert lines[2:] == [
        f"tasks: not TasksReady: {told}",
        "tasks: bad: task.yaml:3: unknown key 'triger'",
        "tasks: and 2 more: dicode list --source tasks --status broken",
    ]
    assert dicode("source", "sync", "tasks").code == 1


def test_validate_tells_a_script_error_once(dicode: Dicode, server: FakeServer) -> None:
    verdict = {
        "valid": False,
        "problems": [{"file": "task.py", "line": 1, "message": "invalid syntax"}],
        "conditions": [{**BROKEN, "message": "task.py:1: invalid syntax"}],
    }
    server.tools["validate_task"] = lambda _: verdict
    said = dicode("task", "validate", "hello").out.splitlines()
    assert said == ["task.py:1: invalid syntax", "hello: not valid"]


def test_validate_sends_an_absolute_path_and_prints_file_and_line(
    dicode: Dicode, server: FakeServer, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "task.yaml").write_text("name: x\n")
    problem = {"file": "task.yaml", "line": 1, "column": 2, "message": "no runtime", "hint": "add"}
    server.tools["validate_task"] = lambda _: {"valid": False, "problems": [problem]}
    said = dicode("task", "validate", "mine")
    assert said.code == 1
    assert said.out.splitlines() == ["task.yaml:1:2: no runtime", "  add", "mine: not valid"]
    assert server.calls == [("validate_task", {"path": str(tmp_path / "mine")})]


def test_validate_takes_a_task_id(dicode: Dicode, server: FakeServer) -> None:
    server.tools["validate_task"] = lambda _: {"valid": True, "problems": []}
    assert dicode("task", "validate", "reports/daily").code == 0
    assert server.calls == [("validate_task", {"id": "reports/daily"})]


def test_enable_and_disable_store_a_pause(dicode: Dicode, server: FakeServer) -> None:
    server.tools["set_task_enabled"] = lambda a: {"id": a["id"], "enabled": a["enabled"]}
    assert dicode("disable", "x").out == "x is paused\n"
    assert dicode("enable", "x").out == "x is enabled\n"
    assert [arguments["enabled"] for _, arguments in server.calls] == [False, True]


def test_status_says_plainly_what_is_not_enforced(dicode: Dicode, server: FakeServer) -> None:
    server.version = "99.0"
    server.tools["get_status"] = lambda _: {
        "version": "99.0",
        "pid": 12,
        "uptime_seconds": 61,
        "tasks": {"total": 3, "broken": 1},
        "sandbox": {"enforced": False, "message": "not in this build"},
        "runtimes": [{"name": "deno", "available": False, "message": "deno not found"}],
    }
    said = dicode("status")
    assert "permissions: NOT enforced: not in this build" in said.out
    assert "runtime deno: not available: deno not found" in said.out
    assert "up 1 min 1 s" in said.out
    assert "dicode restart" in said.err


def test_doctor_without_a_server_passes_and_says_how_to_start_one(dicode: Dicode) -> None:
    said = dicode("doctor", "--json")
    found = {check["name"]: check for check in json.loads(said.out)["checks"]}
    assert said.code == 0
    assert found["python"]["state"] == "ok"
    assert found["data dir"]["state"] == "ok"
    assert found["server"]["state"] == "warn"
    assert "not" in found["sandbox"]["message"]


def test_doctor_says_of_each_thing_what_would_make_it_hold(
    dicode: Dicode, server: FakeServer
) -> None:
    server.tools["get_status"] = lambda _: {
        "pid": 7,
        "sandbox": {
            "enforced": True,
            "message": "permissions are enforced",
            "facilities": [
                {"name": "permissions.fs", "enforced": True, "message": "a tree of its own"},
                {
                    "name": "resources.cpu",
                    "enforced": False,
                    "message": "held by nothing",
                    "remedy": "give the server a control group",
                },
            ],
        },
    }
    found = {c["name"]: c for c in json.loads(dicode("doctor", "--json").out)["checks"]}
    assert found["sandbox"]["state"] == "ok"
    assert found["permissions.fs"] == {
        "name": "permissions.fs",
        "state": "ok",
        "message": "a tree of its own",
    }
    assert found["resources.cpu"]["state"] == "warn"
    assert found["resources.cpu"]["hint"] == "give the server a control group"


def test_doctor_fails_when_the_data_dir_cannot_be(dicode: Dicode, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = dicode("doctor", "--data-dir", str(tmp_path / "file" / "below"))
    assert said.code == 1
    assert "is not a folder" in said.out


def test_doctor_fails_when_server_and_command_differ(dicode: Dicode, server: FakeServer) -> None:
    server.version = "0.0.1"
    server.tools["get_status"] = lambda _: {"pid": 7, "sandbox": {"enforced": True}}
    said = dicode("doctor")
    assert said.code == 1
    assert "the server is 0.0.1" in said.out


@pytest.mark.parametrize(
    ("client", "key"), [("claude", "mcpServers"), ("cursor", "mcpServers"), ("vscode", "servers")]
)
def test_mcp_config_is_json_that_starts_this_command(
    dicode: Dicode, tmp_path: Path, client: str, key: str
) -> None:
    said = dicode("mcp-config", client, "--data-dir", str(tmp_path / "d"))
    entry = json.loads(said.out)[key]["dicode"]
    done = subprocess.run(
        [entry["command"], *entry["args"], "--help"], capture_output=True, text=True, check=False
    )
    assert entry["args"][-3:] == ["mcp", "--data-dir", str(tmp_path / "d")]
    assert done.returncode == 0
    assert "MCP" in done.stdout


@pytest.mark.parametrize(("of", "key"), [("task", "runtime"), ("config", "data_dir")])
def test_schema_prints_json_schema_without_a_server(dicode: Dicode, of: str, key: str) -> None:
    said = dicode("schema", of)
    assert said.code == 0
    assert key in json.loads(said.out)["properties"]


def test_a_reader_that_stops_reading_ends_the_command_quietly(server: FakeServer) -> None:
    tasks = [task(f"t{n}", description="x" * 200) for n in range(2000)]
    server.tools["list_tasks"] = lambda _: {"tasks": tasks}
    command = [sys.executable, "-m", "dicode_mcp.cli.main", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr.read() == b""


def test_a_command_loads_neither_the_server_nor_its_libraries(server: FakeServer) -> None:
    server.tools["list_tasks"] = lambda _: {"tasks": [task("x")]}
    program = (
        "import sys\n"
        "from dicode_mcp.cli.main import main\n"
        "assert main(['list']) == 0\n"
        "print(sorted(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = done.stderr
    heavy = ("pydantic", "mcp", "yaml", "asyncio", "sqlalchemy", "starlette", "subprocess")
    assert [name for name in heavy if f"'{name}'" in loaded] == []
    rooms = ("tools", "service", "store", "spec", "daemon", "queue")
    assert [name for name in rooms if f"'dicode_mcp.{name}'" in loaded] == []
