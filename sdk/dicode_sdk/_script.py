"""Running a script file as ``__main__``, then its ``main``, and finding what it returns."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType
    from typing import Any

_COROUTINE = 0x80
_VARARGS, _VARKEYWORDS = 0x04, 0x08
_DEFS = (b"def main(", b"async def main(")
_FUNCTION = type(lambda: None)


def execute(script: str, names: dict[str, Any], code: str | None = None) -> Any:
    """Run the script with ``names`` at module level; give ``main``'s value or ``result``.

    ``code`` stands for the file's text when given.
    """
    if code is None:
        with open(script, "rb") as file:
            source = file.read()
    else:
        source = code.encode()
    folder = os.path.dirname(script)
    sys.argv[:] = [script]
    sys.path.insert(0, folder)
    module = fresh_main(script, names)
    exec(compile(source, script, "exec", dont_inherit=True), vars(module))
    main = vars(module).get("main")
    if not callable(main) or b"main" not in source:
        return result_of(module)
    defined, called = read_main(source, script)
    if called:
        return _already_called(module, names)
    if not defined and not _is_ours(main, folder):
        return result_of(module)
    value = call_main(main, names)
    return result_of(module) if value is None else value


def fresh_main(script: str, names: dict[str, Any]) -> ModuleType:
    """Put a new, empty ``__main__`` in place that looks as if Python had started ``script``."""
    old = sys.modules["__main__"]
    module = type(sys)("__main__")
    module.__dict__.update(
        names,
        __file__=script,
        __builtins__=sys.modules["builtins"],
        __cached__=None,
        # Emptying the old one would take the frames that run now with it.
        __dicode_entry__=old,
    )
    sys.modules["__main__"] = module
    return module


def result_of(module: ModuleType) -> Any:
    """Give the module-level ``result``, if set."""
    return vars(module).get("result")


def _already_called(module: ModuleType, names: dict[str, Any]) -> Any:
    value = result_of(module)
    if value is None:
        names["log"].warn(
            "the script calls main() itself, so main's return value is not seen; "
            "leave the call out, or write: result = main()"
        )
    return value


def _is_ours(main: Any, folder: str) -> bool:
    """Tell a ``main`` of the task from one that came with an import from elsewhere."""
    if getattr(main, "__module__", None) == "__main__":
        return True
    code = getattr(main, "__code__", None)
    return code is not None and os.path.dirname(code.co_filename).startswith(folder)


def read_main(source: bytes, script: str) -> tuple[bool, bool]:
    """Tell whether the script defines ``main`` at module level, and whether it calls it there."""
    plainly = source.startswith(_DEFS) or any(b"\n" + text in source for text in _DEFS)
    if plainly and source.count(b"main") == 1:
        # The usual script; it need not pay for the syntax tree, which costs as much as the rest.
        return True, False
    import _ast

    tree: Any = compile(source, script, "exec", _ast.PyCF_ONLY_AST, dont_inherit=True)
    defs = (_ast.FunctionDef, _ast.AsyncFunctionDef)
    defined = called = False
    for node in _module_level(tree):
        if isinstance(node, defs) and node.name == "main":
            defined = True
        elif (
            isinstance(node, _ast.Call)
            and isinstance(node.func, _ast.Name)
            and node.func.id == "main"
        ):
            called = True
    return defined, called


def _module_level(node: Any) -> Iterator[Any]:
    """Walk a syntax tree, but not into the bodies of functions and classes."""
    import _ast

    inner = (_ast.FunctionDef, _ast.AsyncFunctionDef, _ast.ClassDef, _ast.Lambda)
    todo: list[Any] = [node]
    while todo:
        current = todo.pop()
        yield current
        if isinstance(current, inner):
            continue
        for name in current._fields:
            value: Any = getattr(current, name, None)
            if isinstance(value, _ast.AST):
                todo.append(value)
            elif isinstance(value, list):
                todo.extend(_nodes(value))


def _nodes(values: Any) -> list[Any]:
    import _ast

    return [value for value in values if isinstance(value, _ast.AST)]


def call_main(main: Callable[..., Any], names: dict[str, Any]) -> Any:
    """Call ``main`` with those of the names it asks for; wait for it if it is asynchronous."""
    args, kwargs = arguments(main, names)
    code = getattr(main, "__code__", None)
    value = main(*args, **kwargs)
    if (code is not None and code.co_flags & _COROUTINE) or hasattr(value, "__await__"):
        import asyncio

        return asyncio.run(_awaited(value))
    return value


async def _awaited(value: Any) -> Any:
    return await value


def arguments(main: Callable[..., Any], names: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Choose what to pass. A required argument of another name is a ``TypeError``."""
    if type(main) is _FUNCTION and not hasattr(main, "__wrapped__"):
        code = main.__code__
        if code.co_argcount == code.co_kwonlyargcount == 0:
            if not code.co_flags & (_VARARGS | _VARKEYWORDS):
                return [], {}
    import inspect

    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for parameter in inspect.signature(main).parameters.values():
        name = parameter.name
        if parameter.kind is parameter.VAR_KEYWORD:
            kwargs.update((key, value) for key, value in names.items() if key not in kwargs)
        elif parameter.kind is parameter.VAR_POSITIONAL:
            continue
        elif name in names and parameter.kind is parameter.POSITIONAL_ONLY:
            args.append(names[name])
        elif name in names:
            kwargs[name] = names[name]
        elif parameter.default is parameter.empty:
            raise TypeError(
                f"main() asks for {name!r}; it can be given: {', '.join(names)}. "
                f"A parameter of the task is read with params.get({name!r})"
            )
    return args, kwargs
