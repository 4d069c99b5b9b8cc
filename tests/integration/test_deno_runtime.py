"""Deno tasks for real: what is special to them, around the same table as every runtime."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from dicode_mcp.clock import SystemClock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.executor import SpawnExecutor, become_subreaper
from dicode_mcp.runs.logs import Level
from dicode_mcp.runs.model import RunError
from dicode_mcp.spec.model import FsGrant, Permissions
from dicode_mcp.testing.cages import strict_cages
from dicode_mcp.testing.runtime_house import Ended, RuntimeHouse
from dicode_runtimes.deno import DenoRuntime
from dicode_runtimes.deno.program import DenoProgram

DENO = DenoProgram(os.environ)
pytestmark = pytest.mark.skipif(not DENO.health.ok, reason=DENO.health.message or "-")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deno")


@pytest_asyncio.fixture
async def house(cache: Path, tmp_path: Path) -> AsyncIterator[RuntimeHouse]:
    become_subreaper()
    async with SpawnExecutor(SystemClock(), cages=strict_cages()) as executor:
        # URLs and paths differ here: what is shown must be the path, as the user knows it.
        folder = tmp_path / "my tasks (50% grün)"
        folder.mkdir()
        yield RuntimeHouse(DenoRuntime(cache, DENO), ".ts", executor, folder)


def failed(ended: Ended, reason: str = "script_error") -> RunError:
    assert ended.outcome.reason == reason, (ended.outcome, ended.messages)
    assert ended.outcome.error is not None
    return ended.outcome.error


# ── How a script is read, and how it ends ────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("script", "value"),
    [
        ("export async function main() { return 1; }", 1),
        ("export default { a: 2 };", {"a": 2}),
        ("export const result = 3;", 3),
        ("export default function () { result = 4; }", 4),
        ("const { params } = globalThis; result = (await params.all()).x ?? 5;", 5),
        (
            "export default () => ({ a: undefined, when: new Date(0) });",
            {"when": "1970-01-01T00:00:00.000Z"},
        ),
        ("export default () => JSON.parse('{\"__proto__\": 1}');", {"__proto__": 1}),
    ],
)
async def test_every_form_of_script_gives_its_value(
    house: RuntimeHouse, script: str, value: object
) -> None:
    assert (await house.run(script)).value == value


async def test_javascript_runs_too(cache: Path, tmp_path: Path) -> None:
    async with SpawnExecutor(SystemClock(), cages=strict_cages()) as executor:
        house = RuntimeHouse(DenoRuntime(cache, DENO), ".js", executor, tmp_path)
        ended = await house.run("export default async ({ params }) => await params.get('x', 1);")
        assert ended.value == 1


@pytest.mark.parametrize("how", ["NoRetryError", "globalThis.NoRetryError"])
async def test_an_error_that_says_so_is_told_apart_so_that_nobody_tries_again(
    house: RuntimeHouse, how: str
) -> None:
    argument = "{ NoRetryError }" if how == "NoRetryError" else ""
    ended = await house.run(
        f"export default function main({argument}) {{ throw new {how}('void'); }}"
    )
    error = failed(ended, "no_retry")
    assert (error.code, error.message) == ("no_retry", "NoRetryError: void")


async def test_a_run_ends_with_main_whatever_timers_are_left(house: RuntimeHouse) -> None:
    ended = await house.run(
        "export default () => { setInterval(() => {}, 1000); kv.set('late', 1); return 'done'; };"
    )
    assert ended.value == "done"
    assert house.calls.kv == {"late": 1}


async def test_a_main_that_can_never_end_is_told_at_once(house: RuntimeHouse) -> None:
    error = failed(await house.run("export default () => new Promise(() => {});"))
    assert "nothing is left to settle" in error.message


@pytest.mark.parametrize(
    "script",
    [
        "\nPromise.reject(new RangeError('lost'));\nawait new Promise((r) => setTimeout(r, 9000));",
        "\nsetTimeout(() => { throw new RangeError('lost'); });\nexport default () =>"
        " new Promise((r) => setTimeout(r, 9000));",
    ],
)
async def test_an_error_nobody_caught_ends_the_run_with_its_line(
    house: RuntimeHouse, script: str
) -> None:
    error = failed(await house.run(script))
    assert error.message == "RangeError: lost"
    assert (error.file, error.line) == ("task.ts", 2)


async def test_a_cause_is_told_and_our_own_frames_are_not(house: RuntimeHouse) -> None:
    ended = await house.run(
        """
        interface Unused { a: number }
        export default function main() {
          try {
            JSON.parse("{");
          } catch (cause) {
            throw new Error("no settings", { cause });
          }
        }
        """
    )
    error = failed(ended)
    assert (error.message, error.file, error.line) == ("Error: no settings", "task.ts", 7)
    assert error.traceback is not None
    assert "Caused by: SyntaxError" in error.traceback
    assert "at main (task.ts:7:" in error.traceback.replace("Module.main", "main")
    assert "runner.js" not in error.traceback
    assert any("no settings" in message for message in ended.messages)


async def test_what_is_not_an_error_may_be_thrown_too(house: RuntimeHouse) -> None:
    assert failed(await house.run("throw 'just text';")).message == 'the script threw "just text"'


async def test_the_console_is_the_log_with_its_levels_and_forms(house: RuntimeHouse) -> None:
    ended = await house.run(
        """
        console.log("a %s b %d%%", "x", 4.5, { k: [1] });
        console.debug("low");
        console.warn(new Map([[1, 2]]));
        console.error("bad\\nnews");
        console.log();
        """
    )
    assert ended.log == [
        (Level.INFO, "a x b 4.5% { k: [ 1 ] }"),
        (Level.DEBUG, "low"),
        (Level.WARN, "Map(1) { 1 => 2 }"),
        (Level.ERROR, "bad\nnews"),
        (Level.INFO, ""),
    ]


async def test_a_long_message_is_cut_and_keeps_its_level(house: RuntimeHouse) -> None:
    ended = await house.run('log.error("\\x01".repeat(100_000)); log.error("é".repeat(100_000));')
    assert [level for level, _ in ended.log] == [Level.ERROR, Level.ERROR]
    assert ended.messages[1].endswith("[200,000 bytes, cut]")


async def test_a_large_call_arrives_and_one_too_large_is_refused(house: RuntimeHouse) -> None:
    ended = await house.run(
        """
        await kv.set("k", "é".repeat(900_000));
        try { await kv.set("k2", "x".repeat(3_000_000)); } catch (e) { log.info(e.code); }
        result = (await kv.get("k")).length;
        """
    )
    assert ended.value == 900_000
    assert ended.messages == ["too_large"]


# ── What flags hold ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("script", "hint"),
    [
        ('Deno.readTextFileSync("/etc/passwd");', '[{path: "/etc/passwd", permission: r}]'),
        ('Deno.writeTextFileSync("/etc/x", "");', 'fs: [{path: "/etc/x", permission: rw}]'),
        ('Deno.writeTextFileSync("x", "");', "permission: rw}]"),
        ('await fetch("https://example.com/");', 'permissions.net: ["example.com:443"]'),
        ('new Deno.Command("ls").outputSync();', 'permissions.run: ["ls"]'),
        ("Deno.env.toObject();", "permissions.env"),
        ('Deno.env.get("HOST_SECRET");', 'permissions.env: ["HOST_SECRET"]'),
        ("Deno.hostname();", 'permissions.sys: ["hostname"]'),
    ],
)
async def test_what_is_not_declared_is_refused_with_the_line_to_add(
    house: RuntimeHouse, script: str, hint: str
) -> None:
    error = failed(await house.run(script))
    assert hint in (error.hint or "")
    assert (error.file, error.line) == ("task.ts", 1)


async def test_a_file_elsewhere_cannot_be_imported_as_text(
    house: RuntimeHouse, tmp_path: Path
) -> None:
    (tmp_path / "secret.json").write_text('{"hunter2": 1}')
    script = f'import x from "{tmp_path}/secret.json" with {{ type: "json" }};\nresult = x;\n'
    (found,) = house.check(script)
    assert "outside of the task's folder" in found.message
    ended = await house.run(script)
    assert ended.outcome.return_value is None
    assert "hunter2" not in repr((failed(ended), ended.messages, found))


async def test_declared_folders_may_be_used(house: RuntimeHouse, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    ended = await house.run(
        f'Deno.writeTextFileSync("{data}/x", "1"); result = Deno.readTextFileSync("{data}/x");',
        permissions=Permissions(fs=(FsGrant(path=str(data), permission="rw"),)),
    )
    assert ended.value == "1"


async def test_loopback_is_reached_only_when_it_is_listed(house: RuntimeHouse) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f'(await Deno.connect({{ hostname: "127.0.0.1", port: {port} }})).close();'
        error = failed(await house.run(script, permissions=Permissions(net=("*",))))
        assert f'["127.0.0.1:{port}"]' in (error.hint or "")
        for rule in (f"127.0.0.1:{port}", "localhost"):
            named = script.replace("127.0.0.1", rule.partition(":")[0])
            ended = await house.run(named, permissions=Permissions(net=(rule,)))
            assert ended.outcome.error is None


async def test_a_task_cannot_write_what_other_tasks_would_run(
    house: RuntimeHouse, cache: Path
) -> None:
    grant = Permissions(fs=(FsGrant(path=str(cache), permission="rw"),))
    error = failed(
        await house.run(f'Deno.writeTextFileSync("{cache}/modules/x", "");', permissions=grant)
    )
    assert error.message.startswith("NotCapable")


@pytest.mark.parametrize("name", ["LD_PRELOAD", "DENO_DIR", "NODE_OPTIONS", "DICODE_RUN_ID"])
async def test_variables_that_steer_the_program_are_refused(house: RuntimeHouse, name: str) -> None:
    with pytest.raises(DicodeError, match=name) as caught:
        await house.run("result = 1;", env={name: "x"})
    assert caught.value.code is Code.INVALID_SPEC


async def test_the_sites_certificates_reach_the_task_and_nothing_else_of_the_server(
    cache: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("")
    program = DenoProgram({"SSL_CERT_FILE": str(bundle), "HOST_SECRET": "x", "PATH": "/bin"})
    assert program.site()["DENO_CERT"] == str(bundle)
    assert "x" not in program.site().values()
    assert program.site()["DENO_TLS_CA_STORE"] == "system,mozilla"
    secret = DenoProgram({"NPM_CONFIG_REGISTRY": "https://me:hunter2@npm.example.com/"})
    assert "hunter2" not in repr(secret.site())


# ── Before a run ─────────────────────────────────────────────────────────────────────────────


def test_a_main_that_is_not_exported_is_told_before_it_runs(house: RuntimeHouse) -> None:
    (found,) = house.check("async function main() {\n  return 1;\n}\n")
    assert found.reason == "ScriptError"
    assert "export default async function main" in found.message


def test_a_missing_deno_is_told_with_its_remedy(tmp_path: Path) -> None:
    missing = DenoProgram({}, str(tmp_path / "none"))
    assert "pip install deno" in missing.health.message
    fake = tmp_path / "deno"
    fake.write_text("#!/bin/sh\necho deno 1.46.3\n")
    fake.chmod(0o755)
    assert "is deno 1.46; 2.5 is needed" in DenoProgram({}, str(fake)).health.message
    fake.write_text("#!/bin/sh\nexit 3\n")
    assert not DenoProgram({}, str(fake)).health.ok


def test_what_is_known_of_a_script_is_known_after_a_restart(
    house: RuntimeHouse, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(house.check("const x = ;\n")) == 1

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be started")

    monkeypatch.setattr("dicode_runtimes.deno.runtime.subprocess.run", refuse)
    (found,) = DenoRuntime(cache, DENO).check(house.task())
    assert found.message.startswith("task.ts:1:")


async def test_a_task_whose_packages_are_not_there_yet_does_not_start(house: RuntimeHouse) -> None:
    with pytest.raises(DicodeError, match="is not prepared yet") as caught:
        await house.run('import "npm:zz-not-there";\n')
    assert caught.value.code is Code.TASK_NOT_READY
    assert "DependenciesReady" in (caught.value.hint or "")
