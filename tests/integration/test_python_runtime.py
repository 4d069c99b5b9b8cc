"""Python tasks for real: PythonRuntime, SpawnExecutor and SessionServer around a script."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dicode_mcp.clock import SystemClock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.executor import OutputLimits, SpawnExecutor, become_subreaper
from dicode_mcp.executor.tree import all_pids, read_environ, read_stat
from dicode_mcp.ipc import SessionServer
from dicode_mcp.protocols import Exit, LaunchContext, RawLine, Report
from dicode_mcp.runs.logs import Level, read_line
from dicode_mcp.runs.model import Payload, Run, RunStatus, Trigger, new_run_id
from dicode_mcp.spec.model import DicodeGrants, Permissions, Task, TaskSpec, TriggerSpec
from dicode_mcp.testing.task_calls import FakeTaskCalls
from dicode_runtimes.python import DEFAULT_PATH, PythonRuntime

INSTANCE = f"test-{os.getpid()}"


@dataclass
class Ended:
    """How a run of a script ended, with all it wrote."""

    exit: Exit
    report: Report
    lines: list[RawLine]

    @property
    def value(self) -> Any:
        assert self.report.error is None, self.report.error
        assert self.report.finished
        return None if self.report.return_value is None else json.loads(self.report.return_value)

    @property
    def log(self) -> list[tuple[Level, str]]:
        return [read_line(line.stream, line.text) for line in self.lines]

    @property
    def messages(self) -> list[str]:
        return [message for _, message in self.log]


class House:
    """Runs scripts from strings."""

    def __init__(self, executor: SpawnExecutor, folder: Path) -> None:
        self.executor = executor
        self.folder = folder / "task"
        self.scratch = folder / "scratch"
        self.folder.mkdir()
        self.scratch.mkdir()
        self.runtime = PythonRuntime()
        self.calls = FakeTaskCalls()
        self.server = SessionServer(self.calls)
        self.started = asyncio.Event()
        self.pids: list[int] = []

    def write(self, script: str, name: str = "task.py") -> Path:
        path = self.folder / name
        path.write_text(textwrap.dedent(script))
        return path

    def task(self, permissions: Permissions | None = None, timeout: float | None = 30) -> Task:
        spec = TaskSpec(
            name="test",
            runtime="python",
            trigger=TriggerSpec(manual=True),
            permissions=permissions or Permissions(),
            timeout=timeout,
        )
        return Task("test", spec, self.folder, self.folder / "task.py", "0" * 64, "local")

    async def run(
        self,
        script: str,
        payload: Payload | None = None,
        *,
        permissions: Permissions | None = None,
        limit: float | None = 30,
        grace: float = 5,
        env: dict[str, str] | None = None,
        stop_on: str | None = None,
    ) -> Ended:
        self.write(script)
        task = self.task(permissions, limit)
        run = Run(new_run_id(), task.id, RunStatus.RUNNING, Trigger.MANUAL, 0)
        scratch = self.scratch / run.id
        scratch.mkdir(mode=0o700)
        payload = payload or Payload()
        lines: list[RawLine] = []
        seen = asyncio.Event()

        def sink(new: Any) -> None:
            lines.extend(new)
            if stop_on and any(stop_on in line.text for line in new):
                seen.set()

        context = LaunchContext(run, task, payload, env or {}, scratch, INSTANCE)
        launch = replace(self.runtime.prepare(context), grace_s=grace)
        async with asyncio.timeout(60), self.server.open(run, task, payload) as session:
            process = await self.executor.start(launch, sink, session.child_fd)
            self.pids.append(process.pid)
            if stop_on:
                await seen.wait()
                await process.stop()
            exit = await process.wait()
            return Ended(exit, await session.report(), lines)


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    become_subreaper()
    limits = OutputLimits(max_bytes=1024 * 1024, max_lines=20_000)
    async with SpawnExecutor(SystemClock(), limits) as executor:
        yield House(executor, tmp_path)


def marked(run_mark: str) -> list[int]:
    """The processes alive that carry an entry in their environment."""
    alive: list[int] = []
    for pid in all_pids():
        stat = read_stat(pid)
        if stat and not stat.dead and run_mark.encode() in read_environ(pid):
            alive.append(pid)
    return alive


# ── What a script is given and gives ─────────────────────────────────────────────────────────


async def test_main_returns_the_value_and_reads_its_parameters(house: House) -> None:
    ended = await house.run(
        """
        from dicode_sdk import params

        def main():
            return {"hello": params.get("name"), "absent": params.get("none", 7)}
        """,
        Payload(params={"name": "Ada"}),
    )
    assert ended.value == {"hello": "Ada", "absent": 7}
    assert ended.exit.exit_code == 0
    assert ended.exit.signal is None


async def test_names_are_at_module_level_and_result_is_the_value(house: House) -> None:
    ended = await house.run(
        """
        name = params.get("name", "World")
        result = {"greeting": f"Hello, {name}!", "source": "python"}
        """
    )
    assert ended.value == {"greeting": "Hello, World!", "source": "python"}


async def test_an_asynchronous_main_is_awaited(house: House) -> None:
    ended = await house.run(
        """
        async def main():
            return await params.get_async("name", "World")
        """
    )
    assert ended.value == "World"


async def test_main_takes_the_names_it_asks_for(house: House) -> None:
    ended = await house.run(
        """
        def main(input, request, params, extra=3, **others):
            return [input, request, params.all(), extra, sorted(others)]
        """,
        Payload(input={"a": [1]}, request={"method": "POST"}),
    )
    rest = ["dicode", "env", "kv", "log", "mcp", "output"]
    assert ended.value == [{"a": [1]}, {"method": "POST"}, {}, 3, rest]


async def test_an_argument_of_main_that_nobody_can_give_is_explained(house: House) -> None:
    ended = await house.run("def main(city): return 1")
    assert ended.report.error is not None
    assert "main() asks for 'city'" in ended.report.error.message
    assert "params.get('city')" in ended.report.error.message


async def test_main_that_returns_nothing_leaves_the_value_to_result(house: House) -> None:
    ended = await house.run("result = 1\ndef main():\n    global result\n    result = 5\n")
    assert ended.value == 5


async def test_main_called_by_the_script_itself_is_not_called_twice(house: House) -> None:
    ended = await house.run(
        """
        def main():
            print("once")
            return 1

        if __name__ == "__main__":
            main()
        """
    )
    assert ended.value is None
    assert ended.messages.count("once") == 1
    assert any(lv is Level.WARN and "result = main()" in m for lv, m in ended.log)


async def test_main_from_a_library_is_not_taken_for_the_tasks_own(house: House) -> None:
    house.write("def main():\n    return 'helper'\n", "helper.py")
    ended = await house.run("from unittest import main\nresult = 2\n")
    assert ended.value == 2
    ended = await house.run("from helper import main\n")
    assert ended.value == "helper"


async def test_the_script_is_main_with_its_folder_as_home(house: House) -> None:
    house.write("NUMBER = 41\n", "sibling.py")
    ended = await house.run(
        """
        import dataclasses, os, pickle, sys
        import sibling

        @dataclasses.dataclass
        class Point:
            x: int

        def main():
            again = pickle.loads(pickle.dumps(Point(sibling.NUMBER + 1)))
            return {
                "name": __name__, "file": __file__, "argv": sys.argv, "cwd": os.getcwd(),
                "path": sys.path[0], "x": again.x, "main": sys.modules["__main__"].main is main,
                "stdin": sys.stdin.read(),
            }
        """
    )
    script = str(house.folder / "task.py")
    assert ended.value == {
        "name": "__main__",
        "file": script,
        "argv": [script],
        "cwd": str(house.folder),
        "path": str(house.folder),
        "x": 42,
        "main": True,
        "stdin": "",
    }
    assert not (house.folder / "__pycache__").exists()


async def test_the_environment_holds_what_is_declared_and_nothing_of_the_host(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST_SECRET", "must-not-leak")
    ended = await house.run(
        "import os\nresult = dict(os.environ)\n", env={"GRANTED": "yes", "TZ": "Asia/Tokyo"}
    )
    value = ended.value
    scratch = next(house.scratch.iterdir())
    assert value.pop("DICODE_IPC_FD").isdigit()
    assert value == {
        "PATH": DEFAULT_PATH,
        "HOME": str(scratch / "home"),
        "TMPDIR": str(scratch / "tmp"),
        "LANG": "C.UTF-8",
        "TZ": "Asia/Tokyo",
        "GRANTED": "yes",
        "DICODE_RUN_ID": scratch.name,
        "DICODE_TASK_ID": "test",
        "DICODE_INSTANCE": INSTANCE,
    }
    assert (scratch / "home").stat().st_mode & 0o777 == 0o700


async def test_a_reserved_name_in_the_environment_is_refused(house: House) -> None:
    with pytest.raises(DicodeError, match="DICODE_IPC_FD") as caught:
        await house.run("result = 1", env={"DICODE_IPC_FD": "0"})
    assert caught.value.code is Code.INVALID_SPEC


async def test_children_of_the_task_do_not_inherit_the_connection(house: House) -> None:
    ended = await house.run(
        """
        import os, subprocess
        fds = subprocess.run(["ls", "/proc/self/fd"], capture_output=True, text=True,
                             close_fds=False).stdout.split()
        result = os.environ["DICODE_IPC_FD"] in fds
        """
    )
    assert ended.value is False


# ── Calls to the server ──────────────────────────────────────────────────────────────────────


async def test_kv_values_stay_and_can_be_listed(house: House) -> None:
    script = """
        def main():
            kv.set("a/1", {"n": [1, None, "ü"]})
            kv.set("b", 2)
            return [kv.get("a/1"), kv.get("none", "x"), kv.list("a/"), kv.delete("b"),
                    kv.delete("b")]
        """
    ended = await house.run(script)
    assert ended.value == [{"n": [1, None, "ü"]}, "x", ["a/1"], True, False]
    assert house.calls.kv == {"a/1": {"n": [1, None, "ü"]}}


async def test_a_call_without_its_permission_names_the_line_to_add(house: House) -> None:
    ended = await house.run('def main():\n    dicode.run_task("other", {})\n')
    error = ended.report.error
    assert error is not None
    assert error.hint == 'add to task.yaml: permissions.dicode.tasks: ["other"]'
    assert (error.file, error.line) == ("task.py", 2)
    assert error.traceback is not None
    assert "_channel" not in error.traceback


async def test_a_granted_call_runs_the_other_task(house: House) -> None:
    grants = Permissions(dicode=DicodeGrants(tasks=("other",), list_tasks=True, get_runs=True))
    ended = await house.run(
        """
        def main():
            dicode.progress(1, 2, "half")
            return [dicode.run_task("other", {"x": 1}), dicode.trigger("other", [2]),
                    dicode.list_tasks(), len(dicode.get_runs("other", 5))]
        """,
        permissions=grants,
    )
    child = {"runID": "child-other", "status": "success", "returnValue": {"x": 1}}
    assert ended.value == [child, {"runID": "child-other"}, [{"id": "test"}], 1]
    assert ("progress", (1, 2, "half")) in house.calls.asked


async def test_asynchronous_calls_are_served_at_once(house: House) -> None:
    grants = Permissions(dicode=DicodeGrants(tasks=("other",)))
    house.calls.wait_for_all_of(20)
    ended = await house.run(
        """
        import asyncio

        async def main():
            kv.set("sync", 1)
            found = await asyncio.gather(
                *(dicode.run_task_async("other", {"n": n}) for n in range(20)))
            return [f["returnValue"]["n"] for f in found] + [kv.get("sync")]
        """,
        permissions=grants,
    )
    assert ended.value == [*range(20), 1]


async def test_threads_may_call_side_by_side(house: House) -> None:
    grants = Permissions(dicode=DicodeGrants(tasks=("other",)))
    ended = await house.run(
        """
        from concurrent.futures import ThreadPoolExecutor

        def work(n):
            kv.set(f"k{n}", n)
            return dicode.run_task("other", {"n": kv.get(f"k{n}")})["returnValue"]["n"]

        def main():
            with ThreadPoolExecutor(8) as pool:
                return sum(pool.map(work, range(200)))
        """,
        permissions=grants,
    )
    assert ended.value == sum(range(200))


async def test_a_thread_left_running_is_awaited_and_may_still_call(house: House) -> None:
    ended = await house.run(
        """
        import atexit, threading, time

        def later():
            time.sleep(0.1)
            kv.set("late", True)

        atexit.register(lambda: print("atexit ran"))
        threading.Thread(target=later).start()
        result = "main is done"
        """
    )
    assert ended.value == "main is done"
    assert house.calls.kv == {"late": True}
    assert "atexit ran" in ended.messages


async def test_a_method_the_server_does_not_have_says_so(house: House) -> None:
    ended = await house.run('dicode.secrets_set("k", "hunter2-value")\n')
    error = ended.report.error
    assert error is not None
    assert "does not offer secrets_set" in error.message
    assert "hunter2-value" not in error.message


async def test_a_forked_child_cannot_speak_for_the_task(house: House) -> None:
    ended = await house.run(
        """
        import os, sys
        pid = os.fork()
        if pid == 0:
            try:
                kv.set("x", 1)
            except Exception as error:
                print("child:", error, flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        result = kv.get("x", "unset")
        """
    )
    assert ended.value == "unset"
    assert any("only the process that the server started" in m for m in ended.messages)


async def test_output_is_kept_even_when_the_script_fails_later(house: House) -> None:
    ended = await house.run('output.html("<b>hi</b>", data={"a": 1})\nraise ValueError("x")\n')
    shown = ended.report.output
    assert shown is not None
    assert (shown.kind, shown.body, shown.data) == ("html", "<b>hi</b>", {"a": 1})
    assert ended.report.reason == "script_error"


async def test_files_and_images_travel_as_base64(house: House) -> None:
    ended = await house.run('output.file("r.bin", bytes([0, 255]), "application/x-r")\nresult = 1')
    shown = ended.report.output
    assert shown is not None
    assert (shown.kind, shown.name, shown.body, shown.base64) == ("file", "r.bin", "AP8=", True)


async def test_an_output_beyond_the_limit_fails_with_that_reason(house: House) -> None:
    ended = await house.run('output.text("x" * 3_000_000)')
    assert ended.report.reason == "output_too_large"


# ── The log ──────────────────────────────────────────────────────────────────────────────────


async def test_print_and_log_keep_their_order_and_levels(house: House) -> None:
    ended = await house.run(
        r"""
        import os, sys
        print("one")
        log.debug("two")
        print("three", end="")
        log.warn("four\nlines", 4)
        os.write(1, b"five\n")
        log.error("six")
        sys.stderr.write("to stderr\n")
        """
    )
    stdout = [read_line(line.stream, line.text) for line in ended.lines if line.stream == "stdout"]
    assert stdout == [
        (Level.INFO, "one"),
        (Level.DEBUG, "two"),
        (Level.INFO, "three"),
        (Level.WARN, "four\nlines 4"),
        (Level.INFO, "five"),
        (Level.ERROR, "six"),
    ]
    assert (Level.WARN, "to stderr") in ended.log


async def test_a_line_of_a_megabyte_is_cut_and_marked(house: House) -> None:
    ended = await house.run('print("é" * 1_000_000)\nprint("after")\n')
    first = ended.lines[0].text
    assert len(first.encode()) <= 64 * 1024
    assert first.endswith("[line cut at 64 KiB]")
    assert ended.messages[1] == "after"


async def test_a_long_log_message_keeps_its_level(house: House) -> None:
    ended = await house.run('log.error("\\x01" * 100_000)\nlog.error("y" * 100_000)')
    assert [level for level, _ in ended.log] == [Level.ERROR, Level.ERROR]


@pytest.mark.parametrize("newline", ["\\n", ""])
async def test_a_flood_of_output_does_not_hold_up_the_server(house: House, newline: str) -> None:
    late = 0.0
    stop = False

    async def watch() -> None:
        nonlocal late
        loop = asyncio.get_running_loop()
        while not stop:
            begun = loop.time()
            await asyncio.sleep(0.001)
            late = max(late, loop.time() - begun - 0.001)

    before = _rss()
    watcher = asyncio.create_task(watch())
    ended = await house.run(
        f"""
        import sys
        chunk = ("y" * 63 + "{newline}") * 16384
        for _ in range(200):
            sys.stdout.write(chunk)
        result = "done"
        """
    )
    stop = True
    await watcher
    assert ended.value == "done"
    assert ended.exit.dropped_bytes > 190_000_000
    assert sum(len(line.text) + 1 for line in ended.lines) <= 1024 * 1024 + 1
    assert late < 0.2  # measured 0.02 on a quiet machine; the rest is the test machine's noise
    assert _rss() - before < 32 * 1024


def _rss() -> int:
    text = Path("/proc/self/status").read_text() if sys.platform == "linux" else "VmRSS: 0"
    return int(text.partition("VmRSS:")[2].split()[0])


# ── Bad ends ─────────────────────────────────────────────────────────────────────────────────


async def test_an_exception_names_file_line_and_the_way_there(house: House) -> None:
    house.write("def deep(x):\n    return 1 / x\n", "helper.py")
    ended = await house.run("import helper\n\ndef main():\n    return helper.deep(0)\n")
    error = ended.report.error
    assert error is not None
    assert ended.report.reason == "script_error"
    assert error.message == "ZeroDivisionError: division by zero"
    assert (error.file, error.line) == ("helper.py", 2)
    assert error.traceback is not None
    assert 'File "task.py", line 4, in main' in error.traceback
    assert "return 1 / x" in error.traceback
    assert "_bootstrap" not in error.traceback
    assert str(house.folder) not in error.traceback
    assert ended.exit.exit_code == 1
    assert any("division by zero" in message for message in ended.messages)


async def test_an_error_in_an_asynchronous_main_shows_no_frames_of_asyncio(house: House) -> None:
    ended = await house.run("async def main():\n    raise KeyError('k')\n")
    error = ended.report.error
    assert error is not None
    assert (error.file, error.line) == ("task.py", 2)
    assert "asyncio" not in (error.traceback or "")


async def test_a_syntax_error_names_its_line(house: House) -> None:
    ended = await house.run("x = 1\nif x\n    pass\n")
    error = ended.report.error
    assert error is not None
    assert (error.file, error.line) == ("task.py", 2)
    assert error.message.startswith("SyntaxError:")


@pytest.mark.parametrize(
    ("script", "code", "message"),
    [
        ("import sys; sys.exit(3)", 3, "the script called sys.exit(3)"),
        ("import sys; sys.exit('no disk')", 1, "no disk"),
    ],
)
async def test_sys_exit_with_a_failure_is_one(
    house: House, script: str, code: int, message: str
) -> None:
    ended = await house.run(script)
    assert ended.report.reason == "exit_code"
    assert ended.report.error is not None
    assert ended.report.error.message == message
    assert ended.exit.exit_code == code


async def test_sys_exit_with_success_keeps_the_result(house: House) -> None:
    ended = await house.run("import sys\nresult = 9\nsys.exit()\n")
    assert ended.value == 9


@pytest.mark.parametrize(
    ("expression", "reason", "words"),
    [
        ("'x' * 5_000_000", "return_too_large", "5,000,002 bytes"),
        ("{'a': [1, float('nan')]}", "return_not_json", "$.a[1]: nan"),
        ("{'when': __import__('datetime').date(2024, 1, 1)}", "return_not_json", "$.when"),
        ("{1: 2}", "return_not_json", "a key is int"),
        ("{'s': {1, 2}}", "return_not_json", "$.s: set"),
        ("b'raw'", "return_not_json", "$: bytes"),
        ("'\\ud800'", "return_not_json", "surrogate"),
    ],
)
async def test_a_return_value_that_cannot_be_stored_says_where_and_why(
    house: House, expression: str, reason: str, words: str
) -> None:
    ended = await house.run(f"def main():\n    return {expression}\n")
    assert ended.report.reason == reason
    assert ended.report.error is not None
    assert words in ended.report.error.message
    assert ended.report.return_value is None
    assert ended.exit.exit_code == 1


async def test_the_largest_return_value_arrives_whole(house: House) -> None:
    ended = await house.run("result = '\"' * (512 * 1024 - 1)")
    assert ended.value == '"' * (512 * 1024 - 1)


async def test_leaving_without_a_word_is_noticed(house: House) -> None:
    ended = await house.run("import os\nos._exit(0)\n")
    assert not ended.report.finished
    why = house.runtime.explain(ended.exit, house.task())
    assert why is not None
    assert why.code == "exited_early"


async def test_death_by_a_signal_is_named(house: House) -> None:
    ended = await house.run("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    assert ended.exit.signal == signal.SIGSEGV
    assert ended.exit.exit_code is None
    why = house.runtime.explain(ended.exit, house.task())
    assert why is not None
    assert why.code == "signal"
    assert "SIGSEGV" in why.message


async def test_sleeping_past_the_timeout_ends_the_run(house: House) -> None:
    ended = await house.run("import time\ntime.sleep(60)\n", limit=0.3)
    assert ended.exit.timed_out
    assert ended.exit.signal == signal.SIGTERM
    why = house.runtime.explain(ended.exit, house.task(timeout=0.3))
    assert why is not None
    assert why.message.endswith("0.3s")


async def test_a_task_that_ignores_term_is_killed_after_the_grace(house: House) -> None:
    ended = await house.run(
        """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ready")
        time.sleep(60)
        """,
        grace=0.3,
        stop_on="ready",
    )
    assert ended.exit.stopped
    assert not ended.exit.timed_out
    assert ended.exit.signal == signal.SIGKILL


async def test_a_task_may_tidy_up_on_term(house: House) -> None:
    ended = await house.run(
        """
        import signal, sys, time

        def tidy(*_):
            kv.set("tidied", True)
            sys.exit(4)

        signal.signal(signal.SIGTERM, tidy)
        print("ready")
        time.sleep(60)
        """,
        stop_on="ready",
    )
    assert ended.exit.stopped
    assert ended.exit.exit_code == 4
    assert house.calls.kv == {"tidied": True}


_DAEMONS = """
    import os, sys, time

    def daemon(ignore):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                if ignore:
                    import signal
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                print("daemon", os.getpid(), flush=True)
                time.sleep(600)
            os._exit(0)

    for n in range(3):
        daemon(ignore=n == 0)
    os.wait(); os.wait(); os.wait()
    if os.fork() == 0:
        time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="fled processes are found through /proc")
async def test_nothing_of_a_tree_outlives_the_run_not_even_daemons(house: House) -> None:
    ended = await house.run(textwrap.dedent(_DAEMONS) + "result = 'left them'\n", grace=0.3)
    assert ended.value == "left them"
    assert ended.exit.exit_code == 0
    assert ended.exit.strays == 4
    assert marked(f"DICODE_RUN_ID={next(house.scratch.iterdir()).name}") == []


@pytest.mark.skipif(sys.platform != "linux", reason="fled processes are found through /proc")
async def test_a_cancelled_run_takes_its_daemons_along(house: House) -> None:
    script = textwrap.dedent(_DAEMONS) + "print('all up', flush=True)\ntime.sleep(600)\n"
    ended = await house.run(script, grace=0.3, stop_on="all up")
    assert ended.exit.stopped
    assert marked(f"DICODE_RUN_ID={next(house.scratch.iterdir()).name}") == []


async def test_writing_nonsense_to_the_server_ends_the_talk_and_is_told(house: House) -> None:
    ended = await house.run(
        """
        import os
        os.write(int(os.environ["DICODE_IPC_FD"]), b"not json\\n")
        result = 1
        """
    )
    assert ended.report.reason == "protocol_error"


# ── What is known before a run ───────────────────────────────────────────────────────────────


def test_a_broken_script_is_found_without_running_it(tmp_path: Path) -> None:
    script = tmp_path / "task.py"
    script.write_text("raise SystemExit('ran')\ndef f(:\n")
    task = Task(
        "t",
        TaskSpec(name="t", runtime="python", trigger=TriggerSpec(manual=True)),
        tmp_path,
        script,
        "",
        "s",
    )
    (found,) = PythonRuntime().check(task)
    assert (found.reason, found.status) == ("ScriptError", False)
    assert found.message.startswith("task.py:2:")
    script.write_bytes(b"# /// script\n# dependencies = ['requests']\n# ///\nx = '\\d'\n")
    (found,) = PythonRuntime().check(task)
    assert (found.type.value, found.reason) == ("NotInForce", "ScriptDependencies")
    script.write_bytes(b"x = 1\0\n")
    (found,) = PythonRuntime().check(task)
    assert found.reason == "ScriptError"


def test_the_interpreter_is_real_and_a_shim_is_refused(tmp_path: Path) -> None:
    assert PythonRuntime().health().ok
    shim = tmp_path / "python"
    shim.write_text('#!/bin/sh\nexec python3 "$@"\n')
    shim.chmod(0o755)
    assert not PythonRuntime(interpreter=str(shim)).health().ok
    assert not PythonRuntime(interpreter=str(tmp_path / "none")).health().ok
