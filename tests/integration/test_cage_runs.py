"""What a run may do in its cage: granted paths, programs, limits, and how it is told."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from dicode_mcp.clock import SystemClock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.executor import SpawnExecutor, become_subreaper
from dicode_mcp.executor.sandbox.cages import Cages
from dicode_mcp.executor.sandbox.groups import Groups, find
from dicode_mcp.executor.sandbox.plan import Ceilings
from dicode_mcp.executor.sandbox.probe import Probe
from dicode_mcp.runs.logs import Level
from dicode_mcp.runs.model import RunStatus
from dicode_mcp.spec.model import Permissions, ResourceSpec
from dicode_mcp.testing.cages import strict_cages, this_machine
from dicode_mcp.testing.runtime_house import RuntimeHouse
from dicode_runtimes.python import PythonRuntime

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not this_machine().separates, reason="no namespaces here"
)
MIB = 2**20


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[RuntimeHouse]:
    become_subreaper()
    async with SpawnExecutor(SystemClock(), cages=strict_cages()) as executor:
        yield RuntimeHouse(PythonRuntime(), ".py", executor, tmp_path)


def fs(*grants: tuple[Path, str]) -> Permissions:
    return Permissions.model_validate(
        {"fs": [{"path": str(path), "permission": how} for path, how in grants]}
    )


# ── Files ──


async def test_granted_paths_can_be_read_and_written_as_granted(
    house: RuntimeHouse, tmp_path: Path
) -> None:
    for name in ("r", "w", "rw"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").write_text("old")
    ended = await house.run(
        f"""
        import os
        def tried(act):
            try:
                act()
                return True
            except OSError:
                return False
        base = {str(tmp_path)!r}
        result = {{
            how: [tried(lambda: open(f"{{base}}/{{how}}/old").read()),
                  tried(lambda: open(f"{{base}}/{{how}}/new", "x").close()),
                  tried(lambda: os.unlink(f"{{base}}/{{how}}/old"))]
            for how in ("r", "w", "rw")
        }}
        """,
        permissions=fs((tmp_path / "r", "r"), (tmp_path / "w", "w"), (tmp_path / "rw", "rw")),
    )
    assert ended.value == {
        "r": [True, False, False],
        "w": [False, True, True],
        "rw": [True, True, True],
    }
    assert (tmp_path / "rw" / "new").exists()


async def test_a_granted_link_shows_what_it_leads_to(house: RuntimeHouse, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_text("seen")
    (tmp_path / "way").symlink_to(tmp_path / "real")
    ended = await house.run(
        f"result = open({str(tmp_path / 'way' / 'a')!r}).read()",
        permissions=fs((tmp_path / "way", "r")),
    )
    assert ended.value == "seen"


async def test_a_grant_above_the_task_s_folder_leaves_that_folder_as_it_is(
    house: RuntimeHouse,
) -> None:
    ended = await house.run(
        """
        import os
        open("../beside", "w").close()
        try:
            open("task.py", "a").close()
            result = "open"
        except OSError as error:
            result = error.errno
        """,
        permissions=fs((house.folder.parent, "rw")),
    )
    assert ended.value in (13, 30)
    assert (house.folder.parent / "beside").exists()


async def test_a_folder_to_write_that_is_not_there_is_made(
    house: RuntimeHouse, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ended = await house.run(
        f"""
        open({str(out / "x")!r}, "w").write("1")
        open({str(tmp_path / "log.txt")!r}, "a").write("2")
        """,
        permissions=fs((out, "rw"), (tmp_path / "log.txt", "w")),
    )
    assert ended.outcome.status is RunStatus.SUCCESS, ended
    assert (out / "x").read_text() == "1"
    assert (tmp_path / "log.txt").read_text() == "2"


async def test_each_run_has_a_home_and_a_folder_for_temporary_files(house: RuntimeHouse) -> None:
    ended = await house.run(
        """
        import os, pathlib, tempfile
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"x")
        pathlib.Path.home().joinpath("mine").write_text("x")
        result = [tempfile.gettempdir() == os.environ["TMPDIR"], os.listdir(os.environ["HOME"])]
        """
    )
    assert ended.value == [True, ["mine"]]
    assert (ended.scratch / "home" / "mine").exists()


# ── Programs ──


async def test_listed_programs_run_and_others_do_not(house: RuntimeHouse) -> None:
    ended = await house.run(
        """
        import subprocess
        def ran(*words):
            try:
                return subprocess.run(words, capture_output=True, text=True).stdout.strip()
            except OSError as error:
                return type(error).__name__
        result = [ran("echo", "hi"), ran("id", "-u"), ran("/bin/sh", "-c", "echo no"),
                  ran("/lib64/ld-linux-x86-64.so.2", "/usr/bin/id")]
        """,
        permissions=Permissions(run=("echo",)),
    )
    assert ended.value[0] == "hi"
    assert [
        text for text in ended.value[1:] if text not in ("PermissionError", "FileNotFoundError")
    ] in ([], [""])


@pytest.mark.skipif(not os.access("/usr/bin/git", os.X_OK), reason="no git here")
async def test_git_alone_starts_no_shell(house: RuntimeHouse) -> None:
    ended = await house.run(
        """
        import subprocess
        def ran(*words):
            done = subprocess.run(["git", *words], capture_output=True, text=True)
            return [done.returncode, done.stdout]
        result = [ran("--version"), ran("-c", "alias.x=!id; echo came through", "x")]
        """,
        permissions=Permissions(run=("git",)),
    )
    version, alias = ended.value
    assert version[0] == 0
    assert "git version" in version[1]
    assert alias[0] != 0
    assert "came through" not in alias[1]


async def test_any_program_may_run_where_all_are_granted(house: RuntimeHouse) -> None:
    ended = await house.run(
        """
        import subprocess
        result = subprocess.run("echo $((1+1)); sh -c 'exit 3'; echo $?", shell=True,
                                capture_output=True, text=True).stdout.split()
        """,
        permissions=Permissions(run=("*",)),
    )
    assert ended.value == ["2", "3"]


# ── Ends ──


async def test_a_signal_inside_is_told_as_a_signal(house: RuntimeHouse) -> None:
    ended = await house.run("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert ended.exit.signal == signal.SIGSEGV
    ended = await house.run("import os; os._exit(7)")
    assert ended.exit.exit_code == 7
    assert ended.exit.max_rss is not None
    assert 2 * MIB < ended.exit.max_rss < 100 * MIB


async def test_what_outlives_the_script_is_ended_and_counted(house: RuntimeHouse) -> None:
    ended = await house.run(
        """
        import os, time
        if os.fork() == 0:
            os.setsid()
            os.environ.clear()
            for fd in range(3, 20):
                try: os.close(fd)
                except OSError: pass
            time.sleep(300)
        """
    )
    assert ended.outcome.status is RunStatus.SUCCESS
    assert ended.exit.strays == 1


async def test_variables_that_steer_the_loader_come_into_force_inside_only(
    house: RuntimeHouse,
) -> None:
    ended = await house.run(
        "import os; result = [os.environ['LD_PRELOAD'], os.environ['A']]",
        env={"LD_PRELOAD": str(house.folder / "evil.so"), "A": "b"},
    )
    assert ended.value == [str(house.folder / "evil.so"), "b"]


# ── Limits ──

HOG = """
blocks = []
while True:
    blocks.append(bytearray(8 * 1024 * 1024))
"""
BOMB = """
import os, time
started = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        started += 1
except OSError as error:
    result = [started, error.errno]
"""


@pytest.fixture(params=["groups", "alone"])
def groups(request: pytest.FixtureRequest) -> Iterator[Groups | None]:
    found = find(f"t{os.getpid()}-{id(request)}") if request.param == "groups" else None
    if request.param == "groups" and (found is None or found.kinds < {"memory", "pids"}):
        pytest.skip("this user may not make control groups here")
    yield found
    if found is not None:
        found.close()


@pytest_asyncio.fixture
async def limited(groups: Groups | None, tmp_path: Path) -> AsyncIterator[RuntimeHouse]:
    become_subreaper()
    probe = replace(this_machine(), groups=groups)
    cages = Cages("strict", probe, Ceilings(512 * MIB, 64))
    async with SpawnExecutor(SystemClock(), cages=cages) as executor:
        yield RuntimeHouse(PythonRuntime(), ".py", executor, tmp_path)


async def test_a_run_that_takes_too_much_memory_is_ended_by_the_limit_it_names(
    limited: RuntimeHouse,
) -> None:
    ended = await limited.run(HOG, resources=ResourceSpec(memory=256 * MIB))
    assert ended.outcome.status is RunStatus.FAILURE
    assert ended.outcome.reason == "memory_limit"
    assert ended.outcome.error is not None
    assert "memory limit 256 MiB" in ended.outcome.error.message


async def test_the_server_s_own_limit_holds_where_a_task_names_none(limited: RuntimeHouse) -> None:
    ended = await limited.run(HOG)
    assert ended.outcome.reason == "memory_limit"
    assert ended.outcome.error is not None
    assert "memory limit 512 MiB" in ended.outcome.error.message


async def test_processes_are_counted(limited: RuntimeHouse, groups: Groups | None) -> None:
    if groups is None and os.geteuid() == 0:
        pytest.skip("root's processes are counted by a control group only")
    ended = await limited.run(BOMB)
    started, errno = ended.value
    assert 40 <= started <= 64
    assert errno == 11


# ── Machines that cannot ──


async def test_a_machine_that_cannot_enforce_runs_nothing_and_says_what_to_do(
    tmp_path: Path,
) -> None:
    probe = Probe(
        landlock=0, seccomp="", files="unshare: Operation not permitted", files_as_root="uid"
    )
    async with SpawnExecutor(SystemClock(), cages=Cages("strict", probe)) as executor:
        house = RuntimeHouse(PythonRuntime(), ".py", executor, tmp_path)
        with pytest.raises(DicodeError) as caught:
            await house.run("open('/tmp/ran', 'w')")
    assert caught.value.code is Code.SANDBOX_UNAVAILABLE
    assert "nothing was run" in caught.value.message
    assert "Operation not permitted" in caught.value.message
    assert "execution.sandbox: best_effort" in (caught.value.hint or "")


async def test_landlock_and_seccomp_alone_hold_files_network_and_programs(tmp_path: Path) -> None:
    if this_machine().landlock < 3:
        pytest.skip("no Landlock here")
    probe = replace(this_machine(), files="not allowed", files_as_root="not allowed", user="no")
    (tmp_path / "secret").write_text("s")
    async with SpawnExecutor(SystemClock(), cages=Cages("strict", probe)) as executor:
        house = RuntimeHouse(PythonRuntime(), ".py", executor, tmp_path)
        ended = await house.run(
            f"""
            import os, socket, subprocess
            def tried(act):
                try:
                    act()
                    return "came through"
                except OSError as error:
                    return error.errno
            result = [
                tried(lambda: open({str(tmp_path / "secret")!r})),
                tried(lambda: open("/etc/hosts")),
                tried(lambda: socket.socket()),
                tried(lambda: socket.socket(socket.AF_UNIX)),
                tried(lambda: subprocess.run(["id"])),
                tried(lambda: os.kill(os.getppid(), 0)),
                tried(lambda: os.chmod("task.py", 0o777)),
                tried(lambda: open("/proc/" + str(os.getppid()) + "/environ").read()),
                os.listdir(os.environ["TMPDIR"]),
            ]
            """
        )
    assert "came through" not in ended.value, ended.value
    assert ended.value[-1] == []


# ── What is told ──


@pytest.mark.parametrize(
    ("script", "hint", "line"),
    [
        (
            "open('{}/secret').read()",
            'fs: [{{path: "{}/secret", permission: r}}]',
            "read {}/secret",
        ),
        ("open('{}/new', 'w')", 'fs: [{{path: "{}/new", permission:', "write {}/new"),
        ("import subprocess; subprocess.run(['id'])", 'permissions.run: ["id"]', "run id"),
        (
            "import urllib.request; urllib.request.urlopen('https://example.com/')",
            None,
            'connect example.com - add to task.yaml: permissions.net: ["example.com"]',
        ),
        ("open('task.py', 'a')", "permission: rw}}]", "write"),
    ],
)
async def test_what_is_refused_is_told_with_the_line_to_add(
    house: RuntimeHouse, tmp_path: Path, script: str, hint: str | None, line: str
) -> None:
    (tmp_path / "secret").write_text("s")
    ended = await house.run(script.replace("{}", str(tmp_path)))
    assert ended.outcome.error is not None
    if hint is not None:
        assert hint.format(tmp_path) in (ended.outcome.error.hint or "")
    security = [message for level, message in ended.log if level is Level.SECURITY]
    assert any(line.replace("{}", str(tmp_path)) in message for message in security), ended.log


async def test_a_run_within_its_permissions_has_no_line_of_refusals(house: RuntimeHouse) -> None:
    ended = await house.run(
        """
        import asyncio, ssl, json, tempfile, zoneinfo, subprocess, urllib.request, sqlite3
        ssl.create_default_context()
        zoneinfo.ZoneInfo("Europe/Berlin")
        with tempfile.TemporaryDirectory() as folder:
            sqlite3.connect(folder + "/x.db").execute("create table a (b)")
        open("task.py").read()
        """
    )
    assert ended.outcome.status is RunStatus.SUCCESS, ended
    assert [each for each in ended.log if each[0] is Level.SECURITY] == []


async def test_a_run_says_what_it_was_not_held_to(tmp_path: Path) -> None:
    held = dict.fromkeys(("files", "files_as_root", "user", "told"), "not allowed")
    probe = replace(this_machine(), **held)
    wants = Permissions(net=("api.example.com",))
    async with SpawnExecutor(SystemClock(), cages=Cages("best_effort", probe)) as executor:
        house = RuntimeHouse(PythonRuntime(), ".py", executor, tmp_path)
        ended = await house.run("result = 1", permissions=wants)
        assert ended.value == 1
        assert "permissions.net" in (ended.outcome.unenforced or "")
        assert not ended.seen.whole
    async with SpawnExecutor(SystemClock(), cages=strict_cages()) as executor:
        house.executor = executor
        assert (await house.run("result = 1", permissions=wants)).outcome.unenforced is None
