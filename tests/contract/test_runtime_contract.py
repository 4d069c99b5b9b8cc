"""What every runtime that starts a script owes it: one table of scripts, one expected outcome."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dicode_mcp.clock import SystemClock
from dicode_mcp.executor import SpawnExecutor, become_subreaper
from dicode_mcp.protocols import Runtime
from dicode_mcp.runs.logs import Level
from dicode_mcp.runs.model import Payload, RunStatus
from dicode_mcp.spec.model import DicodeGrants, EnvEntry, Permissions
from dicode_mcp.testing.cages import strict_cages
from dicode_mcp.testing.forking import QUICK, kept_ready
from dicode_mcp.testing.runtime_house import INSTANCE, Ended, RuntimeHouse
from dicode_runtimes.deno import DenoRuntime
from dicode_runtimes.deno.program import DenoProgram
from dicode_runtimes.python import PythonRuntime

DENO = DenoProgram(os.environ)
RUNTIMES = [
    "python",
    "python-forked",
    pytest.param(
        "deno", marks=pytest.mark.skipif(not DENO.health.ok, reason=DENO.health.message or "-")
    ),
]


@pytest.fixture(scope="session")
def deno_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One module cache for all: a new one costs each test a compilation."""
    return tmp_path_factory.mktemp("deno")


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest, deno_cache: Path) -> Runtime:
    if request.param == "deno":
        return DenoRuntime(deno_cache, DENO)
    return PythonRuntime(warm=QUICK if request.param == "python-forked" else None)


@pytest_asyncio.fixture
async def house(runtime: Runtime, tmp_path: Path) -> AsyncIterator[RuntimeHouse]:
    become_subreaper()
    suffix = ".py" if runtime.name == "python" else ".ts"
    async with SpawnExecutor(SystemClock(), cages=strict_cages()) as executor:
        await kept_ready(executor, runtime)
        yield RuntimeHouse(runtime, suffix, executor, tmp_path)


@dataclass(frozen=True)
class Case:
    """One behaviour, as each runtime's script asks for it, and what must come of it."""

    python: str
    deno: str
    value: Any = None
    status: RunStatus = RunStatus.SUCCESS
    reason: str | None = None
    says: str = ""
    """Part of the error's message."""
    hint: str = ""
    place: tuple[str, int] | None = None
    """The file (without its suffix) and line of the error."""
    log: tuple[tuple[Level, str], ...] | None = None
    payload: Payload = field(default_factory=Payload)
    permissions: Permissions = field(default_factory=Permissions)
    env: dict[str, str] = field(default_factory=dict[str, str])
    limit: float = 30
    kv: dict[str, Any] | None = None


FAILED = RunStatus.FAILURE
RUN_OTHER = Permissions(dicode=DicodeGrants(tasks=("other",)))

CASES: dict[str, Case] = {
    "main_returns_the_value": Case(
        "def main(): return {'hello': params.get('name')}",
        """
        export default async function main({ params }: DicodeSdk) {
          return { hello: await params.get("name") };
        }
        """,
        {"hello": "Ada"},
        payload=Payload(params={"name": "Ada"}),
    ),
    "a_plain_script_gives_result": Case(
        "result = {'hello': params.get('name', 'World')}",
        'result = { hello: await params.get("name", "World") };',
        {"hello": "World"},
    ),
    "nothing_returned_is_no_value": Case(
        "def main(): pass", "export default function main() {}", None
    ),
    "parameters_keep_their_types": Case(
        "def main(): return [params.all(), params.get('none', 7)]",
        "export default async ({ params }) => [await params.all(), await params.get('none', 7)];",
        [{"n": 2.5, "b": False, "s": "é"}, 7],
        payload=Payload(params={"n": 2.5, "b": False, "s": "é"}),
    ),
    "input_and_request_are_given": Case(
        "def main(input, request): return [input, request]",
        "export default ({ input, request }: DicodeSdk) => [input, request];",
        [{"a": [1, None]}, {"method": "POST"}],
        payload=Payload(input={"a": [1, None]}, request={"method": "POST"}),
    ),
    "input_is_null_when_there_is_none": Case(
        "result = [input, request]", "result = [input, request];", [None, None]
    ),
    "log_lines_keep_order_and_level": Case(
        """
        log.debug("one", 1)
        print("two")
        log.warn("three")
        log.error("four\\nmore")
        log.info("five")
        """,
        """
        log.debug("one", 1);
        console.log("two");
        log.warn("three");
        log.error("four\\nmore");
        log.info("five");
        """,
        log=(
            (Level.DEBUG, "one 1"),
            (Level.INFO, "two"),
            (Level.WARN, "three"),
            (Level.ERROR, "four\nmore"),
            (Level.INFO, "five"),
        ),
    ),
    "stderr_is_a_warning": Case(
        "import sys; print('oh', file=sys.stderr)",
        "Deno.stderr.writeSync(new TextEncoder().encode('oh\\n'));",
        log=((Level.WARN, "oh"),),
    ),
    "too_large_a_value_is_refused": Case(
        "def main(): return 'x' * 5_000_000",
        "export default () => 'x'.repeat(5_000_000);",
        status=FAILED,
        reason="return_too_large",
        says="5,000,002 bytes",
        hint="return a summary",
    ),
    "the_largest_value_arrives_whole": Case(
        "result = '\"' * (512 * 1024 - 1)",
        "export default '\"'.repeat(512 * 1024 - 1);",
        '"' * (512 * 1024 - 1),
    ),
    "a_value_that_is_not_json_names_its_place": Case(
        "def main(): return {'a': [1, float('nan')]}",
        "export default () => ({ a: [1, NaN] });",
        status=FAILED,
        reason="return_not_json",
        says="$.a[1]",
    ),
    "an_object_that_is_not_json_has_a_remedy": Case(
        "def main(): return {'s': {1, 2}}",
        "export default () => ({ s: new Set([1, 2]) });",
        status=FAILED,
        reason="return_not_json",
        says="$.s",
        hint="value",
    ),
    "half_a_character_is_not_json": Case(
        "result = '\\ud800'",
        "result = '\\ud800';",
        status=FAILED,
        reason="return_not_json",
        says="surrogate",
    ),
    "an_error_names_its_file_and_line": Case(
        """
        import helper


        def main():
            helper.boom()
        """,
        """
        import { boom } from "./helper.ts";


        export default function main() {
          boom();
        }
        """,
        status=FAILED,
        reason="script_error",
        says="broken on purpose",
        place=("helper", 3),
    ),
    "leaving_early_is_noticed": Case(
        "import os; os._exit(0)",
        "Deno.exit(0);",
        status=FAILED,
        reason="exited_early",
    ),
    "an_exit_code_is_told": Case(
        "import os; os._exit(3)",
        "Deno.exit(3);",
        status=FAILED,
        reason="exit_code",
        says="exit code 3",
    ),
    "a_run_over_its_time_is_ended": Case(
        "import time; time.sleep(60)",
        "await new Promise((done) => setTimeout(done, 60_000));",
        status=RunStatus.TIMEOUT,
        reason="timeout",
        limit=0.5,
    ),
    "kv_values_stay": Case(
        """
        def main():
            kv.set("a/1", {"n": [1, None, "ü"]})
            kv.set("b", 2)
            return [kv.get("a/1"), kv.get("none", "x"), kv.list("a/"), kv.delete("b"),
                    kv.delete("b")]
        """,
        """
        export default async function main({ kv }: DicodeSdk) {
          await kv.set("a/1", { n: [1, null, "ü"] });
          await kv.set("b", 2);
          return [await kv.get("a/1"), await kv.get("none", "x"), await kv.list("a/"),
            await kv.delete("b"), await kv.delete("b")];
        }
        """,
        [{"n": [1, None, "ü"]}, "x", ["a/1"], True, False],
        kv={"a/1": {"n": [1, None, "ü"]}},
    ),
    "a_call_without_its_permission_names_the_line": Case(
        'def main():\n    dicode.run_task("other", {})\n',
        'export default async ({ dicode }) => {\n  await dicode.run_task("other");\n};\n',
        status=FAILED,
        reason="script_error",
        hint='add to task.yaml: permissions.dicode.tasks: ["other"]',
        place=("task", 2),
    ),
    "a_granted_call_runs_the_other_task": Case(
        "def main(): return [dicode.run_task('other', {'x': 1}), dicode.trigger('other', [2])]",
        """
        export default async ({ dicode }: DicodeSdk) =>
          [await dicode.run_task("other", { x: 1 }), await dicode.trigger("other", [2])];
        """,
        [
            {"runID": "child-other", "status": "success", "returnValue": {"x": 1}},
            {"runID": "child-other"},
        ],
        permissions=RUN_OTHER,
    ),
    "a_method_the_server_lacks_says_so": Case(
        "dicode.git.commit_push('message')",
        "await dicode.git.commit_push('message');",
        status=FAILED,
        reason="script_error",
        says="does not offer git.commit_push",
    ),
    "a_refused_call_can_be_caught": Case(
        """
        from dicode_sdk import DicodeError
        try:
            dicode.list_tasks()
        except DicodeError as error:
            result = [error.code, error.hint]
        """,
        "try { await dicode.list_tasks(); } catch (error) { result = [error.code, error.hint]; }",
        ["forbidden", "add to task.yaml: permissions.dicode.list_tasks: true"],
    ),
    "a_granted_variable_is_there_and_others_are_not": Case(
        "result = [env.get('GRANTED'), env.get('HOST_SECRET', 'none')]",
        "result = [env.get('GRANTED'), env.get('HOST_SECRET', 'none')];",
        ["yes", "none"],
        permissions=Permissions(env=(EnvEntry(name="GRANTED", source="host", key="GRANTED"),)),
        env={"GRANTED": "yes"},
    ),
    "the_working_directory_is_the_task_folder": Case(
        "import os; result = os.path.basename(os.getcwd())",
        "result = Deno.cwd().split('/').at(-1);",
        "task",
    ),
    "home_and_tmpdir_are_private_and_writable": Case(
        """
        import os, tempfile
        with tempfile.NamedTemporaryFile() as file:
            inside = file.name.startswith(os.environ["TMPDIR"])
        open(os.path.join(os.environ["HOME"], "x"), "w").close()
        result = inside
        """,
        """
        const file = Deno.makeTempFileSync();
        Deno.writeTextFileSync(`${Deno.env.get("HOME")}/x`, "");
        result = file.startsWith(Deno.env.get("TMPDIR")!);
        """,
        True,
    ),
    "work_left_unfinished_by_a_plain_script_is_waited_for": Case(
        """
        import threading
        threading.Timer(0.05, lambda: kv.set("late", True)).start()
        """,
        "setTimeout(() => kv.set('late', true), 50);",
        kv={"late": True},
    ),
}

HELPERS = {
    "helper.py": "\ndef boom():\n    raise ValueError('broken on purpose')\n",
    "helper.ts": "type Unused = string;\nexport function boom() {\n"
    "  throw new Error('broken on purpose');\n}\n",
}


@pytest.mark.parametrize("name", CASES)
async def test_every_runtime_gives_the_same_outcome(
    house: RuntimeHouse, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST_SECRET", "must-not-leak")
    case = CASES[name]
    suffix = house.script.suffix
    house.write(HELPERS[f"helper{suffix}"], f"helper{suffix}")
    ended = await house.run(
        case.python if suffix == ".py" else case.deno,
        case.payload,
        permissions=case.permissions,
        limit=case.limit,
        env=case.env,
    )
    assert ended.outcome.status is case.status, (ended.outcome, ended.messages)
    if case.status is RunStatus.SUCCESS:
        assert ended.value == case.value
        assert ended.exit.exit_code == 0
    else:
        _check_failure(case, ended, suffix)
    if case.log is not None:
        assert ended.log == list(case.log)
    if case.kv is not None:
        assert house.calls.kv == case.kv


def _check_failure(case: Case, ended: Ended, suffix: str) -> None:
    error = ended.outcome.error
    assert error is not None
    assert ended.outcome.reason == case.reason
    assert ended.outcome.return_value is None
    assert case.says in error.message
    assert case.hint in (error.hint or "")
    assert "hunter2" not in error.message
    if case.place is not None:
        assert (error.file, error.line) == (case.place[0] + suffix, case.place[1])
        assert str(ended.scratch.parent.parent) not in (error.traceback or "")


OUTPUTS = {
    "html": (
        'output.html("<b>hi</b>", data={"a": 1})',
        'await output.html("<b>hi</b>", { data: { a: 1 } });',
        ("html", "text/html; charset=utf-8", "<b>hi</b>", False, None, {"a": 1}),
    ),
    "text": (
        'output.text("hi")',
        'await output.text("hi");',
        ("text", "text/plain; charset=utf-8", "hi", False, None, None),
    ),
    "image": (
        'output.image("image/png", "AAEC")',
        'await output.image("image/png", "AAEC");',
        ("image", "image/png", "AAEC", True, None, None),
    ),
    "file": (
        'output.file("r.bin", bytes([0, 255]), "application/x-r")',
        'await output.file("r.bin", new Uint8Array([0, 255]), "application/x-r");',
        ("file", "application/x-r", "AP8=", True, "r.bin", None),
    ),
    "value": (
        'output({"a": [1]})',
        "await output({ a: [1] });",
        ("value", "application/json", '{"a":[1]}', False, None, {"a": [1]}),
    ),
}


@pytest.mark.parametrize("kind", OUTPUTS)
async def test_every_kind_of_output_is_kept(house: RuntimeHouse, kind: str) -> None:
    python, deno, expected = OUTPUTS[kind]
    ended = await house.run(python if house.script.suffix == ".py" else deno)
    assert ended.outcome.status is RunStatus.SUCCESS, ended.outcome
    shown = ended.outcome.output
    assert shown is not None
    told = (shown.kind, shown.content_type, shown.body, shown.base64, shown.name, shown.data)
    assert told == expected


ALL_VARIABLES = {
    ".py": "import os\nresult = dict(os.environ)",
    # Flags name single variables, so a program is asked; it sees what the task was given.
    ".ts": """
        const told = new Deno.Command("env", { args: ["-0"] }).outputSync();
        const text = new TextDecoder().decode(told.stdout);
        result = Object.fromEntries(text.split("\\0").filter((e) => e).map((e) => {
          const at = e.indexOf("=");
          return [e.slice(0, at), e.slice(at + 1)];
        }));
        """,
}
OF_DENO = {
    "DENO_AUDIT_PERMISSIONS",
    "DENO_CERT",
    "DENO_DIR",
    "DENO_NO_PACKAGE_JSON",
    "DENO_NO_UPDATE_CHECK",
    "DENO_TLS_CA_STORE",
    "NO_COLOR",
    "NPM_CONFIG_REGISTRY",
}


async def test_the_environment_is_made_from_nothing(
    house: RuntimeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST_SECRET", "must-not-leak")
    ended = await house.run(
        ALL_VARIABLES[house.script.suffix],
        permissions=Permissions(run=("env",)),
        env={"GRANTED": "yes", "TZ": "Asia/Tokyo"},
    )
    names = set(ended.value)
    assert names - OF_DENO - {"DICODE_IPC_FD"} == {
        "PATH",
        "HOME",
        "LANG",
        "TZ",
        "TMPDIR",
        "GRANTED",
        "DICODE_RUN_ID",
        "DICODE_TASK_ID",
        "DICODE_INSTANCE",
    }
    assert ended.value["DICODE_INSTANCE"] == INSTANCE
    assert ended.value["HOME"].startswith(str(ended.scratch))
    assert "must-not-leak" not in repr(ended.value)


BROKEN = {".py": "x = 1\ny = (\n", ".ts": "const x: number = 1;\nconst y = ;\n"}


async def test_a_script_that_cannot_be_read_is_found_without_running_it(
    house: RuntimeHouse,
) -> None:
    (found,) = house.check(BROKEN[house.script.suffix])
    assert (found.type.value, found.status, found.reason) == ("Ready", False, "ScriptError")
    assert found.message.startswith(f"{house.script.name}:2:")
    assert house.check("result = 1\n" if house.script.suffix == ".py" else "result = 1;\n") == []


async def test_every_call_at_once_is_served(house: RuntimeHouse) -> None:
    house.calls.wait_for_all_of(20)
    ended = await house.run(
        """
        import asyncio

        async def main():
            found = await asyncio.gather(
                *(dicode.run_task_async("other", {"n": n}) for n in range(20)))
            return [f["returnValue"]["n"] for f in found]
        """
        if house.script.suffix == ".py"
        else """
        export default async ({ dicode }: DicodeSdk) => {
          const calls = Array.from({ length: 20 }, (_, n) => dicode.run_task("other", { n }));
          return (await Promise.all(calls)).map((found) => found.returnValue.n);
        };
        """,
        permissions=RUN_OTHER,
    )
    assert ended.value == list(range(20))
