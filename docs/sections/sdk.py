"""The Python SDK, from its signatures and docstrings."""

from __future__ import annotations

import ast
import inspect
from types import FunctionType
from typing import Any

import dicode_sdk
from dicode_mcp.ipc.calls import METHODS, NOT_OFFERED, Args
from dicode_sdk import _api
from sections.markdown import code, plain, table

_WRITTEN = {
    "__getitem__": "{0}[{1}]",
    "__contains__": "{1} in {0}",
    "__iter__": "iter({0})",
    "__len__": "len({0})",
    "__call__": "{0}({1})",
}
_HIDDEN = frozenset({"__init__", "__repr__"})

_NAMES: tuple[tuple[str, type[Any], str | None], ...] = (
    ("params", _api.Params, None),
    ("env", _api.Env, None),
    ("kv", _api.Kv, "kv."),
    ("log", _api.Log, None),
    ("output", _api.Output, None),
    ("dicode", _api.Dicode, ""),
    ("dicode.runs", _api._Runs, "runs."),  # pyright: ignore[reportPrivateUsage]
    ("dicode.tasks", _api._Tasks, "tasks."),  # pyright: ignore[reportPrivateUsage]
    ("dicode.sources", _api._Sources, "sources."),  # pyright: ignore[reportPrivateUsage]
    ("dicode.git", _api._Git, "git."),  # pyright: ignore[reportPrivateUsage]
    ("mcp", _api.Mcp, "mcp."),
)
"""Each name with its class and what its methods are called on the wire, if they go there."""


def names() -> str:
    """Give what every script finds at module level."""
    said = _module_docs()
    classes = {name: plain(inspect.getdoc(kind) or "") for name, kind, _ in _NAMES}
    rows = [[code(name), classes.get(name) or said[name]] for name in dicode_sdk.NAMES]
    return table(["Name", "What it is"], rows)


def _module_docs() -> dict[str, str]:
    """Read the docstrings below the annotated names of ``dicode_sdk``."""
    found: dict[str, str] = {}
    name = ""
    for node in ast.parse(inspect.getsource(dicode_sdk)).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            found[name] = plain(str(node.value.value))
            name = ""
        else:
            name = ""
    return found


def methods() -> str:
    """Give the methods of each name."""
    parts: list[str] = []
    for name, kind, wire in _NAMES:
        rows = _rows(name, kind, wire)
        if rows:
            parts.append(f"### `{name}`\n\n{plain(inspect.getdoc(kind) or '')}")
            parts.append(table(["Call", "What it does"], rows))
    return "\n\n".join(parts)


def not_offered() -> str:
    """Give the calls that are there for programs to be written against, and refused today."""
    rows = [row for name, kind, wire in _NAMES for row in _rows(name, kind, wire, offered=False)]
    return table(["Call", "What it will do"], rows)


def permissions() -> str:
    """Give the line of the manifest that each call needs."""
    rows = [
        [code(f"dicode.{name}"), code(method.permission(Args(name, {"id": "ID"})))]
        for name, method in METHODS.items()
        if method.permission is not None
    ]
    return table(["Call", "Needs in task.yaml"], rows)


def wire_methods() -> str:
    """Give the methods a task's process may call, with their arguments."""
    rows = [
        [
            code(name),
            ", ".join(code(argument) for argument in sorted(method.arguments)) or "none",
            code(method.permission(Args(name, {"id": "ID"}))) if method.permission else "",
        ]
        for name, method in METHODS.items()
    ]
    return table(["Method", "Arguments", "Needs"], rows)


def _rows(name: str, kind: type[Any], wire: str | None, *, offered: bool = True) -> list[list[str]]:
    rows: list[list[str]] = []
    for method, function in vars(kind).items():
        if not isinstance(function, FunctionType) or method in _HIDDEN:
            continue
        # ``warning`` is ``warn``: one row for both.
        if method.endswith("_async") or function.__name__ != method:
            continue
        if (wire is not None and f"{wire}{method}" in NOT_OFFERED) is offered:
            continue
        about = plain(inspect.getdoc(function) or "")
        rows.append([code(_call(name, method, function)), about])
    return rows


def _call(name: str, method: str, function: FunctionType) -> str:
    signature = inspect.signature(function)
    arguments = list(signature.parameters.values())[1:]
    if method in _WRITTEN:
        text = ", ".join(argument.name for argument in arguments)
        if method == "__call__":
            text = _arguments(arguments)
        return _WRITTEN[method].format(name, text)
    return f"{name}.{method}({_arguments(arguments)}) -> {signature.return_annotation}"


def _arguments(arguments: list[inspect.Parameter]) -> str:
    """Write parameters as they stand in the source, where annotations are not evaluated."""
    words: list[str] = []
    for argument in arguments:
        star = {argument.VAR_POSITIONAL: "*", argument.VAR_KEYWORD: "**"}.get(argument.kind, "")
        if argument.kind is argument.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        word = f"{star}{argument.name}: {argument.annotation}"
        words.append(
            word if argument.default is argument.empty else f"{word} = {argument.default!r}"
        )
    return ", ".join(words)
