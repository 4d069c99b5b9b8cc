"""Error codes, statuses, reasons and conditions, from the enumerations and their docstrings."""

from __future__ import annotations

import ast
import inspect
from enum import StrEnum

from dicode_mcp.cli.failures import exit_code
from dicode_mcp.conditions import ConditionType
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.model import TRANSITIONS, Reason, RunStatus, Trigger
from dicode_mcp.web.problems import STATUS
from sections.markdown import code, plain, table


def error_codes() -> str:
    """Give the codes of refused calls with their HTTP status and exit code."""
    said = meanings(Code)
    rows = [
        [code(c.value), said[c.name], str(STATUS[c]), str(exit_code(DicodeError(c, "")))]
        for c in Code
    ]
    return table(["Code", "Meaning", "HTTP", "Exit"], rows)


def run_statuses() -> str:
    """Give the statuses of a run and where each may lead."""
    said = meanings(RunStatus)
    rows = [
        [
            code(status.value),
            said[status.name],
            ", ".join(code(s.value) for s in RunStatus if s in TRANSITIONS[status]) or "final",
        ]
        for status in RunStatus
    ]
    return table(["Status", "Meaning", "Next"], rows)


def reasons() -> str:
    """Give the reasons of a run's end."""
    said = meanings(Reason)
    return table(["Reason", "Meaning"], [[code(r.value), said[r.name]] for r in Reason])


def conditions() -> str:
    """Give the conditions of tasks and sources."""
    said = meanings(ConditionType)
    rows = [[code(kind.value), said[kind.name]] for kind in ConditionType]
    return table(["Condition", "Meaning"], rows)


def triggers() -> str:
    """List what a run may have been started by."""
    return ", ".join(code(trigger.value) for trigger in Trigger) + "."


def meanings(kind: type[StrEnum]) -> dict[str, str]:
    """Read the docstring below each member. Raises ``ValueError`` for a member without one."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    name = ""
    for node in body.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            found[name] = plain(str(node.value.value))
    missing = [member.name for member in kind if member.name not in found]
    if missing:
        raise ValueError(
            f"{kind.__module__}.{kind.__name__}: say in a docstring below it what it means: "
            + ", ".join(missing)
        )
    return found
