"""Keeps the registry equal to what the sources say, from full state, again and again."""

from dicode_mcp.reconciler.look import Gate, NotInForce, TaskLoader
from dicode_mcp.reconciler.loop import Reconciler
from dicode_mcp.reconciler.readiness import ReadinessLog
from dicode_mcp.reconciler.worker import Outside, Timing
from dicode_mcp.reconciler.world import Places

__all__ = [
    "Gate",
    "NotInForce",
    "Outside",
    "Places",
    "ReadinessLog",
    "Reconciler",
    "TaskLoader",
    "Timing",
]
