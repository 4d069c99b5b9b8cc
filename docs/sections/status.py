"""What this build does and does not do yet, from the tables that the server itself tells it by."""

from __future__ import annotations

from dicode_mcp.config import support as config_support
from dicode_mcp.ipc.calls import NOT_OFFERED
from dicode_mcp.spec import support
from dicode_mcp.spec.model import RUNTIMES, DicodeGrants
from dicode_mcp.spec.trigger import KINDS
from sections.markdown import code, sentence, table


def task_fields_not_in_force() -> dict[str, str]:
    """Give key path and sentence of each field of ``task.yaml`` that has no effect yet."""
    found = {field: sentence for field, _, sentence in support.TABLE}
    for kind in KINDS:
        if kind not in support.TRIGGERS_IN_FORCE:
            found[f"trigger.{kind}"] = "starts no run by itself; `run_task` works"
    for name in DicodeGrants.model_fields:
        if name not in support.GRANTS_IN_FORCE:
            found[f"permissions.dicode.{name}"] = "the call is refused"
    return found


def in_force() -> str:
    """Give a short table of runtimes and triggers."""
    return table(
        ["", "In force", "Accepted, not yet in force"],
        [
            ["Runtimes", *_halves(RUNTIMES, support.RUNTIMES_IN_FORCE)],
            ["Triggers", *_halves(KINDS, support.TRIGGERS_IN_FORCE)],
        ],
    )


def _halves(names: tuple[str, ...], good: frozenset[str]) -> list[str]:
    yes = [code(name) for name in names if name in good]
    no = [code(name) for name in names if name not in good]
    return [", ".join(yes) or "none", ", ".join(no) or "none"]


def manifest_gaps() -> str:
    """List the fields of ``task.yaml`` without effect."""
    rows = [[code(field), sentence(text)] for field, text in task_fields_not_in_force().items()]
    return table(["Key of task.yaml", "Today"], rows)


def deno_gaps() -> str:
    """List the fields that are in force for Deno tasks at least in part."""
    rows = [
        [code(field), sentence(text or "In force")] for field, text in support.DENO_TABLE.items()
    ]
    return table(["Key of task.yaml", "Deno tasks today"], rows)


def config_gaps() -> str:
    """List the keys of ``dicode.yaml`` without effect."""
    rows = [text.partition(": ")[::2] for text, _ in config_support.TABLE]
    return table(["Key of dicode.yaml", "Today"], [[code(k), sentence(t)] for k, t in rows])


def sdk_gaps() -> str:
    """List the SDK's calls that the server refuses with ``not_supported``."""
    return ", ".join(code(_spelled(name)) for name in sorted(NOT_OFFERED)) + "."


def _spelled(method: str) -> str:
    return method if method.startswith("mcp.") else f"dicode.{method}"
