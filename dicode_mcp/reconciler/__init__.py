"""Keeps the registry equal to what the sources say, from full state, again and again."""

from dicode_mcp.reconciler.look import NotInForce, TaskLoader
from dicode_mcp.reconciler.loop import Reconciler
from dicode_mcp.reconciler.readiness import ReadinessLog
from dicode_mcp.reconciler.worker import Timing

__all__ = ["NotInForce", "ReadinessLog", "Reconciler", "TaskLoader", "Timing"]
