"""From a task with a block to its environment: what uv is asked, and what is told meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.protocols import HelperContext, Launch, Prepared, RunHelper, SandboxPolicy
from dicode_mcp.spec.model import Permissions, Task
from dicode_runtimes.uv.answers import failed, is_passing, preparing, words
from dicode_runtimes.uv.block import Block, BlockError, read_block
from dicode_runtimes.uv.environments import OLDEST, Environment, Environments, version_of
from dicode_runtimes.uv.program import UvProgram

_SYNC = ("sync", "--no-build", "--compile-bytecode", "--script")
_FIND = ("python", "find", "--offline", "--script")
_SYNC_S, _FIND_S = 600.0, 30.0
_MOST_BLOCKS = 50_000


class ScriptEnvironments:
    """The environments of tasks whose scripts name dependencies."""

    def __init__(self, environments: Environments, uv: UvProgram, path: str) -> None:
        self._environments = environments
        self._uv = uv
        self._path = path
        self._blocks: dict[str, Block | None] = {}

    def block(self, task: Task) -> Block | None:
        """Give the block of a task's script. Reads the file once for each version.

        Raises ``BlockError`` and ``OSError``.
        """
        if task.digest in self._blocks:
            return self._blocks[task.digest]
        found = read_block(task.script.read_bytes()) if task.script else None
        if task.digest:
            while len(self._blocks) >= _MOST_BLOCKS:
                self._blocks.pop(next(iter(self._blocks)))
            self._blocks[task.digest] = found
        return found

    def check(self) -> Condition | None:
        """Say why no environment can be made at all, if so."""
        health = self._uv.health
        if health.ok:
            return None
        return Condition(ConditionType.READY, False, "DependencyError", health.message)

    def of(self, task: Task) -> Environment | None:
        """Give what a run of the task uses, None for a script without a block.

        Raises ``DicodeError(TASK_NOT_READY)`` while it is not there.
        """
        try:
            block = self.block(task)
        except (BlockError, OSError) as error:
            raise DicodeError(
                Code.TASK_NOT_READY,
                f"the script of task {task.id} cannot be read: {error}",
                hint=f"get_task({task.id!r}) shows what is wrong with it",
            ) from error
        if block is None:
            return None
        found = self._environments.ready(block)
        if found is None:
            raise DicodeError(
                Code.TASK_NOT_READY,
                f"the packages that task {task.id} names are not installed yet",
                hint=f"get_task({task.id!r}) shows the condition DependenciesReady: wait until it "
                "is gone, or mend the script block that it names",
                retry=Retry.BACKOFF,
            )
        return found

    def prepared(self, task: Task) -> Prepared | None:
        """Give what preparing the task came to: nothing to tell, or None when it is to be done."""
        try:
            block = self.block(task)
        except (BlockError, OSError):
            return Prepared()  # its check tells
        if block is None or not self._uv.health.ok or self._environments.ready(block):
            return Prepared()
        return None

    def awaiting(self, task: Task) -> tuple[Condition, ...]:
        """Tell of packages that are being installed."""
        block = self.block(task)
        return (preparing(_name(task), block),) if block else ()

    async def make_ready(self, task: Task, context: HelperContext, run: RunHelper) -> Prepared:
        """Have uv make the environment of a task's block."""
        block = self.block(task)
        if block is None:
            return Prepared()
        script = str(self._environments.script(block))
        done = await run(self._helper(task, context, (*_SYNC, script), _SYNC_S))
        if done.exit.exit_code != 0:
            said = words(done.stderr, timed_out=done.exit.timed_out)
            return Prepared((failed(_name(task), block, said),), again=is_passing(said))
        found = await run(self._helper(task, context, (*_FIND, script), _FIND_S))
        python = found.stdout.strip()
        if python and self._environments.keep(block, python) is not None:
            return Prepared()
        return Prepared((failed(_name(task), block, _unusable(python)),))

    def tidy(self, tasks: Sequence[Task], now_ms: int) -> None:
        """Let environments go that no task has used for a day."""
        used: set[str] = set()
        for task in tasks:
            try:
                block = self.block(task)
            except (BlockError, OSError):
                continue
            if block is not None:
                used.add(block.digest)
        self._environments.tidy(used, now_ms)

    def _helper(
        self, task: Task, context: HelperContext, command: Sequence[str], timeout_s: float
    ) -> Launch:
        if self._uv.path is None:
            raise DicodeError(Code.RUNTIME_UNAVAILABLE, self._uv.health.message)
        root = self._environments.root
        mark = {"DICODE_RUN_ID": context.mark, "DICODE_INSTANCE": context.instance_id}
        return Launch(
            argv=(self._uv.path, *command),
            env=self._uv.environment(root, self._path) | mark,
            # Not the task's folder: a uv.toml there must not say where packages come from.
            cwd=root,
            policy=SandboxPolicy(
                # It starts the interpreters it finds, to ask what they are.
                Permissions(net=("*", *self._uv.hosts()), run=("*",)),
                task.folder,
                context.scratch,
                read=(*self._uv.folders(), Path(sys.base_prefix)),
                write=(root,),
            ),
            ipc="none",
            timeout_s=timeout_s,
            run_id=context.mark,
            instance_id=context.instance_id,
        )


def _name(task: Task) -> str:
    return task.script.name if task.script else "the script"


def _unusable(python: str) -> str:
    version = version_of(Path(python).parent.parent) if python else None
    oldest = ".".join(map(str, OLDEST))
    if version is not None and version < OLDEST:
        shown = ".".join(map(str, version))
        return f"requires-python leads to Python {shown}; tasks need {oldest} or newer"
    return "uv made no environment that can be used"
