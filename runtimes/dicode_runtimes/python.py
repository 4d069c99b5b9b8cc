"""Python tasks: the server's own interpreter runs the script through the SDK's entry file.

Pure description: which process, with which environment. Starting it is the executor's work.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import warnings
from collections.abc import Sequence
from pathlib import Path

import dicode_sdk
from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.protocols import (
    Exit,
    Health,
    HelperContext,
    Launch,
    LaunchContext,
    Prepared,
    RunHelper,
    RuntimeHost,
    SandboxPolicy,
    Warm,
)
from dicode_mcp.runs.model import RunError
from dicode_mcp.spec.model import Permissions, Task
from dicode_runtimes.shared import (
    DEFAULT_PATH,
    PRIVATE_FOLDERS,
    authorities,
    explain_exit,
    require_script,
    task_environment,
)
from dicode_runtimes.uv import BlockError, Environments, ScriptEnvironments, UvProgram, read_block

_SDK = Path(dicode_sdk.__file__).resolve().parent
_MAIN = str(_SDK / "_main.py")
_OWN = tuple(f"dicode_sdk.{name}" for name in ("_bootstrap", "_refused", "_seen", "_failure"))
_COMMON = (
    "asyncio argparse base64 collections concurrent.futures contextlib copy csv dataclasses "
    "datetime decimal email.message enum fnmatch functools glob gzip hashlib hmac html http.client "
    "inspect io itertools json logging math operator pathlib pprint queue random re secrets shlex "
    "shutil signal socket sqlite3 ssl statistics string struct subprocess tempfile textwrap "
    "threading time traceback typing unicodedata urllib.error urllib.parse urllib.request uuid "
    "zipfile zlib zoneinfo _ast"
)
WARM = Warm(_MAIN, str(_SDK.parent), (*_OWN, *_COMMON.split()))
"""What an interpreter imports before it is told of a run."""
_PACKAGES = ("site-packages", "dist-packages")


class PythonRuntime:
    """``runtime: python``. ``interpreter`` may be a virtual environment's ``python``."""

    def __init__(
        self,
        *,
        interpreter: str = sys.executable,
        path: str = DEFAULT_PATH,
        timezone: str | None = None,
        warm: Warm | None = WARM,
        environments: ScriptEnvironments | None = None,
    ) -> None:
        self._environments = environments
        self._warm = warm
        self._interpreter = interpreter
        self._path = path
        self._timezone = timezone
        self._packages = os.pathsep.join(package_folders())
        self._folders = _interpreter_folders()
        self._healthy = False

    @classmethod
    def for_server(cls, host: RuntimeHost) -> PythonRuntime:
        """Make the runtime of a server: its tasks are in the server's time zone."""
        return cls(
            timezone=host.environ.get("TZ"),
            environments=ScriptEnvironments(
                Environments(host.cache / "uv"), UvProgram(host.environ), DEFAULT_PATH
            ),
        )

    @property
    def name(self) -> str:
        """The name used in ``runtime:``."""
        return "python"

    @property
    def scripts(self) -> tuple[str, ...]:
        """The script file names it looks for, best first."""
        return ("task.py",)

    def warm(self) -> tuple[str, Warm] | None:
        """Give the interpreter that runs tasks without dependencies of their own."""
        return (self._interpreter, self._warm) if self._warm else None

    def health(self) -> Health:
        """Tell whether the interpreter can be started, directly and not through a shim."""
        if not self._healthy:
            health = self._look()
            self._healthy = health.ok
            return health
        return Health(True)

    def _look(self) -> Health:
        path = Path(self._interpreter)
        if not path.is_absolute() or not os.access(path, os.X_OK):
            return Health(False, f"the interpreter {path} is not there or not executable")
        with path.open("rb") as file:
            shim = file.read(2) == b"#!"
        if shim:
            return Health(
                False,
                f"{path} is a script that looks for a Python, which slows every run down; "
                "start the server with the interpreter itself",
            )
        return Health(True)

    def check(self, task: Task) -> Sequence[Condition]:
        """Compile the script without running it, and look for what this build does not do."""
        if task.script is None:
            return ()
        try:
            source = task.script.read_bytes()
        except OSError as error:
            return (_script_error(f"{task.script.name}: {os.strerror(error.errno or 0)}"),)
        found = [_broken(source, task.script), self._check_block(source, task.script)]
        return tuple(condition for condition in found if condition is not None)

    def _check_block(self, source: bytes, script: Path) -> Condition | None:
        try:
            block = read_block(source)
        except BlockError as error:
            return _script_error(f"{script.name}:{error}")
        if block is None:
            return None
        if self._environments is not None:
            return self._environments.check()
        return Condition(
            ConditionType.NOT_IN_FORCE,
            True,
            "ScriptDependencies",
            f"{script.name}:{block.line}: the script block is not in force, as there is no place "
            "for environments; imports see the server's own",
        )

    # Before the first run

    def prepared(self, task: Task) -> Prepared | None:
        """Give what preparing this version of the task came to."""
        return self._environments.prepared(task) if self._environments else Prepared()

    def awaiting(self, task: Task) -> tuple[Condition, ...]:
        """Tell of packages that are being installed."""
        return self._environments.awaiting(task) if self._environments else ()

    async def make_ready(self, task: Task, context: HelperContext, run: RunHelper) -> Prepared:
        """Make the environment that the script's block asks for."""
        if self._environments is None:
            return Prepared()
        return await self._environments.make_ready(task, context, run)

    def tidy(self, tasks: Sequence[Task], now_ms: int) -> None:
        """Let environments go that no task has used for a day."""
        if self._environments is not None:
            self._environments.tidy(tasks, now_ms)

    # A run

    def prepare(self, context: LaunchContext) -> Launch:
        """Describe the process.

        Raises ``DicodeError``: INVALID_SPEC when the environment names DICODE_*, TASK_NOT_READY
        while the script's packages are not installed.
        """
        task = context.task
        script = require_script(task, "task.py")
        found = self._environments.of(task) if self._environments else None
        python, packages, folders = self._interpreter, self._packages, self._folders
        if found is not None:
            python, packages = found.python, os.pathsep.join(found.packages)
            folders = (found.root, found.base)
        return Launch(
            argv=(python, "-I", "-S", _MAIN, str(script), packages),
            env=task_environment(context, path=self._path, timezone=self._timezone),
            cwd=task.folder,
            policy=SandboxPolicy(
                task.spec.permissions,
                task.folder,
                context.scratch,
                read=(_SDK.parent, *folders, *authorities(context)),
                resources=task.spec.resources,
            ),
            files=PRIVATE_FOLDERS,
            timeout_s=task.spec.timeout,
            run_id=context.run.id,
            instance_id=context.instance_id,
            within_python=True,
            warm=self._warm,
        )

    @property
    def endings(self) -> tuple[str, ...]:
        """How the names of files end that are programs of this runtime."""
        return (".py",)

    def program(
        self, entry: Path, permissions: Permissions, *, folder: Path, scratch: Path
    ) -> tuple[str, ...]:
        """Give the command that starts a file as a program: it finds the modules beside it."""
        return (self._interpreter, "-E", "-s", "-B", "-u", str(entry))

    def explain(self, exit: Exit, task: Task) -> RunError | None:
        """Say what an exit means that the script itself did not report."""
        return explain_exit(
            exit,
            task,
            early="something called os._exit() or replaced the process (os.exec*); "
            "return from main() instead",
        )


def package_folders() -> list[str]:
    """Give where this interpreter finds installed packages: its path without its own library."""
    library = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    own = {*library, *(os.path.join(folder, "lib-dynload") for folder in library)}
    return [
        folder
        for folder in dict.fromkeys(sys.path)
        if os.path.isdir(folder) and folder not in own and folder != os.getcwd()
    ]


def _interpreter_folders() -> tuple[Path, ...]:
    """Give what the interpreter and its packages are read from; a project's own root is not."""
    packages = [p for p in map(Path, package_folders()) if p.name in _PACKAGES]
    return tuple(dict.fromkeys((Path(sys.base_prefix), Path(sys.prefix), *packages)))


def _broken(source: bytes, script: Path) -> Condition | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, script.name, "exec", dont_inherit=True)
    except SyntaxError as error:
        where = f"{script.name}:{error.lineno}" if error.lineno else script.name
        return _script_error(f"{where}: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        return _script_error(f"{script.name}: cannot be compiled: {error}")
    return None


def _script_error(message: str) -> Condition:
    return Condition(ConditionType.READY, False, "ScriptError", message)
