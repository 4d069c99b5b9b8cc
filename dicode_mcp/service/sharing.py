"""Use cases of sharing: bringing others' tasks into a TaskSet, and taking entries out again.

An entry that is brought stands beside its lock from the first moment, so that nothing of it runs
before a human has approved what it may do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service.dependents import dependents
from dicode_mcp.service.desk import ATTEMPTS, Desk
from dicode_mcp.service.entry_files import (
    Changed,
    Texts,
    changed,
    not_read,
    read_texts,
    require_writable,
)
from dicode_mcp.service.entry_forms import (
    Wanted,
    entry_data,
    invalid,
    is_url,
    key_of,
    overrides_of,
    ref_of_offer,
    ref_of_url,
    require_whole_url,
    shown,
)
from dicode_mcp.service.entry_homes import Home
from dicode_mcp.service.installed import Standing
from dicode_mcp.service.offers import Offer
from dicode_mcp.service.previews import Preview
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.sharing_views import (
    MOST_TASKS,
    next_step,
    pin_view,
    problems_of,
    task_lines,
)
from dicode_mcp.service.views import problem_view
from dicode_mcp.service.visible import unknown_source
from dicode_mcp.spec.giturl import short_url
from dicode_mcp.spec.problems import SpecError
from dicode_mcp.spec.taskset.documents import Ref, read_set
from dicode_mcp.spec.taskset.edit import EMPTY, add_entry, remove_entry
from dicode_mcp.spec.taskset.lock import LOCK, LockFile, Pin


class Offers(Protocol):
    """What the registries offer."""

    async def get(self, name: str) -> Offer:
        """Give what a name means. Raises NOT_FOUND and CONFLICT, naming what there is."""
        ...


class Approved(Protocol):
    """What humans have approved."""

    async def withdraw(self, ids: Iterable[str]) -> object:
        """Forget every approval of some tasks."""
        ...


@dataclass(frozen=True, slots=True)
class _Plan:
    """An entry that is about to be added, with what it brings."""

    texts: Texts
    text: str
    lock: LockFile
    id: str
    preview: Preview


class SharingService:
    """Installs and removes."""

    def __init__(self, desk: Desk, offers: Offers, approved: Approved) -> None:
        self._desk = desk
        self._offers = offers
        self._approved = approved

    # ── Install ──

    async def install(
        self,
        principal: Principal,
        what: str,
        *,
        as_key: str | None = None,
        values: Mapping[str, Any] | None = None,
        source: str | None = None,
        wanted: Wanted | None = None,
    ) -> dict[str, Any]:
        """Add what a registry offers under a name, or a repository, to a TaskSet.

        ``values`` are ``{"params.x": value}``. Shows the entry, its commits, and each task with
        what it asks for; nothing of it is in force before an approval.
        """
        detail = {"source": source[:128]} if source else {}
        async with self._desk.audit.action(principal, "install_task", shown(what), **detail):
            principal.require("author")
            wanted = wanted or Wanted()
            wanted.check()
            name, ref = await self._origin(what, wanted)
            key = key_of(as_key, name, ref)
            home = await self._home(principal, source)
            await self._desk.homes.prepare(home)
            try:
                plan = await self._added(principal, home, key, ref, values or {})
            finally:
                # A caller that leaves does not undo what was written.
                self._desk.homes.written(home)
            await self._desk.syncer.sync(home.source)
        return self._view(home, key, ref, plan)

    async def _home(self, principal: Principal, source: str | None) -> Home:
        try:
            return await self._desk.homes.pick(source)
        except DicodeError as error:
            if error.code is not Code.SOURCE_NOT_FOUND or source is None:
                raise
            raise unknown_source(self._desk.registry, principal, source) from None

    async def _origin(self, what: str, wanted: Wanted) -> tuple[str | None, Ref]:
        if is_url(what):
            return None, ref_of_url(what, wanted, anywhere=self._desk.vouched(what))
        require_whole_url(what)
        offer = await self._offers.get(what)
        if offer.ref is None:
            raise DicodeError(
                Code.NOT_SUPPORTED,
                f"'{offer.path}' is written in the registry's own file, so no entry can name it",
                hint="copy its lines from the registry into a TaskSet of your own",
            )
        anywhere = offer.ref.url is not None and self._desk.vouched(offer.ref.url)
        return offer.path, ref_of_offer(offer.ref, wanted, anywhere=anywhere)

    async def _added(
        self, principal: Principal, home: Home, key: str, ref: Ref, values: Mapping[str, Any]
    ) -> _Plan:
        for _ in range(ATTEMPTS):
            texts = await asyncio.to_thread(read_texts, home.file)
            await asyncio.to_thread(require_writable, home.file)
            try:
                plan = await self._planned(home, texts, key, ref, values)
            except SpecError as error:
                raise not_read(home.file, error) from None
            self._check(principal, home, plan)
            try:
                await self._desk.write(texts, plan.text, plan.lock, lock_first=True)
                return plan
            except Changed:
                continue
        raise changed(home.file)

    async def _planned(
        self, home: Home, texts: Texts, key: str, ref: Ref, values: Mapping[str, Any]
    ) -> _Plan:
        before = EMPTY if home.own and texts.set_text is None else texts.text()
        document, lock = read_set(before, home.shown), texts.lock()
        name = document.name or home.name
        entry_id = f"{name}/{key}" if name else key
        if any(entry.key == key for entry in document.entries):
            raise _is_there(home, key, entry_id)
        text = add_entry(before, home.shown, key, entry_data(ref, {}))
        previews = self._desk.previews
        preview = await previews.look(home, read_set(text, home.shown), key)
        if not preview.good:
            raise await self._nothing(ref, preview)
        overrides = overrides_of(values, preview.good, entry_id)
        if overrides:
            text = add_entry(before, home.shown, key, entry_data(ref, overrides))
            document = read_set(text, home.shown)
            preview = await previews.look(home, document, key, preview.pins)
        pinned = lock.without(home.file.name, key)
        if preview.pins:
            pinned = lock.with_entry(home.file.name, key, preview.pins)
        return _Plan(texts, text, pinned, entry_id, preview)

    def _check(self, principal: Principal, home: Home, plan: _Plan) -> None:
        principal.require("author", plan.id)
        for found in plan.preview.tasks:
            task_id = found.declared.id
            principal.require("author", task_id)
            other = self._desk.registry.get(task_id)
            if other is not None:
                raise DicodeError(
                    Code.CONFLICT,
                    f"there is a task '{task_id}' already, in source '{other.source}'",
                    hint="give as, the key that its id ends with",
                )

    async def _nothing(self, ref: Ref, preview: Preview) -> DicodeError:
        """Say why an entry brings no task, and what there is instead."""
        place = short_url(ref.url) if ref.url else str(ref.path)
        broken = [problem for found in preview.tasks for problem in found.problems]
        problems = [problem_view(problem) for problem in (*broken, *preview.problems)][:20]
        if broken:
            told = "\n".join(str(problem) for problem in broken[:5])
            what = f"the tasks at {place} cannot be read:\n{told}"
            hint = "choose another commit or tag, or tell its author"
            return DicodeError(Code.INVALID_SPEC, what, hint=hint, data={"problems": problems})
        there = await asyncio.to_thread(self._desk.previews.what_is_there, preview)
        at = f" at '{ref.path}'" if ref.path and ref.url else ""
        hint = f"give path, one of: {', '.join(there)}" if there else "check the address"
        what = f"there is no task in {place}{at}"
        if preview.problems:
            what += f": {preview.problems[0].message}"
        return DicodeError(
            Code.NOT_FOUND, what, hint=hint, data={"there": there, "problems": problems}
        )

    def _view(self, home: Home, key: str, ref: Ref, plan: _Plan) -> dict[str, Any]:
        desk, preview = self._desk, plan.preview
        registry, now = desk.registry, desk.clock.now_ms()
        tasks = task_lines(preview, registry.get, desk.review, desk.zone, now)
        own = [pin for pin in preview.pins if pin.url == ref.url]
        rest = [pin for pin in preview.pins if pin not in own[:1]]
        view: dict[str, Any] = {
            "entry": key,
            "id": plan.id,
            "source": home.source,
            "file": str(home.file),
            "taskset": home.shown,
            "tasks": tasks,
            "pending": any(task.get("state") == "pending_approval" for task in tasks),
            "next": next_step(tasks),
        }
        if own:
            view |= pin_view(own[0], preview.revisions.get(own[0]))
            view["lock"] = str(home.file.parent / LOCK)
        else:
            view["path"] = ref.path
        if rest:
            view["repositories"] = [pin_view(pin, preview.revisions.get(pin)) for pin in rest]
        if preview.problems:
            view["problems"] = problems_of(preview)
        if len(preview.tasks) > MOST_TASKS:
            view["tasks_left_out"] = len(preview.tasks) - MOST_TASKS
        return view

    # ── Uninstall ──

    async def uninstall(self, principal: Principal, wanted: str) -> dict[str, Any]:
        """Take an entry out of its TaskSet, with its pins and approvals.

        An entry of the user's own goes only when it is named by its whole key or id; its lines are
        in the answer.
        """
        async with self._desk.audit.action(principal, "uninstall_task", wanted):
            principal.require("author")
            attempts = 0
            while True:
                attempts += 1
                standing = await self._desk.found(principal, wanted)
                if wanted not in (standing.key, standing.id):
                    raise _inside(wanted, standing)
                try:
                    return await self._removed(principal, standing)
                except Changed:
                    if attempts == ATTEMPTS:
                        raise changed(standing.home.file) from None

    async def _removed(self, principal: Principal, standing: Standing) -> dict[str, Any]:
        desk, home, key = self._desk, standing.home, standing.key
        ids = desk.tasks_of(standing)
        for task_id in (standing.id, *ids):
            principal.require("author", task_id)
        text, taken = standing.texts.text(), ""
        if standing.doc is not None:
            text, taken = remove_entry(text, home.shown, key)
        lock = standing.texts.lock().without(home.file.name, key)
        needed = dependents(desk.registry, frozenset(ids))
        # First, so that whatever happens in between leaves nothing approved that is not there.
        await self._approved.withdraw(ids)
        await desk.write(standing.texts, text, lock, lock_first=False)
        await desk.syncer.sync(home.source)
        view: dict[str, Any] = {
            "entry": key,
            "id": standing.id,
            "source": home.source,
            "file": str(home.file),
            "installed": standing.pins is not None,
            "tasks": ids[:MOST_TASKS],
            "removed": taken,
        }
        if standing.pins:
            view["pins"] = [_pin_line(pin) for pin in standing.pins]
        if needed:
            view["dependents"] = needed[:MOST_TASKS]
            names = ", ".join(sorted({one["id"] for one in needed})[:5])
            view["warning"] = f"these tasks name what is gone: {names}; change or remove them"
        return view


def _pin_line(pin: Pin) -> str:
    return f"{short_url(pin.url)} {pin.version[1][:40]} at {pin.commit}"


def _is_there(home: Home, key: str, entry_id: str) -> DicodeError:
    return DicodeError(
        Code.CONFLICT,
        f"{home.file} has an entry '{key}' already",
        hint=f'update_task with id "{entry_id}" brings a newer version; give `as` to install it'
        " a second time under another key",
        data={"id": entry_id},
    )


def _inside(wanted: str, standing: Standing) -> DicodeError:
    return invalid(
        f"'{wanted[:128]}' is one task of the entry '{standing.id}'",
        f'uninstall_task with id "{standing.id}" takes all of it away; to switch one task off, use'
        " set_task_enabled, or `enabled: false` under overrides.entries",
    )
