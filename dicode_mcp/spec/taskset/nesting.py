"""Entering a set that stands in another one: no circle, and not too deep."""

from __future__ import annotations

from dataclasses import replace

from dicode_mcp.spec.problems import SpecError
from dicode_mcp.spec.taskset.documents import EntryDoc, TaskSetDoc
from dicode_mcp.spec.taskset.precedence import Frame
from dicode_mcp.spec.taskset.targets import Fault
from dicode_mcp.spec.taskset.world import Spot, World

MAX_DEPTH = 16
"""How many sets may stand inside each other."""


def entered(world: World, entry: EntryDoc, spot: Spot, frame: Frame) -> tuple[TaskSetDoc, Frame]:
    """Read the set that an entry leads to; gives the frame its entries stand in.

    Raises ``Fault``.
    """
    shown = frame.tree.name_of(spot.path)
    steps = [*(name for _, name in frame.chain), shown]
    if any(file == spot.path for file, _ in frame.chain):
        path = " → ".join(steps)
        raise Fault("Cycle", entry.problem(f"the set includes itself: {path}", "remove the ref"))
    if len(steps) > MAX_DEPTH:
        what = f"more than {MAX_DEPTH} sets stand inside each other: … → " + " → ".join(steps[-3:])
        raise Fault("TooDeep", entry.problem(what, "name the inner set nearer to the root"))
    try:
        document = world.read_set(spot.path, shown)
    except SpecError as error:
        raise Fault("InvalidSet", *error.problems) from None
    chain = (*frame.chain, (spot.path, shown))
    return document, replace(frame, folder=spot.path.parent, chain=chain)
