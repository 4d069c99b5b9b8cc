"""The runtime of Deno tasks."""

from dicode_runtimes.deno.runtime import DenoRuntime

__all__ = ["DenoRuntime"]
