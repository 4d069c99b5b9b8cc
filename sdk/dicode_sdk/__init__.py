"""The SDK inside a task: what a script finds as module-level names, to import and with types.

    from dicode_sdk import params, log, kv

The names exist while a task runs; elsewhere touching one raises ``NotInTask``, and importing this
package is harmless. Standard library only, and little of it: importing it costs a few milliseconds.
"""

from __future__ import annotations

from dicode_sdk._channel import DicodeError, NoRetry, Suspended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from dicode_sdk._api import Dicode, Env, Kv, Log, Mcp, Output, Params

params: Params
env: Env
kv: Kv
input: Any
"""What the run was started with: a webhook's body, a chain's value, a caller's input."""
request: dict[str, Any] | None
"""The HTTP request that started the run, if one did."""
output: Output
log: Log
dicode: Dicode
mcp: Mcp

NAMES = ("params", "env", "kv", "input", "request", "output", "log", "dicode", "mcp")
"""What every task's script finds at module level."""


class NotInTask(RuntimeError):
    """One of the task's names was used outside a task."""


def __getattr__(name: str) -> NoReturn:
    if name in NAMES:
        raise NotInTask(
            f"dicode_sdk.{name} exists only inside a running task: run the script with "
            "`dicode run <task id>`, or let a test harness of dicode provide it"
        )
    raise AttributeError(f"module 'dicode_sdk' has no attribute {name!r}")


__all__ = [
    "DicodeError",
    "NAMES",
    "NoRetry",
    "NotInTask",
    "Suspended",
    "dicode",
    "env",
    "input",
    "kv",
    "log",
    "mcp",
    "output",
    "params",
    "request",
]
