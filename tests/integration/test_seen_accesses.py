"""What runs use and are refused is seen, of Python and Deno, and told to those who may know."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dicode_mcp.clock import SystemClock
from dicode_mcp.executor import SpawnExecutor, become_subreaper
from dicode_mcp.runs.accesses import Access, covers_net
from dicode_mcp.spec.model import Permissions
from dicode_mcp.testing.cages import strict_cages, this_machine
from dicode_mcp.testing.runtime_house import Ended, RuntimeHouse
from dicode_runtimes.deno import DenoRuntime
from dicode_runtimes.deno.program import DenoProgram
from dicode_runtimes.python import PythonRuntime

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not this_machine().separates, reason="no namespaces here"
)


@pytest_asyncio.fixture
async def executor() -> AsyncIterator[SpawnExecutor]:
    become_subreaper()
    async with SpawnExecutor(SystemClock(), cages=strict_cages()) as executor:
        yield executor


@pytest.fixture
def python(executor: SpawnExecutor, tmp_path: Path) -> RuntimeHouse:
    (tmp_path / "python").mkdir()
    return RuntimeHouse(PythonRuntime(), ".py", executor, tmp_path / "python")


@pytest.fixture
def deno(executor: SpawnExecutor, tmp_path: Path) -> RuntimeHouse:
    runtime = DenoRuntime(tmp_path / "cache", DenoProgram({}))
    if not runtime.health().ok:
        pytest.skip("no deno here")
    return RuntimeHouse(runtime, ".ts", executor, tmp_path)


def may(**permissions: Any) -> Permissions:
    return Permissions.model_validate(permissions)


def used(ended: Ended) -> set[tuple[str, str]]:
    return {(a.kind, a.what) for a in ended.seen.accesses if a.allowed}


def refused(ended: Ended) -> set[tuple[str, str]]:
    return {(a.kind, a.what) for a in ended.seen.accesses if not a.allowed}


# ── Python ──


async def test_a_run_that_uses_nothing_is_seen_whole_with_nothing(python: RuntimeHouse) -> None:
    ended = await python.run("import tempfile\nopen(tempfile.mkdtemp() + '/x', 'w')\nresult = 1")
    assert (ended.value, ended.seen.whole, ended.seen.accesses) == (1, True, frozenset())


async def test_python_s_uses_of_grants_are_told_by_the_grant(
    python: RuntimeHouse, tmp_path: Path
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    for folder in (data, out, tmp_path / "idle"):
        folder.mkdir()
    for n in range(300):
        (data / str(n)).write_text("x")
    ended = await python.run(
        f"""
        import os, subprocess
        from dicode_sdk import dicode, env
        for n in range(300):
            open({str(data)!r} + f"/{{n}}").read()
        open({str(out)!r} + "/y", "w").close()
        subprocess.run(["cat"], stdin=subprocess.DEVNULL, check=True)
        os.environ["ONE"]
        env.get("TWO")
        dicode.list_tasks()
        result = os.environb[b"ONE"] == b"1" and "FOUR" not in os.environ
        """,
        permissions=may(
            fs=[
                {"path": str(data), "permission": "r"},
                {"path": str(out), "permission": "rw"},
                {"path": str(tmp_path / "idle"), "permission": "r"},
            ],
            run=["cat", "ls"],
            env=["ONE", "TWO", "THREE"],
            dicode={"list_tasks": True},
        ),
        env={"ONE": "1", "TWO": "2", "THREE": "3"},
    )
    assert ended.value is True
    assert ended.seen.whole
    assert refused(ended) == set()
    assert used(ended) == {
        ("read", str(data)),
        ("write", str(out)),
        ("run", "cat"),
        ("env", "ONE"),
        ("env", "TWO"),
        ("dicode", "list_tasks: true"),
    }


async def test_what_python_is_refused_is_seen_although_the_script_swallows_it(
    python: RuntimeHouse, tmp_path: Path
) -> None:
    (tmp_path / "hidden").write_text("x")
    ended = await python.run(
        f"""
        import socket, subprocess
        from dicode_sdk import dicode
        for act in (
            lambda: open({str(tmp_path / "hidden")!r}),
            lambda: open("notes.txt", "w"),
            lambda: socket.getaddrinfo("api.example.com", 443),
            lambda: subprocess.run(["git"]),
            lambda: dicode.run_task("other"),
        ):
            try:
                act()
            except Exception:
                pass
        raise ValueError("the library says something else")
        """
    )
    assert refused(ended) == {
        ("read", str(tmp_path / "hidden")),
        ("write", str(python.folder / "notes.txt")),
        ("net", "api.example.com:443"),
        ("run", "git"),
        ("dicode", 'tasks: ["other"]'),
    }
    assert ended.outcome.error is not None
    hint = ended.outcome.error.hint or ""
    assert f'permissions.fs: [{{path: "{tmp_path / "hidden"}", permission: r}}' in hint
    assert 'permissions.net: ["api.example.com:443"]' in hint
    assert 'permissions.run: ["git"]' in hint
    assert 'permissions.dicode.tasks: ["other"]' in hint


async def test_the_places_that_the_gate_let_a_run_reach_are_told(
    python: RuntimeHouse, deno: RuntimeHouse
) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hi")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    rules = [f"localhost:{port}", "idle.example.com"]
    in_python = f"""
        import socket
        with socket.create_connection(("localhost", {port})) as talk:
            result = talk.recv(9).decode()
        try:
            socket.getaddrinfo("other.example.com", 443)
        except OSError:
            pass
    """
    in_deno = f"""
        export default async function main() {{
          const talk = await Deno.connect({{ hostname: "localhost", port: {port} }});
          const data = new Uint8Array(9);
          const count = await talk.read(data);
          talk.close();
          try {{ await fetch("https://other.example.com/"); }} catch {{ /* not listed */ }}
          return new TextDecoder().decode(data.subarray(0, count ?? 0));
        }}
    """
    async with server:
        for house, script in ((python, in_python), (deno, in_deno)):
            ended = await house.run(script, permissions=may(net=rules))
            assert (ended.value, ended.seen.whole) == ("hi", True)
            assert used(ended) in ({("net", f"127.0.0.1:{port}")}, {("net", f"[::1]:{port}")})
            assert all(covers_net(rules[0], what) for _, what in used(ended))
            assert {what.partition(":")[0] for _, what in refused(ended)} == {"other.example.com"}


async def test_a_missing_program_s_error_names_the_line_to_add(python: RuntimeHouse) -> None:
    ended = await python.run("import subprocess\nsubprocess.run(['git', 'status'])")
    assert ended.outcome.error is not None
    assert 'permissions.run: ["git"]' in (ended.outcome.error.hint or "")


async def test_a_variable_that_is_not_granted_is_named_with_the_line_to_add(
    python: RuntimeHouse,
) -> None:
    ended = await python.run("import os\nos.environ['API_KEY']")
    assert ended.outcome.error is not None
    assert 'permissions.env: ["API_KEY"]' in (ended.outcome.error.hint or "")
    assert refused(ended) == {("env", "API_KEY")}
    other = await python.run("{}['API_KEY']")
    assert other.outcome.error is not None
    assert other.outcome.error.hint is None


async def test_a_hint_does_not_tell_whether_a_file_is_there(
    python: RuntimeHouse, tmp_path: Path
) -> None:
    (tmp_path / "there").write_text("x")
    hints: list[str] = []
    for name in ("there", "none!"):
        ended = await python.run(f"open({str(tmp_path / name)!r})")
        assert ended.outcome.error is not None
        hints.append(f"{ended.outcome.error.message} {ended.outcome.error.hint}".replace(name, ""))
    assert hints[0] == hints[1]


async def test_a_process_that_forks_says_that_more_may_have_happened(python: RuntimeHouse) -> None:
    ended = await python.run(
        """
        import os, warnings
        warnings.simplefilter("ignore")
        child = os.fork()
        if child == 0:
            os.environ.get("ONE")
            os._exit(0)
        os.waitpid(child, 0)
        """,
        permissions=may(env=["ONE"]),
        env={"ONE": "1"},
    )
    assert used(ended) == {("blind", "fork")}


async def test_a_process_that_leaves_early_was_not_seen_whole(python: RuntimeHouse) -> None:
    ended = await python.run("import os\nos._exit(0)")
    assert not ended.seen.whole


async def test_more_refusals_than_are_kept_do_not_end_the_run(python: RuntimeHouse) -> None:
    ended = await python.run(
        """
        for n in range(1000):
            try:
                open(f"/srv/nothing/{n}")
            except OSError:
                pass
        result = "done"
        """
    )
    assert ended.value == "done"
    assert len(ended.seen.accesses) <= 200


async def test_a_task_that_floods_the_server_with_what_it_used_is_ended(
    python: RuntimeHouse,
) -> None:
    ended = await python.run(
        """
        import os
        fd = int(os.environ["DICODE_IPC_FD"])
        for n in range(5000):
            os.write(fd, b'{"used":[["read","/x%d"]]}\\n' % n)
        """
    )
    assert ended.report.error is not None
    assert ended.report.error.code == "protocol_error"
    assert len(ended.seen.accesses) <= 200


@pytest.mark.parametrize(
    "frame",
    [
        b'{"used":7}',
        b'{"used":[["read"],["shout","x"],["read",7],7,["read","/a","b"]]}',
        b'{"used":[["read","/a\\nb"],["net",""],["run","' + b"x" * 5000 + b'"]]}',
    ],
)
async def test_nonsense_of_a_task_about_what_it_used_is_left_out(
    python: RuntimeHouse, frame: bytes
) -> None:
    ended = await python.run(
        f"""
        import os
        os.write(int(os.environ["DICODE_IPC_FD"]), {frame!r} + b"\\n")
        result = 1
        """
    )
    assert (ended.value, ended.seen.accesses) == (1, frozenset())


# ── Deno ──


async def test_deno_s_uses_and_refusals_are_seen(deno: RuntimeHouse, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_text("x")
    (tmp_path / "hidden").write_text("x")
    ended = await deno.run(
        f"""
        export default async function main({{ dicode }}) {{
          Deno.readTextFileSync("{tmp_path}/data/a");
          Deno.env.get("ONE");
          Deno.writeTextFileSync(Deno.env.get("TMPDIR") + "/own", "x");
          for (const act of [
            () => Deno.readTextFileSync("{tmp_path}/hidden"),
            () => Deno.writeTextFileSync("notes.txt", "x"),
            () => Deno.env.get("SECRET_PLAN"),
            () => Deno.hostname(),
            () => fetch("http://api.example.com/"),
          ]) {{
            try {{ await act(); }} catch {{ /* as libraries do */ }}
          }}
          await dicode.list_tasks();
          return 1;
        }}
        """,
        permissions=may(
            fs=[{"path": str(tmp_path / "data"), "permission": "r"}],
            env=["ONE", "TWO"],
            dicode={"list_tasks": True},
        ),
        env={"ONE": "1", "TWO": "2"},
    )
    assert ended.value == 1
    assert ended.seen.whole
    assert used(ended) == {
        ("read", str(tmp_path / "data")),
        ("env", "ONE"),
        ("dicode", "list_tasks: true"),
    }
    assert refused(ended) == {
        ("read", str(tmp_path / "hidden")),
        ("write", str(deno.folder / "notes.txt")),
        ("env", "SECRET_PLAN"),
        ("sys", "hostname"),
        ("net", "api.example.com:80"),
    }


async def test_many_files_of_a_granted_folder_are_told_as_the_folder(
    deno: RuntimeHouse, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    ended = await deno.run(
        f"""
        for (let n = 0; n < 3000; n++) {{
          try {{ Deno.statSync("{tmp_path}/data/" + n); }} catch {{ /* not there */ }}
        }}
        """,
        permissions=may(fs=[{"path": str(tmp_path / "data"), "permission": "r"}]),
    )
    assert ended.seen.whole
    assert used(ended) == {("read", str(tmp_path / "data"))}


async def test_a_record_that_the_task_replaced_is_not_followed(
    deno: RuntimeHouse, tmp_path: Path
) -> None:
    (tmp_path / "hidden").write_text('{"permission":"read","value":"/from/the/hidden/file"}')
    ended = await deno.run(
        f"""
        const path = Deno.env.get("HOME") + "/.used.jsonl";
        Deno.removeSync(path);
        const made = new Deno.Command("ln", {{ args: ["-s", "{tmp_path}/hidden", path] }});
        export const result = made.outputSync().code;
        """,
        permissions=may(run=["ln"]),
    )
    assert ended.value == 0
    assert not ended.seen.whole
    assert Access("read", "/from/the/hidden/file", False) not in ended.seen.accesses


async def test_a_failed_deno_run_names_what_it_was_refused(deno: RuntimeHouse) -> None:
    ended = await deno.run(
        """
        export default async function main() {
          try { Deno.readTextFileSync("/srv/plan"); } catch { /* as libraries do */ }
          throw new Error("something else");
        }
        """
    )
    assert ended.outcome.error is not None
    assert 'permissions.fs: [{path: "/srv/plan", permission: r}]' in (
        ended.outcome.error.hint or ""
    )
