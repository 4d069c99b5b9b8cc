"""What a Python task is given, and what is known of it before it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from runhouse import INSTANCE, House

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.logs import Level
from dicode_mcp.runs.model import Payload
from dicode_mcp.spec.model import Permissions, Task, TaskSpec, TriggerSpec
from dicode_runtimes.python import DEFAULT_PATH, PythonRuntime

# ── What a script is given and gives ──────────────────────────────────────────────────────────────


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
        """,
        permissions=Permissions(run=("ls",)),
    )
    assert ended.value is False


# ── What is known before a run ────────────────────────────────────────────────────────────────────


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


async def test_installed_packages_and_exit_are_there_as_in_any_script(house: House) -> None:
    ended = await house.run(
        """
        import subprocess, sys
        import yaml
        result = yaml.safe_load("[1, 2]")
        subprocess.run([sys.executable, "-I", "-c", "import yaml"], check=True)
        exit()
        """,
        permissions=Permissions(run=("*",)),
    )
    assert ended.value == [1, 2]


async def test_the_servers_own_folder_is_no_place_to_import_from(house: House) -> None:
    ended = await house.run("import os, sys\nresult = os.getcwd() in sys.path[1:]\n")
    assert ended.value is False
