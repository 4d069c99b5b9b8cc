"""Environments for scripts that name their dependencies, made by uv once for each such list."""

from dicode_runtimes.uv.block import Block, BlockError, read_block
from dicode_runtimes.uv.environments import Environment, Environments
from dicode_runtimes.uv.preparing import ScriptEnvironments
from dicode_runtimes.uv.program import UvProgram

__all__ = [
    "Block",
    "BlockError",
    "Environment",
    "Environments",
    "ScriptEnvironments",
    "UvProgram",
    "read_block",
]
