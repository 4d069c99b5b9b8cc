"""Provider tasks: tasks that resolve secrets for others, asked once per launch for all they give.

What a provider gives is held in memory alone, for as long as its ``cache_ttl`` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.runs.follow_ups import MAX_CHAIN_DEPTH, origin_of
from dicode_mcp.runs.model import Reason, Run, RunRequest, RunStatus, Trigger
from dicode_mcp.spec.model import EnvEntry, Task

UNAVAILABLE = "provider_unavailable"
MISCONFIGURED = "provider_misconfigured"
_NEEDS_A_HAND = frozenset({Reason.NO_RETRY, Reason.SECRET_MISSING, Reason.ENV_MISSING})
"""Ends of a provider after which asking again is of no use."""
MAX_CACHED = 10_000
MAX_DEPTH = 8


class Starts(Protocol):
    """Starts runs and waits for them."""

    async def submit(self, request: RunRequest) -> Run:
        """Commit a run."""
        ...

    async def wait_as_parent(self, parent_id: str, run_id: str) -> Run:
        """Wait for a child, lending the parent's slot meanwhile."""
        ...


@dataclass(slots=True)
class _Question:
    """A run that waits for a provider. ``path`` is who asks whom, the provider last."""

    path: tuple[str, ...]
    values: dict[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _Cached:
    value: str = field(repr=False)
    until: float


class ProviderTasks:
    """Asks provider tasks. Belongs to one event loop."""

    def __init__(self, starts: Starts, registry: Registry, clock: Clock) -> None:
        self._starts = starts
        self._registry = registry
        self._clock = clock
        self._asked: dict[tuple[str, str], _Question] = {}
        """By the run that waits and the provider: its run may be a second attempt."""
        self._cache: dict[tuple[str, str, str, str], _Cached] = {}
        """By provider, its version, the task that asks (it may be refused), and name."""

    def give(self, run: Run, task: Task, values: Mapping[str, str]) -> None:
        """Take what a provider's run gives. Raises FORBIDDEN for a run nobody asked for secrets."""
        question = self._question(run)
        if question is None or task.spec.provider is None:
            raise DicodeError(
                Code.FORBIDDEN,
                "nobody asked this run for secrets, so nothing was kept",
                hint="output(values, secret=True) is for tasks with `provider:` in task.yaml, while"
                " another task's `from: task:ID` asks them",
            )
        question.values = {**(question.values or {}), **values}

    async def ask(
        self, run: Run, task: Task, entries: Sequence[EnvEntry], *, by_full_id: bool = False
    ) -> dict[str, str]:
        """Give the values by the entries' names; those that no provider has are left out.

        ``by_full_id``: a sibling of the task does not stand for the provider. Raises
        SECRET_MISSING, whose data has the ``reason``, when a provider cannot be asked.
        """
        by_provider: dict[str, list[EnvEntry]] = {}
        for entry in entries:
            near = None if by_full_id else task.id
            by_provider.setdefault(self._provider(task, entry, near).id, []).append(entry)
        found: dict[str, str] = {}
        for provider_id, asked in by_provider.items():
            found |= await self._ask_one(run, task, provider_id, asked)
        return found

    async def _ask_one(
        self, run: Run, task: Task, provider_id: str, asked: Sequence[EnvEntry]
    ) -> dict[str, str]:
        entry = self._registry.get(provider_id)
        provider = entry.task if entry else None
        if provider is None:
            raise _failed(UNAVAILABLE, provider_id, "it has no good version")
        names = list(dict.fromkeys(e.name for e in asked))
        known = self._cached(task, provider, names)
        wanted = [name for name in names if name not in known]
        if not wanted:
            return known
        fresh = await self._run(run, task, provider, wanted)
        ttl = provider.spec.provider.cache_ttl if provider.spec.provider else 0
        if ttl > 0:
            self._keep(task, provider, fresh, self._clock.monotonic() + ttl)
        return known | fresh

    async def _run(
        self, run: Run, task: Task, provider: Task, names: Sequence[str]
    ) -> dict[str, str]:
        question = _Question((*self._path(run), provider.id))
        _require_way(run, question.path)
        self._asked[run.id, provider.id] = question
        try:
            child = await self._starts.submit(
                RunRequest(
                    task_id=provider.id,
                    trigger=Trigger.PROVIDER,
                    input={"names": list(names), "task": task.id},
                    actor=f"task:{task.id}",
                    strict_params=False,
                    parent_run_id=run.id,
                    root_run_id=run.root_run_id or run.id,
                    chain_depth=run.chain_depth + 1,
                    origin=origin_of(run),
                )
            )
            ended = await self._starts.wait_as_parent(run.id, child.id)
        except DicodeError as error:
            raise _failed(UNAVAILABLE, provider.id, error.message) from error
        finally:
            del self._asked[run.id, provider.id]
        if ended.status is not RunStatus.SUCCESS:
            why = ended.error.message if ended.error else ended.status.value
            kind = MISCONFIGURED if ended.reason in _NEEDS_A_HAND else UNAVAILABLE
            error = _failed(kind, provider.id, f"its run {ended.id} ended: {why}")
            if ended.error and ended.error.hint:
                error.hint = f"{ended.error.hint}; {error.hint}"
            raise error
        given = question.values
        if given is None:
            raise _failed(
                MISCONFIGURED, provider.id, "it ended without output({NAME: value}, secret=True)"
            )
        return {name: given[name] for name in names if name in given}

    def _question(self, run: Run) -> _Question | None:
        """Find who waits for what ``run`` gives. Runs that somebody else started give nothing."""
        if run.trigger not in (Trigger.PROVIDER, Trigger.RETRY) or run.parent_run_id is None:
            return None
        return self._asked.get((run.parent_run_id, run.task_id))

    def _path(self, run: Run) -> tuple[str, ...]:
        question = self._question(run)
        return question.path if question else (run.task_id,)

    def _provider(self, task: Task, entry: EnvEntry, near: str | None) -> Entry:
        ref = entry.key or ""
        found = self._registry.resolve(ref, near=near)
        if found is None:
            raise _failed(MISCONFIGURED, ref, "there is no such task")
        if found.id == task.id:
            raise _failed(MISCONFIGURED, found.id, "a task cannot be its own provider")
        if found.task is not None and found.task.spec.provider is None:
            raise _failed(MISCONFIGURED, found.id, "its task.yaml has no `provider:`")
        return found

    def _cached(self, task: Task, provider: Task, names: Sequence[str]) -> dict[str, str]:
        now = self._clock.monotonic()
        place = (provider.id, provider.digest, task.id)
        hits = {name: self._cache.get((*place, name)) for name in names}
        return {n: hit.value for n, hit in hits.items() if hit is not None and hit.until > now}

    def _keep(self, task: Task, provider: Task, values: Mapping[str, str], until: float) -> None:
        if len(self._cache) + len(values) > MAX_CACHED:
            self._cache.clear()
        for name, value in values.items():
            self._cache[provider.id, provider.digest, task.id, name] = _Cached(value, until)


def _require_way(run: Run, path: tuple[str, ...]) -> None:
    """Refuse providers that ask each other in a circle, or too many in a row."""
    if path[-1] in path[:-1]:
        circle = " -> ".join(path[path.index(path[-1]) :])
        raise _failed(MISCONFIGURED, path[-1], f"it asks for itself: {circle}")
    if run.chain_depth >= MAX_CHAIN_DEPTH or len(path) > MAX_DEPTH:
        raise _failed(MISCONFIGURED, path[-1], "providers that ask providers go too deep")


def _failed(reason: str, provider: str, why: str) -> DicodeError:
    hint = (
        "mend the reference or the provider's task.yaml"
        if reason == MISCONFIGURED
        else "get_runs with the provider's id shows why; the task runs again once it answers"
    )
    return DicodeError(
        Code.SECRET_MISSING,
        f"permissions.env: the provider task '{provider}' gave no secrets: {why}",
        hint=hint,
        data={"provider": provider, "reason": reason},
        retry=Retry.BACKOFF if reason == UNAVAILABLE else Retry.AFTER,
    )
