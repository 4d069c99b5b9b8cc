"""The command line against a real server, as a user runs both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytestmark = pytest.mark.slow

DEADLINE = 30.0
TASKS = {
    "hello": (
        "name: Hello\ndescription: Greets\nruntime: python\ntrigger: {manual: true}\n"
        "params:\n  who: {default: world, description: whom to greet}\n",
        "print('about to greet')\nresult = 'hello ' + params.get('who')\n",
    ),
    "failing": (
        "name: Failing\nruntime: python\ntrigger: {manual: true}\n",
        "print('before')\nraise ValueError('boom')\n",
    ),
    "slow": (
        "name: Slow\nruntime: python\ntrigger: {manual: true}\n",
        "import time\nprint('started', flush=True)\ntime.sleep(60)\n",
    ),
    "lines": (
        "name: Lines\nruntime: python\ntrigger: {manual: true}\n",
        "for n in range(1500):\n    print('line', n)\nresult = 'x' * 50_000\n",
    ),
}


class Done(NamedTuple):
    code: int
    out: str
    err: str


class House(NamedTuple):
    """A data dir, a folder of tasks, and the command line on them."""

    data: Path
    tasks: Path
    env: dict[str, str]

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "dicode_mcp.cli.main", *words]

    def dicode(self, *words: str, stdin: str = "") -> Done:
        done = subprocess.run(
            self.command(*words),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env=self.env,
            cwd=self.tasks.parent,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def serve(self) -> Done:
        return self.dicode("serve", "--detach", "--no-http", "--source", str(self.tasks))

    def json(self, *words: str) -> Any:
        return json.loads(self.dicode(*words, "--json").out)

    def ids(self) -> dict[str, str]:
        """Give the ids by the folder's name, whatever the source is called."""
        return {t["id"].rsplit("/", 1)[-1]: t["id"] for t in self.json("list")["tasks"]}


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    tasks = tmp_path / "tasks"
    for name, (manifest, script) in TASKS.items():
        folder = tasks / name
        folder.mkdir(parents=True)
        (folder / "task.yaml").write_text(manifest)
        (folder / "task.py").write_text(script)
    data = tmp_path / "data"
    env = {k: v for k, v in os.environ.items() if not k.startswith("DICODE_")}
    env |= {"DICODE_DATA_DIR": str(data), "HOME": str(tmp_path)}
    made = House(data, tasks, env)
    yield made
    made.dicode("stop")


@pytest.fixture
def server(house: House) -> House:
    started = house.serve()
    assert started.code == 0, started.err
    return house


def test_list_run_and_logs_tell_one_story(server: House) -> None:
    ids = server.ids()
    assert set(TASKS) <= set(ids)
    done = server.dicode("run", ids["hello"], "who=there")
    assert (done.code, done.out) == (0, "hello there\n")
    assert "about to greet" in done.err
    runs = server.json("runs", ids["hello"])["runs"]
    assert (runs[0]["status"], runs[0]["trigger"]) == ("success", "cli")
    logs = server.dicode("logs", runs[0]["run_id"])
    assert "about to greet" in logs.out


def test_a_failure_names_file_and_line_and_exits_1(server: House) -> None:
    done = server.dicode("run", server.ids()["failing"])
    assert (done.code, done.out) == (1, "")
    assert "task.py:2" in done.err
    assert "boom" in done.err
    assert "next: dicode logs" in done.err


def test_unknown_tasks_and_params_are_refused_with_what_to_do(server: House) -> None:
    ids = server.ids()
    unknown = server.dicode("run", "helo")
    assert unknown.code == 1
    assert ids["hello"] in unknown.err
    wrong = server.dicode("run", ids["hello"], "whom=x", "--json")
    assert wrong.code == 1
    assert json.loads(wrong.out)["error"]["code"] == "invalid_params"
    assert server.json("runs", ids["hello"])["runs"] == []


def test_help_of_run_shows_the_tasks_params(server: House) -> None:
    done = server.dicode("run", server.ids()["hello"], "--help")
    assert done.code == 0
    assert "who" in done.out
    assert "whom to greet" in done.out


def test_follow_shows_every_line_and_the_whole_value(server: House) -> None:
    done = server.dicode("run", server.ids()["lines"], "--follow")
    assert done.code == 0
    assert done.out == "x" * 50_000 + "\n"
    shown = [line.rsplit(" ", 1)[1] for line in done.err.splitlines() if " line " in line]
    assert shown == [str(n) for n in range(1500)]


def test_ctrl_c_leaves_the_run_on_and_cancel_ends_it(server: House) -> None:
    with subprocess.Popen(
        server.command("run", server.ids()["slow"], "-f"),
        env=server.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "started" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    run = server.json("runs", "--status", "running")["runs"][0]
    assert f"run {run['run_id']} goes on" in err
    cancelled = server.dicode("cancel", run["run_id"])
    assert cancelled.out == f"run {run['run_id']} is cancelled\n"


def test_an_edit_is_live_and_a_broken_file_keeps_the_old_version(server: House) -> None:
    task = server.ids()["hello"]
    script = server.tasks / "hello" / "task.py"
    script.write_text("result = 'edited'\n")
    wait_for(lambda: server.dicode("run", task).out == "edited\n")
    (server.tasks / "hello" / "task.yaml").write_text("name: Hello\nruntime: pyton\n")
    wait_for(lambda: "broken (kept)" in server.dicode("list", "hello").out)
    shown = server.dicode("get", task)
    assert "task.yaml:2" in shown.out
    assert server.dicode("run", task).out == "edited\n"
    verdict = server.dicode("task", "validate", str(server.tasks / "hello"))
    assert verdict.code == 1
    assert "task.yaml:2" in verdict.out


def test_a_paused_task_refuses_to_run_until_enabled(server: House) -> None:
    task = server.ids()["hello"]
    assert server.dicode("disable", task).code == 0
    refused = server.dicode("run", task)
    assert refused.code == 1
    assert "paused" in refused.err
    assert server.dicode("enable", task).code == 0
    assert server.dicode("run", task).code == 0


def test_status_sources_and_doctor_agree(server: House) -> None:
    status = server.json("status")
    assert status["pid"] == json.loads((server.data / "server.lock").read_text())["pid"]
    assert "permissions: enforced" in server.dicode("status").out
    source = server.json("source", "list")["sources"][0]
    assert server.dicode("source", "sync", source["name"]).code == 0
    doctor = server.dicode("doctor")
    assert doctor.code == 0, doctor.out
    assert "ok    version" in doctor.out


def test_serve_stop_restart_keep_one_server(server: House) -> None:
    first = server.json("status")["pid"]
    second = server.dicode("serve", "--no-http")
    assert second.code == 2
    assert str(first) in second.err
    assert server.dicode("restart").code == 0
    status = server.json("status")
    assert status["pid"] != first
    assert set(TASKS) <= set(server.ids())
    assert server.dicode("stop").code == 0
    assert server.dicode("list").code == 3


def test_serve_in_the_foreground_ends_with_0_on_sigterm(house: House) -> None:
    with subprocess.Popen(
        house.command("serve", "--no-http", "--source", str(house.tasks)),
        env=house.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        wait_for(lambda: house.dicode("status").code == 0)
        assert house.json("status")["pid"] == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0


def call(number: int, tool: str, arguments: dict[str, Any]) -> str:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})


def answers(out: str) -> dict[int, dict[str, Any]]:
    messages = [json.loads(line) for line in out.splitlines()]
    return {message["id"]: message["result"] for message in messages if "id" in message}


def test_mcp_starts_the_server_and_answers_all_that_was_asked(house: House) -> None:
    config = house.tasks.parent / "dicode.yaml"
    config.write_text("server: {port: 0}\nsources:\n  - {name: mine, type: local, path: tasks}\n")
    asked = [
        call(1, "get_status", {}),
        call(2, "run_task", {"id": "mine/hello", "wait_seconds": 30}),
    ]
    done = house.dicode("mcp", stdin="\n".join(asked) + "\n")
    assert done.code == 0, done.err
    got = answers(done.out)
    assert got[2]["structuredContent"]["return_value"] == "hello world"
    assert got[1]["structuredContent"]["pid"] == house.json("status")["pid"]


def test_two_mcp_clients_at_once_start_one_server(house: House) -> None:
    (house.tasks.parent / "dicode.yaml").write_text("server: {port: 0}\n")
    with ThreadPoolExecutor(2) as pool:
        asked = call(1, "get_status", {}) + "\n"
        clients = [pool.submit(house.dicode, "mcp", stdin=asked) for _ in range(2)]
        done = [client.result() for client in clients]
    assert [client.code for client in done] == [0, 0]
    assert len({answers(client.out)[1]["structuredContent"]["pid"] for client in done}) == 1


def test_mcp_says_what_is_wrong_with_the_config(house: House) -> None:
    (house.tasks.parent / "dicode.yaml").write_text("srever: {}\n")
    done = house.dicode("mcp")
    assert (done.code, done.out) == (2, "")
    assert "srever" in done.err


def test_narrowed_clients_cannot_start_runs(server: House) -> None:
    done = server.dicode(
        "mcp", "--read-only", stdin=call(1, "run_task", {"id": server.ids()["hello"]}) + "\n"
    )
    assert '"success"' not in done.out
    assert server.json("runs")["runs"] == []
