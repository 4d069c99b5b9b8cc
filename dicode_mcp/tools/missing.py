"""Parameters that a call left out, asked of the user where the client can.

Pure: the refusal of a run in, a question out, an answer to params. A form is no place for secrets,
so a parameter that may be one is never asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import mcp_types as t

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.tools.questions import Reply, form

_SECRET = re.compile(
    r"pass|secret|token|credential|(^|[_.-])(api|private)?[_.-]?key([_.-]|$)", re.I
)
_TYPES = {"number": "number", "boolean": "boolean"}


def question(task_id: str, refusal: DicodeError) -> t.ElicitRequest | None:
    """Give what to ask; None when more is wrong than missing params, or one may be a secret."""
    if refusal.code is not Code.INVALID_PARAMS:
        return None
    problems = cast("list[dict[str, Any]]", refusal.data.get("problems", []))
    if not problems or any(
        problem["problem"] != "missing" or _SECRET.search(problem["param"]) for problem in problems
    ):
        return None
    properties = {problem["param"]: _field(problem) for problem in problems}
    return form(
        f"Task {task_id} needs {', '.join(properties)} to run.",
        {"type": "object", "properties": properties, "required": list(properties)},
    )


def completed(params: Mapping[str, Any], reply: Reply) -> dict[str, Any] | None:
    """Give the params with the answer; None when the user gave none."""
    if not isinstance(reply, t.ElicitResult) or reply.action != "accept":
        return None
    return {**params, **(reply.content or {})}


def _field(problem: Mapping[str, Any]) -> dict[str, Any]:
    field: dict[str, Any] = {"type": _TYPES.get(problem.get("type", ""), "string")}
    if "allowed" in problem and field["type"] == "string":
        field["enum"] = [str(value) for value in problem["allowed"]]
    return field
