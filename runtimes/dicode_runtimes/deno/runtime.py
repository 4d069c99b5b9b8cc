"""Deno tasks: JavaScript and TypeScript, held to their declared permissions by Deno's flags.

Describes processes and reads their answers; who starts them, and when, is others' work.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import dicode_sdk
from dicode_mcp import children
from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.protocols import (
    Exit,
    Health,
    Helped,
    HelperContext,
    Launch,
    LaunchContext,
    Prepared,
    RunHelper,
    RuntimeHost,
    SandboxPolicy,
)
from dicode_mcp.runs.accesses import Hint
from dicode_mcp.runs.model import RunError
from dicode_mcp.spec.model import Permissions, ResourceSpec, Task
from dicode_runtimes.deno.answers import being_prepared, dependencies_failed, type_errors
from dicode_runtimes.deno.cache import DenoCache
from dicode_runtimes.deno.flags import Imports, Places, flags, module_hosts
from dicode_runtimes.deno.graph import ARGUMENTS, Graph, read_graph, unused_main
from dicode_runtimes.deno.program import DenoProgram
from dicode_runtimes.deno.used import FILE, VARIABLE, read_used
from dicode_runtimes.shared import (
    DEFAULT_PATH,
    PRIVATE_FOLDERS,
    explain_exit,
    require_script,
    socket_path,
    task_environment,
)

SCRIPTS = ("task.ts", "task.js")
SDK = Path(dicode_sdk.__file__).resolve().parent / "deno"
_LOOK_S = 20.0
_LOOK_MEMORY = 1024 * 1024 * 1024
_FETCH_S = 300.0
_CHECK_S = 120.0
_MOST_PROBLEMS = 5
_OURS = ("DENO_", "LD_", "DYLD_")


Helping = Callable[[Callable[[HelperContext], Launch]], Helped]


class DenoRuntime:
    """``runtime: deno``. ``cache`` is the server's own folder; tasks only read it."""

    def __init__(
        self,
        cache: Path,
        program: DenoProgram,
        *,
        path: str = DEFAULT_PATH,
        timezone: str | None = None,
        help: Helping | None = None,
    ) -> None:
        self._help = help
        self._program = program
        self._path = path
        self._timezone = timezone
        self._cache = DenoCache(cache, program.identity)

    @classmethod
    def for_server(cls, host: RuntimeHost) -> DenoRuntime:
        """Make the runtime of a server."""
        return cls(
            host.cache / "deno",
            DenoProgram(host.environ),
            timezone=host.environ.get("TZ"),
            help=host.help,
        )

    @property
    def name(self) -> str:
        """The name used in ``runtime:``."""
        return "deno"

    @property
    def scripts(self) -> tuple[str, ...]:
        """The script file names it looks for, best first."""
        return SCRIPTS

    def health(self) -> Health:
        """Tell whether deno is there and new enough."""
        return self._program.health

    # Before a run

    def check(self, task: Task) -> Sequence[Condition]:
        """Look for what keeps the script from starting: syntax, imports that are not there."""
        if task.script is None or not self.health().ok:
            return ()
        graph = self._cache.graph(task)
        if graph is None:
            try:
                graph = self._look(task, task.script)
            except DicodeError as error:
                if error.code is Code.SANDBOX_UNAVAILABLE:
                    return ()  # no run of it starts either, and says so
                return (_script_error(f"{task.script.name}: {error.message}"),)
            except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
                what = f"{task.script.name}: deno could not read it ({type(error).__name__})"
                return (_script_error(what),)
            self._cache.keep_graph(task, graph)
        if not graph.problems:
            return ()
        return (_script_error("\n".join(graph.problems[:_MOST_PROBLEMS])),)

    def _look(self, task: Task, script: Path) -> Graph:
        graph = read_graph(self._info(task, script), task.folder, _readable(task))
        if graph.problems:
            return graph
        unused = unused_main(script.read_text("utf-8", "replace"), script.name)
        return Graph((unused,), graph.external, graph.inside) if unused else graph

    def _info(self, task: Task, script: Path) -> str:
        """Ask Deno for a script's modules; in a cage that shows what the task may read, if any."""
        command = (*ARGUMENTS, str(script))
        if self._help is None:
            argv, env = [self._binary(), *command], self._helper_environment()
            told = children.run(argv, env=env, cwd=self._home(), timeout=_LOOK_S)
            return told.stdout.decode("utf-8", "replace")
        granted = tuple(
            grant.model_copy(update={"permission": "r"})
            for grant in task.spec.permissions.fs
            if "r" in grant.permission
        )

        def describe(context: HelperContext) -> Launch:
            launch = self._helper(task, context, command, _LOOK_S)
            may = Permissions(fs=granted)
            limits = ResourceSpec(memory=_LOOK_MEMORY)
            return replace(launch, policy=replace(launch.policy, permissions=may, resources=limits))

        return self._help(describe).stdout

    def prepared(self, task: Task) -> Prepared | None:
        """Give what preparing this version of the task came to."""
        if task.script is None or not self.health().ok:
            return Prepared()
        return self._cache.prepared(task)

    def awaiting(self, task: Task) -> tuple[Condition, ...]:
        """Tell of dependencies that are being fetched."""
        graph = self._cache.graph(task)
        return (being_prepared(graph.external),) if graph and graph.external else ()

    async def make_ready(self, task: Task, context: HelperContext, run: RunHelper) -> Prepared:
        """Fetch and compile what the script imports, then check its types once."""
        script = require_script(task, _NAMES)
        graph = self._cache.graph(task) or Graph()
        hosts = "--allow-import=" + ",".join(module_hosts(task.spec.permissions.net))
        fetched = await run(
            self._helper(
                task,
                context,
                ("cache", "--quiet", "--no-config", "--no-lock", hosts, str(script)),
                _FETCH_S,
            )
        )
        if fetched.exit.exit_code != 0 and graph.external:
            failed = dependencies_failed(
                fetched.stderr, task.folder, graph.external, timed_out=fetched.exit.timed_out
            )
            return Prepared((failed,), again=True)
        prepared = Prepared(await self._check_types(task, context, run, hosts, script))
        self._cache.keep_prepared(task, prepared)
        return prepared

    async def _check_types(
        self, task: Task, context: HelperContext, run: RunHelper, hosts: str, script: Path
    ) -> tuple[Condition, ...]:
        if script.suffix == ".js":
            return ()
        config = ("--config", str(SDK / "deno.json"), "--no-lock", "--cached-only", hosts)
        command = ("check", "--quiet", *config, str(script))
        checked = await run(self._helper(task, context, command, _CHECK_S))
        if checked.exit.exit_code == 0:
            return ()
        found = type_errors(checked.stderr + checked.stdout, task.folder)
        return (found,) if found else ()

    def _helper(
        self, task: Task, context: HelperContext, command: Sequence[str], timeout_s: float
    ) -> Launch:
        environment = self._helper_environment() | self._program.proxies()
        mark = {"DICODE_RUN_ID": context.mark, "DICODE_INSTANCE": context.instance_id}
        return Launch(
            argv=(self._binary(), *command),
            env=environment | mark,
            # Not the task's folder: a file there must not configure what fetches packages.
            cwd=self._home(),
            policy=SandboxPolicy(
                self._fetching(),
                task.folder,
                context.scratch,
                read=(SDK, *self._extra()),
                write=(self._home(),),
            ),
            ipc="none",
            timeout_s=timeout_s,
            run_id=context.mark,
            instance_id=context.instance_id,
        )

    def _fetching(self) -> Permissions:
        """Say what a helper may: the network, and of files the task's folder and its own cache.

        The site's own registry and proxies may be at private addresses.
        """
        return Permissions(net=("*", *self._program.servers()))

    def _helper_environment(self) -> dict[str, str]:
        return {
            "PATH": self._path,
            "HOME": str(self._home()),
            "LANG": "C.UTF-8",
            "DENO_DIR": str(self._cache.modules),
            **self._program.site(),
        }

    def _home(self) -> Path:
        folder = self._cache.modules
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    # A run

    def prepare(self, context: LaunchContext) -> Launch:
        """Describe the process.

        Raises ``DicodeError``: TASK_NOT_READY while dependencies are missing, INVALID_SPEC for
        permissions that cannot be expressed, RUNTIME_UNAVAILABLE without deno.
        """
        task = context.task
        script = require_script(task, _NAMES)
        graph = self._cache.graph(task) or Graph()
        if graph.external and self._cache.prepared(task) is None:
            raise _not_prepared(task, graph)
        socket = socket_path(context.scratch)
        places = Places(task.folder, context.scratch, socket, self._cache.modules)
        spec = task.spec
        return Launch(
            argv=(
                self._binary(),
                "run",
                *flags(spec.permissions, places, graph.imports, spec.resources),
                str(SDK / "runner.js"),
                str(socket),
                script.as_uri(),
            ),
            env=self._environment(context) | _record(context),
            cwd=task.folder,
            policy=SandboxPolicy(
                spec.permissions,
                task.folder,
                context.scratch,
                read=(SDK, self._home(), *self._extra()),
                resources=spec.resources,
            ),
            ipc="path",
            ipc_path=socket,
            may_wait=True,
            files=PRIVATE_FOLDERS,
            timeout_s=spec.timeout,
            run_id=context.run.id,
            instance_id=context.instance_id,
        )

    @property
    def endings(self) -> tuple[str, ...]:
        """How the names of files end that are programs of this runtime."""
        return (".ts", ".js", ".mjs")

    def program(
        self, entry: Path, permissions: Permissions, *, folder: Path, scratch: Path
    ) -> tuple[str, ...]:
        """Give the command that starts a file as a program; its imports are files beside it.

        Raises ``DicodeError``: INVALID_SPEC for permissions that cannot be expressed,
        RUNTIME_UNAVAILABLE without deno.
        """
        places = Places(folder, scratch, scratch / "none.sock", self._cache.modules)
        return (
            self._binary(),
            "run",
            *flags(permissions, places, Imports(), None),
            str(entry),
        )

    def used(self, launch: Launch) -> tuple[Sequence[Hint], bool]:
        """Give what a process that has ended used, by Deno's own record. Blocks."""
        return read_used(launch.policy.scratch) if VARIABLE in launch.env else ((), False)

    def explain(self, exit: Exit, task: Task) -> RunError | None:
        """Say what an exit means that the script itself did not report."""
        return explain_exit(
            exit, task, early="something called Deno.exit() or process.exit(); return instead"
        )

    def _environment(self, context: LaunchContext) -> dict[str, str]:
        named = sorted(n for n in context.env if n.startswith(_OURS) or n == "NODE_OPTIONS")
        if named:
            raise DicodeError(
                Code.INVALID_SPEC,
                f"permissions.env names {', '.join(named)}: such variables steer deno itself "
                "and are not given to a task",
                hint="use another name",
            )
        environment = task_environment(context, path=self._path, timezone=self._timezone)
        return environment | self._program.site() | {"DENO_DIR": str(self._cache.modules)}

    def _extra(self) -> tuple[Path, ...]:
        file = self._program.certificate_file()
        return (file,) if file else ()

    def _binary(self) -> str:
        if self._program.path is None:
            raise DicodeError(Code.RUNTIME_UNAVAILABLE, self.health().message)
        return self._program.path


_NAMES = " or ".join(SCRIPTS)


def _record(context: LaunchContext) -> dict[str, str]:
    """Have Deno note what is used; not of a run without an end, whose notes would have none."""
    if context.task.spec.timeout is None:
        return {}
    return {VARIABLE: str(context.scratch / FILE)}


def _readable(task: Task) -> list[Path]:
    granted = [Path(g.path) for g in task.spec.permissions.fs if "r" in g.permission]
    return [task.folder, *granted]


def _script_error(message: str) -> Condition:
    return Condition(ConditionType.READY, False, "ScriptError", message)


def _not_prepared(task: Task, graph: Graph) -> DicodeError:
    first = graph.external[0]
    return DicodeError(
        Code.TASK_NOT_READY,
        f"what {first.file}:{first.line} imports ({first.specifier}) is not prepared yet",
        hint=f"get_task({task.id!r}) shows the condition DependenciesReady: wait until it is gone, "
        "or mend the import that it names",
        retry=Retry.BACKOFF,
    )
