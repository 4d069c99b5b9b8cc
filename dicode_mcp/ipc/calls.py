"""What a running task may ask of the server: the table of methods.

A method names its arguments and the line of ``permissions.dicode`` it needs. Whether the line is
there is decided behind ``TaskCalls``; sessions and sockets are unknown here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.accesses import LONGEST, Access
from dicode_mcp.runs.model import Run
from dicode_mcp.runs.questions import Answered, Draft
from dicode_mcp.spec.model import Task

MAX_RUNS = 500
MAX_TOKENS = 10**12
_MAX_KEY = 1024


class TaskCalls(Protocol):
    """The use cases a task reaches; checks the task's ``permissions.dicode`` in each.

    Every method raises ``DicodeError``; what it gives can be written as JSON.
    """

    async def run_task(
        self, run: Run, task: Task, target: str, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Run a task and wait: ``{runID, status, returnValue}``."""
        ...

    async def trigger(self, run: Run, task: Task, target: str, input: Any) -> dict[str, Any]:
        """Start a task: ``{runID}``."""
        ...

    async def list_tasks(self, run: Run, task: Task) -> list[dict[str, Any]]:
        """List tasks."""
        ...

    async def get_runs(self, run: Run, task: Task, target: str, limit: int) -> list[dict[str, Any]]:
        """List a task's runs, newest first."""
        ...

    async def kv_get(self, run: Run, task: Task, key: str) -> Any:
        """Read a value, None when there is none."""
        ...

    async def kv_set(self, run: Run, task: Task, key: str, value: Any) -> None:
        """Write a value durably."""
        ...

    async def kv_delete(self, run: Run, task: Task, key: str) -> bool:
        """Remove a value; tells whether there was one."""
        ...

    async def kv_list(self, run: Run, task: Task, prefix: str) -> list[str]:
        """List keys."""
        ...

    async def answer_to(self, run: Run, task: Task, draft: Draft, place: int) -> Answered | None:
        """Give what was answered to a question in an earlier start; None when it is a new one.

        ``place`` counts the questions without a key in this start.
        """
        ...

    async def once_get(self, run: Run, task: Task, key: str) -> dict[str, Any]:
        """Read what this run did once: ``{found, value}``."""
        ...

    async def once_put(self, run: Run, task: Task, key: str, value: Any) -> Any:
        """Keep what this run did once; gives what is kept."""
        ...

    async def progress(
        self, run: Run, task: Task, done: float, total: float | None, message: str
    ) -> None:
        """Note how far the run is."""
        ...

    async def agent(self, run: Run, task: Task, name: str, payload: Any, limit: Any) -> Any:
        """Run an agent of the task's own folder and wait: what it printed, as JSON.

        ``limit`` is a duration, as a text or in seconds, or None.
        """
        ...

    async def replay(
        self, run: Run, task: Task, run_id: str, params: Mapping[str, Any], **edited: Any
    ) -> dict[str, Any]:
        """Start a run again, edited by ``params`` and ``input``: ``{runID, task, taskChanged}``."""
        ...

    async def usage(self, run: Run, task: Task, tokens: int) -> dict[str, Any]:
        """Add to the model tokens the run used: ``{tokens, left}``."""
        ...

    async def provide(self, run: Run, task: Task, values: Mapping[str, str]) -> None:
        """Take the secrets that a provider's run gives to the task that asked."""
        ...

    async def secrets_set(self, run: Run, task: Task, name: str, value: str) -> None:
        """Set a secret of the server's store."""
        ...

    async def secrets_delete(self, run: Run, task: Task, name: str) -> bool:
        """Forget a secret; tells whether there was one."""
        ...


class Args:
    """The arguments of one call; each accessor checks what it gives."""

    def __init__(self, method: str, values: Mapping[str, Any]) -> None:
        self._method = method
        self._values = values

    def only(self, names: frozenset[str]) -> None:
        """Refuse names the method does not have."""
        unknown = sorted(set(self._values) - names)
        if unknown:
            raise self._wrong(
                f"has no argument {', '.join(map(repr, unknown))}; "
                f"it takes: {', '.join(sorted(names)) or 'none'}"
            )

    def get(self, name: str) -> Any:
        """Give any value."""
        return self._values.get(name)

    def has(self, name: str) -> bool:
        """Tell whether an argument is there, be it null."""
        return name in self._values

    def text(self, name: str, default: str | None = None) -> str:
        """Give text; required when there is no ``default``."""
        value = self._values.get(name, default)
        if not isinstance(value, str):
            raise self._wrong(f"needs {name!r} as text")
        return value

    def key(self, name: str) -> str:
        """Give a key: text that is not empty and at most 1,024 bytes."""
        value = self.text(name)
        if not value or len(value.encode("utf-8", "replace")) > _MAX_KEY:
            raise self._wrong(f"needs {name!r} with 1 to {_MAX_KEY:,} bytes")
        return value

    def mapping(self, name: str) -> Mapping[str, Any]:
        """Give a mapping, empty when absent."""
        value: Any = self._values.get(name) or {}
        if not isinstance(value, dict):
            raise self._wrong(f"needs {name!r} as a mapping of names to values")
        return cast("dict[str, Any]", value)

    def number(self, name: str) -> float:
        """Give a number."""
        value = self._values.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(f"needs {name!r} as a number")
        return value

    def count(self, name: str, default: int, most: int, *, least: int = 1) -> int:
        """Give a whole number from ``least`` to ``most``."""
        value = self._values.get(name, default)
        if type(value) is not int or not least <= value <= most:
            raise self._wrong(f"needs {name!r} as a whole number from {least} to {most}")
        return value

    def _wrong(self, what: str) -> DicodeError:
        return DicodeError(Code.INVALID_ARGUMENT, f"{self._method} {what}")


Handler = Callable[[TaskCalls, Run, Task, Args], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Method:
    """One method. ``permission`` gives the manifest line it needs, for these arguments."""

    arguments: frozenset[str]
    handler: Handler
    permission: Callable[[Args], str] | None = None


async def _run_task(calls: TaskCalls, run: Run, task: Task, args: Args) -> Any:
    return await calls.run_task(run, task, args.text("id"), args.mapping("params"))


async def _trigger(calls: TaskCalls, run: Run, task: Task, args: Args) -> Any:
    return await calls.trigger(run, task, args.text("id"), args.get("input"))


async def _list_tasks(calls: TaskCalls, run: Run, task: Task, args: Args) -> Any:
    return await calls.list_tasks(run, task)


async def _get_runs(calls: TaskCalls, run: Run, task: Task, args: Args) -> Any:
    return await calls.get_runs(run, task, args.text("id"), args.count("limit", 10, MAX_RUNS))


async def _kv_get(calls: TaskCalls, run: Run, task: Task, args: Args) -> Any:
    return await calls.kv_get(run, task, args.key("key"))


async def _kv_set(calls: TaskCalls, run: Run, task: Task, args: Args) -> Any:
    await calls.kv_set(run, task, args.key("key"), args.get("value"))


async def _kv_delete(calls: TaskCalls, run: Run, task: Task, args: Args) -> Any:
    return await calls.kv_delete(run, task, args.key("key"))


async def _kv_list(calls: TaskCalls, run: Run, task: Task, args: Args) -> Any:
    return await calls.kv_list(run, task, args.text("prefix", ""))


async def _usage(calls: TaskCalls, run: Run, task: Task, args: Args) -> Any:
    return await calls.usage(run, task, args.count("tokens", -1, MAX_TOKENS, least=0))


async def _progress(calls: TaskCalls, run: Run, task: Task, args: Args) -> Any:
    total = None if args.get("total") is None else args.number("total")
    await calls.progress(run, task, args.number("done"), total, args.text("message", ""))


async def _once_get(calls: TaskCalls, run: Run, task: Task, args: Args) -> Any:
    return await calls.once_get(run, task, args.key("key"))


async def _once_put(calls: TaskCalls, run: Run, task: Task, args: Args) -> Any:
    return await calls.once_put(run, task, args.key("key"), args.get("value"))


async def _replay(calls: TaskCalls, run: Run, task: Task, args: Args) -> Any:
    edited = {"input": args.get("input")} if args.has("input") else {}
    return await calls.replay(run, task, args.text("run_id"), args.mapping("params"), **edited)


async def _agent(calls: TaskCalls, run: Run, task: Task, args: Args) -> Any:
    name, payload = args.text("name"), args.get("payload")
    return await calls.agent(run, task, name, payload, args.get("timeout"))


def _agent_grant(args: Args) -> str:
    import json

    return f"permissions.dicode.agents: [{json.dumps(args.text('name', ''), ensure_ascii=False)}]"


async def _secrets_set(calls: TaskCalls, run: Run, task: Task, args: Args) -> Any:
    await calls.secrets_set(run, task, args.text("name"), args.text("value"))


async def _secrets_delete(calls: TaskCalls, run: Run, task: Task, args: Args) -> Any:
    return await calls.secrets_delete(run, task, args.text("name"))


def _target(args: Args) -> str:
    # As JSON: a name with quotes or line ends must not make up lines of its own.
    import json

    return f"permissions.dicode.tasks: [{json.dumps(args.text('id', ''), ensure_ascii=False)}]"


METHODS: Mapping[str, Method] = {
    "run_task": Method(frozenset({"id", "params"}), _run_task, _target),
    "trigger": Method(frozenset({"id", "input"}), _trigger, _target),
    "list_tasks": Method(frozenset(), _list_tasks, lambda _: "permissions.dicode.list_tasks: true"),
    "get_runs": Method(
        frozenset({"id", "limit"}), _get_runs, lambda _: "permissions.dicode.get_runs: true"
    ),
    "kv.get": Method(frozenset({"key"}), _kv_get),
    "kv.set": Method(frozenset({"key", "value"}), _kv_set),
    "kv.delete": Method(frozenset({"key"}), _kv_delete),
    "kv.list": Method(frozenset({"prefix"}), _kv_list),
    "once.get": Method(frozenset({"key"}), _once_get),
    "once.put": Method(frozenset({"key", "value"}), _once_put),
    "runs.replay": Method(
        frozenset({"run_id", "params", "input"}),
        _replay,
        lambda _: "permissions.dicode.runs_replay: true",
    ),
    "usage": Method(frozenset({"tokens"}), _usage),
    "agent": Method(frozenset({"name", "payload", "timeout"}), _agent, _agent_grant),
    "secrets_set": Method(
        frozenset({"name", "value"}),
        _secrets_set,
        lambda _: "permissions.dicode.secrets_write: true",
    ),
    "secrets_delete": Method(
        frozenset({"name"}), _secrets_delete, lambda _: "permissions.dicode.secrets_write: true"
    ),
    "progress": Method(frozenset({"done", "total", "message"}), _progress),
}

ASK_ARGUMENTS = frozenset({"schema", "message", "key", "timeout"})
"""Of ``ask``, which the session answers itself: it may end the talk."""

NOT_OFFERED = frozenset(
    {
        "tasks.test",
        "sources.set_dev_mode",
        "git.commit_push",
        "mcp.list_tools",
        "mcp.call",
    }
)
"""Methods of the SDK that this server does not have yet."""


async def dispatch(
    calls: TaskCalls, run: Run, task: Task, name: str, values: Mapping[str, Any]
) -> Any:
    """Do one call. Raises ``DicodeError``; a refusal's hint is the line to add to the manifest."""
    method = METHODS.get(name)
    if method is None:
        raise _unknown(name)
    args = Args(name, values)
    args.only(method.arguments)
    try:
        return await method.handler(calls, run, task, args)
    except DicodeError as error:
        if error.code is Code.FORBIDDEN and method.permission is not None:
            error.hint = f"add to task.yaml: {method.permission(args)}"
        raise


def access_of(name: str, values: Mapping[str, Any], allowed: bool) -> Access | None:
    """Give a call as an access: the line of ``permissions.dicode`` it takes, if it takes one."""
    method = METHODS.get(name)
    if method is None or method.permission is None:
        return None
    try:
        line = method.permission(Args(name, values)).removeprefix("permissions.dicode.")
    except DicodeError:
        return None
    return Access("dicode", line, allowed) if len(line) <= LONGEST else None


def _unknown(name: str) -> DicodeError:
    if name in NOT_OFFERED:
        return DicodeError(Code.NOT_SUPPORTED, f"this server does not offer {name} to tasks yet")
    return DicodeError(
        Code.NOT_SUPPORTED,
        "the server has no such method for tasks",
        hint=f"it has: {', '.join(sorted({*METHODS, 'ask', 'output'}))}",
    )
