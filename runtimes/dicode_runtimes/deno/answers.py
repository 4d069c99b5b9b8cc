"""Reading what ``deno cache`` and ``deno check`` say when something is wrong. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dicode_mcp.conditions import Condition, ConditionType
from dicode_runtimes.deno.graph import External

_PLACE = re.compile(r"^\s*at (file://\S+?):(\d+):\d+\s*$", re.MULTILINE)
_TYPE_ERROR = re.compile(r"^(TS\d+) \[ERROR\]: (.*)$")
_REFUSED_HOST = re.compile(r'Requires import access to "([^"]+)"')
_MOST_ERRORS = 5
_MOST_TEXT = 400


def dependencies_failed(
    stderr: str, folder: Path, external: Sequence[External], *, timed_out: bool
) -> Condition:
    """Say which import could not be prepared, in Deno's words, and what to do."""
    said = "Deno did not end in time" if timed_out else _words(stderr)
    where = _place(stderr, folder) or _mentioned(said, external)
    remedy = _remedy(said)
    message = f"{where}: {said}; {remedy}" if where else f"{said}; {remedy}"
    return Condition(ConditionType.DEPENDENCIES, False, "PreparationFailed", message)


def being_prepared(external: Sequence[External]) -> Condition:
    """Say that dependencies are on their way."""
    names = ", ".join(dict.fromkeys(e.specifier for e in external[:_MOST_ERRORS]))
    more = len(external) - _MOST_ERRORS
    text = f"fetching {names}" + (f" and {more} more" if more > 0 else "")
    return Condition(
        ConditionType.DEPENDENCIES, False, "Preparing", f"{text}; runs fail until it is done"
    )


def type_errors(output: str, folder: Path) -> Condition | None:
    """Give the first errors of the type checker in the task's own files, if there are any."""
    found: list[str] = []
    head = ""
    for line in output.splitlines():
        if match := _TYPE_ERROR.match(line):
            head = f"{match[1]} {match[2]}"[:_MOST_TEXT]
        elif head and (match := _PLACE.match(line)):
            if (path := _within(match[1], folder)) is not None:
                found.append(f"{path}:{match[2]}: {head}")
            head = ""
    if not found:
        return None
    shown = "\n".join(found[:_MOST_ERRORS])
    if len(found) > _MOST_ERRORS:
        shown += f"\n… and {len(found) - _MOST_ERRORS} more"
    return Condition(ConditionType.TYPES, False, "TypeErrors", shown)


def _words(stderr: str) -> str:
    """Give Deno's own sentence: the lines from ``error:`` on, without places and backtraces."""
    kept: list[str] = []
    for line in stderr.splitlines():
        if line.startswith("error: "):
            kept = [line.removeprefix("error: ").strip()]
        elif line.startswith("Stack backtrace"):
            break
        elif kept and line.strip() and not _PLACE.match(line) and "hint:" not in line:
            kept.append(line.strip())
    return " ".join(kept)[:_MOST_TEXT] or "Deno could not prepare the script's imports"


def _place(stderr: str, folder: Path) -> str | None:
    for match in _PLACE.finditer(stderr):
        if (path := _within(match[1], folder)) is not None:
            return f"{path}:{match[2]}"
    return None


def _mentioned(said: str, external: Sequence[External]) -> str | None:
    for each in external:
        name = each.specifier.partition(":")[2].lstrip("/")
        bare = name.rpartition("@")[0] or name
        if bare and bare in said:
            return f"{each.file}:{each.line}"
    return f"{external[0].file}:{external[0].line}" if external else None


def _within(url: str, folder: Path) -> str | None:
    path = Path(unquote(urlsplit(url).path)).resolve()
    root = folder.resolve()
    return str(path.relative_to(root)) if root in path.parents else None


def _remedy(said: str) -> str:
    if host := _REFUSED_HOST.search(said):
        name = host[1].removesuffix(":443")
        return f'to import from there add to task.yaml: permissions.net: ["{name}"]'
    if "does not exist" in said:
        return "correct the package's name in the import"
    if "ould not find" in said or "version" in said:
        return "correct the version in the import"
    return "correct the import; when the network was at fault it is tried again by itself"
