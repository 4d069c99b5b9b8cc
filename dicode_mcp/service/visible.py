"""What of the whole a caller may know of, where an answer is of more than one task.

None stands for all of it, those to come too; it is given only to whoever may read every task.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from dicode_mcp.errors import DicodeError
from dicode_mcp.protocols import Store
from dicode_mcp.registry import Entry, Registry, SourceState
from dicode_mcp.runs.model import Run
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.scopes import READ


def visible_tasks(registry: Registry, principal: Principal) -> tuple[str, ...] | None:
    """Give the ids of the tasks there are that the caller sees.

    Tasks that are gone are not among them: what is left of those is found by their own id.
    """
    if principal.has_all(READ):
        return None
    return tuple(entry.id for entry in registry.entries() if principal.sees(entry.id))


def visible_sources(registry: Registry, principal: Principal) -> frozenset[str] | None:
    """Give the names of the sources that hold something the caller sees."""
    if principal.has_all(READ):
        return None
    entries = (*registry.entries(), *registry.contested())
    by_tasks = {entry.source for entry in entries if principal.sees(entry.id)}
    by_faults = {state.name for state in registry.source_states() if _told_of(principal, state)}
    return frozenset(by_tasks | by_faults)


def sees_source(registry: Registry, principal: Principal, name: str) -> bool:
    """Tell whether the caller may know of a source."""
    seen = visible_sources(registry, principal)
    return seen is None or name in seen


def unknown_source(registry: Registry, principal: Principal, name: str) -> DicodeError:
    """Give the error for a source that is not there, naming none but those the caller sees."""
    seen = visible_sources(registry, principal)
    return registry.unknown_source(name, lambda other: seen is None or other in seen)


async def as_seen(store: Store, principal: Principal, runs: Iterable[Run]) -> list[Run]:
    """Give runs without the ids of those that led to them, where the caller may not read these."""
    given = list(runs)
    if principal.has_all(READ):
        return given
    seen = {run.id for run in given if principal.sees(run.task_id)}
    for run_id in {lead for run in given for lead in _leads(run)} - seen:
        led = await store.get_run(run_id)
        if led is not None and principal.sees(led.task_id):
            seen.add(run_id)
    return [
        run
        if seen.issuperset(_leads(run))
        else replace(
            run,
            parent_run_id=run.parent_run_id if run.parent_run_id in seen else None,
            root_run_id=run.root_run_id if run.root_run_id in seen else None,
        )
        for run in given
    ]


def as_told(registry: Registry, principal: Principal, entry: Entry) -> Entry:
    """Give a task whose conditions and problems name no task or source that the caller may not see.

    They are texts, and rightly name who has a webhook's path, or what a reference may have meant.
    """
    if principal.has_all(READ):
        return entry
    sources = visible_sources(registry, principal) or frozenset()

    def shown(text: str) -> str:
        return _WORD.sub(known, _SOURCE.sub(source, text))

    def known(word: re.Match[str]) -> str:
        other = registry.get(word["id"])
        return word[0] if other is None or principal.sees(other.id) else "another task"

    def source(found: re.Match[str]) -> str:
        return found[0] if found["name"] in sources else "another source"

    return replace(
        entry,
        conditions=tuple(replace(c, message=shown(c.message)) for c in entry.conditions),
        problems=tuple(
            replace(p, message=shown(p.message), hint=shown(p.hint)) for p in entry.problems
        ),
    )


_ID = "[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9_-])?"
_WORD = re.compile(rf"(?:\btask )?(?P<quote>['\"]?)(?P<id>{_ID})(?P=quote)")
"""What may name a task; a dot at its end is the sentence's."""
_SOURCE = re.compile(rf"\bsource (?P<quote>['\"]?)(?P<name>{_ID})(?P=quote)")


def _leads(run: Run) -> tuple[str, ...]:
    return tuple(lead for lead in (run.parent_run_id, run.root_run_id) if lead is not None)


def _told_of(principal: Principal, state: SourceState) -> bool:
    return any(principal.sees(task_id) for task_id, _ in (*state.broken, *state.off))
