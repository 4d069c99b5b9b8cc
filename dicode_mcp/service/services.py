"""All use cases in one value, for the surfaces."""

from __future__ import annotations

from dataclasses import dataclass

from dicode_mcp.service.inside import Inside
from dicode_mcp.service.runs import RunsService
from dicode_mcp.service.sources import SourcesService
from dicode_mcp.service.status import StatusService
from dicode_mcp.service.tasks import TasksService


@dataclass(frozen=True, slots=True)
class Services:
    """The use cases by noun; ``inside`` is what a running task may ask."""

    tasks: TasksService
    runs: RunsService
    sources: SourcesService
    status: StatusService
    inside: Inside
