"""Who is told of the ends of runs: the rules in force for a task, and the task that delivers.

It knows the tasks there are and the server's own rules, nothing of what was told before.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from urllib.parse import quote

from dicode_mcp.conditions import Condition, ConditionType, find
from dicode_mcp.config import Config
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.runs.follow_ups import NOTIFY, tells
from dicode_mcp.runs.model import Run, RunRequest, Trigger
from dicode_mcp.runs.notices import Delivery, NoticeRules, NoticeState, told_task
from dicode_mcp.spec.model import NotifySpec, Task

_NOT_TOLD = frozenset({Trigger.TEST, Trigger.AGENT})
"""A test shows its failure to who asked for it, an agent to the task that called it."""


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """What the server tells when a task says nothing else. ``task`` delivers; None: nothing is."""

    task: str | None = None
    rules: NoticeRules = field(default_factory=NoticeRules)
    public_url: str | None = None

    @classmethod
    def of(cls, config: Config) -> NotifySettings:
        """Read the settings from a configuration: ``defaults.notify`` goes before the rest."""
        said, default = config.notifications, config.defaults.notify or NotifySpec()
        rules = NoticeRules(
            on_success=said.on_success if default.on_success is None else default.on_success,
            on_failure=said.on_failure if default.on_failure is None else default.on_failure,
            reminder_ms=round(said.reminder * 1000) or None,
        )
        return cls(said.task, rules, config.server.public_url)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run's end that may be told: by which rules, and the run that would tell."""

    task_name: str
    rules: NoticeRules
    request: RunRequest
    url: str | None


class Notices:
    """Looks up what of a run's end people are told, and by whom."""

    def __init__(self, registry: Registry, settings: NotifySettings) -> None:
        self._registry = registry
        self._settings = settings

    @property
    def delivers(self) -> str | None:
        """The id of the task that delivers, as it is or as it was written; None: there is none."""
        entry = self._deliverer()
        return entry.id if entry else self._settings.task

    def rules_of(self, task: Task | None) -> NoticeRules:
        """Give the rules of a task: its own, else the server's."""
        rules = self._settings.rules
        own = task.spec.notify if task else None
        if own is None:
            return rules
        return replace(
            rules,
            on_success=rules.on_success if own.on_success is None else own.on_success,
            on_failure=rules.on_failure if own.on_failure is None else own.on_failure,
        )

    def about(self, ended: Run) -> Wanted | Delivery | None:
        """Say what the end of a run means: something to tell, or the end of a telling, or neither.

        A notice, and whatever it or a failure chain starts, is never told of in its turn.
        """
        target = self.delivers
        if target is None or ended.trigger in _NOT_TOLD:
            return None
        source = told_task(ended)
        if source is not None and ended.task_id == target:
            return Delivery(source, ended)
        if tells(ended) or ended.task_id == target:
            return None
        entry = self._registry.get(ended.task_id)
        task = entry.task if entry else None
        rules = self.rules_of(task)
        if not (rules.on_failure or rules.on_success):
            return None
        name = task.spec.name if task else ended.task_id
        return Wanted(name, rules, _request(target, ended), self._url(ended))

    def faults(self) -> dict[str, Condition]:
        """Give, by task, why what it asks to be told cannot be."""
        found: dict[str, Condition] = {}
        fault = self._fault()
        for entry in self._registry.entries() if fault else ():
            own = entry.task.spec.notify if entry.task else None
            if fault is not None and own is not None and (own.on_failure or own.on_success):
                found[entry.id] = fault
        return found

    def _fault(self) -> Condition | None:
        task = self._settings.task
        if task is None:
            return _failing(
                "NotConfigured",
                "notify: nobody is told, since dicode.yaml names no task that delivers;"
                " add there, for example: notifications: {task: bundled/notify}",
            )
        entry = self._deliverer()
        if entry is None:
            near = self._registry.suggest(task)
            closest = f"; closest: {', '.join(near)}" if near else ""
            return _failing(
                "TaskMissing",
                f"notify: nobody is told, since there is no task '{task}', which notifications.task"
                f" in dicode.yaml names{closest}",
            )
        if entry.task is None:
            why = "its version waits for a human" if entry.waiting else "it has no good version yet"
            return _failing(
                "TaskNotReady", f"notify: nobody is told, since {entry.id} cannot run: {why}"
            )
        paused = find(entry.conditions, ConditionType.PAUSED)
        if paused is not None and paused.status:
            return _failing("TaskPaused", f"notify: nobody is told, since {entry.id} is paused")
        return None

    def _deliverer(self) -> Entry | None:
        return self._registry.resolve(self._settings.task) if self._settings.task else None

    def _url(self, ended: Run) -> str | None:
        base = self._settings.public_url
        return f"{base.rstrip('/')}/runs/{quote(ended.id)}" if base else None


def _request(target: str, ended: Run) -> RunRequest:
    """Give the run that tells. It begins a depth of its own: being told must not end a chain."""
    return RunRequest(
        task_id=target,
        trigger=Trigger.NOTIFY,
        actor=f"{NOTIFY}{ended.task_id}",
        strict_params=False,
        idempotency_key=f"notify:{ended.id}",
        parent_run_id=ended.id,
        root_run_id=ended.root_run_id or ended.id,
    )


def undelivered(states: dict[str, NoticeState], delivers: str | None) -> dict[str, Condition]:
    """Give, by task, that the last notice about it did not get through."""
    found = {task_id: _undelivered(state) for task_id, state in states.items()}
    newest = max(states.values(), key=lambda s: s.delivery_ms or 0, default=None)
    if newest is not None and delivers is not None:
        found[delivers] = _undelivered(newest)
    return found


def _undelivered(state: NoticeState) -> Condition:
    times = "once" if state.undelivered == 1 else f"{state.undelivered} times in a row"
    return _failing(
        "DeliveryFailed",
        f"what was to be told of {state.task_id} did not get through ({times}):"
        f" {state.delivery_error or 'without a message'}; get_run with run_id"
        f" {state.delivery_run_id} shows why",
    )


def _failing(reason: str, message: str) -> Condition:
    return Condition(ConditionType.NOTIFICATION_FAILING, True, reason, message)
