"""Processes: started, watched, limited and ended as whole trees; knows nothing of tasks or runs."""

from dicode_mcp.executor.linux import become_subreaper
from dicode_mcp.executor.orphans import Strangers, take_process
from dicode_mcp.executor.spawn import SpawnExecutor

__all__ = ["SpawnExecutor", "Strangers", "become_subreaper", "take_process"]
