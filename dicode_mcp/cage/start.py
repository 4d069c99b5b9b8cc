"""A process that was started for one run: read its plan, apply it, become the task."""

from __future__ import annotations

import marshal
import os
import sys

from dicode_mcp.cage import apply as cage
from dicode_mcp.cage import ending

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any


def start(plan_fd: int, control: int) -> None:
    """Become what the plan in ``plan_fd`` says, once the server gives the word on ``control``."""
    if os.read(control, 1) != b"g":
        os._exit(cage.REFUSED_EXIT)
    plan = read(plan_fd)
    cage.apply(plan, control)
    ending.end(lambda: become(plan, ending.remember))


def read(fd: int) -> dict[str, Any]:
    """Read a plan and close its file."""
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    os.close(fd)
    return marshal.loads(data)


def become(plan: dict[str, Any], ready: Callable[[], None] | None = None) -> None:
    """Take the task's environment and run its program: never returns, but for a script.

    ``ready`` is called when all is as the script will find it.
    """
    entry = plan["entry"]
    if entry["kind"] == "exec":
        if entry["hears"]:
            os.dup2(plan["keep"][0], 0)
            os.close(plan["keep"][0])
        os.execve(entry["argv"][0], entry["argv"], plan["env"])
    os.environ.clear()
    os.environ.update(plan["env"])
    _set_zone()
    _forget_ourselves()
    sys.argv[:] = entry["argv"]
    if ready is not None:
        ready()
    run_file(entry["argv"][0])


def run_file(path: str) -> None:
    """Run a file of Python in this process as if the interpreter had been started with it.

    It finds ``__caged__`` among its names.
    """
    code = _codes.get(path) or compile_file(path)
    main = sys.modules["__main__"]
    main.__dict__.update(__file__=path, __cached__=None, __spec__=None, __caged__=True)
    exec(code, main.__dict__)


_codes: dict[str, CodeType] = {}
_ours: list[str] = []


def compile_file(path: str) -> CodeType:
    """Read and compile a file of Python."""
    with open(path, "rb") as file:
        return compile(file.read(), path, "exec", dont_inherit=True)


def prepare(path: str) -> None:
    """Do beforehand what is the same for each run of a file, in a process that is to be forked."""
    _codes[path] = compile_file(path)
    _ours.extend(_our_modules())


def _set_zone() -> None:
    time = sys.modules.get("time")
    if time is not None and hasattr(time, "tzset"):
        time.tzset()


def _forget_ourselves() -> None:
    """Leave the task an interpreter as it starts: none of the server's modules in it."""
    for name in _ours or _our_modules():
        sys.modules.pop(name, None)


def _our_modules() -> list[str]:
    return [n for n in sys.modules if n == "dicode_mcp" or n.startswith("dicode_mcp.")]
