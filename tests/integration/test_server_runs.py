"""What an agent sees of runs, through the whole server."""

from __future__ import annotations

from pathlib import Path

import pytest
from liveserver import MANUAL, Serve

from dicode_mcp.errors import Code, DicodeError


async def test_a_run_gives_its_value_its_log_and_its_place_in_the_history(serve: Serve) -> None:
    async with serve() as live:
        live.write("hi", "print('on it')\nresult = {'n': 1}\n")
        await live.sync()
        run = await live.run("hi")
        assert (run["status"], run["return_value"]) == ("success", {"n": 1})
        assert [line["message"] for line in run["logs_tail"]] == ["on it"]
        assert [r["run_id"] for r in (await live.call("get_runs", task="hi"))["runs"]] == [
            run["run_id"]
        ]
        listed = (await live.call("list_tasks"))["tasks"][0]
        assert listed["last_run"]["status"] == "success"


async def test_everything_survives_a_restart(serve: Serve) -> None:
    async with serve() as live:
        live.write(
            "count",
            "from dicode_sdk import kv\nn = kv.get('n', 0) + 1\nkv.set('n', n)\nresult = n\n",
        )
        await live.sync()
        first = await live.run("count")
        await live.call("set_task_enabled", id="count", enabled=False, reason="testing")
    async with serve() as live:
        again = await live.call("get_run", run_id=first["run_id"])
        assert (again["status"], again["return_value"]) == ("success", 1)
        refused = await live.call("run_task", id="count")
        assert refused["error"]["code"] == "task_paused"
        assert "testing" in refused["error"]["message"]
        await live.call("set_task_enabled", id="count", enabled=True)
        assert (await live.run("count"))["return_value"] == 2


async def test_bad_parameters_are_all_named_before_a_run_exists(serve: Serve) -> None:
    async with serve() as live:
        live.write(
            "typed",
            "result = 1\n",
            MANUAL + "params: {size: {type: number, required: true}, name: {default: x}}\n",
        )
        await live.sync()
        refused = await live.call("run_task", id="typed", params={"sise": "hunter2", "name": [1]})
        assert refused["error"]["code"] == "invalid_params"
        text = refused["error"]["message"]
        assert "sise" in text
        assert "size" in text
        assert "hunter2" not in str(refused)
        assert (await live.call("get_runs", task="typed"))["runs"] == []


async def test_an_unknown_task_names_the_nearest(serve: Serve) -> None:
    async with serve() as live:
        live.write("digest", "result = 1\n")
        await live.sync()
        refused = await live.call("run_task", id="digets")
        assert refused["error"]["code"] == "task_not_found"
        assert "digest" in refused["error"]["message"]
        assert "list_tasks" in refused["error"]["hint"]


async def test_the_same_idempotency_key_gives_the_same_run(serve: Serve) -> None:
    async with serve() as live:
        live.write("once", "result = 1\n")
        await live.sync()
        first = await live.run("once", idempotency_key="k1")
        second = await live.run("once", idempotency_key="k1")
        other = await live.run("once", idempotency_key="k2")
        assert first["run_id"] == second["run_id"] != other["run_id"]


async def test_a_parent_that_waits_for_its_child_lends_its_only_slot(serve: Serve) -> None:
    async with serve(slots=1) as live:
        live.write(
            "child",
            "def main(params):\n    return params.get('n') * 2\n",
            MANUAL + "params: {n: {type: number}}\n",
        )
        live.write(
            "parent",
            "def main(dicode):\n    return dicode.run_task('child', {'n': 21})\n",
            MANUAL + "permissions: {dicode: {tasks: [child]}}\n",
        )
        await live.sync()
        run = await live.run("parent")
        assert run["status"] == "success", run
        assert run["return_value"]["returnValue"] == 42
        child = await live.call("get_run", run_id=run["return_value"]["runID"])
        assert child["parent_run_id"] == run["run_id"]
        assert child["trigger"] == "sdk"


async def test_a_task_without_the_grant_is_told_the_line_to_add(serve: Serve) -> None:
    async with serve() as live:
        live.write("child", "result = 1\n")
        live.write("sneaky", "from dicode_sdk import dicode\ndicode.run_task('child', {})\n")
        await live.sync()
        run = await live.run("sneaky")
        assert run["status"] == "failure"
        assert 'tasks: ["child"]' in str(run["error"]) + str(run["logs_tail"])
        assert (await live.call("get_runs", task="child"))["runs"] == []


async def test_a_run_that_prints_far_too_much_still_shows_how_it_failed(serve: Serve) -> None:
    async with serve() as live:
        live.write(
            "chatty",
            "def main():\n    for n in range(300_000):\n        print('line', n)\n"
            "    raise ValueError('the reason')\n",
        )
        await live.sync()
        run = await live.run("chatty")
        assert run["status"] == "failure"
        tail = [line["message"] for line in run["logs_tail"]]
        assert any("ValueError: the reason" in message for message in tail), tail
        assert "bytes of output are not in this log" in tail[-1]
        shown = await live.call("get_logs", run_id=run["run_id"], level="warn", limit=5)
        mark = shown["lines"][0]
        assert "bytes of output were left out here" in mark["message"]
        page = await live.call("get_logs", run_id=run["run_id"], after=mark["seq"] - 2, limit=3)
        before, _, after = (line["message"] for line in page["lines"])
        assert before == "line 99999"
        assert int(after.removeprefix("line ")) > 100_000
        newest = await live.call("get_logs", run_id=run["run_id"], tail=50)
        assert "line 299999" in [line["message"] for line in newest["lines"]]


async def test_cancelling_ends_the_whole_process_tree(serve: Serve) -> None:
    async with serve() as live:
        live.write(
            "tree",
            "import os, subprocess, sys, time\n"
            "sleep = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
            "subprocess.Popen(sleep, start_new_session=True)\n"
            "print('up', flush=True)\ntime.sleep(600)\n",
            MANUAL + "permissions: {run: ['*']}\n",
        )
        await live.sync()
        run = await live.call("run_task", id="tree", wait_seconds=0)
        await live.first_line(run["run_id"])
        done = await live.call("cancel_run", run_id=run["run_id"])
        assert (done["status"], done["reason"]) == ("cancelled", "cancelled")
        assert _alive_with(run["run_id"]) == []


async def test_leaving_never_cancels_a_run(serve: Serve) -> None:
    async with serve() as live:
        live.write("slow", "import time\ntime.sleep(0.3)\nresult = 'done'\n")
        await live.sync()
        run = await live.call("run_task", id="slow", wait_seconds=0)
        assert run["status"] in ("queued", "running")
        done = await live.call("get_run", run_id=run["run_id"], wait_seconds=20)
        assert (done["status"], done["return_value"]) == ("success", "done")


async def test_stopping_the_server_ends_runs_with_a_stated_reason(serve: Serve) -> None:
    async with serve(drain=0.0) as live:
        live.write("long", "import time\nprint('up', flush=True)\ntime.sleep(600)\n")
        await live.sync()
        run = await live.call("run_task", id="long", wait_seconds=0)
        await live.first_line(run["run_id"])
    assert _alive_with(run["run_id"]) == []
    async with serve() as live:
        ended = await live.call("get_run", run_id=run["run_id"])
        assert (ended["status"], ended["reason"]) == ("cancelled", "shutdown")


async def test_a_stopping_server_lets_runs_end_by_themselves_within_the_drain(
    serve: Serve,
) -> None:
    async with serve(drain=30.0) as live:
        live.write("short", "import time\nprint('up', flush=True)\ntime.sleep(0.5)\nresult = 7\n")
        await live.sync()
        run = await live.call("run_task", id="short", wait_seconds=0)
    async with serve() as live:
        ended = await live.call("get_run", run_id=run["run_id"])
        assert ended["status"] in ("success", "running")
        ended = await live.call("get_run", run_id=run["run_id"], wait_seconds=20)
        assert (ended["status"], ended["return_value"]) == ("success", 7)


async def test_the_last_good_script_runs_while_the_one_on_disk_is_broken(serve: Serve) -> None:
    async with serve() as live:
        live.write("edit", "def main():\n    return 'good'\n")
        await live.sync()
        live.write("edit", "def main(:\n    return 'broken'\n")
        await live.sync()
        seen = await live.call("get_task", id="edit")
        ready = next(c for c in seen["conditions"] if c["type"] == "Ready")
        assert (ready["status"], "task.py:1" in ready["message"]) == ("False", True)
        run = await live.run("edit")
        assert (run["status"], run["return_value"]) == ("success", "good")
        live.write("edit", "def main():\n    return 'mended'\n")
        await live.sync()
        assert (await live.run("edit"))["return_value"] == "mended"


async def test_a_traceback_quotes_the_code_that_ran(serve: Serve) -> None:
    async with serve() as live:
        live.write("edit", "def main():\n    raise ValueError('first')\n")
        await live.sync()
        live.write("edit", "# quite another file\n# with no code\n(\n")
        await live.sync()
        run = await live.run("edit")
        assert (run["error"]["file"], run["error"]["line"]) == ("task.py", 2)
        assert "raise ValueError('first')" in run["error"]["traceback"]


async def test_a_declared_variable_reaches_the_task_and_no_other_does(serve: Serve) -> None:
    environ = {"HOME": "/nowhere", "GREETING": "hi", "HUSH": "hunter2"}
    async with serve(environ=environ) as live:
        live.write(
            "env",
            "import os\nresult = sorted(k + '=' + v for k, v in os.environ.items())\n",
            MANUAL + "permissions: {env: [GREETING, MODE=fast]}\n",
        )
        await live.sync()
        seen = (await live.run("env"))["return_value"]
        assert "GREETING=hi" in seen
        assert "MODE=fast" in seen
        assert not any("hunter2" in entry for entry in seen)
        names = {entry.partition("=")[0] for entry in seen}
        assert {n for n in names if not n.startswith("DICODE_")} <= {
            "GREETING", "MODE", "PATH", "HOME", "LANG", "TZ", "TMPDIR", "LC_CTYPE",
        }  # fmt: skip


async def test_a_missing_variable_or_secret_stops_the_run_before_it_starts(serve: Serve) -> None:
    async with serve(environ={}) as live:
        live.write("var", "print('never')\n", MANUAL + "permissions: {env: [API_KEY]}\n")
        live.write(
            "secret", "print('never')\n", MANUAL + "permissions: {env: [{name: A, secret: key1}]}\n"
        )
        await live.sync()
        var, secret = await live.run("var"), await live.run("secret")
        assert (var["status"], var["reason"]) == ("failure", "env_missing")
        assert "API_KEY" in var["error"]["message"]
        assert (secret["status"], secret["reason"]) == ("failure", "secret_missing")
        assert "key1" in secret["error"]["message"]
        assert var["logs_tail"] == secret["logs_tail"] == []


async def test_a_value_outside_the_declared_schema_fails_the_run(serve: Serve) -> None:
    async with serve() as live:
        live.write(
            "out",
            "result = {'n': 'x'}\n",
            MANUAL + "output_schema: {properties: {n: {type: integer}}}\n",
        )
        await live.sync()
        run = await live.run("out")
        assert (run["status"], run["reason"]) == ("failure", "output_schema")


async def test_a_second_server_on_the_same_data_dir_is_refused_with_the_first_ones_pid(
    serve: Serve,
) -> None:
    async with serve():
        with pytest.raises((DicodeError, ExceptionGroup)) as caught:
            async with serve():
                pass
        error = caught.value
        assert isinstance(error, DicodeError)
        assert error.code is Code.ALREADY_RUNNING


def _alive_with(run_id: str) -> list[int]:
    mark = f"DICODE_RUN_ID={run_id}".encode()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
