"""The talk with running tasks: numbered calls over an inherited socket, checked by a table."""

from dicode_mcp.ipc.calls import TaskCalls
from dicode_mcp.ipc.server import SessionServer

__all__ = ["SessionServer", "TaskCalls"]
