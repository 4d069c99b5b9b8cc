"""What is in force: each task and who owns its id, each source, and the conditions on both.

State in memory of one event loop. It reads no file and starts nothing; ``TasksChanged`` and
``SourceChanged`` are published when what a reader would see has changed, and only then.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, TypeVar

from dicode_mcp.clock import Clock
from dicode_mcp.conditions import Condition, ConditionType, carry_since, find
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.events import DevModeSwitched, EventBus, SourceChanged, TasksChanged
from dicode_mcp.faults import Faults
from dicode_mcp.protocols import DevMode, Revision
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.problems import Problem

_NEAR = 0.7
"""How alike (0 to 1) two names are when one may be the other mistyped."""
_MOST_NAMES = 20
_PART = 3
"""How many letters of a name tell which one is meant."""

K = TypeVar("K", bound=Hashable)
C = TypeVar("C", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Entry:
    """A task as a source declares it.

    ``task`` is the version in force: the last good one, or None when there never was one.
    ``problems`` are what is wrong with what is written now. ``since_ms`` in conditions is set on
    what the registry gives out.
    """

    id: str
    source: str
    folder: Path
    task: Task | None = None
    conditions: tuple[Condition, ...] = ()
    problems: tuple[Problem, ...] = ()
    kept: bool = False
    """Whether ``task`` is an older version than what is written now, which is not in force."""
    waiting: Task | None = None
    """What is written now, when it waits for an approval."""

    @property
    def ready(self) -> bool:
        """Tell whether what is written now is in force."""
        ready = find(self.conditions, ConditionType.READY)
        return ready is not None and ready.status

    @property
    def contested(self) -> bool:
        """Tell whether another owns this entry's id or its webhook path."""
        return any(c.type is ConditionType.CONFLICT and c.status for c in self.conditions)


@dataclass(frozen=True, slots=True)
class ShownDev:
    """What a source shows in dev mode; without ``folder`` only its dev_refs are switched."""

    mode: DevMode
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class SourceState:
    """A source as it stands. ``problems`` are places that were not read, as sentences.

    ``broken`` has id and fault of each task whose file is not in force as it is written, by id.
    """

    name: str
    kind: Literal["local", "git"]
    location: str
    revision: Revision | None = None
    conditions: tuple[Condition, ...] = ()
    task_count: int = 0
    problems: tuple[Problem, ...] = ()
    broken: tuple[tuple[str, str], ...] = ()
    off: tuple[tuple[str, str], ...] = ()
    """Id and reason of each entry of its sets that this server does not take, by id."""
    dev: ShownDev | None = None
    """Set by the registry while dev mode is on."""

    @property
    def dev_mode(self) -> bool:
        """Tell whether dev mode is on."""
        return self.dev is not None


@dataclass(frozen=True, slots=True, order=True)
class Claimant:
    """Who claims an id or a path, ordered as the configuration has the sources."""

    rank: int
    source: str
    task_id: str


def owners(claims: Mapping[K, Iterable[Claimant]], held: Mapping[K, Claimant]) -> dict[K, Claimant]:
    """Decide who owns each thing claimed: who holds it already, else the first in order."""
    decided: dict[K, Claimant] = {}
    for key, claimants in claims.items():
        known = sorted(claimants)
        if known:
            holder = held.get(key)
            decided[key] = holder if holder in known else known[0]
    return decided


def webhook_key(path: str) -> str:
    """Give the form of a webhook path in which two equal ones collide."""
    return "/" + path.strip("/")


def merge(*groups: Iterable[Condition]) -> tuple[Condition, ...]:
    """Join conditions of several rooms: one ``Ready``, False when any room says so."""
    every = [condition for group in groups for condition in group]
    ready = [c for c in every if c.type is ConditionType.READY]
    decided = next((c for c in ready if not c.status), ready[0] if ready else None)
    others = dict.fromkeys(c for c in every if c.type is not ConditionType.READY)
    return (*((decided,) if decided else ()), *others)


class Registry:
    """Tasks by id and sources by name. ``order`` is the configuration's order of sources."""

    def __init__(self, bus: EventBus, clock: Clock, order: Sequence[str] = ()) -> None:
        self._bus = bus
        self._clock = clock
        self._rank = {name: rank for rank, name in enumerate(order)}
        self._starting = True
        self._claims: dict[str, dict[str, Entry]] = {}
        """By source, then by id, as the reconciler gave them."""
        self._owner: dict[str, Claimant] = {}
        self._path_owner: dict[str, Claimant] = {}
        self._extra: dict[str, dict[str, tuple[Condition, ...]]] = {}
        self._view: dict[str, Entry] = {}
        self._generation = 0
        self._losers: dict[tuple[str, str], Entry] = {}
        """By id and source."""
        self._sources: dict[str, SourceState] = {}
        self._faults = Faults()
        self._dev: dict[str, ShownDev] = {}

    # Reading

    @property
    def generation(self) -> int:
        """Grows when an id comes or goes, or has another version in force; not by conditions."""
        return self._generation

    def get(self, task_id: str) -> Entry | None:
        """Give the owner's entry of an id."""
        return self._view.get(task_id)

    def entries(self) -> tuple[Entry, ...]:
        """Give one entry for each id, sorted by id."""
        return tuple(self._view[task_id] for task_id in sorted(self._view))

    def contested(self) -> tuple[Entry, ...]:
        """Give the entries whose id another source owns, sorted; none of them is in force."""
        return tuple(self._losers[key] for key in sorted(self._losers))

    def webhooks(self) -> dict[str, str]:
        """Give the id of the task that owns each webhook path (as ``webhook_key`` writes it)."""
        return {path: owner.task_id for path, owner in sorted(self._path_owner.items())}

    def resolve(self, ref: str, near: str | None = None) -> Entry | None:
        """Read a reference: a sibling of ``near`` in its set, in each set around, a full id."""
        folders = near.split("/")[:-1] if near else []
        for depth in range(len(folders), -1, -1):
            entry = self._view.get("/".join([*folders[:depth], ref]))
            if entry is not None:
                return entry
        return None

    def suggest(self, ref: str) -> list[str]:
        """Give up to five ids so like ``ref`` that one of them may be meant, best first."""
        by_name: dict[str, list[str]] = {}
        for task_id in sorted(self._view):
            for name in {task_id.lower(), task_id.rsplit("/", 1)[-1].lower()}:
                by_name.setdefault(name, []).append(task_id)
        wanted = ref.lower()
        last = wanted.rsplit("/", 1)[-1]
        close = [last] if last in by_name else []
        close += get_close_matches(wanted, by_name, n=5, cutoff=_NEAR)
        if len(wanted) >= _PART:
            close += [name for name in sorted(by_name) if wanted in name]
        return list(dict.fromkeys(i for name in close for i in by_name[name]))[:5]

    def unknown_task(
        self, ref: str, sees: Callable[[str], bool] = lambda task_id: True
    ) -> DicodeError:
        """Give the error for a task that is not there, with the nearest names the caller sees."""
        for state in self._sources.values():
            for task_id, why in state.off:
                if task_id == ref and sees(task_id):
                    return DicodeError(
                        Code.TASK_NOT_FOUND,
                        f"task '{ref[:128]}' is not taken by this server: {why}",
                        hint="list_sources shows under off what is not taken",
                    )
        near = [task_id for task_id in self.suggest(ref) if sees(task_id)]
        closest = f" Closest: {', '.join(near)}." if near else ""
        return DicodeError(
            Code.TASK_NOT_FOUND,
            f"task '{ref[:128]}' not found.{closest}",
            hint="call list_tasks to see the tasks there are",
            data={"closest": near} if near else None,
        )

    def unknown_source(
        self, name: str, sees: Callable[[str], bool] = lambda source: True
    ) -> DicodeError:
        """Give the error for a source that is not there, with the nearest names the caller sees."""
        names = [state.name for state in self.source_states() if sees(state.name)]
        near = get_close_matches(name, names, n=3)
        shown = ", ".join(names[:_MOST_NAMES]) or "none"
        return DicodeError(
            Code.SOURCE_NOT_FOUND,
            f"source '{name[:128]}' not found; sources here: {shown}",
            hint=f"did you mean '{near[0]}'?" if near else "list_sources shows the sources",
            data={"closest": near} if near else None,
        )

    def claims(self, source: str) -> Mapping[str, Entry]:
        """Give what the reconciler last put for a source, by id."""
        return self._claims.get(source, {})

    def source_states(self) -> tuple[SourceState, ...]:
        """Give every source, in the configuration's order."""
        return tuple(
            self._counted(self._sources[name])
            for name in sorted(self._sources, key=lambda name: (self._rank_of(name), name))
        )

    def source_state(self, name: str) -> SourceState | None:
        """Give one source."""
        state = self._sources.get(name)
        return self._counted(state) if state else None

    # Writing

    def apply(
        self, source: str, put: Iterable[Entry] = (), remove: Iterable[str] = ()
    ) -> list[Entry]:
        """Change what a source declares, and tell of it once; gives who lost an id by it."""
        claims = self._claims.setdefault(source, {})
        before = len(claims)
        touched: set[str] = set()
        for task_id in remove:
            if claims.pop(task_id, None):
                touched.add(task_id)
        for entry in put:
            if claims.get(entry.id) != entry:
                claims[entry.id] = entry
                touched.add(entry.id)
        losers = set(self._losers)
        concerned = self._refresh(touched)
        self._tell(concerned | ({source} if len(claims) != before else set()))
        return [self._losers[key] for key in sorted(set(self._losers) - losers)]

    def put_source(self, state: SourceState) -> None:
        """Note how a source stands."""
        old = self._sources.get(state.name)
        known = old.conditions if old else ()
        state = replace(
            state,
            conditions=carry_since(state.conditions, known, self._clock.now_ms()),
            task_count=0,
            broken=(),
            dev=None,
        )
        if state != old:
            self._sources[state.name] = state
            self._bus.publish(SourceChanged(state.name))

    def set_dev(self, source: str, dev: ShownDev | None) -> None:
        """Note what a source shows in dev mode, None: it is off."""
        if dev == self._dev.get(source):
            return
        self._dev.pop(source, None)
        if dev is not None:
            self._dev[source] = dev
        self._bus.publish(DevModeSwitched(source))

    def in_dev_mode(self, source: str) -> bool:
        """Tell whether a source is in dev mode."""
        return source in self._dev

    def set_conditions(self, task_id: str, owner: str, conditions: Iterable[Condition]) -> None:
        """Replace what the room ``owner`` says of a task; kept while the task comes and goes."""
        of_task = self._extra.setdefault(task_id, {})
        of_task[owner] = tuple(conditions)
        if not of_task[owner]:
            del of_task[owner]
        if not of_task:
            del self._extra[task_id]
        self._tell(self._refresh({task_id}))

    @property
    def starting(self) -> bool:
        """Tell whether some source was not looked at yet."""
        return self._starting

    def started(self) -> None:
        """End the start: from now on who holds an id keeps it.

        Until then the configuration's order decides, so that a restart gives the same owners
        whichever source is quicker.
        """
        self._starting = False

    # Deciding

    def _refresh(self, touched: set[str]) -> set[str]:
        """Decide again who owns what; give the sources that have other broken tasks by it."""
        if not touched:
            return set()
        claims = {task_id: self._claimants(task_id) for task_id in touched}
        decided = owners(claims, {} if self._starting else self._owner)
        before = {task_id: self._view.get(task_id) for task_id in touched}
        for task_id in touched:
            self._owner.pop(task_id, None)
        self._owner.update(decided)
        touched |= self._own_paths(touched, before)
        changed = sorted(task_id for task_id in touched if self._show(task_id))
        if changed:
            self._bus.publish(TasksChanged(tuple(changed)))
        return {source for task_id in changed for source in self._note_faults(task_id)}

    def _tell(self, sources: Iterable[str]) -> None:
        for source in sorted(sources):
            if source in self._sources:
                self._bus.publish(SourceChanged(source))

    def _note_faults(self, task_id: str) -> list[str]:
        """Note what is wrong with an id in each source; give the sources this is new for."""
        now = self._clock.now_ms()
        return [
            source
            for source in {*self._claims, *self._faults.sources()}
            if self._faults.note(source, task_id, self._fault(source, task_id), now)
        ]

    def _fault(self, source: str, task_id: str) -> str | None:
        entry = self._losers.get((task_id, source)) or self._view.get(task_id)
        if entry is None or entry.source != source or entry.waiting is not None:
            return None
        told = find(entry.conditions, ConditionType.READY)
        if (task_id, source) in self._losers:
            told = find(entry.conditions, ConditionType.CONFLICT)
        elif told is None or told.status:
            return None
        return (told.message or told.reason) if told else ""

    def _own_paths(self, touched: set[str], before: Mapping[str, Entry | None]) -> set[str]:
        """Decide the webhook paths again when one came, went or moved; give who is concerned."""
        now = {task_id: _path(self._owned(task_id)) for task_id in touched}
        if all(now[task_id] == _path(before[task_id]) for task_id in touched):
            return set()
        claims: dict[str, list[Claimant]] = {}
        for task_id, owner in self._owner.items():
            if (path := _path(self._claims[owner.source][task_id])) is not None:
                claims.setdefault(path, []).append(owner)
        old = self._path_owner
        self._path_owner = owners(claims, {} if self._starting else old)
        moved = {p for p in {*old, *claims} if old.get(p) != self._path_owner.get(p)}
        return {claimant.task_id for path in moved for claimant in claims.get(path, ())}

    def _show(self, task_id: str) -> bool:
        """Bring what readers see of an id up to date; tell whether it changed."""
        changed = self._show_losers(task_id)
        old = self._view.get(task_id)
        entry = self._owned(task_id)
        if entry is None:
            if self._view.pop(task_id, None) is not None:
                self._generation += 1
            return changed or old is not None
        if old is None or old.task is not entry.task:
            self._generation += 1
        new = self._with_conditions(
            entry, old, merge(entry.conditions, *self._extras(task_id), self._path_conflict(entry))
        )
        if new == old:
            return changed
        self._view[task_id] = new
        return True

    def _show_losers(self, task_id: str) -> bool:
        owner = self._owner.get(task_id)
        old = {key: entry for key, entry in self._losers.items() if key[0] == task_id}
        new: dict[tuple[str, str], Entry] = {}
        for claimant in self._claimants(task_id):
            if owner is not None and claimant != owner:
                entry = self._claims[claimant.source][task_id]
                conditions = (_conflict(f"the id {task_id!r}", f"source {owner.source!r}"),)
                key = (task_id, claimant.source)
                new[key] = self._with_conditions(
                    replace(entry, task=None), old.get(key), conditions
                )
        for key in old:
            del self._losers[key]
        self._losers.update(new)
        return new != old

    def _with_conditions(
        self, entry: Entry, old: Entry | None, conditions: tuple[Condition, ...]
    ) -> Entry:
        known = old.conditions if old else ()
        return replace(entry, conditions=carry_since(conditions, known, self._clock.now_ms()))

    def _path_conflict(self, entry: Entry) -> tuple[Condition, ...]:
        path = _path(entry)
        owner = self._path_owner.get(path) if path is not None else None
        if owner is None or owner.task_id == entry.id:
            return ()
        return (_conflict(f"the webhook path {path}", f"task {owner.task_id!r}", "WebhookTaken"),)

    def _extras(self, task_id: str) -> list[tuple[Condition, ...]]:
        return [conditions for _, conditions in sorted(self._extra.get(task_id, {}).items())]

    def _claimants(self, task_id: str) -> list[Claimant]:
        return [
            Claimant(self._rank_of(source), source, task_id)
            for source, entries in self._claims.items()
            if task_id in entries
        ]

    def _owned(self, task_id: str) -> Entry | None:
        owner = self._owner.get(task_id)
        return self._claims[owner.source].get(task_id) if owner else None

    def _rank_of(self, source: str) -> int:
        return self._rank.get(source, len(self._rank))

    def _counted(self, state: SourceState) -> SourceState:
        count = len(self._claims.get(state.name, {}))
        return replace(
            state,
            task_count=count,
            broken=self._faults.of(state.name),
            conditions=(*state.conditions, *self._faults.condition(state.name, count)),
            dev=self._dev.get(state.name),
        )


def _path(entry: Entry | None) -> str | None:
    if entry is None or entry.task is None or entry.task.spec.trigger.webhook is None:
        return None
    return webhook_key(entry.task.spec.trigger.webhook)


def _conflict(what: str, owner: str, reason: str = "IdTaken") -> Condition:
    return Condition(
        ConditionType.CONFLICT,
        True,
        reason,
        f"{what} belongs to {owner}; rename one of the two, or remove the other",
    )
