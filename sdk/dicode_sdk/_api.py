"""What a task sees: ``params env kv output log dicode mcp``, over the connection to the server.

Every call that reaches the server has a twin that ends in ``_async``. What may be called is
decided by the server, after ``permissions.dicode`` of the task's manifest.
"""

from __future__ import annotations

import os
import sys

from dicode_sdk._wire import encode, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from dicode_sdk._channel import Channel

_LOG_BYTES = 60_000


class Params:
    """The run's parameters, validated and coerced after the manifest."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def get(self, name: str, default: Any = None) -> Any:
        """Give a parameter, or ``default`` when it has no value."""
        value = self._values.get(name)
        return default if value is None else value

    def all(self) -> dict[str, Any]:
        """Give all parameters as a new dict."""
        return dict(self._values)

    async def get_async(self, name: str, default: Any = None) -> Any:
        """Do as ``get``."""
        return self.get(name, default)

    async def all_async(self) -> dict[str, Any]:
        """Do as ``all``."""
        return self.all()

    def __getitem__(self, name: str) -> Any:
        """Give a parameter; ``KeyError`` when the run has none of that name."""
        try:
            return self._values[name]
        except KeyError:
            known = ", ".join(sorted(self._values)) or "none"
            raise KeyError(f"no parameter {name!r}; this run has: {known}") from None

    def __contains__(self, name: object) -> bool:
        """Tell whether the run has a parameter."""
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return iter(self._values)

    def __len__(self) -> int:
        """Count the parameters."""
        return len(self._values)

    def keys(self) -> list[str]:
        """List the names (with ``__getitem__`` this makes ``dict(params)`` work)."""
        return list(self._values)

    def __repr__(self) -> str:
        """Name the parameters; values are left out, they may be private."""
        return f"<params {', '.join(self._values)}>"


class Env:
    """The environment that the manifest grants (``permissions.env``)."""

    def get(self, name: str, default: str | None = None) -> str | None:
        """Give a variable, or ``default``."""
        return os.environ.get(name, default)

    async def get_async(self, name: str, default: str | None = None) -> str | None:
        """Do as ``get``."""
        return self.get(name, default)

    def __getitem__(self, name: str) -> str:
        """Give a variable; ``KeyError`` names the line of the manifest that grants it."""
        try:
            return os.environ[name]
        except KeyError:
            raise KeyError(
                f"{name} is not in this task's environment; add to task.yaml: "
                f"permissions.env: [{name}]"
            ) from None

    def __contains__(self, name: object) -> bool:
        """Tell whether there is such a variable."""
        return name in os.environ


class Log:
    """Log lines with a level; ``print`` is ``info``. Both keep their order."""

    def debug(self, *parts: object) -> None:
        """Log for the one who looks closely."""
        _log("debug", parts)

    def info(self, *parts: object) -> None:
        """Log what happened. Parts are joined by spaces, as ``print`` does."""
        _log("info", parts)

    def warn(self, *parts: object) -> None:
        """Log what may be wrong."""
        _log("warn", parts)

    def error(self, *parts: object) -> None:
        """Log what is wrong."""
        _log("error", parts)

    warning = warn

    async def debug_async(self, *parts: object) -> None:
        """Do as ``debug``."""
        _log("debug", parts)

    async def info_async(self, *parts: object) -> None:
        """Do as ``info``."""
        _log("info", parts)

    async def warn_async(self, *parts: object) -> None:
        """Do as ``warn``."""
        _log("warn", parts)

    async def error_async(self, *parts: object) -> None:
        """Do as ``error``."""
        _log("error", parts)


def tell(level: str, message: str) -> None:
    """Write a line with a level, ``security`` too."""
    _log(level, (message,))


def _log(level: str, parts: tuple[object, ...]) -> None:
    message = " ".join(map(str, parts)).encode("utf-8", "replace")
    text = _shorten(message)
    line = "\x1e" + encode({"l": level, "m": text}) + "\n"
    if len(line.encode()) > _LOG_BYTES + 1024:
        # Escapes made it longer: a line that the server had to cut would lose its level.
        line = "\x1e" + encode({"l": level, "m": _shorten(message, _LOG_BYTES // 6)}) + "\n"
    # The real stream: a redirected sys.stdout catches what is printed, not the log.
    stream = sys.__stdout__
    if stream is not None:
        if sys.stdout is not None and sys.stdout is not stream:
            sys.stdout.flush()
        stream.write(line)
        stream.flush()


def _shorten(message: bytes, limit: int = _LOG_BYTES) -> str:
    if len(message) <= limit:
        return message.decode()
    return message[:limit].decode("utf-8", "ignore") + f" … [{len(message):,} bytes, cut]"


def _seconds(timeout: Any) -> Any:
    return timeout.total_seconds() if hasattr(timeout, "total_seconds") else timeout


class _Calls:
    """What makes calls over the connection."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel


class Kv(_Calls):
    """Values that stay from run to run, for this task alone. Anything that JSON can hold."""

    def get(self, key: str, default: Any = None) -> Any:
        """Read a value, or ``default`` when there is none."""
        value = self._channel.call("kv.get", {"key": key})
        return default if value is None else value

    async def get_async(self, key: str, default: Any = None) -> Any:
        """Do as ``get``."""
        value = await self._channel.call_async("kv.get", {"key": key})
        return default if value is None else value

    def set(self, key: str, value: Any) -> None:
        """Write a value; it is durable when the call returns."""
        self._channel.call("kv.set", {"key": key, "value": value})

    async def set_async(self, key: str, value: Any) -> None:
        """Do as ``set``."""
        await self._channel.call_async("kv.set", {"key": key, "value": value})

    def delete(self, key: str) -> bool:
        """Remove a value; tells whether there was one."""
        return bool(self._channel.call("kv.delete", {"key": key}))

    async def delete_async(self, key: str) -> bool:
        """Do as ``delete``."""
        return bool(await self._channel.call_async("kv.delete", {"key": key}))

    def list(self, prefix: str = "") -> list[str]:
        """List the keys that start with ``prefix``, sorted."""
        return self._channel.call("kv.list", {"prefix": prefix})

    async def list_async(self, prefix: str = "") -> list[str]:
        """Do as ``list``."""
        return await self._channel.call_async("kv.list", {"prefix": prefix})


class Output(_Calls):
    """What the run shows beside its return value; the last call counts."""

    def __call__(self, values: Any, *, secret: bool = False) -> None:
        """Show a value; ``secret=True`` is for provider tasks, which answer with secrets."""
        self._channel.call("output", _value(values, secret))

    async def call_async(self, values: Any, *, secret: bool = False) -> None:
        """Do as calling ``output`` itself."""
        await self._channel.call_async("output", _value(values, secret))

    def html(self, content: str, data: Any = None) -> None:
        """Show a page or a fragment of one; ``data`` is kept with it as JSON."""
        self._channel.call("output", _html(content, data))

    async def html_async(self, content: str, data: Any = None) -> None:
        """Do as ``html``."""
        await self._channel.call_async("output", _html(content, data))

    def text(self, content: str) -> None:
        """Show plain text."""
        self._channel.call("output", _text(content))

    async def text_async(self, content: str) -> None:
        """Do as ``text``."""
        await self._channel.call_async("output", _text(content))

    def image(self, mime: str, base64: str) -> None:
        """Show an image given as base64 text."""
        self._channel.call("output", _image(mime, base64))

    async def image_async(self, mime: str, base64: str) -> None:
        """Do as ``image``."""
        await self._channel.call_async("output", _image(mime, base64))

    def file(self, name: str, content: str | bytes, mime: str = "application/octet-stream") -> None:
        """Offer a file."""
        self._channel.call("output", _file(name, content, mime))

    async def file_async(
        self, name: str, content: str | bytes, mime: str = "application/octet-stream"
    ) -> None:
        """Do as ``file``."""
        await self._channel.call_async("output", _file(name, content, mime))


def _value(values: Any, secret: bool) -> dict[str, Any]:
    if secret:
        return {"kind": "secret", "data": values}
    values = plain(values)
    return {
        "kind": "value",
        "content_type": "application/json",
        "body": encode(values),
        "data": values,
    }


def _html(content: str, data: Any) -> dict[str, Any]:
    return {
        "kind": "html",
        "content_type": "text/html; charset=utf-8",
        "body": content,
        "data": data,
    }


def _text(content: str) -> dict[str, Any]:
    return {"kind": "text", "content_type": "text/plain; charset=utf-8", "body": content}


def _image(mime: str, body: str) -> dict[str, Any]:
    return {"kind": "image", "content_type": mime, "body": body, "base64": True}


def _file(name: str, content: str | bytes, mime: str) -> dict[str, Any]:
    shown: dict[str, Any] = {"kind": "file", "content_type": mime, "name": name}
    if isinstance(content, str):
        return {**shown, "body": content}
    from binascii import b2a_base64

    return {**shown, "body": b2a_base64(content, newline=False).decode(), "base64": True}


_TYPES = {bool: "boolean", str: "string", int: "integer", float: "number"}


def _question(schema: Any, message: str, key: str | None, timeout: Any) -> dict[str, Any]:
    if isinstance(schema, type):
        schema = _TYPES.get(schema, schema.__name__)
    if hasattr(timeout, "total_seconds"):
        timeout = timeout.total_seconds()
    return {"schema": schema, "message": message, "key": key, "timeout": timeout}


def _replay(
    run_id: str, params: Mapping[str, Any] | None, edited: dict[str, Any]
) -> dict[str, Any]:
    if set(edited) - {"input"}:
        raise TypeError(f"runs.replay takes run_id, params and input, not {', '.join(edited)}")
    return {"run_id": run_id, **edited, **({"params": dict(params)} if params else {})}


class _Runs(_Calls):
    """``dicode.runs``."""

    def replay(
        self, run_id: str, params: Mapping[str, Any] | None = None, **edited: Any
    ) -> dict[str, Any]:
        """Start a run again with what it was started with: ``{runID, task, taskChanged}``.

        ``params`` go over the run's own, ``input=…`` takes the place of its input; editing either
        needs the task in ``permissions.dicode.tasks`` besides ``runs_replay``. Does not wait.
        """
        return self._channel.call("runs.replay", _replay(run_id, params, edited))

    async def replay_async(
        self, run_id: str, params: Mapping[str, Any] | None = None, **edited: Any
    ) -> dict[str, Any]:
        """Do as ``replay``."""
        return await self._channel.call_async("runs.replay", _replay(run_id, params, edited))


class _Tasks(_Calls):
    """``dicode.tasks``."""

    def test(self, task_id: str) -> dict[str, Any]:
        """Run the tests of a task (``permissions.dicode.tasks_test``)."""
        return self._channel.call("tasks.test", {"id": task_id})

    async def test_async(self, task_id: str) -> dict[str, Any]:
        """Do as ``test``."""
        return await self._channel.call_async("tasks.test", {"id": task_id})


class _Sources(_Calls):
    """``dicode.sources``."""

    def set_dev_mode(self, name: str, enabled: bool = True, **options: Any) -> dict[str, Any]:
        """Switch dev mode of a source (``permissions.dicode.sources_set_dev_mode``)."""
        args = {**options, "name": name, "enabled": enabled}
        return self._channel.call("sources.set_dev_mode", args)

    async def set_dev_mode_async(
        self, name: str, enabled: bool = True, **options: Any
    ) -> dict[str, Any]:
        """Do as ``set_dev_mode``."""
        args = {**options, "name": name, "enabled": enabled}
        return await self._channel.call_async("sources.set_dev_mode", args)


class _Git(_Calls):
    """``dicode.git``."""

    def commit_push(self, message: str, **options: Any) -> dict[str, Any]:
        """Commit and push edited tasks (``permissions.dicode.git_commit_push``)."""
        return self._channel.call("git.commit_push", {**options, "message": message})

    async def commit_push_async(self, message: str, **options: Any) -> dict[str, Any]:
        """Do as ``commit_push``."""
        return await self._channel.call_async("git.commit_push", {**options, "message": message})


class Dicode(_Calls):
    """The server, as far as ``permissions.dicode`` lets this task."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        self.runs = _Runs(channel)
        self.tasks = _Tasks(channel)
        self.sources = _Sources(channel)
        self.git = _Git(channel)

    def run_task(self, task_id: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run another task and wait: ``{runID, status, returnValue}``, whatever the status."""
        return self._channel.call("run_task", {"id": task_id, "params": dict(params or {})})

    async def run_task_async(
        self, task_id: str, params: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Do as ``run_task``."""
        args = {"id": task_id, "params": dict(params or {})}
        return await self._channel.call_async("run_task", args)

    def trigger(self, task_id: str, input: Any = None) -> dict[str, Any]:
        """Start another task and do not wait: ``{runID}``."""
        return self._channel.call("trigger", {"id": task_id, "input": input})

    async def trigger_async(self, task_id: str, input: Any = None) -> dict[str, Any]:
        """Do as ``trigger``."""
        return await self._channel.call_async("trigger", {"id": task_id, "input": input})

    def list_tasks(self) -> list[dict[str, Any]]:
        """List the server's tasks."""
        return self._channel.call("list_tasks", {})

    async def list_tasks_async(self) -> list[dict[str, Any]]:
        """Do as ``list_tasks``."""
        return await self._channel.call_async("list_tasks", {})

    def get_runs(self, task_id: str, limit: int = 10) -> list[dict[str, Any]]:
        """List a task's last runs, newest first."""
        return self._channel.call("get_runs", {"id": task_id, "limit": limit})

    async def get_runs_async(self, task_id: str, limit: int = 10) -> list[dict[str, Any]]:
        """Do as ``get_runs``."""
        return await self._channel.call_async("get_runs", {"id": task_id, "limit": limit})

    def secrets_set(self, name: str, value: str) -> None:
        """Store a secret."""
        self._channel.call("secrets_set", {"name": name, "value": value})

    async def secrets_set_async(self, name: str, value: str) -> None:
        """Do as ``secrets_set``."""
        await self._channel.call_async("secrets_set", {"name": name, "value": value})

    def secrets_delete(self, name: str) -> None:
        """Remove a secret."""
        self._channel.call("secrets_delete", {"name": name})

    async def secrets_delete_async(self, name: str) -> None:
        """Do as ``secrets_delete``."""
        await self._channel.call_async("secrets_delete", {"name": name})

    def usage(self, tokens: int) -> dict[str, Any]:
        """Report model tokens used since the last report: ``{tokens, left}``.

        ``tokens`` is then the sum of the run; ``left`` what ``budget.tokens`` of the task leaves
        for today, None without one.
        """
        return self._channel.call("usage", {"tokens": tokens})

    async def usage_async(self, tokens: int) -> dict[str, Any]:
        """Do as ``usage``."""
        return await self._channel.call_async("usage", {"tokens": tokens})

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Tell how far the run is."""
        self._channel.call("progress", {"done": done, "total": total, "message": message})

    async def progress_async(
        self, done: float, total: float | None = None, message: str = ""
    ) -> None:
        """Do as ``progress``."""
        args = {"done": done, "total": total, "message": message}
        await self._channel.call_async("progress", args)

    def ask(self, schema: Any, message: str, *, key: str | None = None, timeout: Any = None) -> Any:
        """Ask a person. The script ends here and starts again from its top with the answer.

        Side effects belong after it, or into ``once``. ``schema`` is a flat JSON Schema object, or
        for one value ``bool`` ``str`` ``int`` ``float`` or a list of choices. ``key`` names the
        question where their order may change; ``timeout`` (24 h) is in seconds or as ``"36h"``.
        Raises ``DicodeError`` with the code ``declined`` when the person would not answer.
        """
        return self._channel.call("ask", _question(schema, message, key, timeout))

    async def ask_async(
        self,
        schema: Any,
        message: str,
        *,
        key: str | None = None,
        timeout: Any = None,  # noqa: ASYNC109  The question's, not the call's.
    ) -> Any:
        """Do as ``ask``."""
        return await self._channel.call_async("ask", _question(schema, message, key, timeout))

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """Give what ``make()`` gave the first time in this run; kept as JSON when it returns.

        For what must not be done again when the script starts again after an answer.
        """
        kept = self._channel.call("once.get", {"key": key})
        if kept["found"]:
            return kept["value"]
        value = make()
        if hasattr(value, "__await__"):
            value.close()
            raise TypeError("once: the function is asynchronous; use: await dicode.once_async(…)")
        return self._channel.call("once.put", {"key": key, "value": value})

    async def once_async(self, key: str, make: Callable[[], Any]) -> Any:
        """Do as ``once``; ``make`` may be asynchronous."""
        kept = await self._channel.call_async("once.get", {"key": key})
        if kept["found"]:
            return kept["value"]
        value = make()
        if hasattr(value, "__await__"):
            value = await value
        return await self._channel.call_async("once.put", {"key": key, "value": value})

    def agent(self, name: str, payload: Any = None, *, timeout: Any = None) -> Any:
        """Start the program ``agents/NAME`` of this task and wait; gives the JSON that it prints.

        It is called with ``--payload FILE``, and has ``timeout`` (10 min) in seconds or as
        ``"15m"``. Raises ``DicodeError`` with the code ``agent_failed`` unless it ended well.
        """
        args = {"name": name, "payload": payload, "timeout": _seconds(timeout)}
        return self._channel.call("agent", args)

    async def agent_async(
        self,
        name: str,
        payload: Any = None,
        *,
        timeout: Any = None,  # noqa: ASYNC109  The agent's, not the call's.
    ) -> Any:
        """Do as ``agent``."""
        args = {"name": name, "payload": payload, "timeout": _seconds(timeout)}
        return await self._channel.call_async("agent", args)


class Mcp(_Calls):
    """The tools of tasks that serve MCP (``permissions.dicode.mcp``)."""

    def list_tools(self, task: str) -> list[dict[str, Any]]:
        """List the tools of a task's MCP server."""
        return self._channel.call("mcp.list_tools", {"task": task})

    async def list_tools_async(self, task: str) -> list[dict[str, Any]]:
        """Do as ``list_tools``."""
        return await self._channel.call_async("mcp.list_tools", {"task": task})

    def call(self, task: str, tool: str, args: Mapping[str, Any] | None = None) -> Any:
        """Call a tool."""
        return self._channel.call(
            "mcp.call", {"task": task, "tool": tool, "args": dict(args or {})}
        )

    async def call_async(self, task: str, tool: str, args: Mapping[str, Any] | None = None) -> Any:
        """Do as ``call``."""
        return await self._channel.call_async(
            "mcp.call", {"task": task, "tool": tool, "args": dict(args or {})}
        )
