"""Agents: programs below a task's ``agents`` folder, each started as a run of its own.

An agent is part of the task's folder, so whatever covers that (its hash, an approval, a commit)
covers the agent; it may do no more than the task. How it is started, and what it prints, is the
business of the task that runs agents, which comes with the server.
"""

from __future__ import annotations

import asyncio
import fnmatch
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationError

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import Programs, Runtime
from dicode_mcp.queue import Queue
from dicode_mcp.registry import Registry
from dicode_mcp.runs.follow_ups import MAX_CHAIN_DEPTH, origin_of, passed_on
from dicode_mcp.runs.model import Run, RunRequest, RunStatus, Trigger
from dicode_mcp.spec.base import Model, checked
from dicode_mcp.spec.fields import Line, PositiveDuration
from dicode_mcp.spec.files import read_text
from dicode_mcp.spec.ids import check_segment, check_variable
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.permissions import DicodeGrants, FsGrant, Permissions
from dicode_mcp.spec.problems import SpecError, problems_from_validation
from dicode_mcp.spec.quantities import parse_duration
from dicode_mcp.spec.yaml12 import load

FOLDER = "agents"
SETTINGS = "agent.json"
ENTRIES = (
    "agent.py",
    "main.py",
    "src/main.py",
    "agent.ts",
    "main.ts",
    "index.ts",
    "src/index.ts",
    "src/main.ts",
    "agent.js",
    "main.js",
    "index.js",
    "src/index.js",
)
"""Where an agent begins when its ``agent.json`` does not say."""
DEFAULT_S = 600.0
LONGEST_S = 24 * 3600.0
MARGIN_S = 15.0
"""What the run of an agent has beyond the agent's own time: to end it, and to say so."""
SCRATCH = Path("/dicode-scratch")
"""Stands in the command for the run's own folder, which is not known before the run."""
_MAX_SETTINGS = 64 * 1024

VariableName = Annotated[str, AfterValidator(checked(check_variable))]


class AgentSettings(Model):
    """What ``agent.json`` may say. ``env``: variables of the task it gets; ``timeout``: seconds."""

    entry: Line | None = None
    env: tuple[VariableName, ...] = ()
    timeout: PositiveDuration | None = None


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent as it lies on the disk."""

    name: str
    folder: Path
    entry: Path
    settings: AgentSettings


class Agents:
    """Starts agents. ``runner`` is the id of the task that runs them."""

    def __init__(
        self,
        *,
        queue: Queue,
        registry: Registry,
        runtimes: Mapping[str, Runtime],
        runner: str | None,
    ) -> None:
        self._queue = queue
        self._registry = registry
        self._runtimes = runtimes
        self._runner = runner

    async def run(self, run: Run, task: Task, name: str, payload: Any, limit: Any) -> Any:
        """Run an agent of ``task`` and wait for its end; gives what it printed.

        ``limit`` is a duration, as a text or in seconds, or None. The agent ends with the call.
        Raises FORBIDDEN without ``permissions.dicode.agents``, NOT_FOUND, INVALID_ARGUMENT,
        INVALID_SPEC, NOT_SUPPORTED, and AGENT_FAILED for any end but a good one.
        """
        _require(task, name)
        limit_s = _limit(limit)
        agent = await asyncio.to_thread(find, task.folder, name)
        request = self._request(run, task, agent, payload, limit_s)
        child = await self._queue.submit(request)
        try:
            child = await self._queue.wait_as_parent(run.id, child.id)
        except asyncio.CancelledError:
            # Nobody is left to hear of it.
            await self._queue.cancel(child.id)
            raise
        if child.status is not RunStatus.SUCCESS:
            raise _failed(name, child)
        return json.loads(child.return_value) if child.return_value is not None else None

    def _request(
        self, run: Run, task: Task, agent: Agent, payload: Any, limit_s: float | None
    ) -> RunRequest:
        if run.chain_depth >= MAX_CHAIN_DEPTH:
            what = f"runs that start runs may be {MAX_CHAIN_DEPTH} deep; this one is"
            raise DicodeError(Code.CONFLICT, what)
        seconds = limit_s or agent.settings.timeout or DEFAULT_S
        permissions = _permissions(task, agent)
        command = self._command(agent, permissions)
        given = self._task(task, agent, command, permissions, seconds)
        return RunRequest(
            task_id=given.id,
            trigger=Trigger.AGENT,
            input={
                "agent": agent.name,
                "command": list(command),
                "scratch": str(SCRATCH),
                "folder": str(agent.folder),
                "env": list(agent.settings.env),
                "timeout": seconds,
                "payload": payload,
            },
            actor=passed_on(run, f"task:{run.task_id}"),
            parent_run_id=run.id,
            root_run_id=run.root_run_id or run.id,
            chain_depth=run.chain_depth + 1,
            origin=origin_of(run),
            priority=run.priority,
            given=given,
        )

    def _command(self, agent: Agent, permissions: Permissions) -> tuple[str, ...]:
        for name, runtime in sorted(self._runtimes.items()):
            if isinstance(runtime, Programs) and agent.entry.suffix in runtime.endings:
                health = runtime.health()
                if not health.ok:
                    what = f"agent {agent.name} needs {name}: {health.message}"
                    raise DicodeError(Code.RUNTIME_UNAVAILABLE, what)
                return runtime.program(
                    agent.entry, permissions, folder=agent.folder, scratch=SCRATCH
                )
        raise DicodeError(
            Code.RUNTIME_UNAVAILABLE,
            f"agent {agent.name}: no runtime of this server starts '*{agent.entry.suffix}' files",
            hint=f"runtimes here: {', '.join(sorted(self._runtimes))}",
        )

    def _task(
        self,
        task: Task,
        agent: Agent,
        command: Sequence[str],
        permissions: Permissions,
        seconds: float,
    ) -> Task:
        """Give the task that runs agents, as it runs this one: held to what the caller may do."""
        entry = self._registry.get(self._runner) if self._runner else None
        if entry is None or entry.task is None:
            raise DicodeError(
                Code.NOT_SUPPORTED,
                "this server runs no agents: the task that does, agent-runner, is not there",
                hint="it comes with dicode: leave 'bundled: false' out of dicode.yaml",
            )
        runner = entry.task
        spec = runner.spec.model_copy(
            update={
                "permissions": permissions.model_copy(
                    update={"run": tuple(dict.fromkeys((*permissions.run, command[0])))}
                ),
                "resources": task.spec.resources,
                "timeout": seconds + MARGIN_S,
            }
        )
        task_id = f"{task.id}/{FOLDER}/{agent.name}"
        return replace(runner, id=task_id, spec=spec, source=task.source, revision=task.revision)


def find(folder: Path, name: str) -> Agent:
    """Look for an agent below a task's folder. Blocks.

    Raises INVALID_ARGUMENT for a name that is none, NOT_FOUND, and INVALID_SPEC for a folder that
    is not as it should be.
    """
    try:
        check_segment(name)
    except ValueError as error:
        what = f"the agent's name {error}"
        hint = "name a folder below agents/ of this task"
        raise DicodeError(Code.INVALID_ARGUMENT, what, hint=hint) from None
    place = folder / FOLDER / name
    if not _plain(place, folder, stat.S_ISDIR):
        there = ", ".join(_names(folder)) or "none"
        raise DicodeError(
            Code.NOT_FOUND,
            f"this task has no agent '{name}'; it has: {there}",
            hint=f"make the folder {FOLDER}/{name} beside task.yaml, with agent.py or agent.ts",
        )
    settings = _settings(place)
    return Agent(name, place, _entry(place, settings), settings)


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder / FOLDER) as found:
            return sorted(e.name for e in found if e.is_dir(follow_symlinks=False))[:20]
    except OSError:
        return []


def _plain(path: Path, below: Path, kind: Any) -> bool:
    """Tell whether a path is there, of a kind, and no link leads to it from ``below`` on."""
    try:
        return kind(path.lstat().st_mode) and path.resolve() == below.resolve() / path.relative_to(
            below
        )
    except OSError:
        return False


def _settings(place: Path) -> AgentSettings:
    file = place / SETTINGS
    if not os.path.lexists(file):
        return AgentSettings()
    shown = f"{FOLDER}/{place.name}/{SETTINGS}"
    # JSON is YAML, which tells lines.
    document = load(read_text(file, shown, max_bytes=_MAX_SETTINGS), shown)
    if document.problems:
        raise SpecError(document.problems)
    try:
        return AgentSettings.read(document.data)
    except ValidationError as error:
        raise SpecError(problems_from_validation(error, document.places, shown)) from None


def _entry(place: Path, settings: AgentSettings) -> Path:
    wanted = (settings.entry,) if settings.entry else ENTRIES
    found = [
        place / name
        for name in wanted
        if ".." not in Path(name).parts and not Path(name).is_absolute()
        if _plain(place / name, place, stat.S_ISREG)
    ]
    if len(found) == 1 or (found and not settings.entry and _alike(found)):
        return found[0]
    shown = f"{FOLDER}/{place.name}"
    if settings.entry:
        what = f"{shown}/{SETTINGS}: entry: '{settings.entry}' is no file of the agent's folder"
    elif found:
        names = ", ".join(str(path.relative_to(place)) for path in found)
        what = f"{shown} could begin with several files: {names}"
    else:
        what = f"{shown} has no file to begin with"
    raise DicodeError(
        Code.INVALID_SPEC,
        what,
        hint=f"add agent.py or agent.ts, or name the file as 'entry' in {shown}/{SETTINGS}",
    )


def _alike(found: Sequence[Path]) -> bool:
    """Tell whether files are of one language: then the first of them is meant."""
    return len({path.suffix == ".py" for path in found}) == 1


def _permissions(task: Task, agent: Agent) -> Permissions:
    """Give what the agent may do: what its task may, but the server's calls, and its variables."""
    own = task.spec.permissions
    entries = {entry.name: entry for entry in own.env}
    missing = [name for name in agent.settings.env if name not in entries]
    if missing:
        raise DicodeError(
            Code.INVALID_SPEC,
            f"{FOLDER}/{agent.name}/{SETTINGS}: env: {', '.join(missing)} is not among the"
            " variables of the task, and an agent gets no more than its task",
            hint=f"add to task.yaml: permissions: {{env: [{', '.join(missing)}]}}",
        )
    return own.model_copy(
        update={
            "env": tuple(entries[name] for name in agent.settings.env),
            "fs": (*own.fs, FsGrant(path=str(agent.folder), permission="r")),
            "dicode": DicodeGrants(),
        }
    )


def _require(task: Task, name: str) -> None:
    granted = task.spec.permissions.dicode.agents
    if not any(fnmatch.fnmatchcase(name, pattern) for pattern in granted):
        raise DicodeError(
            Code.FORBIDDEN,
            "the task may not do this: no permissions.dicode.agents of it allows it",
            hint=f"add to task.yaml: permissions.dicode.agents: {json.dumps([name[:128]])}",
        )


def _limit(given: Any) -> float | None:
    if given is None:
        return None
    try:
        seconds = parse_duration(given)
        if not 0 < seconds <= LONGEST_S:
            raise ValueError(f"must be more than zero and at most {LONGEST_S:g} seconds")
    except ValueError as error:
        raise DicodeError(Code.INVALID_ARGUMENT, f"agent: timeout {error}") from None
    return seconds


def _failed(name: str, child: Run) -> DicodeError:
    why = child.error.message if child.error else f"it ended as {child.status.value}"
    return DicodeError(
        Code.AGENT_FAILED,
        f"agent {name}: {why}",
        hint=f'get_logs with run_id "{child.id}" shows what it wrote',
        data={"run_id": child.id, "status": child.status.value},
    )
