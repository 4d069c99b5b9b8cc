"""Agents that tasks start: programs in the task's folder, through the whole server."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from liveserver import Live, Serve

from dicode_runtimes.deno.program import DenoProgram

needs_deno = pytest.mark.skipif(
    not DenoProgram(os.environ).health.ok, reason="deno is not installed"
)

MANIFEST = "runtime: python\ntrigger: {manual: true}\npermissions: {dicode: {agents: ['*']}}\n"
CALL = "def main(input, dicode):\n    return dicode.agent(input['name'], input.get('payload'))\n"
ECHO = """\
import json, sys
payload = json.load(open(sys.argv[sys.argv.index("--payload") + 1]))
print(json.dumps({"echo": payload}))
"""


def write_agent(live: Live, name: str, script: str, file: str = "agent.py") -> Path:
    """Write an agent of the task ``caller``."""
    path = live.tasks / "caller" / "agents" / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script)
    return path


async def caller(live: Live, script: str = CALL, manifest: str = MANIFEST) -> None:
    live.write("caller", script, manifest)
    await live.sync()


async def agent_run(live: Live, name: str = "a") -> dict[str, Any]:
    (run,) = (await live.call("get_runs", task=f"caller/agents/{name}"))["runs"]
    return await live.call("get_run", run_id=run["run_id"])


def is_there(mark: str) -> bool:
    """Tell whether a process has a word in its command."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if mark.encode() in file.read_bytes().split(b"\0"):
                return True
    return False


def scratch(live: Live) -> list[Path]:
    return [path for path in (live.data / "runs").rglob("payload-*")]


async def test_an_agent_gets_its_payload_in_a_private_file_and_gives_json(serve: Serve) -> None:
    script = ECHO + "import os, stat\n"
    script = script.replace(
        'print(json.dumps({"echo": payload}))',
        "import os\npath = sys.argv[2]\nprint('thinking', file=sys.stderr)\n"
        "print(json.dumps({'echo': payload, 'mode': oct(os.stat(path).st_mode & 0o777),\n"
        "    'there': path.startswith(os.environ['TMPDIR']), 'env': sorted(os.environ)}))",
    )
    async with serve(environ={"HOME": "/nowhere", "OPENAI_KEY": "sk-1234567"}) as live:
        write_agent(live, "a", script)
        await caller(live)
        run = await live.run("caller", input={"name": "a", "payload": {"city": "Bern", "n": 3}})
        assert run["status"] == "success", run
        value = run["return_value"]
        assert value["echo"] == {"city": "Bern", "n": 3}
        assert (value["mode"], value["there"]) == ("0o600", True)
        assert set(value["env"]) <= {"PATH", "HOME", "LANG", "TZ", "TMPDIR", "LC_CTYPE"}
        child = await agent_run(live)
        assert (child["trigger"], child["parent_run_id"]) == ("agent", run["run_id"])
        lines = (await live.call("get_logs", run_id=child["run_id"]))["lines"]
        assert ("warn", "thinking") in [(line["level"], line["message"]) for line in lines]
        assert scratch(live) == []


async def test_only_the_last_line_counts_when_an_agent_prints_more(serve: Serve) -> None:
    async with serve() as live:
        write_agent(live, "a", "print('one moment')\nprint('[1, 2]')\n")
        write_agent(live, "b", "print('{')\nprint('\"k\": 1}')\n")
        await caller(live)
        assert (await live.run("caller", input={"name": "a"}))["return_value"] == [1, 2]
        assert (await live.run("caller", input={"name": "b"}))["return_value"] == {"k": 1}


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("import sys\nprint('why', file=sys.stderr)\nsys.exit(3)\n", "exit code 3"),
        ("raise ValueError('no luck')\n", "ValueError: no luck"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", "SIGKILL"),
        ("print('done')\n", "not JSON"),
        ("", "printed nothing"),
        ("print('x' * 2_000_000)\n", "more than 1,048,576 bytes"),
        ("import sys\nwhile True: sys.stdout.write('x' * 65536)\n", "more than 1,048,576 bytes"),
    ],
)
async def test_an_agent_that_fails_is_an_error_with_its_last_words(
    serve: Serve, script: str, told: str
) -> None:
    async with serve() as live:
        write_agent(live, "a", script)
        await caller(live)
        run = await live.run("caller", input={"name": "a"})
        assert run["status"] == "failure"
        assert told in run["error"]["message"]
        assert "agent a" in run["error"]["message"]
        child = await agent_run(live)
        assert child["status"] == "failure"
        assert scratch(live) == []


async def test_an_agent_that_takes_too_long_is_ended_with_all_it_started(serve: Serve) -> None:
    # By a word of its command: its number is one of the run's own namespace.
    mark = f"an-agents-child-{os.getpid()}"
    script = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', '{mark}'])\n"
        "print('it is on', file=sys.stderr, flush=True)\ntime.sleep(600)\n"
    )
    call = "def main(dicode):\n    return dicode.agent('a', timeout='1s')\n"
    async with serve() as live:
        write_agent(live, "a", script)
        await caller(live, call)
        run = await live.run("caller")
        assert "took longer than 1 s" in run["error"]["message"], run
        assert "it is on" in run["error"]["message"], run
        assert not is_there(mark)
        assert scratch(live) == []


async def test_an_agent_ends_with_the_run_that_called_it(serve: Serve) -> None:
    script = "import sys, time\nprint('on', file=sys.stderr, flush=True)\ntime.sleep(600)\n"
    async with serve() as live:
        write_agent(live, "a", script)
        await caller(live)
        run = await live.call("run_task", id="caller", input={"name": "a"}, wait_seconds=0)
        while not (found := await _agents(live)):
            pass
        await live.first_line(found[0]["run_id"])
        await live.call("cancel_run", run_id=run["run_id"])
        child = await live.call("get_run", run_id=found[0]["run_id"], wait_seconds=20)
        assert child["status"] == "cancelled"
        while scratch(live):
            pass


async def _agents(live: Live) -> list[dict[str, Any]]:
    runs = (await live.call("get_runs"))["runs"]
    return [run for run in runs if run["task"].startswith("caller/agents/")]


async def test_an_agent_has_no_more_of_the_environment_than_its_task_and_its_own_list(
    serve: Serve,
) -> None:
    script = (
        "import json, os\nprint(json.dumps([os.environ.get('GIVEN'), os.environ.get('OTHER')]))\n"
    )
    manifest = MANIFEST.replace("permissions: {", "permissions: {env: [GIVEN, OTHER], ")
    async with serve(environ={"GIVEN": "k-123456", "OTHER": "o-123456"}) as live:
        write_agent(live, "a", script)
        write_agent(live, "a", json.dumps({"env": ["GIVEN"]}), "agent.json")
        write_agent(live, "b", script)
        write_agent(live, "b", json.dumps({"env": ["HOST_ONLY"]}), "agent.json")
        await caller(live, manifest=manifest)
        assert (await live.run("caller", input={"name": "a"}))["return_value"] == ["k-123456", None]
        run = await live.run("caller", input={"name": "b"})
        assert "HOST_ONLY is not among the variables of the task" in run["error"]["message"]


async def test_an_agent_must_be_granted_and_named_rightly(serve: Serve) -> None:
    async with serve() as live:
        write_agent(live, "a", ECHO)
        write_agent(live, "other", ECHO)
        await caller(live, manifest=MANIFEST.replace("'*'", "a"))
        for name in ("other", "../a"):
            run = await live.run("caller", input={"name": name})
            assert run["error"]["hint"] == (
                f'add to task.yaml: permissions.dicode.agents: ["{name}"]'
            ), run
        await caller(live)
        for name, told in (
            ("../a", "the agent's name"),
            ("a/../a", "the agent's name"),
            ("none", "no agent 'none'; it has: a, other"),
        ):
            run = await live.run("caller", input={"name": name})
            assert told in run["error"]["message"], run
        assert await _agents(live) == []


async def test_links_do_not_lead_out_of_the_folder(serve: Serve, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "agent.py").write_text(ECHO)
    async with serve() as live:
        write_agent(live, "c", "print(1)\n")
        agents = live.tasks / "caller" / "agents"
        (agents / "a").symlink_to(outside)
        (agents / "b").mkdir()
        (agents / "b" / "agent.py").symlink_to(outside / "agent.py")
        await caller(live)
        run = await live.run("caller", input={"name": "a"})
        assert "no agent 'a'; it has: b, c" in run["error"]["message"]
        run = await live.run("caller", input={"name": "b"})
        assert "has no file to begin with" in run["error"]["message"]


@needs_deno
async def test_a_deno_agent_is_held_to_what_its_task_may(serve: Serve) -> None:
    script = """\
    import { helper } from "./helper.ts";
    const file = Deno.args[Deno.args.indexOf("--payload") + 1];
    const payload = JSON.parse(await Deno.readTextFile(file));
    const tried = async (what: () => Promise<unknown>) => {
      try { await what(); return "done"; } catch (error) { return (error as Error).name; }
    };
    console.error("thinking");
    console.log(JSON.stringify({
      sum: helper(payload.numbers),
      file: await tried(() => Deno.readTextFile("/etc/passwd")),
      net: await tried(() => fetch("http://127.0.0.1:8/")),
      run: await tried(() => new Deno.Command("true").output()),
    }));
    """
    async with serve() as live:
        write_agent(live, "a", script, "src/index.ts")
        helper = "export const helper = (n: number[]) => n.reduce((a, b) => a + b, 0);\n"
        write_agent(live, "a", helper, "src/helper.ts")
        await caller(live)
        run = await live.run("caller", input={"name": "a", "payload": {"numbers": [1, 2, 3]}})
        refused = "NotCapable"
        value = run["return_value"]
        # In the sandbox no other program is to be seen, and Deno looks for it first.
        assert value.pop("run") in (refused, "NotFound"), run
        assert value == {"sum": 6, "file": refused, "net": refused}, run


@needs_deno
async def test_a_deno_task_starts_agents_too(serve: Serve) -> None:
    async with serve() as live:
        write_agent(live, "a", ECHO)
        folder = live.tasks / "caller"
        (folder / "task.yaml").write_text("name: caller\n" + MANIFEST.replace("python", "deno"))
        (folder / "task.ts").write_text(
            "export default async function main({ dicode }: DicodeSdk) {\n"
            '  const good = await dicode.agent("a", { n: 1 }, { timeout: "30s" });\n'
            '  try { await dicode.agent("b"); } catch (error) {\n'
            "    return [good, (error as DicodeError).code];\n  }\n}\n"
        )
        await live.sync()
        run = await live.run("caller")
        assert run["return_value"] == [{"echo": {"n": 1}}, "not_found"], run


async def test_agents_count_neither_as_failures_to_follow_nor_twice(serve: Serve) -> None:
    async with serve() as live:
        write_agent(live, "a", "import sys\nsys.exit(1)\n")
        live.write("alert", "def main(input):\n    return input['taskID']\n")
        await caller(live, manifest=MANIFEST + "on_failure_chain: alert\n")
        await live.run("caller", input={"name": "a"})
        while not (runs := (await live.call("get_runs", task="alert"))["runs"]):
            pass
        assert len(runs) == 1
