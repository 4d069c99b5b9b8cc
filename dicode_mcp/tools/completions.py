"""Completion of arguments while they are typed: of prompts, and of the variables in addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mcp_types as t
from mcp import MCPError

from dicode_mcp.runs.model import RunStatus
from dicode_mcp.tools.prompts import Completer, PromptBook
from dicode_mcp.tools.registry import Call, hidden

MAX_VALUES = 100
"""The protocol's limit for one answer."""


class Completions:
    """Knows what completes which argument. ``templates`` has them by template and variable."""

    def __init__(
        self, prompts: PromptBook, templates: Mapping[tuple[str, str], Completer] | None = None
    ) -> None:
        self._prompts = prompts
        self._templates = dict(templates or {})

    async def complete(self, call: Call, params: t.CompleteRequestParams) -> t.CompleteResult:
        """Give up to 100 values; none for an argument that has no values to offer."""
        complete = self._completer(call, params)
        values = await complete(call, params.argument.value) if complete else ()
        return t.CompleteResult(completion=completion(values))

    def _completer(self, call: Call, params: t.CompleteRequestParams) -> Completer | None:
        argument = params.argument.name
        if isinstance(params.ref, t.PromptReference):
            return self._prompts.completer(params.ref.name, argument, call.principal)
        found = self._templates.get((params.ref.uri, argument))
        if found is None and not any(uri == params.ref.uri for uri, _ in self._templates):
            raise MCPError(
                t.INVALID_PARAMS, "Unknown resource template. Call resources/templates/list."
            )
        return found


def completion(values: Sequence[str]) -> t.Completion:
    """Give the first values, and whether there are more."""
    more = len(values) > MAX_VALUES
    return t.Completion(values=list(values[:MAX_VALUES]), total=len(values), has_more=more)


async def task_ids(call: Call, typed: str) -> list[str]:
    """Give ids of tasks: those that begin with what was typed, then those that contain it."""
    if hidden("completion", "tasks", "read", call.principal):
        return []
    page = await call.services.tasks.list(call.principal, query=typed or None, limit=5 * MAX_VALUES)
    ids = [str(task["id"]) for task in page["tasks"]]
    return [i for i in ids if i.startswith(typed)] + [
        i for i in ids if typed in i and not i.startswith(typed)
    ]


async def run_ids(call: Call, typed: str) -> list[str]:
    """Give ids of the newest runs that begin with what was typed."""
    return await _newest_runs(call, typed, None)


async def failed_run_ids(call: Call, typed: str) -> list[str]:
    """Give ids of the newest failed runs that begin with what was typed."""
    return await _newest_runs(call, typed, RunStatus.FAILURE)


async def _newest_runs(call: Call, typed: str, status: RunStatus | None) -> list[str]:
    if hidden("completion", "runs", "read", call.principal):
        return []
    wanted = status.value if status else None
    page = await call.services.runs.list(call.principal, status=wanted, limit=5 * MAX_VALUES)
    return [str(run["run_id"]) for run in page["runs"] if run["run_id"].startswith(typed)]


TEMPLATE_VARIABLES: Mapping[tuple[str, str], Completer] = {
    ("dicode://tasks/{id}", "id"): task_ids,
    ("dicode://tasks/{id}/files/{path}", "id"): task_ids,
    ("dicode://tasks/{id}/pending", "id"): task_ids,
    ("dicode://runs/{id}", "id"): run_ids,
    ("dicode://runs/{id}/logs", "id"): run_ids,
}
